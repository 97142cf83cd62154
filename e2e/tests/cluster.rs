//! The cluster for tests is itself tested, once: it comes up on this machine, is a whole Kubernetes, survives the loss of its API
//! server, and leaves nothing behind, not even when a part of it was killed. What the mesh does on it is `tests/kubernetes.rs`.

use anyhow::{Context, ensure};
use mesh_e2e::{
    cluster::{Cluster, Options, image},
    mesh::read,
    need,
    process::{Background, command, eventually, run},
};
use nix::{sys::signal, unistd::Pid};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "cluster-test";

#[test]
fn a_cluster_works_and_leaves_nothing() -> anyhow::Result<()> {
    let dir = need::binaries()?.with_file_name("e2e").join("cluster-test");
    // One that an earlier run was killed with.
    Cluster::remove(&dir)?;
    let before = host()?;
    let recipe = image::PROJECT
        .iter()
        .find(|recipe| recipe.name == "e2e-app")
        .context("the image of the test application")?;
    let options = Options {
        dir: dir.clone(),
        nodes: 2,
        api_port: None,
        images: vec![image::build(recipe, &need::binaries()?)?],
    };
    let cluster = Cluster::start(&options, &|text| println!("{text}"))?;
    let second = Cluster::start(&options, &|_| {})
        .err()
        .context("a second cluster in the folder")?;
    ensure!(second.to_string().contains("runs in"), "{second:#}");

    everything(&cluster).map_err(|error| error.context(cluster.diagnose()))?;

    kill_a_node(&dir)?;
    cluster.stop()?;
    let left = Cluster::left(&dir)?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    ensure!(!dir.exists(), "{} is still there", dir.display());
    let after = host()?;
    ensure!(before == after, "the host's network was {before}\nand is {after}");
    Ok(())
}

fn everything(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&read("e2e/manifests/cluster.yaml")?)?;
    cluster.kubectl_ok(&[
        "rollout",
        "status",
        "deployment/app",
        "--namespace",
        NAMESPACE,
        "--timeout",
        "60s",
    ])?;
    let pods = pods(cluster)?;
    ensure!(
        pods.iter().map(|pod| &pod.node).collect::<BTreeSet<_>>().len() == 2,
        "{pods:?}"
    );
    for pod in &pods {
        // A node hears of a new endpoint a moment after everybody else.
        eventually(LIMIT, "both pods answer", || {
            names_and_services(cluster, pod, &pods)
        })?;
    }
    logs_and_port_forward(cluster, &pods[0])?;
    ways_in(cluster, &pods[0])?;
    tokens(cluster)?;
    webhook(cluster)?;
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Complete",
        "job/once",
        "--namespace",
        NAMESPACE,
        "--timeout",
        "60s",
    ])?;
    without_api_server(cluster)
}

/// What of the host's own network a cluster could have changed.
fn host() -> anyhow::Result<String> {
    let mut text = String::new();
    for line in [
        &["ip", "-brief", "address"][..],
        &["ip", "route"],
        &["nft", "list", "ruleset"],
    ] {
        text += &run(command(line[0], &line[1..]), None, LIMIT)?.ok()?;
    }
    Ok(text)
}

#[derive(Debug)]
struct Seen {
    name: String,
    node: String,
    address: String,
}

fn pods(cluster: &Cluster) -> anyhow::Result<Vec<Seen>> {
    let text = cluster.kubectl_ok(&[
        "get",
        "pods",
        "--namespace",
        NAMESPACE,
        "--selector",
        "app=app",
        "--output",
        "json",
    ])?;
    let list: Value = serde_json::from_str(&text)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().context("a list of pods")?;
    let seen = items.iter().map(|pod| Seen {
        name: text(&pod["metadata"]["name"]),
        node: text(&pod["spec"]["nodeName"]),
        address: text(&pod["status"]["podIP"]),
    });
    Ok(seen.collect())
}

fn exec(cluster: &Cluster, pod: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut line = vec!["exec", "--namespace", NAMESPACE, pod, "--container", "app", "--"];
    line.extend(arguments);
    cluster.kubectl_ok(&line)
}

/// From a pod, by name: both pods answer, that of the own node and that of the other one.
fn names_and_services(cluster: &Cluster, pod: &Seen, all: &[Seen]) -> anyhow::Result<()> {
    let load = [
        "mesh-e2e-app",
        "load",
        "--requests",
        "100",
        "--label-json",
        "/pod",
        "--url",
    ];
    let short = format!("http://app.{NAMESPACE}/");
    let long = format!("http://app.{NAMESPACE}.svc.cluster.local/");
    for url in [short, long] {
        let text = exec(cluster, &pod.name, &[&load[..], &[&url]].concat())?;
        let report: Value = serde_json::from_str(&text)?;
        ensure!(report["ok"] == 100, "{url} from {}: {report}", pod.node);
        for other in all {
            let count = &report["labels"][&other.name]["count"];
            ensure!(
                count.as_u64() > Some(0),
                "{} did not answer {}: {report}",
                other.node,
                pod.node
            );
        }
    }
    Ok(())
}

fn logs_and_port_forward(cluster: &Cluster, pod: &Seen) -> anyhow::Result<()> {
    let logs = cluster.kubectl_ok(&["logs", "--namespace", NAMESPACE, &pod.name, "--container", "app"])?;
    ensure!(logs.contains("serving"), "{logs:?}");
    let port = mesh_e2e::mesh::free_port()?;
    let ports = format!("{port}:8080");
    let _forward =
        Background::start(cluster.kubectl(["port-forward", "--namespace", NAMESPACE, &pod.name, &ports]))?;
    eventually(LIMIT, "port-forward", || {
        get(SocketAddr::from(([127, 0, 0, 1], port)))
    })?;
    Ok(())
}

/// Through a port of the host: to a Service, a node's port, a pod.
fn ways_in(cluster: &Cluster, pod: &Seen) -> anyhow::Result<()> {
    let service = format!("{NAMESPACE}/app:http");
    let direct = format!("{}:8080", pod.address);
    for target in [service.as_str(), "10.250.0.12:30080", &direct] {
        let forward = cluster.forward(target)?;
        get(forward.address).with_context(|| target.to_owned())?;
    }
    let wrong = cluster
        .forward("nothing")
        .err()
        .context("a target that is none")?;
    ensure!(wrong.to_string().contains("NAMESPACE/SERVICE:PORT"), "{wrong:#}");
    Ok(())
}

fn get(address: SocketAddr) -> anyhow::Result<String> {
    let url = format!("http://{address}/");
    run(
        command(
            "curl",
            ["--silent", "--show-error", "--fail", "--max-time", "5", &url],
        ),
        None,
        LIMIT,
    )?
    .ok()
}

/// A token for an audience is known for that audience, and for no other.
fn tokens(cluster: &Cluster) -> anyhow::Result<()> {
    let token = cluster.kubectl_ok(&[
        "create",
        "token",
        "default",
        "--namespace",
        NAMESPACE,
        "--audience",
        "istio-ca",
    ])?;
    for (audience, expected) in [("istio-ca", true), ("other", false)] {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token.trim(), "audiences": [audience] },
        });
        let line = cluster.kubectl(["create", "--filename", "-", "--output", "json"]);
        let text = run(line, Some(&review.to_string()), LIMIT)?.ok()?;
        let answer: Value = serde_json::from_str(&text)?;
        let known = answer["status"]["authenticated"].as_bool().unwrap_or_default();
        ensure!(known == expected, "{audience}: {answer}");
    }
    Ok(())
}

fn webhook(cluster: &Cluster) -> anyhow::Result<()> {
    let line = ["create", "secret", "generic", "refused", "--namespace", NAMESPACE];
    eventually(LIMIT, "the API server calls the webhook", || {
        let text = run(cluster.kubectl(line), None, LIMIT)?.said();
        let _ = cluster.kubectl_ok(&[
            "delete",
            "secret",
            "refused",
            "--namespace",
            NAMESPACE,
            "--ignore-not-found",
        ]);
        ensure!(text.contains("gave HTTP response to HTTPS client"), "{text}");
        Ok(())
    })
}

/// What runs goes on; and afterwards everything is as before.
fn without_api_server(cluster: &Cluster) -> anyhow::Result<()> {
    let forward = cluster.forward(&format!("{NAMESPACE}/app:80"))?;
    cluster.halt("control", "kube-apiserver")?;
    ensure!(
        cluster.kubectl_ok(&["get", "nodes"]).is_err(),
        "an API server answers"
    );
    get(forward.address)?;
    cluster.resume("control", "kube-apiserver")?;
    eventually(LIMIT, "the API server is back", || {
        cluster.kubectl_ok(&["get", "--raw", "/readyz"])
    })?;
    Ok(())
}

/// The second node ends as if its power had been cut.
fn kill_a_node(dir: &std::path::Path) -> anyhow::Result<()> {
    let pid = std::fs::read_to_string(dir.join("node-2/pid"))?;
    signal::kill(Pid::from_raw(pid.trim().parse()?), signal::Signal::SIGKILL)?;
    Ok(())
}
