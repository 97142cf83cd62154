//! Point 2: The gateway grows, a node is drained, workloads and the control plane are rolled, the mesh is upgraded, all while requests
//! come through the gateway and go from pod to pod; and none of them fails.

use anyhow::{Context, ensure};
use mesh_e2e::{
    client::load::Report,
    installed::{GATEWAY, Installed, PATIENCE, SYSTEM},
    mesh::{APP_NAMESPACE, is_ready},
    process::{Background, eventually},
    site::Site,
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

/// Requests per second: each through the gateway is four or five from pod to pod.
const PAGES: f64 = 10.0;
const CALLS: &str = "20";
/// How the images of the build before this one are called.
const BEFORE: &str = "0.0.9";
const NOW: &str = env!("CARGO_PKG_VERSION");
const PARTS: [&str; 4] = ["pilot", "citadel", "telemetry", "proxy"];
const BOOKINFO: [&str; 6] = [
    "productpage-v1",
    "details-v1",
    "ratings-v1",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
];

/// Runs something while pages are asked for through the gateway, and while the client pod calls another pod. A page comes also
/// where a part of it took longer than the page waits for, which on a machine of two cores says nothing about the mesh; what
/// happens to requests between pods is seen by the calls, which wait.
fn under_load(mesh: &Installed, during: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let calls = [
        "load",
        "--url",
        "http://echo.e2e:8080/",
        "--rate",
        CALLS,
        "--seconds",
        "400",
        "--until-stdin-ends",
    ];
    let calls = Background::start(mesh.client_command("client", &calls))?;
    let pages = mesh.load_in_background("/productpage", |load| {
        load.rate = Some(PAGES);
        load.concurrency = 16;
        load.seconds = 400;
    })?;
    let done = during();
    let pages = mesh.finish(pages)?;
    let calls = calls.finish(Duration::from_secs(30))?.ok()?;
    done?;
    let calls: Report = serde_json::from_str(calls.lines().last().unwrap_or_default())?;
    println!(
        "  {} pages (p99 {:.0} ms) and {} calls from pod to pod in {:.0} s, {} failed",
        pages.requests,
        pages.p99_ms,
        calls.requests,
        pages.seconds,
        pages.failed() + calls.failed()
    );
    pages.ensure_all_ok().context("through the gateway")?;
    calls.ensure_all_ok().context("from pod to pod")
}

fn deployment(name: &str) -> String {
    format!("deployment/{name}")
}

fn scale(mesh: &Installed, namespace: &str, name: &str, replicas: u32) -> anyhow::Result<()> {
    let replicas = format!("--replicas={replicas}");
    mesh.kubectl_ok(&["scale", &deployment(name), "-n", namespace, &replicas])?;
    mesh.rolled_out(namespace, &deployment(name))
}

/// Restarts all of them at once, and waits for each.
fn roll(mesh: &Installed, namespace: &str, names: &[&str]) -> anyhow::Result<()> {
    let all: Vec<String> = names.iter().map(|name| deployment(name)).collect();
    let mut line = vec!["rollout", "restart", "-n", namespace];
    line.extend(all.iter().map(String::as_str));
    mesh.kubectl_ok(&line)?;
    all.iter().try_for_each(|name| mesh.rolled_out(namespace, name))?;
    ended(mesh, namespace)
}

/// What was told to end has ended: until then it may still be asked.
fn ended(mesh: &Installed, namespace: &str) -> anyhow::Result<()> {
    eventually(PATIENCE, "old pods are gone", || {
        let pods = mesh.list("pods", Some(namespace))?;
        let leaving = pods
            .iter()
            .filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        let leaving: Vec<&Value> = leaving.map(|pod| &pod["metadata"]["name"]).collect();
        ensure!(leaving.is_empty(), "{leaving:?}");
        Ok(())
    })
}

pub fn gateway_grows(mesh: &mut Installed) -> anyhow::Result<()> {
    let mesh = &*mesh;
    under_load(mesh, || scale(mesh, SYSTEM, GATEWAY, 3))?;
    let pods = mesh.pods(SYSTEM, "istio=ingressgateway")?;
    ensure!(
        pods.len() == 3 && pods.iter().all(is_ready),
        "{} pods of the gateway",
        pods.len()
    );
    Ok(())
}

/// One of each is always there.
fn budgets() -> anyhow::Result<String> {
    let budget = |namespace: &str, labels: &str| {
        let name = labels.replace([':', ' ', ','], "");
        format!(
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{minAvailable: 1, selector: {{matchLabels: {{{labels}}}}}}}\n---\n"
        )
    };
    let mut budgets = budget(APP_NAMESPACE, "app: echo");
    for app in [GATEWAY, "pilot", "citadel"] {
        budgets += &budget(SYSTEM, &format!("app: {app}"));
    }
    for name in BOOKINFO {
        let (app, version) = name.split_once('-').context("a name with a version")?;
        budgets += &budget("default", &format!("app: {app}, version: {version}"));
    }
    Ok(budgets)
}

/// What somebody has who drains nodes: two of each, pilot and citadel too (as in the profile `ha`), so that what ends is told of
/// at once.
fn doubled(mesh: &Installed) -> anyhow::Result<()> {
    let line = |namespace| ["scale", "deployment", "--all", "--replicas=2", "-n", namespace];
    mesh.kubectl_ok(&line("default"))?;
    scale(mesh, APP_NAMESPACE, "echo", 2)?;
    scale(mesh, SYSTEM, "pilot", 2)?;
    scale(mesh, SYSTEM, "citadel", 2)?;
    BOOKINFO
        .iter()
        .try_for_each(|name| mesh.rolled_out("default", &deployment(name)))
}

pub fn a_node_is_drained(mesh: &mut Installed) -> anyhow::Result<()> {
    let mesh = &*mesh;
    doubled(mesh)?;
    let budgets = budgets()?;
    mesh.apply(&budgets)?;
    // The client stays: a program that ends with its pod says nothing about the mesh.
    let client = mesh.pods(APP_NAMESPACE, "app=client")?;
    let stays = client.first().context("no client")?["spec"]["nodeName"].clone();
    let nodes = mesh.nodes()?;
    let node = nodes
        .iter()
        .find(|node| stays != node.as_str())
        .context("all on one node")?;
    let drained = under_load(mesh, || {
        mesh.kubectl_ok(&[
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=200s",
        ])?;
        mesh.wait_ready()
    });
    mesh.delete(&budgets)?;
    drained?;
    let pods = mesh.list("pods", None)?;
    let left: Vec<_> = pods
        .iter()
        .filter(|pod| pod["spec"]["nodeName"] == node.as_str() && is_ready(pod))
        .map(|pod| &pod["metadata"]["name"])
        .collect();
    ensure!(left.is_empty(), "left on {node}: {left:?}");
    mesh.kubectl_ok(&["uncordon", node])?;
    Ok(())
}

/// Applications, gateway, pilot and citadel. Nobody has to be there twice for this.
pub fn everything_is_rolled(mesh: &mut Installed) -> anyhow::Result<()> {
    let mesh = &*mesh;
    mesh.kubectl_ok(&["scale", "deployment", "--all", "--replicas=1", "-n", "default"])?;
    scale(mesh, APP_NAMESPACE, "echo", 1)?;
    scale(mesh, SYSTEM, "pilot", 1)?;
    scale(mesh, SYSTEM, "citadel", 1)?;
    ended(mesh, "default")?;
    under_load(mesh, || {
        roll(mesh, "default", &BOOKINFO)?;
        roll(mesh, APP_NAMESPACE, &["echo"])?;
        roll(mesh, SYSTEM, &[GATEWAY])?;
        roll(mesh, SYSTEM, &["citadel"])?;
        roll(mesh, SYSTEM, &["pilot"])?;
        // The new control plane is one that works: pods get sidecars, and sidecars get certificates.
        roll(mesh, "default", &["reviews-v1"])
    })
}

/// The tags of the mesh's own images that run anywhere.
fn tags(mesh: &Installed) -> anyhow::Result<BTreeSet<String>> {
    let mut tags = BTreeSet::new();
    for pod in mesh.list("pods", None)? {
        let lists = [&pod["spec"]["containers"], &pod["spec"]["initContainers"]];
        for container in lists.into_iter().filter_map(Value::as_array).flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            if let Some((name, tag)) = image.rsplit_once(':')
                && PARTS
                    .iter()
                    .any(|part| name.ends_with(&format!("gossamer/{part}")))
            {
                tags.insert(tag.to_owned());
            }
        }
    }
    Ok(tags)
}

/// Whatever has a proxy, but for the client: it makes the requests.
fn new_proxies(mesh: &Installed) -> anyhow::Result<()> {
    roll(mesh, SYSTEM, &[GATEWAY, "istio-egressgateway"])?;
    roll(mesh, "default", &BOOKINFO)?;
    roll(mesh, APP_NAMESPACE, &["echo"])
}

/// The build before this one is this one under another name: what an upgrade does to objects, pods and connections is the same.
pub fn an_upgrade(mesh: &mut Installed) -> anyhow::Result<()> {
    let mesh = &*mesh;
    for part in PARTS {
        let image = |tag: &str| format!("docker.io/gossamer/{part}:{tag}");
        mesh.machines()?.tag_image(&image(NOW), &image(BEFORE))?;
    }
    mesh.ctl(&["upgrade", "-y", "--set", &format!("global.tag={BEFORE}")])?;
    new_proxies(mesh)?;
    roll(mesh, APP_NAMESPACE, &["client", "stranger"])?;
    eventually(PATIENCE, "everything is of the version before", || {
        let before = tags(mesh)?;
        ensure!(before == BTreeSet::from([BEFORE.to_owned()]), "{before:?}");
        Ok(())
    })?;
    under_load(mesh, || {
        mesh.ctl(&["upgrade", "-y", "--set", &format!("global.tag={NOW}")])?;
        new_proxies(mesh)
    })?;
    roll(mesh, APP_NAMESPACE, &["client", "stranger"])?;
    eventually(PATIENCE, "everything is of this version", || {
        let after = tags(mesh)?;
        ensure!(after == BTreeSet::from([NOW.to_owned()]), "{after:?}");
        Ok(())
    })?;
    mesh.ctl(&["verify-install"]).map(drop)
}

/// A version that does not start is taken back, and nobody notices.
pub fn an_upgrade_that_fails(mesh: &mut Installed) -> anyhow::Result<()> {
    let mesh = &*mesh;
    under_load(mesh, || {
        let said = mesh
            .ctl_said(&[
                "upgrade",
                "-y",
                "--set",
                "global.tag=99.0.0",
                "--readiness-timeout",
                "15s",
            ])?
            .failed()?;
        ensure!(
            said.contains("taken back") && said.contains("gossamer/citadel:99.0.0"),
            "{said}"
        );
        Ok(())
    })?;
    // The pods of the version taken back are removed by Kubernetes, in its own time.
    eventually(PATIENCE, "the version taken back is gone", || {
        let tags = tags(mesh)?;
        ensure!(tags == BTreeSet::from([NOW.to_owned()]), "{tags:?}");
        Ok(())
    })?;
    mesh.ctl(&["verify-install"]).map(drop)
}
