//! 7. and 9. Certificates, citadel, pilot and pods come and go under load, and no request fails.

use anyhow::{Context, ensure};
use mesh_e2e::{
    client::load::Report,
    mesh::{APP_NAMESPACE, Mesh, is_ready},
    process::eventually,
    site::Site,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// A server whose certificate lives 60 s.
const SHORT: &str = "
apiVersion: v1
kind: Service
metadata: {name: short, namespace: e2e}
spec:
  selector: {app: short}
  ports: [{name: http, port: 8080, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: short, namespace: e2e}
spec:
  selector: {matchLabels: {app: short}}
  template:
    metadata:
      labels: {app: short, version: v1}
      annotations:
        proxy.istio.io/config: '{\"proxyMetadata\": {\"SECRET_TTL_SECONDS\": \"60\"}}'
    spec:
      serviceAccountName: echo
      containers:
      - name: app
        image: gossamer/e2e-app
        args: [serve]
        readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
";

/// The serial number of the certificate that a proxy serves with.
fn serial(mesh: &Mesh, app: &str) -> anyhow::Result<String> {
    let text = mesh.proxy_page(APP_NAMESPACE, app, "/certs")?;
    let certs: Value = serde_json::from_str(&text).with_context(|| format!("/certs said {text}"))?;
    let serial = certs
        .pointer("/certificates/0/cert_chain/0/serial_number")
        .and_then(Value::as_str);
    Ok(serial
        .with_context(|| format!("no serial number in {certs}"))?
        .to_owned())
}

pub fn certificates_rotate_under_load(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply(SHORT)?;
    mesh.wait_ready()?;
    let url = "http://short.e2e:8080/";
    let arguments = [
        "load",
        "--url",
        url,
        "--rate",
        "100",
        "--seconds",
        "300",
        "--until-stdin-ends",
    ];
    let load = mesh.client_in_background("client", &arguments)?;
    let first = serial(mesh, "short")?;
    let mut seen = BTreeSet::from([first]);
    let rotated = eventually(Duration::from_secs(100), "two new certificates", || {
        std::thread::sleep(Duration::from_millis(500));
        seen.insert(serial(mesh, "short")?);
        ensure!(seen.len() >= 3, "{} certificates so far", seen.len());
        Ok(())
    });
    let report = load.finish(Duration::from_secs(30))?.ok()?;
    mesh.delete(SHORT)?;
    rotated?;
    let report: Report = serde_json::from_str(report.lines().last().unwrap_or_default())?;
    report.ensure_all_ok()
}

/// Whoever has no good token gets no certificate, and is told why.
pub fn wrong_token_is_refused(mesh: &mut Mesh) -> anyhow::Result<()> {
    let root = mesh.get("configmap", APP_NAMESPACE, "istio-ca-root-cert")?;
    let folder = mesh.artifacts().join("wrong-token");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(
        folder.join("root.pem"),
        root["data"]["root-cert.pem"]
            .as_str()
            .context("no root certificate")?,
    )?;
    // Three parts, as a token has, and none of them signed by anybody.
    std::fs::write(
        folder.join("token"),
        "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJhZG1pbiJ9.c2lnbmF0dXJl",
    )?;
    let path = |name: &str| folder.join(name).display().to_string();
    let (token, root, out) = (path("token"), path("root.pem"), path("out"));
    let arguments = [
        "with-certificate",
        "--token-file",
        &token,
        "--root-file",
        &root,
        "--out",
        &out,
        "--",
        "true",
    ];
    let said = mesh.try_client("outsider", &arguments)?.failed()?.to_lowercase();
    ensure!(
        said.contains("token"),
        "the refusal does not speak of the token: {said}"
    );
    ensure!(!folder.join("out/chain.pem").exists(), "a certificate was issued");
    Ok(())
}

/// Runs something while requests go through the whole of Bookinfo; none may fail.
fn under_load(mesh: &Mesh, rate: f64, during: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let load = mesh.load_in_background("/productpage", |load| {
        load.rate = Some(rate);
        load.concurrency = 16;
    })?;
    let done = during();
    let report = mesh.finish(load)?;
    done?;
    report.ensure_all_ok()
}

fn scale(mesh: &Mesh, namespace: &str, deployment: &str, replicas: u32) -> anyhow::Result<()> {
    let (deployment, replicas) = (format!("deployment/{deployment}"), replicas.to_string());
    mesh.ctl(&[
        "local",
        "scale",
        &deployment,
        "--replicas",
        &replicas,
        "-n",
        namespace,
    ])
    .map(drop)
}

pub fn citadel_away(mesh: &mut Mesh) -> anyhow::Result<()> {
    let outcome = under_load(mesh, 50.0, || {
        scale(mesh, "istio-system", "citadel", 0)?;
        std::thread::sleep(Duration::from_secs(8));
        scale(mesh, "istio-system", "citadel", 1)
    });
    mesh.wait_ready()?;
    outcome
}

/// Pilot is killed, not asked; a pod that starts meanwhile gets its configuration when pilot is back.
pub fn pilot_away(mesh: &mut Mesh) -> anyhow::Result<()> {
    let newcomer = SHORT
        .replace("name: short", "name: newcomer")
        .replace("app: short", "app: newcomer")
        .replace("60", "3600");
    let outcome = under_load(mesh, 50.0, || {
        mesh.ctl(&[
            "local",
            "delete",
            "pod",
            &mesh.pod("istio-system", "pilot")?,
            "-n",
            "istio-system",
            "--grace-period",
            "0",
        ])?;
        scale(mesh, "istio-system", "pilot", 0)?;
        mesh.apply(&newcomer)?;
        std::thread::sleep(Duration::from_secs(5));
        let newcomers = mesh.pods(APP_NAMESPACE, "newcomer")?;
        ensure!(
            !newcomers.is_empty() && !newcomers.iter().any(is_ready),
            "a proxy without configuration is not ready"
        );
        scale(mesh, "istio-system", "pilot", 1)?;
        mesh.wait_ready()
    });
    scale(mesh, "istio-system", "pilot", 1)?;
    mesh.wait_ready()?;
    // Its endpoint reaches the client's proxy a moment after it is ready.
    let served = eventually(Duration::from_secs(10), "the newcomer serves", || {
        mesh.client::<Report>(
            "client",
            &["load", "--requests", "20", "--url", "http://newcomer.e2e:8080/"],
        )?
        .ensure_all_ok()
    });
    mesh.delete(&newcomer)?;
    served?;
    outcome
}

/// Up to three of each version, down to one, then all pods replaced.
pub fn rolling_restart(mesh: &mut Mesh) -> anyhow::Result<()> {
    let versions = ["reviews-v1", "reviews-v2", "reviews-v3"];
    under_load(mesh, 100.0, || {
        for replicas in [3, 1] {
            for version in versions {
                scale(mesh, "default", version, replicas)?;
            }
            finished(mesh, replicas as usize * versions.len())?;
        }
        for version in versions {
            mesh.ctl(&["local", "rollout", "restart", &format!("deployment/{version}")])?;
        }
        for version in versions {
            mesh.ctl(&["local", "rollout", "status", &format!("deployment/{version}")])?;
        }
        finished(mesh, versions.len())
    })
}

/// So many pods of reviews, all ready, and none on its way out.
fn finished(mesh: &Mesh, count: usize) -> anyhow::Result<()> {
    eventually(Duration::from_secs(60), "the pods of reviews", || {
        let pods: Vec<Value> = mesh
            .all("pods")?
            .into_iter()
            .filter(|pod| pod["metadata"]["labels"]["app"] == "reviews")
            .collect();
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        ensure!(
            ready == count && pods.len() == count,
            "{}",
            json!({ "ready": ready, "pods": pods.len(), "expected": count })
        );
        Ok(())
    })
}
