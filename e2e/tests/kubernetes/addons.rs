//! The addons: Prometheus itself, by the sample's own manifest, scrapes every proxy and the whole control plane, and knows as
//! many requests as were sent; and every question that a Grafana dashboard asks is one that it understands and can answer.

use anyhow::{Context, ensure};
use mesh_e2e::{
    installed::{GATEWAY, Installed, PATIENCE, SYSTEM},
    mesh::{path, read},
    process::eventually,
    site::Site,
};
use serde_json::Value;
use std::collections::BTreeSet;

const MANIFEST: &str = "samples/addons/prometheus.yaml";
const DASHBOARDS: [&str; 4] = ["mesh", "service", "workload", "control-plane"];
/// Panels that are empty as long as nothing goes wrong, nothing speaks TCP, or nothing is changed.
const QUIET: [&str; 6] = [
    "Requests that failed in the mesh, by response flag",
    "Outbound failures by response flag",
    "TCP bytes to services",
    "TCP connections opened",
    "Configuration that proxies refused, by type",
    "Certificates issued and refused",
];
const REQUESTS: usize = 50;

pub fn prometheus(mesh: &mut Installed) -> anyhow::Result<()> {
    let mesh = &*mesh;
    mesh.apply(&read(MANIFEST)?)?;
    let outcome = seen(mesh);
    let away = mesh.kubectl_ok(&["delete", "-f", &path(MANIFEST)?]);
    outcome.and(away.map(drop))
}

fn seen(mesh: &Installed) -> anyhow::Result<()> {
    mesh.rolled_out(SYSTEM, "deployment/prometheus")?;
    let proxies = proxies(mesh)?;
    eventually(PATIENCE, "every proxy and the control plane is scraped", || {
        let up = ask(mesh, "up == 1")?;
        let pods: BTreeSet<String> = up.iter().map(|sample| label(sample, "pod")).collect();
        let missing: Vec<_> = proxies.difference(&pods).collect();
        ensure!(missing.is_empty(), "not scraped: {missing:?}");
        for app in ["pilot", "citadel", "telemetry"] {
            ensure!(
                up.iter().any(|sample| label(sample, "app") == app),
                "{app} is not scraped"
            );
        }
        Ok(())
    })?;
    let sent = r#"sum(istio_requests_total{reporter="source",source_workload="istio-ingressgateway",
        destination_service_name="productpage"})"#;
    let before = number(mesh, sent)?.unwrap_or(0.0);
    for _ in 0..REQUESTS {
        let page = mesh.page("/productpage", &[])?;
        ensure!(page.status == 200, "{}", page.status);
    }
    eventually(PATIENCE, "Prometheus knows every request", || {
        let now = number(mesh, sent)?.context("it knows of no request")?;
        ensure!(
            now - before == REQUESTS as f64,
            "{before} before, {now} now, {REQUESTS} sent"
        );
        Ok(())
    })?;
    DASHBOARDS.iter().try_for_each(|name| {
        eventually(PATIENCE, "the dashboard has something to show", || {
            dashboard(mesh, name)
        })
        .with_context(|| format!("dashboard {name}"))
    })
}

/// The pods that a proxy is in.
fn proxies(mesh: &Installed) -> anyhow::Result<BTreeSet<String>> {
    let pods = mesh.list("pods", None)?.into_iter();
    let with = pods.filter(|pod| {
        let lists = [&pod["spec"]["containers"], &pod["spec"]["initContainers"]];
        let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
        all.any(|container| container["name"] == "istio-proxy")
            && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let names: BTreeSet<String> = with
        .map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    ensure!(
        names.iter().any(|name| name.starts_with(GATEWAY)),
        "no gateway among {names:?}"
    );
    Ok(names)
}

/// Asks everything that a dashboard asks; whatever is shown when all is well must be there.
fn dashboard(mesh: &Installed, name: &str) -> anyhow::Result<()> {
    let board: Value = serde_json::from_str(&read(&format!("samples/addons/dashboards/{name}.json"))?)?;
    let panels = board["panels"].as_array().context("no panels")?;
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or_default();
        let mut samples = 0;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let question = target["expr"]
                .as_str()
                .context("a target without an expression")?;
            let question = [
                ("$__rate_interval", "2m"),
                ("$service", "reviews.default.svc.cluster.local"),
                ("$namespace", "default"),
                ("$workload", "productpage-v1"),
            ]
            .into_iter()
            .fold(question.to_owned(), |text, (variable, value)| {
                text.replace(variable, value)
            });
            samples += ask(mesh, &question)
                .with_context(|| format!("panel {title:?}"))?
                .len();
        }
        ensure!(
            samples > 0 || QUIET.contains(&title),
            "panel {title:?} shows nothing"
        );
    }
    Ok(())
}

/// What Prometheus answers now, through the API server.
fn ask(mesh: &Installed, question: &str) -> anyhow::Result<Vec<Value>> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.append_pair("query", question).finish();
    let path = format!("/api/v1/namespaces/{SYSTEM}/services/prometheus:9090/proxy/api/v1/query?{query}");
    let answer = mesh.kubectl_ok(&["get", "--raw", &path])?;
    let answer: Value = serde_json::from_str(&answer)?;
    ensure!(answer["status"] == "success", "{question}: {answer}");
    Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
}

fn number(mesh: &Installed, question: &str) -> anyhow::Result<Option<f64>> {
    let answer = ask(mesh, question)?;
    let text = answer.first().and_then(|sample| sample["value"][1].as_str());
    text.map(|text| text.parse().context("not a number")).transpose()
}

fn label(sample: &Value, name: &str) -> String {
    sample["metric"][name].as_str().unwrap_or_default().to_owned()
}
