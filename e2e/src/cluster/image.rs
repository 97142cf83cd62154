//! Images, built from scratch and pulled from nowhere: a program of this build, the shared libraries that it is linked to, and
//! the two files without which names do not resolve. `buildah` makes the archives, in a storage of its own that is removed
//! afterwards; they lie in `target/images/<profile>/` and are made again only when one of the files in them has changed.
//!
//! Programs are stripped of their debugging information, which is most of them.

use super::programs::PAUSE_IMAGE;
use crate::{
    need,
    process::{command, run},
};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

const PATIENCE: Duration = Duration::from_secs(120);
/// Changes when what is put into images changes, other than by the programs.
const RECIPE: &str = "2";
/// The proxy's, which redirection lets pass; applications must be someone else.
const PROXY_USER: u32 = 1337;
const APPLICATION_USER: u32 = 1000;

/// Where an image's program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A program of this project, in the folder of a build profile.
    Project,
    /// Built with Kubernetes, by `make deps-kubernetes`.
    Cluster,
    /// Installed on this machine.
    Debian(Debian),
}

/// A program that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Debian {
    package: &'static str,
    /// The image has the name that the samples call it by, whatever the version here.
    reference: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub name: &'static str,
    program: &'static str,
    /// What the program is started with before anything that a pod says.
    arguments: &'static [&'static str],
    origin: Origin,
    user: u32,
    /// Programs of the machine that ours runs, with the Debian packages that have them.
    also: &'static [(&'static str, &'static str)],
    /// Files of the machine that ours reads, likewise.
    files: &'static [(&'static str, &'static str)],
}

const fn project(name: &'static str, program: &'static str, user: u32) -> Recipe {
    Recipe {
        name,
        program,
        arguments: &[],
        origin: Origin::Project,
        user,
        also: &[],
        files: &[],
    }
}

/// One service of the sample, in one version: the same program, started differently.
const fn bookinfo(name: &'static str, arguments: &'static [&'static str]) -> Recipe {
    Recipe {
        arguments,
        ..project(name, "bookinfo", APPLICATION_USER)
    }
}

/// The parts of the mesh, its sample with what it keeps ratings in, and the test application.
pub const PROJECT: [Recipe; 14] = [
    Recipe {
        // The init container redirects with it.
        also: &[("nft", "nftables")],
        ..project("proxy", "mesh-proxy", PROXY_USER)
    },
    Recipe {
        // For pods whose data plane is a stock Envoy.
        also: &[("nft", "nftables"), ("envoy", "")],
        name: "proxy-envoy",
        ..project("proxy", "mesh-proxy", PROXY_USER)
    },
    Recipe {
        // It fetches the keys of token issuers over HTTPS.
        files: &[("/etc/ssl/certs/ca-certificates.crt", "ca-certificates")],
        ..project("pilot", "mesh-pilot", PROXY_USER)
    },
    project("citadel", "mesh-citadel", PROXY_USER),
    project("telemetry", "mesh-telemetry", PROXY_USER),
    bookinfo("bookinfo-productpage-v1", &["productpage"]),
    bookinfo("bookinfo-details-v1", &["details"]),
    bookinfo("bookinfo-reviews-v1", &["reviews", "--version", "v1"]),
    bookinfo("bookinfo-reviews-v2", &["reviews", "--version", "v2"]),
    bookinfo("bookinfo-reviews-v3", &["reviews", "--version", "v3"]),
    bookinfo("bookinfo-ratings-v1", &["ratings", "--version", "v1"]),
    bookinfo("bookinfo-ratings-v2", &["ratings", "--version", "v2"]),
    Recipe {
        origin: Origin::Debian(Debian {
            package: "redis-server",
            reference: "docker.io/library/redis:7",
        }),
        ..project("redis", "redis-server", APPLICATION_USER)
    },
    project("e2e-app", "mesh-e2e-app", APPLICATION_USER),
];

/// What the cluster itself runs.
pub const CLUSTER: [Recipe; 2] = [
    Recipe {
        origin: Origin::Cluster,
        ..project("pause", "pause", 65535)
    },
    Recipe {
        origin: Origin::Cluster,
        ..project("cluster-dns", "dns", APPLICATION_USER)
    },
];

/// An archive that can be loaded.
#[derive(Clone, Debug)]
pub struct Image {
    pub reference: String,
    pub archive: PathBuf,
    /// Was it made just now?
    pub fresh: bool,
}

impl Recipe {
    /// How pods call it, in full.
    pub fn reference(&self) -> String {
        match self.origin {
            Origin::Project => format!("docker.io/gossamer/{}:{}", self.name, env!("CARGO_PKG_VERSION")),
            Origin::Cluster if self.name == "pause" => PAUSE_IMAGE.to_owned(),
            Origin::Cluster => format!("docker.io/gossamer/{}:1", self.name),
            Origin::Debian(debian) => debian.reference.to_owned(),
        }
    }

    /// Does it need the libraries of this machine? Those of the cluster are linked to nothing, and `ldd` calls that an error.
    fn is_linked(&self) -> bool {
        self.origin != Origin::Cluster
    }

    fn source(&self, binaries: &Path) -> anyhow::Result<PathBuf> {
        let path = match self.origin {
            Origin::Project => binaries.join(self.program),
            Origin::Cluster => need::kubernetes()?.join(self.program),
            Origin::Debian(debian) => return need::program(self.program, debian.package),
        };
        ensure!(
            path.is_file(),
            "{} is not built: run `make build` (for a release: `cargo build --release --workspace --bins`)",
            path.display()
        );
        Ok(path)
    }
}

/// The archive of an image, made if it is not there or no longer what it should be. `binaries` is the folder of a build profile,
/// as `target/debug`.
pub fn build(recipe: &Recipe, binaries: &Path) -> anyhow::Result<Image> {
    let profile = binaries.file_name().context("a folder of binaries has a name")?;
    let folder = binaries
        .parent()
        .context("a folder of binaries lies in another")?
        .join("images")
        .join(profile);
    let files = contents(recipe, binaries)?;
    let stamp = stamp(recipe, &files)?;
    let image = Image {
        reference: recipe.reference(),
        archive: folder.join(format!("{}.tar", recipe.name)),
        fresh: false,
    };
    let stamp_file = folder.join(format!("{}.stamp", recipe.name));
    if image.archive.exists() && fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(image);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Two builds at once do not meet: each has a folder of its own, and the archive appears whole.
    let work = folder.join(format!(".{}-{}", recipe.name, std::process::id()));
    let made = stage(&work.join("root"), recipe, &files).and_then(|()| pack(&work, recipe, &image));
    let removed = if work.exists() {
        fs::remove_dir_all(&work)
    } else {
        Ok(())
    };
    made.with_context(|| format!("the image {} cannot be made", image.reference))?;
    removed.with_context(|| format!("cannot remove {}", work.display()))?;
    fs::write(&stamp_file, stamp).with_context(|| format!("cannot write {}", stamp_file.display()))?;
    Ok(Image { fresh: true, ..image })
}

/// A file of the machine and where it goes in the image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Content {
    from: PathBuf,
    to: PathBuf,
}

fn contents(recipe: &Recipe, binaries: &Path) -> anyhow::Result<Vec<Content>> {
    let source = recipe.source(binaries)?;
    let mut programs = vec![Content {
        from: source,
        to: entrypoint(recipe),
    }];
    for (name, package) in recipe.also {
        programs.push(Content {
            from: match *name {
                "envoy" => need::envoy()?,
                name => need::program(name, package)?,
            },
            to: Path::new("/usr/sbin").join(name),
        });
    }
    let mut libraries = BTreeSet::new();
    for program in &programs {
        if recipe.is_linked() {
            libraries.extend(linked(&program.from)?);
        }
    }
    for (path, package) in recipe.files {
        ensure!(
            Path::new(path).is_file(),
            "{path} is not there: run `apt-get install {package}`"
        );
        libraries.insert(PathBuf::from(path));
    }
    programs.extend(libraries.into_iter().map(|path| Content {
        from: path.clone(),
        to: path,
    }));
    Ok(programs)
}

fn entrypoint(recipe: &Recipe) -> PathBuf {
    Path::new("/usr/local/bin").join(recipe.program)
}

/// The shared libraries of a program, and the loader.
fn linked(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = run(command("ldd", [program]), None, PATIENCE)?.ok()?;
    parse_ldd(&text).with_context(|| format!("`ldd {}`", program.display()))
}

/// `name => path (address)`, or `path (address)` for the loader; the kernel's own has no path.
fn parse_ldd(text: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in text.lines() {
        ensure!(
            !line.contains("not found"),
            "a library is missing: {}",
            line.trim()
        );
        let place = line.rsplit("=> ").next().unwrap_or(line);
        let path = place.split_whitespace().next().unwrap_or_default();
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

/// Everything by which one can see that the image would come out different.
fn stamp(recipe: &Recipe, files: &[Content]) -> anyhow::Result<String> {
    let mut stamp = format!(
        "{RECIPE} {} {} {:?}\n",
        recipe.reference(),
        recipe.user,
        recipe.arguments
    );
    for file in files {
        let data =
            fs::metadata(&file.from).with_context(|| format!("cannot read {}", file.from.display()))?;
        let changed = data.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        stamp += &format!("{} {} {}\n", file.from.display(), data.len(), changed.as_nanos());
    }
    Ok(stamp)
}

/// Lays out the image's files.
fn stage(root: &Path, recipe: &Recipe, files: &[Content]) -> anyhow::Result<()> {
    let place = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for file in files {
        let to = place(&file.to);
        let folder = to.parent().context("a file of an image lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::copy(&file.from, &to).with_context(|| format!("cannot copy {}", file.from.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    if recipe.origin == Origin::Project {
        let program = place(&entrypoint(recipe));
        run(
            command("strip", ["--strip-debug".as_ref(), program.as_os_str()]),
            None,
            PATIENCE,
        )?
        .ok()
        .context("`strip` is in the Debian package binutils")?;
    }
    let etc = root.join("etc");
    fs::create_dir_all(&etc)?;
    fs::write(
        etc.join("passwd"),
        format!(
            "root:x:0:0::/:\nproxy:x:{PROXY_USER}:{PROXY_USER}::/:\napp:x:{APPLICATION_USER}:{APPLICATION_USER}::/:\n"
        ),
    )?;
    fs::write(
        etc.join("group"),
        format!("root:x:0:\nproxy:x:{PROXY_USER}:\napp:x:{APPLICATION_USER}:\n"),
    )?;
    fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n")?;
    let tmp = root.join("tmp");
    fs::create_dir_all(&tmp)?;
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777))?;
    Ok(())
}

/// From a folder to an archive.
fn pack(work: &Path, recipe: &Recipe, image: &Image) -> anyhow::Result<()> {
    let buildah = need::program("buildah", "buildah")?;
    let (storage, scratch) = (work.join("storage"), work.join("run"));
    let policy = work.join("policy.json");
    // Nothing is pulled, so there is nothing whose signature could be asked for.
    fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
    let run_buildah = |arguments: &[&str]| {
        let mut line = command(&buildah, ["--storage-driver", "vfs", "--root"]);
        line.arg(&storage).arg("--runroot").arg(&scratch).args(arguments);
        run(line, None, PATIENCE)?.ok()
    };
    let (root, archive) = (work.join("root"), work.join("archive.tar"));
    let (root, policy) = (root.display().to_string(), policy.display().to_string());
    let user = format!("{0}:{0}", recipe.user);
    let program = entrypoint(recipe).display().to_string();
    let start: Vec<&str> = std::iter::once(program.as_str())
        .chain(recipe.arguments.iter().copied())
        .collect();
    let start = serde_json::to_string(&start)?;
    let target = format!("oci-archive:{}:{}", archive.display(), image.reference);
    run_buildah(&["from", "--name", recipe.name, "scratch"])?;
    run_buildah(&["copy", recipe.name, &root, "/"])?;
    let path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin";
    run_buildah(&[
        "config",
        "--entrypoint",
        &start,
        "--user",
        &user,
        "--env",
        path,
        "--workingdir",
        "/",
        recipe.name,
    ])?;
    run_buildah(&[
        "commit",
        "--quiet",
        "--signature-policy",
        &policy,
        "--timestamp",
        "0",
        recipe.name,
        &target,
    ])?;
    fs::rename(&archive, &image.archive).with_context(|| format!("cannot write {}", image.archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00)\n\t/lib64/ld-linux-x86-64.so.2 (0x0)\n";
        let expected = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_ldd(text).unwrap(), expected.map(PathBuf::from));
        let error = parse_ldd("\tlibx.so => not found\n").unwrap_err().to_string();
        assert!(error.contains("libx.so"), "{error}");
    }

    #[test]
    fn an_application_is_not_who_redirection_lets_pass() {
        for recipe in PROJECT {
            let part = ["proxy", "proxy-envoy", "pilot", "citadel", "telemetry"].contains(&recipe.name);
            assert_eq!(recipe.user == PROXY_USER, part, "{}", recipe.name);
        }
    }

    #[test]
    fn there_is_an_image_for_whatever_the_sample_names() {
        let known: Vec<String> = PROJECT.iter().map(Recipe::reference).collect();
        for file in [
            "bookinfo/bookinfo.yaml",
            "bookinfo/bookinfo-ratings-v2-redis.yaml",
        ] {
            let text = fs::read_to_string(need::repository().join("samples").join(file)).unwrap();
            let named: Vec<_> = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("image: "))
                .collect();
            assert!(!named.is_empty(), "{file} names no image");
            for image in named {
                let library = if image.contains('/') { "" } else { "library/" };
                let full = format!("docker.io/{library}{image}");
                assert!(known.contains(&full), "{file}: {image}");
            }
        }
    }
}
