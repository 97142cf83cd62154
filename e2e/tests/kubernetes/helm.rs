//! Point 7: other ways in: the charts by Helm itself, each profile, a revision beside the default one, another namespace. Each begins
//! with a cluster without a mesh, and leaves it so.

use anyhow::{Context, ensure};
use mesh_e2e::{
    client::load::Report,
    installed::{Installed, Listing, MADE, PATIENCE, SYSTEM},
    mesh::{APP, APP_NAMESPACE, READY, path, read},
    need,
    process::{Outcome, eventually, run},
    site::Site,
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

/// Served through the gateway, in a namespace whose pods get sidecars.
const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop, version: v1}}
    spec:
      containers:
      - name: app
        image: gossamer/e2e-app:0.1.0
        args: [serve]
        readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: ['*']
  gateways: [shop]
  http: [{route: [{destination: {host: shop}}]}]
";

fn helm(mesh: &Installed, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let home = need::binaries()?.with_file_name("e2e").join("helm");
    let mut line = mesh_e2e::process::command(need::helm()?, arguments);
    line.env("KUBECONFIG", mesh.kubeconfig());
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        line.env(name, &home);
    }
    run(line, None, PATIENCE)
}

fn open_shop(mesh: &Installed, label: &str) -> anyhow::Result<()> {
    mesh.apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{{}: '{}', {label}}}}}}}",
        MADE.0, MADE.1
    ))?;
    // A pilot that has become ready this moment is known to the API server in the next one.
    eventually(Duration::from_secs(20), "the shop is taken", || mesh.apply(SHOP))?;
    mesh.rolled_out("shop", "deployment/shop")?;
    let text = mesh.kubectl_ok(&["get", "pods", "-n", "shop", "--no-headers"])?;
    ensure!(text.contains("2/2"), "{text}");
    Ok(())
}

fn visit(mesh: &mut Installed) -> anyhow::Result<()> {
    mesh.open_gateway()?;
    eventually(READY, "the shop through the gateway", || {
        let page = mesh.page("/visit", &[])?;
        ensure!(page.status == 200, "{}", page.shown());
        Ok(())
    })
}

/// Whatever is there now was there before the mesh.
fn left_nothing(mesh: &Installed) -> anyhow::Result<()> {
    mesh.leave()?;
    eventually(Duration::from_secs(30), "nothing is left", || {
        let left = Listing::take(mesh)?.beyond(&mesh.before);
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(())
    })
}

/// The commands of the guide: `helm install`, `helm upgrade`, `helm uninstall`.
pub fn charts(mesh: &mut Installed) -> anyhow::Result<()> {
    mesh.leave()?;
    let [base, control, gateway] = ["charts/base", "charts/control", "charts/gateway"].map(path);
    let (base, control, gateway) = (base?, control?, gateway?);
    helm(
        mesh,
        &["install", "base", &base, "-n", SYSTEM, "--create-namespace"],
    )?
    .ok()?;
    helm(
        mesh,
        &[
            "install",
            "control",
            &control,
            "-n",
            SYSTEM,
            "--wait",
            "--timeout",
            "120s",
        ],
    )?
    .ok()?;
    helm(mesh, &["install", "istio-ingressgateway", &gateway, "-n", SYSTEM])?.ok()?;
    mesh.rolled_out(SYSTEM, "deployment/istio-ingressgateway")?;
    open_shop(mesh, "istio-injection: enabled")?;
    visit(mesh)?;

    let refused = mesh.ctl_said(&["install", "-y"])?.failed()?;
    ensure!(
        refused.contains("Helm"),
        "meshctl over Helm's installation: {refused}"
    );

    let upgrade = [
        "upgrade",
        "control",
        &control,
        "-n",
        SYSTEM,
        "--reuse-values",
        "--wait",
    ];
    let set = [
        "--set",
        "meshConfig.accessLogFile=/dev/stdout",
        "--timeout",
        "120s",
    ];
    helm(mesh, &[&upgrade[..], &set].concat())?.ok()?;
    let releases = helm(mesh, &["list", "-n", SYSTEM, "-o", "json"])?.ok()?;
    let releases: Vec<Value> = serde_json::from_str(&releases)?;
    ensure!(
        releases.len() == 3 && releases.iter().all(|release| release["status"] == "deployed"),
        "{releases:?}"
    );
    eventually(READY, "a line of the access log", || {
        let page = mesh.page("/after-the-upgrade", &[])?;
        ensure!(page.status == 200, "{}", page.shown());
        let logs = mesh.kubectl_ok(&["logs", "-n", SYSTEM, "deployment/istio-ingressgateway"])?;
        ensure!(
            logs.contains("/after-the-upgrade"),
            "no line in the gateway's log"
        );
        Ok(())
    })?;
    for release in ["istio-ingressgateway", "control", "base"] {
        helm(
            mesh,
            &["uninstall", release, "-n", SYSTEM, "--wait", "--timeout", "60s"],
        )?
        .ok()?;
    }
    let pods = mesh.list("pods", Some(SYSTEM))?;
    let stays = pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    ensure!(stays.count() == 0, "pods after helm uninstall");
    // Made by Helm, which leaves it; so does meshctl, to whom it does not belong.
    mesh.kubectl_ok(&["delete", "namespace", SYSTEM])?;
    left_nothing(mesh)
}

/// Each is ready when `meshctl install` ends, and one follows the other without a trace.
pub fn profiles(mesh: &mut Installed) -> anyhow::Result<()> {
    mesh.leave()?;
    for (profile, parts, twice) in [
        (
            "default",
            &["citadel", "istio-ingressgateway", "pilot", "telemetry"][..],
            &[][..],
        ),
        (
            "ha",
            &["citadel", "istio-ingressgateway", "pilot", "telemetry"],
            &["citadel", "istio-ingressgateway", "pilot"],
        ),
        ("minimal", &["citadel", "pilot"], &[]),
    ] {
        mesh.ctl(&["install", "-y", "--profile", profile])?;
        let deployments = mesh.list("deployments", Some(SYSTEM))?;
        let found: BTreeSet<&str> = deployments
            .iter()
            .filter_map(|object| object["metadata"]["name"].as_str())
            .collect();
        ensure!(
            found == parts.iter().copied().collect(),
            "{profile} has {found:?}"
        );
        for part in parts {
            mesh.rolled_out(SYSTEM, &format!("deployment/{part}"))?;
        }
        for part in twice {
            eventually(READY, "two of it on two nodes", || {
                let pods = mesh.pods(SYSTEM, &format!("app={part}"))?;
                let nodes: BTreeSet<&str> = pods
                    .iter()
                    .filter_map(|pod| pod["spec"]["nodeName"].as_str())
                    .collect();
                ensure!(
                    pods.len() >= 2 && nodes.len() == 2,
                    "{profile}, {part}: {nodes:?}"
                );
                Ok(())
            })?;
        }
        // The autoscaler may have asked for more a moment ago.
        eventually(READY, "everything is as installed", || {
            mesh.ctl(&["verify-install"])
        })?;
        let again = mesh.ctl(&["install", "-y", "--profile", profile])?;
        ensure!(
            !again.contains(" created") && !again.contains(" configured"),
            "{profile} again: {again}"
        );
    }
    left_nothing(mesh)
}

/// The values that `samples/addons` names for traces do what it says: the gateway's spans go there, all of them.
pub fn tracing_values(mesh: &mut Installed) -> anyhow::Result<()> {
    mesh.leave()?;
    let page = read("samples/addons/README.md")?;
    let mut line = vec!["install", "-y"];
    for set in page.lines().filter_map(|line| line.trim().strip_prefix("--set ")) {
        line.extend(["--set", set.trim_end_matches(" \\").trim_matches('\'')]);
    }
    ensure!(line.len() >= 10, "the page has no values: {line:?}");
    mesh.ctl(&line)?;
    // Its Service is what counts; the image need not be there.
    mesh.apply(&read("samples/addons/tracing.yaml")?.replace("replicas: 1", "replicas: 0"))?;
    open_shop(mesh, "istio-injection: enabled")?;
    visit(mesh)?;
    let gateway = mesh.pods(SYSTEM, "app=istio-ingressgateway")?;
    let name = gateway.first().and_then(|pod| pod["metadata"]["name"].as_str());
    let gateway = format!("{}.{SYSTEM}", name.context("no gateway")?);
    eventually(READY, "the gateway traces", || {
        let text = mesh.ctl(&["proxy-config", "listeners", &gateway, "-o", "json"])?;
        let listeners: Value = serde_json::from_str(&text)?;
        let tracing = find(&listeners, "tracing").context("no listener traces")?;
        let (told, sampling) = (tracing.to_string(), find(tracing, "random_sampling"));
        ensure!(
            told.contains("outbound|4317||jaeger-collector.istio-system.svc.cluster.local")
                && sampling.is_some_and(|percent| percent["value"] == 100.0),
            "{told}"
        );
        Ok(())
    })?;
    mesh.kubectl_ok(&["delete", "-f", &path("samples/addons/tracing.yaml")?])?;
    left_nothing(mesh)
}

/// The first field of this name.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields
            .get(name)
            .or_else(|| fields.values().find_map(|field| find(field, name))),
        Value::Array(entries) => entries.iter().find_map(|entry| find(entry, name)),
        _ => None,
    }
}

/// A second control plane beside the first, for the namespaces that ask for it.
pub fn a_revision(mesh: &mut Installed) -> anyhow::Result<()> {
    mesh.leave()?;
    mesh.ctl(&["install", "-y", "--profile", "demo"])?;
    mesh.ctl(&["install", "-y", "--profile", "minimal", "--revision", "canary"])?;
    open_shop(mesh, "istio.io/rev: canary")?;
    visit(mesh)?;
    let pods = mesh.pods("shop", "app=shop")?;
    ensure!(
        pods.iter()
            .all(|pod| pod["metadata"]["labels"]["istio.io/rev"] == "canary"),
        "{pods:?}"
    );
    let status = mesh.ctl(&["proxy-status"])?;
    let line = status.lines().find(|line| line.contains("shop-"));
    ensure!(line.is_some_and(|line| line.contains("SYNCED")), "{status}");
    mesh.ctl(&["uninstall", "-y", "--revision", "canary"])?;
    visit(mesh)?;
    left_nothing(mesh)
}

/// The control plane elsewhere: everything works there as well.
pub fn another_namespace(mesh: &mut Installed) -> anyhow::Result<()> {
    const ELSEWHERE: &str = "mesh-elsewhere";
    mesh.leave()?;
    mesh.ctl(&[
        "install",
        "-y",
        "--profile",
        "demo",
        "--istioNamespace",
        ELSEWHERE,
    ])?;
    mesh.apply(APP)?;
    mesh.wait_ready()?;
    let url = format!("http://echo.{APP_NAMESPACE}:8080/");
    let report: Report = mesh.client("client", &["load", "--requests", "20", "--url", &url])?;
    report.ensure_all_ok()?;
    let status = mesh.ctl(&["proxy-status", "-i", ELSEWHERE])?;
    for name in ["client-", "echo-", "istio-ingressgateway-"] {
        let line = status.lines().find(|line| line.contains(name));
        ensure!(
            line.is_some_and(|line| line.contains("SYNCED")),
            "no {name} in\n{status}"
        );
    }
    let nobody = mesh.kubectl_said(&["get", "namespace", SYSTEM])?;
    ensure!(nobody.code != Some(0), "{SYSTEM} is there");
    mesh.ctl(&["check", "-i", ELSEWHERE])?;
    mesh.ctl(&["uninstall", "-y", "--purge", "-i", ELSEWHERE])?;
    left_nothing(mesh)
}
