//! Point 6: The API server is gone for a minute: requests do not notice, and no pod restarts; when it is back, changes come in by
//! themselves.

use anyhow::ensure;
use mesh_e2e::{
    client::load::Report,
    installed::{Installed, SYSTEM},
    mesh::{APP_NAMESPACE, READY},
    process::eventually,
    site::Site,
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

const GONE: Duration = Duration::from_secs(60);
const SHIFT: &str = "samples/bookinfo/networking/virtual-service-reviews-v3.yaml";

/// Every pod of the mesh and of its applications, with the number of restarts of its containers.
fn pods(mesh: &Installed) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for namespace in [SYSTEM, "default", APP_NAMESPACE] {
        for pod in mesh.list("pods", Some(namespace))? {
            let status = &pod["status"];
            let lists = [&status["containerStatuses"], &status["initContainerStatuses"]];
            let containers = lists.into_iter().filter_map(Value::as_array).flatten();
            let restarts = containers.filter_map(|one| one["restartCount"].as_u64()).sum();
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            all.insert(format!("{namespace}/{name}"), restarts);
        }
    }
    Ok(all)
}

pub fn no_api_server_for_a_minute(mesh: &mut Installed) -> anyhow::Result<()> {
    let mesh = &*mesh;
    let before = pods(mesh)?;
    let load = mesh.load_in_background("/productpage", |load| {
        load.rate = Some(20.0);
        load.concurrency = 8;
        load.lacks = Some("unavailable".to_owned());
    })?;
    let machines = mesh.machines()?;
    machines.halt("control", "kube-apiserver")?;
    ensure!(mesh.list("pods", None).is_err(), "an API server answers");
    std::thread::sleep(GONE);
    machines.resume("control", "kube-apiserver")?;
    eventually(READY, "the API server is back", || {
        mesh.kubectl_ok(&["get", "--raw", "/readyz"])
    })?;
    let report = mesh.finish(load)?;
    report.ensure_all_ok()?;
    ensure!(
        report.requests as f64 > 15.0 * GONE.as_secs_f64(),
        "only {} requests",
        report.requests
    );
    let stepped = back_in_step(mesh);
    let after = pods(mesh)?;
    scale(mesh, "--replicas=1")?;
    stepped?;
    let changed: Vec<_> = before
        .iter()
        .filter(|(name, restarts)| after.get(*name) != Some(restarts))
        .collect();
    ensure!(changed.is_empty(), "gone, or started again: {changed:?}");
    Ok(())
}

/// A rule, an endpoint and a pod that are new: pilot and citadel work as before.
fn back_in_step(mesh: &Installed) -> anyhow::Result<()> {
    eventually(READY, "pilot has a rule that is new", || {
        mesh.apply_file_acked(SHIFT)
    })?;
    let page = mesh.page("/productpage", &[])?;
    ensure!(page.body.contains("reviews-v3"), "{}", page.shown());
    mesh.delete_file(SHIFT)?;
    scale(mesh, "--replicas=2")?;
    let line = [
        "load",
        "--url",
        "http://echo.e2e:8080/",
        "--requests",
        "40",
        "--label-json",
        "/pod",
    ];
    eventually(Duration::from_secs(20), "the new pod is asked", || {
        let report: Report = mesh.client("client", &line)?;
        report.ensure_all_ok()?;
        ensure!(report.labels.len() == 2, "{:?}", report.labels);
        Ok(())
    })?;
    let pods = mesh.pods(APP_NAMESPACE, "app=echo")?;
    let bare = pods.iter().find(|pod| {
        let inits = pod["spec"]["initContainers"].as_array();
        !inits
            .into_iter()
            .flatten()
            .any(|one| one["name"] == "istio-proxy")
    });
    ensure!(bare.is_none(), "a pod without a sidecar: {bare:?}");
    Ok(())
}

fn scale(mesh: &Installed, replicas: &str) -> anyhow::Result<()> {
    mesh.kubectl_ok(&["scale", "deployment/echo", "-n", APP_NAMESPACE, replicas])?;
    mesh.rolled_out(APP_NAMESPACE, "deployment/echo")
}
