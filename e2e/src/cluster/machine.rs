//! One machine of the cluster: namespaces of its own for network, processes, mounts and host name, and a first process that
//! starts the machine's programs, starts them again when they end, and takes in orphans, as an init does.
//!
//! Why all of these namespaces, and not the network alone: when the first process dies, however it dies, the kernel ends every
//! process of the machine (containerd's shims and the pods' processes among them), and with the last of them go the machine's
//! mounts. Nothing can be left behind. And each machine has its own `/run`, `/var/lib` and `/var/log`, so that kubelet, containerd
//! and CNI use their ordinary paths on every node without knowing of each other.
//!
//! The rest of the host's files can be read there and not changed. Each hierarchy of cgroups shows a machine only the group that
//! has the machine's name, as its root, so that two runtimes on one kernel do not meet and everything that they make is found by
//! that name. (A network namespace must be entered by `setns` here: `ip netns exec` mounts another `/sys`, without cgroups.)
//!
//! Bounds: a log is cut at 64 MiB; a program that ends at once is started again once a second.

use super::{
    layout::{Layout, Machine},
    network,
};
use anyhow::{Context, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, setsid},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const MAX_LOG: u64 = 64 << 20;
const AGAIN: Duration = Duration::from_secs(1);
/// A program that is told to end and does not is killed after this.
const GRACE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(50);
/// Logs are measured every so many ticks.
const LOG_TICKS: u32 = 200;

/// Settings of the whole kernel that a kubelet insists on. They are not the cluster's to change: the machine sees these values,
/// from files mounted over the settings, and the kernel keeps its own.
const PRETENDED: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A program of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub name: String,
    /// The file and its arguments.
    pub line: Vec<String>,
}

/// Writes down what the machine runs.
pub fn describe(machine: &Machine, programs: &[Program]) -> anyhow::Result<()> {
    for folder in ["log", "hold", "running", "etc"].map(|name| machine.dir.join(name)) {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let path = machine.programs();
    fs::write(&path, serde_json::to_vec_pretty(programs)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

pub fn programs(machine: &Machine) -> anyhow::Result<Vec<Program>> {
    let path = machine.programs();
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// Starts the machine's first process and writes its pid down. Runs as a process of its own that ends thereafter: it is changed
/// by what it does, and the machine must outlive the command that started it.
pub fn launch(layout: &Layout, name: &str) -> anyhow::Result<()> {
    let machine = layout.machine(name);
    // Away from the terminal; fails only for the leader of a group, who has no terminal to lose.
    let _ = setsid();
    // Opened before the mounts are set apart: what is open for writing could not be made read-only.
    let log = append(&machine.logs().join("machine.log"))?;
    let namespace = network::path(&machine.namespace);
    let file = File::open(&namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", namespace.display()))?;
    unshare(
        CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .context("cannot make namespaces for processes, mounts and names (this needs root)")?;
    let child = Command::new(std::env::current_exe().context("where is this program?")?)
        .args(["machine", "--name", name, "--dir"])
        .arg(&layout.dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    fs::write(machine.pid_file(), child.id().to_string())
        .with_context(|| format!("cannot write {}", machine.pid_file().display()))
}

/// Where a machine's programs put what they need only for a moment.
const SCRATCH: &str = "/run/tmp";

/// The first process of the machine. Never returns, unless the machine cannot be set up.
pub fn run(layout: &Layout, name: &str) -> anyhow::Result<()> {
    let machine = layout.machine(name);
    if std::process::id() != 1 {
        bail!("`machine` is what `up` starts inside a machine; it is no command to type");
    }
    isolate(layout, &machine).with_context(|| format!("{name} cannot be set up"))?;
    fs::write(machine.ready(), "").with_context(|| format!("cannot write {}", machine.ready().display()))?;
    let mut running: Vec<Running> = programs(&machine)?
        .into_iter()
        .map(|program| Running::new(&machine, program))
        .collect();
    for tick in 0_u32.. {
        while let Some((pid, status)) = reap() {
            if let Some(program) = running.iter_mut().find(|program| program.pid == Some(pid)) {
                program.ended(&status);
            }
        }
        for program in &mut running {
            program.step(&machine);
        }
        if tick % LOG_TICKS == 0 {
            cut_logs(&machine);
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

fn isolate(layout: &Layout, machine: &Machine) -> anyhow::Result<()> {
    let propagate = |flag: MsFlags| {
        mount(NONE, "/", NONE, MsFlags::MS_REC | flag, NONE).context("cannot set the mounts apart")
    };
    // Nothing that is mounted here shows outside.
    propagate(MsFlags::MS_SLAVE)?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        plain | MsFlags::MS_NOEXEC,
        NONE,
    )
    .context("cannot mount /proc")?;
    for (index, (name, value)) in PRETENDED.iter().enumerate() {
        let setting = Path::new("/proc/sys").join(name);
        let file = machine.file(&format!("setting-{index}"));
        fs::write(&file, format!("{value}\n"))?;
        if setting.exists() {
            bind(&file, &setting)?;
        }
    }
    own_cgroups(machine)?;
    let (lib, log) = own_folders(layout, machine)?;
    let hidden = ["/run", "/var/lib", "/var/log"];
    unmount_below(&hidden, layout)?;
    bind(&lib, Path::new("/var/lib"))?;
    bind(&log, Path::new("/var/log"))?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), plain, Some("mode=0755")).context("cannot mount /run")?;
    fs::create_dir(SCRATCH)?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, "/", NONE, read_only, NONE).context("cannot protect the host's files")?;
    // But pods that ask for it see each other's mounts.
    propagate(MsFlags::MS_SHARED)?;

    nix::unistd::sethostname(&machine.name).context("cannot set the host name")?;
    for (name, value) in [
        ("ipv4/ip_forward", "1"),
        // A reply may take another way than the request: a node routes for its pods and for the control machine.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ] {
        fs::write(Path::new("/proc/sys/net").join(name), value)
            .with_context(|| format!("cannot set {name}"))?;
    }
    // Only there where bridges are filtered at all: frames between machines are not ours to filter.
    let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
    Ok(())
}

const NONE: Option<&str> = None;

fn bind(from: &Path, to: &Path) -> anyhow::Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .with_context(|| format!("cannot mount {} on {}", from.display(), to.display()))
}

/// Folders to be `/var/lib` and `/var/log` of the machine's own. The cluster's folder stays where it is, and can be written to.
fn own_folders(layout: &Layout, machine: &Machine) -> anyhow::Result<(PathBuf, PathBuf)> {
    let own = |name: &str| {
        let folder = machine.dir.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        anyhow::Ok(folder)
    };
    let (lib, log) = (own("var-lib")?, own("var-log")?);
    if let Ok(below) = layout.dir.strip_prefix("/var/lib") {
        let inside = lib.join(below);
        fs::create_dir_all(&inside)?;
        bind(&layout.dir, &inside)?;
    } else {
        bind(&layout.dir, &layout.dir)?;
    }
    Ok((lib, log))
}

/// Lets go of the host's mounts in folders that are about to be hidden: held here, they could not be removed by who made them
/// (another cluster's namespaces, a container engine's file systems).
fn unmount_below(folders: &[&str], layout: &Layout) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        let place = Path::new(place);
        let hidden = folders.iter().any(|folder| place.starts_with(folder));
        if hidden && !layout.dir.starts_with(place) && !place.starts_with(&layout.dir) {
            // What is gone already is what is wanted.
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
    Ok(())
}

/// In every hierarchy: a group with the machine's name, which is all that the machine sees. Only what is started by containerd
/// is put into it; the machine's own programs stay in the group from which the cluster was started.
fn own_cgroups(machine: &Machine) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(place), Some("cgroup" | "cgroup2")) = (words.next(), words.next()) else {
            continue;
        };
        let hierarchy = Path::new(place);
        let group = hierarchy.join(&machine.namespace);
        fs::create_dir_all(&group).with_context(|| format!("cannot make cgroup {}", group.display()))?;
        // Version 1: a new group has no processor and no memory node, and no process can enter it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.join(file), group.join(file));
            if from.exists() && to.exists() {
                fs::write(&to, fs::read(&from)?).with_context(|| format!("cannot write {}", to.display()))?;
            }
        }
        // Version 2: a group has the controllers that the one above it passes on.
        let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers")).unwrap_or_default();
        for controller in controllers.split_whitespace() {
            // One that cannot be passed on is missed by whoever needs it, with a message of its own.
            let _ = fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        // In place of the whole hierarchy, not on top of it: runtimes read the list of mounts and believe the first they find.
        let aside = machine.dir.join("cgroup");
        fs::create_dir_all(&aside)?;
        bind(&group, &aside)?;
        umount2(hierarchy, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {place}"))?;
        bind(&aside, hierarchy)?;
        umount2(&aside, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", aside.display()))?;
    }
    Ok(())
}

/// One process that has ended, if any has.
fn reap() -> Option<(Pid, WaitStatus)> {
    match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        Ok(status) => status.pid().map(|pid| (pid, status)),
        Err(_) => None,
    }
}

struct Running {
    program: Program,
    /// There while the program runs, for others to see.
    sign: PathBuf,
    pid: Option<Pid>,
    not_before: Instant,
    told_to_end: Option<Instant>,
}

impl Running {
    fn new(machine: &Machine, program: Program) -> Self {
        Self {
            sign: machine.running(&program.name),
            program,
            pid: None,
            not_before: Instant::now(),
            told_to_end: None,
        }
    }

    fn ended(&mut self, status: &WaitStatus) {
        println!("{} ended: {status:?}", self.program.name);
        let _ = fs::remove_file(&self.sign);
        self.pid = None;
        self.told_to_end = None;
        self.not_before = Instant::now() + AGAIN;
    }

    fn step(&mut self, machine: &Machine) {
        let held = machine.hold(&self.program.name).exists();
        match (self.pid, held) {
            (None, false) if Instant::now() >= self.not_before => match self.start(machine) {
                Ok(pid) => self.pid = Some(pid),
                Err(error) => {
                    println!("{}: {error:#}", self.program.name);
                    self.not_before = Instant::now() + AGAIN;
                }
            },
            (Some(pid), true) => match self.told_to_end {
                None => {
                    let _ = kill(pid, Signal::SIGTERM);
                    self.told_to_end = Some(Instant::now());
                }
                Some(since) if since.elapsed() > GRACE => {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                Some(_) => {}
            },
            _ => {}
        }
    }

    fn start(&self, machine: &Machine) -> anyhow::Result<Pid> {
        let (file, arguments) = self.program.line.split_first().context("no command line")?;
        let log = append(&log_file(machine, &self.program.name))?;
        // Waited for by `reap`, like every other child.
        let child = Command::new(file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env("TMPDIR", SCRATCH)
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .spawn()
            .with_context(|| format!("cannot start {file}"))?;
        fs::write(&self.sign, child.id().to_string())
            .with_context(|| format!("cannot write {}", self.sign.display()))?;
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }
}

pub fn log_file(machine: &Machine, program: &str) -> PathBuf {
    machine.logs().join(format!("{program}.log"))
}

fn append(path: &Path) -> anyhow::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// A log is opened for appending, so it may be emptied below its writer.
fn cut_logs(machine: &Machine) {
    for entry in fs::read_dir(machine.logs()).into_iter().flatten().flatten() {
        if entry.metadata().is_ok_and(|data| data.len() > MAX_LOG) {
            let _ = File::options().write(true).truncate(true).open(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_runs_is_read_back_and_long_logs_are_cut() {
        let dir = std::env::temp_dir().join(format!("mesh-cluster-machine-{}", std::process::id()));
        let machine = Layout::new(&dir).unwrap().machine("node-1");
        let program = Program {
            name: "kubelet".to_owned(),
            line: vec!["/bin/kubelet".to_owned(), "--x=y".to_owned()],
        };
        describe(&machine, std::slice::from_ref(&program)).unwrap();
        assert_eq!(programs(&machine).unwrap(), [program]);

        let log = log_file(&machine, "kubelet");
        File::create(&log).unwrap().set_len(MAX_LOG + 1).unwrap();
        let short = log_file(&machine, "containerd");
        fs::write(&short, "kept").unwrap();
        cut_logs(&machine);
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        assert_eq!(fs::read_to_string(&short).unwrap(), "kept");
        fs::remove_dir_all(dir).unwrap();
    }
}
