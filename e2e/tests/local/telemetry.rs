//! 12. What is counted agrees with what was sent; and telemetry being away changes nothing.

use anyhow::{Context, ensure};
use mesh_e2e::{
    browser,
    client::load::Report,
    mesh::{Mesh, free_port},
    peers,
    process::{Background, eventually, last},
    site::Site,
};
use serde_json::Value;
use std::time::Duration;

const REQUESTS: u64 = 500;

/// The value of a PromQL query that has one, or 0 when it has none.
fn query(mesh: &Mesh, query: &str) -> anyhow::Result<f64> {
    let url = format!("http://127.0.0.1:{}/api/v1/query", peers::PROMETHEUS_PORT);
    let parameter = format!("query={query}");
    let words = ["curl", "-sS", "-m", "10", "--data-urlencode", &parameter, &url];
    let text = mesh
        .exec("e2e", peers::PROMETHEUS, peers::PROMETHEUS, &words)?
        .ok()?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("Prometheus said {text}"))?;
    ensure!(answer["status"] == "success", "{query}: {answer}");
    match answer["data"]["result"].as_array().and_then(|rows| rows.first()) {
        Some(row) => Ok(row["value"][1].as_str().context("no value")?.parse()?),
        None => Ok(0.0),
    }
}

/// The real Prometheus scrapes both proxies; both counted every request, with the names that are proven.
pub fn prometheus_agrees(mesh: &mut Mesh) -> anyhow::Result<()> {
    let targets: Vec<String> = ["client", "echo"]
        .iter()
        .map(|app| {
            Ok(format!(
                "{}:{}",
                mesh.pod_address("e2e", app)?,
                mesh_proto::names::port::METRICS
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    mesh.apply(&peers::prometheus(&targets)?)?;
    mesh.wait_ready()?;
    eventually(Duration::from_secs(20), "Prometheus reaches both proxies", || {
        let up = query(mesh, "sum(up{job=\"mesh\"})")?;
        ensure!(up == 2.0, "{up} of 2 targets are up");
        Ok(())
    })?;
    let labels = "source_workload=\"client\",source_workload_namespace=\"e2e\",destination_workload=\"echo\",\
                  destination_service=\"echo.e2e.svc.cluster.local\",response_code=\"200\",\
                  connection_security_policy=\"mutual_tls\"";
    let total = |reporter: &str| -> anyhow::Result<f64> {
        // Only the server's proxy knows for certain how the request came.
        let labels = if reporter == "source" {
            labels.replace("mutual_tls", "unknown")
        } else {
            labels.to_owned()
        };
        query(
            mesh,
            &format!("sum(istio_requests_total{{reporter=\"{reporter}\",{labels}}})"),
        )
    };
    let before = (total("source")?, total("destination")?);
    let requests = REQUESTS.to_string();
    let url = "http://echo.e2e:8080/counted";
    mesh.client::<Report>("client", &["load", "--requests", &requests, "--url", url])?
        .ensure_all_ok()?;
    let counted = eventually(Duration::from_secs(15), "every request is counted", || {
        let counted = (total("source")? - before.0, total("destination")? - before.1);
        ensure!(
            counted == (REQUESTS as f64, REQUESTS as f64),
            "{REQUESTS} requests, counted {counted:?}"
        );
        Ok(())
    });
    mesh.ctl(&["local", "delete", "deployment", peers::PROMETHEUS, "-n", "e2e"])?;
    counted
}

fn graph(mesh: &Mesh) -> anyhow::Result<Value> {
    let path = "/api/graph?window=60s&group=workload";
    let text = mesh.control_page("telemetry", mesh_proto::names::port::DASHBOARD, path)?;
    serde_json::from_str(&text).with_context(|| format!("the graph is {text}"))
}

/// The edges of Bookinfo, with rates that fit the load.
pub fn graph_shows_the_edges(mesh: &mut Mesh) -> anyhow::Result<()> {
    // Quiet first, so that the window holds this load and no other; 20 a second for 20 s.
    let report = mesh.load("/productpage", |load| {
        load.rate = Some(20.0);
        load.requests = 400;
        load.concurrency = 4;
    })?;
    report.ensure_all_ok()?;
    let edges = [
        ("istio-ingressgateway", "productpage-v1"),
        ("productpage-v1", "details-v1"),
        ("productpage-v1", "reviews-v1"),
        ("productpage-v1", "reviews-v2"),
        ("productpage-v1", "reviews-v3"),
        ("reviews-v2", "ratings-v1"),
        ("reviews-v3", "ratings-v1"),
    ];
    eventually(Duration::from_secs(15), "the edges of Bookinfo", || {
        let graph = graph(mesh)?;
        let name = |id: &Value| {
            let nodes = graph["nodes"].as_array().cloned().unwrap_or_default();
            nodes
                .iter()
                .find(|node| node["id"] == *id)
                .and_then(|node| node["name"].as_str().map(str::to_owned))
        };
        let all = graph["edges"].as_array().context("no edges")?;
        for (source, destination) in edges {
            let edge = all.iter().find(|edge| {
                name(&edge["source"]).as_deref() == Some(source)
                    && name(&edge["destination"]).as_deref() == Some(destination)
            });
            let edge = edge.with_context(|| format!("no edge {source} -> {destination}: {graph}"))?;
            let requests = edge["requests"].as_u64().unwrap_or_default();
            ensure!(requests > 0, "{source} -> {destination} without requests");
            if destination == "productpage-v1" {
                ensure!(requests >= 400, "{requests} requests of 400 to the page");
            }
        }
        Ok(())
    })
}

/// The dashboard, looked at by a real browser through the port that `meshctl dashboard` opens.
pub fn dashboard_in_a_browser(mesh: &mut Mesh) -> anyhow::Result<()> {
    let port = free_port()?;
    let dashboard = Background::start(mesh.command(&["dashboard", "--port", &port.to_string()]))?;
    eventually(Duration::from_secs(10), "the dashboard's port", || {
        std::net::TcpStream::connect(("127.0.0.1", port))?;
        Ok(())
    })?;
    let url = format!("http://127.0.0.1:{port}/");
    let seen = browser::look(&url, &mesh.artifacts(), "dashboard")?;
    dashboard.kill()?;
    for text in ["productpage", "reviews", "ratings"] {
        ensure!(
            seen.html.contains(text),
            "the dashboard shows no {text}: {}",
            last(&seen.html, 3000)
        );
    }
    println!("    a picture of the dashboard: {}", seen.picture.display());
    Ok(())
}

/// Killing telemetry under load fails no request, and what was lost is counted.
pub fn telemetry_away(mesh: &mut Mesh) -> anyhow::Result<()> {
    let load = mesh.load_in_background("/productpage", |load| load.rate = Some(50.0))?;
    mesh.ctl(&[
        "local",
        "scale",
        "deployment/telemetry",
        "--replicas",
        "0",
        "-n",
        "istio-system",
    ])?;
    std::thread::sleep(Duration::from_secs(5));
    let report = mesh.finish(load)?;
    mesh.ctl(&[
        "local",
        "scale",
        "deployment/telemetry",
        "--replicas",
        "1",
        "-n",
        "istio-system",
    ])?;
    mesh.wait_ready()?;
    report.ensure_all_ok()
}
