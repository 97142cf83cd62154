//! The last step before a container's program runs: `meshctl local enter --spec FILE`, started by the supervisor (or by
//! `exec`) as the process that becomes the program. It enters the pod's network namespace, makes a mount and a host name
//! of its own, binds the volumes and files of the pod over the host's file system as seen from inside, takes the wanted
//! user, and replaces itself by the program. Doing this in a process of its own, before any thread exists, needs no
//! `unsafe`; and nothing of it is visible to the host: the mount namespace receives the host's mounts and gives none back.
//!
//! A mount target that is not there must not be made on the host. The deepest folder that exists is therefore covered by
//! a small tmpfs in which everything it held is bound back, and the target is made in that.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal, stat::Mode},
    unistd::{self, Gid, Uid},
};
use serde::{Deserialize, Serialize};

/// A folder with more entries than this is not covered: mount the volume elsewhere.
const MAX_MIRRORED: usize = 10_000;
/// Exit codes as shells and container engines use them.
const EXIT_SETUP: i32 = 125;
const EXIT_NOT_RUNNABLE: i32 = 126;
const EXIT_NOT_FOUND: i32 = 127;

/// Everything about one program to be run inside a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// `namespace/pod/container`, for messages.
    pub name: String,
    /// The network namespace's file.
    pub network: PathBuf,
    /// Join the namespaces of this process (exec) instead of making new ones.
    pub join: Option<i32>,
    /// Die with this process (the supervisor).
    pub parent: Option<i32>,
    pub hostname: String,
    pub mounts: Vec<Mount>,
    /// An empty folder of the pod, used when the root folder itself must be covered.
    pub staging: PathBuf,
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub workdir: Option<PathBuf>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// A file or folder of the host seen at another place inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// Becomes the program. Returns only the exit code of a failure, which it has told on standard error.
pub fn run(spec_file: &Path, remove: bool) -> i32 {
    let spec = match read(spec_file, remove) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            return EXIT_SETUP;
        }
    };
    if let Err(error) = prepare(&spec) {
        eprintln!("meshctl: {} cannot be set up: {error:#}", spec.name);
        return EXIT_SETUP;
    }
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)));
    let error = command.exec();
    eprintln!("meshctl: {}: {}: {error}", spec.name, spec.program);
    if error.kind() == io::ErrorKind::NotFound {
        EXIT_NOT_FOUND
    } else {
        EXIT_NOT_RUNNABLE
    }
}

fn read(file: &Path, remove: bool) -> anyhow::Result<Spec> {
    let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    if remove {
        // It was written for this one run.
        let _ = fs::remove_file(file);
    }
    serde_json::from_str(&text).with_context(|| format!("{} is no container spec", file.display()))
}

fn prepare(spec: &Spec) -> anyhow::Result<()> {
    match spec.join {
        Some(pid) => join(pid)?,
        None => {
            die_with(spec.parent)?;
            make_own(spec)?;
            // A session of its own: signals meant for one container reach no other.
            unistd::setsid().context("no session of its own")?;
        }
    }
    unistd::chdir(spec.workdir.as_deref().unwrap_or(Path::new("/"))).with_context(|| {
        format!(
            "workingDir {:?}",
            spec.workdir.as_deref().unwrap_or(Path::new("/"))
        )
    })?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    if spec.uid != 0 || spec.gid != 0 || !spec.groups.is_empty() {
        let groups: Vec<Gid> = spec.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        unistd::setgroups(&groups).context("securityContext: groups")?;
        unistd::setgid(Gid::from_raw(spec.gid)).context("securityContext.runAsGroup")?;
        unistd::setuid(Uid::from_raw(spec.uid)).context("securityContext.runAsUser")?;
    }
    // The kernel forgets the request when the user changes (prctl(2)), so it is made last, too.
    if spec.join.is_none() {
        die_with(spec.parent)?;
    }
    Ok(())
}

fn die_with(parent: Option<i32>) -> anyhow::Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    prctl::set_pdeathsig(Signal::SIGKILL).context("the end of the supervisor cannot be bound to ours")?;
    if unistd::getppid().as_raw() != parent {
        bail!("the supervisor is gone");
    }
    Ok(())
}

/// Into the namespaces and the root of a running container.
fn join(pid: i32) -> anyhow::Result<()> {
    let open = |what: &str| -> anyhow::Result<OwnedFd> {
        let path = format!("/proc/{pid}/{what}");
        Ok(File::open(&path)
            .with_context(|| format!("{path}: is the container still running?"))?
            .into())
    };
    let (net, uts, mnt, root) = (open("ns/net")?, open("ns/uts")?, open("ns/mnt")?, open("root")?);
    for (fd, flag) in [
        (net, CloneFlags::CLONE_NEWNET),
        (uts, CloneFlags::CLONE_NEWUTS),
        (mnt, CloneFlags::CLONE_NEWNS),
    ] {
        setns(fd, flag).with_context(|| format!("the namespaces of process {pid} cannot be entered"))?;
    }
    unistd::fchdir(&root).context("the container's root")?;
    unistd::chroot(".").context("the container's root")
}

/// Network of the pod, own mounts, own host name.
fn make_own(spec: &Spec) -> anyhow::Result<()> {
    let network = File::open(&spec.network).with_context(|| format!("{}", spec.network.display()))?;
    setns(network, CloneFlags::CLONE_NEWNET).context("the pod's network namespace cannot be entered")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).context("no mount namespace of its own")?;
    // Receive the host's unmounts (so that removed namespaces go), give nothing back.
    bind_flags(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SLAVE)
        .context("mounts cannot be made private")?;
    unistd::sethostname(&spec.hostname).context("hostname")?;
    let mut tree = Tree {
        own: BTreeSet::new(),
        staging: spec.staging.clone(),
    };
    let mut mounts: Vec<&Mount> = spec.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    for mount in mounts {
        tree.bind(mount)
            .with_context(|| format!("mountPath {}", mount.target.display()))?;
    }
    Ok(())
}

/// The file system as seen from inside, while it is being shaped.
struct Tree {
    /// Folders that lie on a tmpfs of ours: new entries may be made in them.
    own: BTreeSet<PathBuf>,
    staging: PathBuf,
}

impl Tree {
    fn bind(&mut self, mount: &Mount) -> anyhow::Result<()> {
        let folder = mount
            .source
            .metadata()
            .with_context(|| format!("{}", mount.source.display()))?
            .is_dir();
        if !mount.target.exists() {
            self.make(&mount.target, folder)?;
        }
        bind_flags(
            Some(&mount.source),
            &mount.target,
            MsFlags::MS_BIND | MsFlags::MS_REC,
        )?;
        if mount.read_only {
            bind_flags(
                None,
                &mount.target,
                MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
            )?;
        }
        Ok(())
    }

    /// Makes a mount target without touching the host.
    fn make(&mut self, target: &Path, folder: bool) -> anyhow::Result<()> {
        if !target.is_absolute() || target.components().any(|part| part == Component::ParentDir) {
            bail!("must be an absolute path without '..'");
        }
        let mut base = target;
        while !base.exists() {
            base = base.parent().unwrap_or(Path::new("/"));
        }
        let missing = target.strip_prefix(base).unwrap_or(target).to_owned();
        let base = base.canonicalize()?;
        if !self.own.contains(&base) {
            if base == Path::new("/") {
                self.cover_root()?
            } else {
                cover(&base, &base)?
            }
            self.own.insert(base.clone());
        }
        let mut path = base;
        let last = missing.components().count();
        for (index, part) in missing.components().enumerate() {
            path.push(part);
            if index + 1 == last && !folder {
                OpenOptions::new().create(true).append(true).open(&path)?;
            } else {
                fs::create_dir_all(&path)?;
                self.own.insert(path.clone());
            }
        }
        Ok(())
    }

    /// The root folder cannot be covered in place: a copy of it is put together beside and becomes the root.
    fn cover_root(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.staging)?;
        cover(Path::new("/"), &self.staging)?;
        unistd::chroot(&self.staging).context("chroot")?;
        unistd::chdir("/").context("chdir")
    }
}

/// Mounts a tmpfs at `at` and binds every entry of `folder` into it.
fn cover(folder: &Path, at: &Path) -> anyhow::Result<()> {
    // Kept open: the way to what will be covered.
    let below = File::open(folder)?;
    let entries: Vec<fs::DirEntry> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    if entries.len() > MAX_MIRRORED {
        bail!(
            "{} has more than {MAX_MIRRORED} entries; mount the volume elsewhere",
            folder.display()
        );
    }
    let mode = format!("mode={:o}", folder.metadata()?.permissions().mode() & 0o7777);
    mount(
        Some("gossamer"),
        at,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(mode.as_str()),
    )
    .with_context(|| format!("a tmpfs over {}", at.display()))?;
    // Recursive binds of its parents must not bring it in again.
    bind_flags(None, at, MsFlags::MS_UNBINDABLE)?;
    let below = PathBuf::from(format!("/proc/self/fd/{}", below.as_raw_fd()));
    for entry in entries {
        let (source, target) = (below.join(entry.file_name()), at.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&target)?;
        } else {
            File::create(&target)?;
        }
        bind_flags(Some(&source), &target, MsFlags::MS_BIND | MsFlags::MS_REC)
            .with_context(|| format!("{} cannot be kept in sight", entry.path().display()))?;
    }
    Ok(())
}

fn bind_flags(source: Option<&Path>, target: &Path, flags: MsFlags) -> anyhow::Result<()> {
    mount(source, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("mount {}", target.display()))
}
