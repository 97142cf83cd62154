//! 10. A stock Envoy as a gateway of this mesh: the guard that our xDS is the real one.

use anyhow::{Context, ensure};
use mesh_e2e::{
    client::load::Report,
    mesh::Mesh,
    need, peers,
    process::{command, eventually, run},
    site::Site,
};
use serde_json::Value;
use std::time::Duration;

/// A page of Envoy's admin interface.
fn envoy(mesh: &Mesh, path: &str) -> anyhow::Result<String> {
    let url = format!("http://127.0.0.1:{}{path}", peers::ENVOY_ADMIN);
    mesh.exec(
        "istio-system",
        peers::ENVOY_LABEL,
        "envoy",
        &["curl", "-sS", "-m", "10", &url],
    )?
    .ok()
}

fn statistic(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

pub fn envoy_gateway(mesh: &mut Mesh) -> anyhow::Result<()> {
    let version = run(
        command(need::envoy()?, ["--version"]),
        None,
        Duration::from_secs(20),
    )?
    .ok()?;
    ensure!(version.contains("/1.40."), "this Envoy is not 1.40: {version}");
    mesh.apply(&peers::envoy_gateway()?)?;
    mesh.apply(&peers::envoy_routes())?;
    mesh.wait_ready()?;
    let outcome = look(mesh);
    if outcome.is_err() {
        let _ = std::fs::write(
            mesh.artifacts().join("stock-envoy.log"),
            mesh.logs(
                "istio-system",
                &mesh.pod("istio-system", peers::ENVOY_LABEL)?,
                "envoy",
            )?,
        );
    }
    mesh.ctl(&[
        "local",
        "delete",
        "deployment",
        peers::ENVOY_LABEL,
        "-n",
        "istio-system",
    ])?;
    mesh.delete(&peers::envoy_routes())?;
    outcome
}

fn look(mesh: &Mesh) -> anyhow::Result<()> {
    eventually(Duration::from_secs(30), "Envoy serves its listener", || {
        let text = envoy(mesh, "/listeners")?;
        ensure!(
            text.contains(&peers::ENVOY_PORT.to_string()),
            "its listeners are {text:?}"
        );
        Ok(())
    })?;
    // Through Envoy to the page, from a pod without a sidecar.
    let url = format!(
        "http://{}.istio-system:{}/productpage",
        peers::ENVOY_LABEL,
        peers::ENVOY_PORT
    );
    let report: Report = mesh.client(
        "outsider",
        &["load", "--requests", "50", "--concurrency", "4", "--url", &url],
    )?;
    report.ensure_all_ok()?;

    // Nothing was refused, by Envoy's own count and by pilot's.
    let stats = envoy(mesh, "/stats?filter=update_rejected|rejected")?;
    let rejected: Vec<&str> = stats
        .lines()
        .filter(|line| line.contains("rejected") && !line.ends_with(": 0"))
        .collect();
    ensure!(rejected.is_empty(), "Envoy rejected something: {rejected:?}");
    let proxies = mesh.syncz()?;
    let entry = proxies
        .iter()
        .find(|entry| {
            entry["proxy"]
                .as_str()
                .is_some_and(|name| name.starts_with(peers::ENVOY_LABEL))
        })
        .with_context(|| format!("pilot does not list the stock Envoy: {proxies:?}"))?;
    for (kind, state) in entry["types"].as_object().context("no types")? {
        ensure!(
            state["nack"].is_null() && state["sent"] == state["acked"],
            "{kind}: {state}"
        );
    }

    // And the way from it was mutual TLS.
    let clusters = envoy(mesh, "/stats?filter=outbound.*productpage.*ssl.handshake")?;
    let handshakes = clusters
        .lines()
        .filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok())
        .sum::<u64>();
    ensure!(
        handshakes > 0,
        "no TLS handshake towards productpage: {clusters:?}"
    );
    ensure!(
        statistic(
            &envoy(mesh, "/stats?filter=control_plane")?,
            "control_plane.connected_state"
        ) == Some(1),
        "not connected to pilot"
    );
    let dump: Value = serde_json::from_str(&envoy(mesh, "/config_dump?resource=dynamic_active_clusters")?)?;
    ensure!(
        dump["configs"]
            .as_array()
            .is_some_and(|configs| configs.len() > 3),
        "few clusters: {dump}"
    );
    Ok(())
}
