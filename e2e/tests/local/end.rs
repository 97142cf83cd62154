//! 11. Everything is killed, the mesh gets up again; it is taken down, and nothing is left.

use anyhow::{Context, ensure};
use mesh_e2e::{
    mesh::Mesh,
    process::{command, eventually, run},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeSet, time::Duration};

/// Processes whose network namespace is one of the mesh's, and its supervisor.
fn processes(mesh: &Mesh) -> anyhow::Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for namespace in namespaces(mesh)? {
        let text = run(
            command("ip", ["netns", "pids", &namespace]),
            None,
            Duration::from_secs(10),
        )?
        .stdout;
        found.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()));
    }
    if let Ok(text) = std::fs::read_to_string(mesh.dir.join("run/node.pid")) {
        found.extend(
            text.trim()
                .parse::<i32>()
                .ok()
                .filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()),
        );
    }
    Ok(found)
}

/// The network namespaces of this mesh: they share the beginning of the node's name.
fn namespaces(mesh: &Mesh) -> anyhow::Result<BTreeSet<String>> {
    let prefix = mesh.prefix()?;
    let text = run(command("ip", ["netns", "list"]), None, Duration::from_secs(10))?.ok()?;
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names
        .filter(|name| name.starts_with(&prefix))
        .map(str::to_owned)
        .collect())
}

fn rules() -> anyhow::Result<String> {
    run(command("nft", ["list", "ruleset"]), None, Duration::from_secs(10))?.ok()
}

pub fn kill_everything_then_up(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = processes(mesh)?;
    ensure!(before.len() > 20, "only {} processes", before.len());
    for pid in &before {
        // Some end by themselves when their parent is gone.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    eventually(Duration::from_secs(10), "all processes gone", || {
        let left = processes(mesh)?
            .into_iter()
            .filter(|pid| before.contains(pid))
            .count();
        ensure!(left == 0, "{left} processes left");
        Ok(())
    })?;
    mesh.up()?;
    mesh.wait_ready()?;
    eventually(Duration::from_secs(20), "the page answers again", || {
        let page = mesh.page("/productpage", &[])?;
        ensure!(
            page.status == 200 && page.body.contains("Reviews served by"),
            "{}: {}",
            page.status,
            page.body
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
    let (before, prefix) = (processes(mesh)?, mesh.prefix()?);
    ensure!(!before.is_empty() && !prefix.is_empty(), "the mesh is not up");
    mesh.ctl(&["local", "down"])?;
    let alive: Vec<i32> = before
        .into_iter()
        .filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists())
        .collect();
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
