//! Removing a cluster: its processes, its namespaces, its cgroups, its files. It needs nothing but the name of the folder, so
//! that it works also when everything was killed, or when the cluster was half made.
//!
//! Killing what is in a machine's network namespace kills the machine's first process, and with it the kernel ends every process
//! of the machine and undoes its mounts; see `machine`.

use super::{layout::Layout, network};
use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Killed processes are gone within this, and their cgroups are empty, unless the kernel itself hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
const CGROUPS: &str = "/sys/fs/cgroup";

/// Removes everything of the cluster. Nothing there is no error.
pub fn everything(layout: &Layout) -> anyhow::Result<()> {
    processes(layout)?;
    for namespace in network::namespaces(layout) {
        network::remove(&namespace)?;
    }
    for group in cgroups(layout) {
        remove_cgroup(&group)?;
    }
    files(layout)
}

/// What of the cluster is there, besides its files; for `status`, and for tests of `down`.
pub fn left(layout: &Layout) -> Vec<String> {
    let mut left = network::namespaces(layout);
    left.extend(cgroups(layout).into_iter().map(|path| path.display().to_string()));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let folder = layout.dir.display().to_string();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&folder))
            .map(str::to_owned),
    );
    left
}

fn processes(layout: &Layout) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let namespaces = network::namespaces(layout);
        let alive: Vec<i32> = namespaces
            .iter()
            .flat_map(|name| network::members(name))
            .collect();
        if alive.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("processes {alive:?} do not end even when killed");
        }
        for pid in alive {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(PAUSE);
    }
}

/// The cluster's cgroups: version 2 has one hierarchy, version 1 has one per controller.
fn cgroups(layout: &Layout) -> Vec<PathBuf> {
    let folders = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir() && !path.is_symlink())
            .collect()
    };
    let ours = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| layout.owns_namespace(name))
    };
    let mut found: Vec<PathBuf> = folders(Path::new(CGROUPS));
    found.extend(found.clone().iter().flat_map(|path| folders(path)));
    found.retain(ours);
    found.sort();
    found
}

/// A cgroup is removed when it is empty and has none below it; a process that has just been killed may still be in it.
fn remove_cgroup(path: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    let end = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > end => {
                return Err(error).with_context(|| format!("cgroup {} cannot be removed", path.display()));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn files(layout: &Layout) -> anyhow::Result<()> {
    if !layout.shape_file().exists() {
        // Never a cluster, or already removed: what is in the folder is someone else's.
        return Ok(());
    }
    for path in layout.owned() {
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} cannot be removed", path.display()));
            }
            _ => {}
        }
    }
    // Someone else's files in it are theirs.
    let _ = fs::remove_dir(&layout.dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clusters_own_files_are_removed() {
        let dir = std::env::temp_dir().join(format!("mesh-cluster-clean-{}", std::process::id()));
        let layout = Layout::new(&dir).unwrap();
        fs::create_dir_all(layout.pki()).unwrap();
        fs::write(dir.join("mine"), "").unwrap();
        files(&layout).unwrap();
        assert!(layout.pki().exists(), "without cluster.json it is no cluster");
        fs::write(layout.shape_file(), "{}").unwrap();
        files(&layout).unwrap();
        assert!(!layout.pki().exists() && dir.join("mine").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
