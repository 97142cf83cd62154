//! Removing what a platform left: its processes (those whose network namespace is one of its namespaces), its namespaces,
//! its state. Mounts need no removing: they live in the containers' own mount namespaces and die with them.

use std::time::Duration;

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{netns, node, platform::Layout};

/// Killed processes are gone within this, unless the kernel itself hangs.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Kills every process in the platform's namespaces and removes these.
pub async fn processes_and_namespaces(layout: &Layout) -> anyhow::Result<()> {
    let names = netns::list(layout);
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let alive: Vec<i32> = names.iter().flat_map(|name| netns::members(name)).collect();
        if alive.is_empty() {
            break;
        }
        if tokio::time::Instant::now() > end {
            bail!("processes {alive:?} do not end even when killed");
        }
        for pid in alive {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        tokio::time::sleep(PAUSE).await;
    }
    for name in names {
        netns::remove(&name).await?;
    }
    Ok(())
}

/// Ends a supervisor that no longer answers. Its process id is believed only while the lock is held.
pub async fn supervisor(layout: &Layout) -> anyhow::Result<()> {
    if !node::is_running(layout) {
        return Ok(());
    }
    let text = std::fs::read_to_string(layout.pid_file()).unwrap_or_default();
    let pid: i32 = text
        .trim()
        .parse()
        .with_context(|| format!("{} is no process id", layout.pid_file().display()))?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if !String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .contains("local node")
    {
        bail!(
            "process {pid} holds {} but is no supervisor; end it yourself",
            layout.lock().display()
        );
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("process {pid} cannot be killed"))?;
    let end = tokio::time::Instant::now() + PATIENCE;
    while node::is_running(layout) {
        if tokio::time::Instant::now() > end {
            bail!("the supervisor, process {pid}, does not end even when killed");
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Removes the platform's files, and its folder if nothing else is in it.
pub fn state(layout: &Layout) -> anyhow::Result<()> {
    for path in layout.owned() {
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} cannot be removed", path.display()));
            }
            _ => {}
        }
    }
    // Someone else's files in it are theirs.
    let _ = std::fs::remove_dir(&layout.dir);
    Ok(())
}
