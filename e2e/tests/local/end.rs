//! 11. Everything is killed, the mesh gets up again; it is taken down, and nothing is left.

use anyhow::{Context, ensure};
use mesh_e2e::{
    mesh::Mesh,
    process::{command, eventually, run},
    site::Site,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeSet, time::Duration};

/// Is there a process of this number that still does something?
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Processes whose network namespace is one of the mesh's (their names begin with `prefix`), and its supervisor.
fn processes(mesh: &Mesh, prefix: &str) -> anyhow::Result<BTreeSet<i32>> {
    let limit = Duration::from_secs(10);
    let mut found = BTreeSet::new();
    let text = run(command("ip", ["netns", "list"]), None, limit)?.ok()?;
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    for namespace in names.filter(|name| name.starts_with(prefix)) {
        let text = run(command("ip", ["netns", "pids", namespace]), None, limit)?.stdout;
        found.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()));
    }
    let supervisor = std::fs::read_to_string(mesh.dir.join("run/node.pid")).unwrap_or_default();
    found.extend(supervisor.trim().parse::<i32>());
    found.retain(|pid| is_alive(*pid));
    Ok(found)
}

fn rules() -> anyhow::Result<String> {
    run(command("nft", ["list", "ruleset"]), None, Duration::from_secs(10))?.ok()
}

pub fn kill_everything_then_up(mesh: &mut Mesh) -> anyhow::Result<()> {
    let prefix = mesh.prefix()?;
    let before = processes(mesh, &prefix)?;
    ensure!(before.len() > 20, "only {} processes", before.len());
    for pid in &before {
        // Some end by themselves when their parent is gone.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    eventually(Duration::from_secs(10), "all processes gone", || {
        let left = before.iter().filter(|pid| is_alive(**pid)).count();
        ensure!(left == 0, "{left} processes left");
        Ok(())
    })?;
    mesh.up()?;
    mesh.wait_ready()?;
    eventually(Duration::from_secs(20), "the page answers again", || {
        let page = mesh.page("/productpage", &[])?;
        ensure!(
            page.status == 200 && page.body.contains("Reviews served by"),
            "{}",
            page.shown()
        );
        Ok(())
    })
}

/// Before, the machine's own network had nothing of the mesh; afterwards neither, and every process and namespace is gone.
pub fn down_leaves_nothing(mesh: &mut Mesh) -> anyhow::Result<()> {
    let host = rules()?;
    ensure!(
        !host.contains("gossamer"),
        "the host has rules of the mesh: {host}"
    );
    let links = run(command("ip", ["-o", "link"]), None, Duration::from_secs(10))?.ok()?;
    ensure!(
        !links.contains("gossamer"),
        "the host has interfaces of the mesh: {links}"
    );
    let prefix = mesh.prefix()?;
    let before = processes(mesh, &prefix)?;
    ensure!(!before.is_empty() && !prefix.is_empty(), "the mesh is not up");
    mesh.ctl(&["local", "down"])?;
    let alive: Vec<i32> = before.into_iter().filter(|pid| is_alive(*pid)).collect();
    ensure!(alive.is_empty(), "processes {alive:?} are left");
    let text = run(command("ip", ["netns", "list"]), None, Duration::from_secs(10))?.ok()?;
    ensure!(!text.contains(&prefix), "network namespaces are left: {text}");
    ensure!(rules()? == host, "the machine's rules have changed");
    let left = std::fs::read_dir(&mesh.dir)
        .map(Iterator::count)
        .unwrap_or_default();
    ensure!(left == 0, "{left} entries are left in {}", mesh.dir.display());
    let listening = std::net::TcpStream::connect(("127.0.0.1", mesh.gateway_port));
    ensure!(listening.is_err(), "the gateway's port still answers");
    mesh.up().context("up after down")
}
