//! What the tests need from the machine. Something missing is an error that says how to get it; nothing is skipped.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

/// Network namespaces and redirection need root.
pub fn root() -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the end-to-end tests make network namespaces: run them as root (`sudo make test`)"
    );
    Ok(())
}

/// The folder with the binaries of this build: the one above `deps`, where the test itself lies.
pub fn binaries() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("where is this program?")?;
    let folder = me.parent().context("this program is in no folder")?;
    let folder = if folder.ends_with("deps") {
        folder.parent().context("deps is in no folder")?
    } else {
        folder
    };
    Ok(folder.to_owned())
}

/// A binary of this project.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = binaries()?.join(name);
    ensure!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --bins` (or `make test`)",
        path.display()
    );
    Ok(path)
}

/// A program of the machine, and the Debian package that has it.
pub fn program(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not installed: run `make deps`, or `apt-get install {package}`"))
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
    e2e.parent().unwrap_or(e2e).to_owned()
}

/// The real Envoy, as `make deps` puts it.
pub fn envoy() -> anyhow::Result<PathBuf> {
    let path = repository().join(".deps/envoy/envoy/_bin/envoy");
    ensure!(
        path.exists(),
        "Envoy is not at {}: run `make deps`",
        path.display()
    );
    Ok(path)
}

/// Helm: the newest that `make deps` has put there.
pub fn helm() -> anyhow::Result<PathBuf> {
    let folder = repository().join(".deps/helm");
    let versions = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut programs: Vec<PathBuf> = versions.map(|version| version.path().join("helm")).collect();
    programs.retain(|program| program.is_file());
    programs.sort();
    programs
        .pop()
        .with_context(|| format!("Helm is not below {}: run `make deps`", folder.display()))
}

/// The folder with Kubernetes' programs, as `make deps-kubernetes` builds them.
pub fn kubernetes() -> anyhow::Result<PathBuf> {
    let link = repository().join(".deps/kubernetes/current");
    let folder = link
        .canonicalize()
        .ok()
        .filter(|folder| folder.join("kube-apiserver").exists());
    folder.with_context(|| {
        format!(
            "Kubernetes is not in {}: run `make deps-kubernetes`",
            link.display()
        )
    })
}
