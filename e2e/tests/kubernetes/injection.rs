//! Point 3: injection, through the API server: the table `e2e/manifests/injection.yaml`, each case against the same pod in a
//! namespace that no webhook serves, so that every difference is ours; and what of it must be lived to be believed.

use anyhow::{Context, ensure};
use mesh_e2e::{
    installed::{Installed, MADE, PATIENCE},
    mesh::{READY, read},
    process::{Outcome, eventually, run},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Path and value; what is in the pod only without the mesh is [`GONE`].
type Lines = BTreeMap<String, String>;

const GONE: &str = "(gone)";
/// Kubernetes asks nobody about pods in here.
const UNSERVED: &str = "kube-system";

#[derive(Deserialize)]
struct Table {
    /// Labels of the namespaces.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Every case changes it.
    pod: Value,
    /// What a proxy adds to it: `sidecar`, `gateway`.
    added: BTreeMap<String, Lines>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(rename = "in")]
    namespace: String,
    /// Merged over the table's pod.
    #[serde(default)]
    pod: Value,
    /// It stays as it is.
    #[serde(default)]
    untouched: bool,
    /// Whoever creates it is told so.
    #[serde(default)]
    warned: Option<String>,
    /// It is not created, and that is why.
    #[serde(default)]
    refused: Vec<String>,
    /// Which of the table's `added`.
    #[serde(default = "sidecar")]
    adds: String,
    /// Other values than those have; `null`: not among the differences.
    #[serde(default)]
    differs: BTreeMap<String, Option<String>>,
}

fn sidecar() -> String {
    "sidecar".to_owned()
}

fn table() -> anyhow::Result<Table> {
    serde_saphyr::from_str(&read("e2e/manifests/injection.yaml")?).context("e2e/manifests/injection.yaml")
}

/// Labels × annotations × kinds of pods.
pub fn the_table(mesh: &mut Installed) -> anyhow::Result<()> {
    let table = table()?;
    make_namespaces(mesh, &table)?;
    let mut wrong = Vec::new();
    for case in &table.cases {
        if let Err(error) = check(mesh, &table, case) {
            wrong.push(format!("{}: {error:#}", case.name));
        }
    }
    ensure!(table.cases.len() >= 20, "only {} cases", table.cases.len());
    ensure!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        table.cases.len(),
        wrong.join("\n")
    );
    println!("  {} cases", table.cases.len());
    Ok(())
}

fn make_namespaces(mesh: &Installed, table: &Table) -> anyhow::Result<()> {
    for (name, labels) in &table.namespaces {
        let mut labels = labels.clone();
        // By this the suite takes them away.
        labels.insert(MADE.0.to_owned(), MADE.1.to_owned());
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        mesh.apply(&namespace.to_string())?;
    }
    Ok(())
}

fn check(mesh: &Installed, table: &Table, case: &Case) -> anyhow::Result<()> {
    let mut pod = table.pod.clone();
    merge(&mut pod, &case.pod);
    let said = create(mesh, &case.namespace, &pod)?;
    if !case.refused.is_empty() {
        let told = said.failed()?;
        for part in &case.refused {
            ensure!(told.contains(part), "refused without {part:?}: {told}");
        }
        return Ok(());
    }
    let warned = said.stderr.trim().to_owned();
    match &case.warned {
        Some(part) => ensure!(warned.contains(part), "warned of {warned:?}"),
        None => ensure!(warned.is_empty(), "warned of {warned:?}"),
    }
    let found = difference(&plain(mesh, &pod)?, &flat(&serde_json::from_str(&said.ok()?)?));
    same(&expected(table, case)?, &found)
}

fn expected(table: &Table, case: &Case) -> anyhow::Result<Lines> {
    if case.untouched {
        return Ok(Lines::new());
    }
    let added = table.added.get(&case.adds);
    let mut expected = added
        .with_context(|| format!("`added` has no {}", case.adds))?
        .clone();
    for (path, value) in &case.differs {
        if let Some(value) = value {
            expected.insert(path.clone(), value.clone());
            continue;
        }
        let before = expected.len();
        match path.strip_suffix('*') {
            Some(beginning) => expected.retain(|line, _| !line.starts_with(beginning)),
            None => drop(expected.remove(path)),
        }
        ensure!(expected.len() < before, "{path} is not in `added` anyway");
    }
    Ok(expected)
}

/// The pod as the API server would store it.
fn create(mesh: &Installed, namespace: &str, pod: &Value) -> anyhow::Result<Outcome> {
    let line = [
        "create",
        "--dry-run=server",
        "--validate=false",
        "-o",
        "json",
        "-n",
        namespace,
        "-f",
        "-",
    ];
    run(mesh.kubectl(line), Some(&pod.to_string()), PATIENCE)
}

fn plain(mesh: &Installed, pod: &Value) -> anyhow::Result<Lines> {
    let text = create(mesh, UNSERVED, pod)?
        .ok()
        .context("the pod without the mesh")?;
    Ok(flat(&serde_json::from_str(&text)?))
}

fn difference(before: &Lines, after: &Lines) -> Lines {
    let mut lines = Lines::new();
    for (path, value) in after {
        if before.get(path) != Some(value) {
            lines.insert(path.clone(), value.clone());
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        lines.insert(path.clone(), GONE.to_owned());
    }
    lines
}

fn same(expected: &Lines, found: &Lines) -> anyhow::Result<()> {
    let missing = expected
        .iter()
        .filter(|(path, value)| found.get(*path) != Some(value));
    let surplus = found
        .iter()
        .filter(|(path, value)| expected.get(*path) != Some(value));
    let show = |sign: char, (path, value): (&String, &String)| format!("\n  {sign} {path}: {value}");
    let told: String = missing
        .map(|line| show('-', line))
        .chain(surplus.map(|line| show('+', line)))
        .collect();
    ensure!(told.is_empty(), "expected (-) and found (+) differ:{told}");
    Ok(())
}

/// Arrays are replaced, `null` takes away.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    base.remove(name);
                } else {
                    merge(base.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (_, Value::Null) => {}
        (base, over) => *base = over.clone(),
    }
}

/// One line for each value that a person would speak of.
fn flat(pod: &Value) -> Lines {
    let mut lines = Lines::new();
    for part in ["labels", "annotations"] {
        for (name, value) in pod["metadata"][part].as_object().into_iter().flatten() {
            lines.insert(format!("{part}[{name}]"), word(value));
        }
    }
    for (name, value) in pod["spec"].as_object().into_iter().flatten() {
        walk(name, value, &mut lines);
    }
    // What the API server gives to every container by itself.
    let every = [
        "kube-api-access",
        "kubernetes.io/serviceaccount",
        "terminationMessage",
    ];
    lines.retain(|path, value| !every.iter().any(|own| path.contains(own) || value.contains(own)));
    lines
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn walk(path: &str, value: &Value, lines: &mut Lines) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                walk(&format!("{path}.{name}"), value, lines);
            }
        }
        Value::Array(entries) if path.ends_with(".args") => arguments(path, entries, lines),
        Value::Array(entries) => match entries.iter().map(keyed).collect::<Option<Vec<_>>>() {
            Some(keyed) if !keyed.is_empty() => {
                let keys: Vec<&str> = keyed.iter().map(|(key, _)| key.as_str()).collect();
                if path.ends_with("ontainers") {
                    lines.insert(path.to_owned(), keys.join(", "));
                }
                for (key, rest) in &keyed {
                    walk(&format!("{path}[{key}]"), rest, lines);
                }
            }
            _ => drop(lines.insert(path.to_owned(), value.to_string())),
        },
        other => drop(lines.insert(path.to_owned(), word(other))),
    }
}

/// An entry of a list by what tells it from the others, and the rest of it. A mount's name is its volume's.
fn keyed(entry: &Value) -> Option<(String, Value)> {
    let mut keys = ["mountPath", "name", "containerPort"].into_iter();
    let key = keys.find(|key| entry.get(key).is_some())?;
    let mut rest = entry.clone();
    let own = rest.as_object_mut()?.remove(key)?;
    Some((word(&own), rest))
}

/// A flag with its value, words of their own together.
fn arguments(path: &str, entries: &[Value], lines: &mut Lines) {
    let words: Vec<String> = entries.iter().map(word).collect();
    let mut alone = Vec::new();
    let mut rest = words.iter().peekable();
    while let Some(one) = rest.next() {
        if !one.starts_with('-') {
            alone.push(one.as_str());
            continue;
        }
        let value = rest.next_if(|next| !next.starts_with('-'));
        lines.insert(format!("{path}[{one}]"), value.cloned().unwrap_or_default());
    }
    lines.insert(path.to_owned(), alone.join(" "));
}

/// What comes back to the webhook, as it does when another one has changed it, is brought in step and not done twice.
pub fn again(mesh: &mut Installed) -> anyhow::Result<()> {
    let table = table()?;
    make_namespaces(mesh, &table)?;
    let namespace = "inject-labelled";
    let mut pod: Value = serde_json::from_str(&create(mesh, namespace, &table.pod)?.ok()?)?;
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.retain(|name, _| ["name", "namespace", "labels", "annotations"].contains(&name.as_str()));
    }
    let once = flat(&pod);
    let twice = flat(&serde_json::from_str(&create(mesh, namespace, &pod)?.ok()?)?);
    same(&Lines::new(), &difference(&once, &twice)).context("the same pod again")?;

    let more = json!({"name": "more", "image": "m:1", "ports": [{"containerPort": 9000, "protocol": "TCP"}],
        "livenessProbe": {"tcpSocket": {"port": 9000}}});
    let containers = pod["spec"]["containers"]
        .as_array_mut()
        .context("no containers")?;
    containers.push(more);
    let after = flat(&serde_json::from_str(&create(mesh, namespace, &pod)?.ok()?)?);
    let found = difference(&once, &after);
    let proxy = |name: &str| {
        let path = format!("initContainers[istio-proxy].env[{name}].value");
        found.get(&path).map_or("", String::as_str)
    };
    ensure!(proxy("ISTIO_META_APP_CONTAINERS") == "app,more", "{found:?}");
    ensure!(proxy("ISTIO_META_POD_PORTS").contains("9000"), "{found:?}");
    ensure!(
        proxy("ISTIO_KUBE_APP_PROBERS").contains(r#""/app-health/more/livez":{"tcpSocket":{"port":9000}"#),
        "{found:?}"
    );
    let probe = "containers[more].livenessProbe.httpGet.path";
    ensure!(
        found
            .get(probe)
            .is_some_and(|path| path == "/app-health/more/livez"),
        "{found:?}"
    );
    let others = found
        .keys()
        .filter(|path| path.contains("istio-") && !path.contains(".env["));
    ensure!(others.count() == 0, "the sidecar itself has changed: {found:?}");
    Ok(())
}

const LIVED: &str = "\
apiVersion: batch/v1
kind: Job
metadata: {name: first-call, namespace: inject-labelled}
spec:
  backoffLimit: 0
  parallelism: 2
  completions: 2
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: app
        image: gossamer/e2e-app:0.1.0
        args: [load, --requests, '1', --concurrency, '1', --timeout-ms, '2000', --url, 'http://echo.e2e:8080/']
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ordered, namespace: inject-labelled}
spec:
  serviceName: ordered
  replicas: 1
  selector: {matchLabels: {app: ordered}}
  template:
    metadata: {labels: {app: ordered}}
    spec:
      containers:
      - name: app
        image: gossamer/e2e-app:0.1.0
        args: [serve]
        readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere, namespace: inject-labelled}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      containers:
      - name: app
        image: gossamer/e2e-app:0.1.0
        args: [serve]
        readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
";

/// A Job whose pods do nothing but one call ends, and its only call succeeded; what serves runs 2/2 under all controllers.
pub fn lived(mesh: &mut Installed) -> anyhow::Result<()> {
    make_namespaces(mesh, &table()?)?;
    mesh.apply(LIVED)?;
    let wait = [
        "wait",
        "job/first-call",
        "-n",
        "inject-labelled",
        "--timeout",
        "90s",
    ];
    mesh.kubectl_ok(&[&wait[..], &["--for=condition=Complete"]].concat())?;
    let pods = mesh.pods("inject-labelled", "job-name=first-call")?;
    ensure!(
        pods.len() == 2,
        "{} pods of the Job: one try has failed",
        pods.len()
    );
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        ensure!(pod["status"]["phase"] == "Succeeded", "{name}: {}", pod["status"]);
        let logs = mesh.kubectl_ok(&["logs", "-n", "inject-labelled", name, "-c", "app"])?;
        let report: Value =
            serde_json::from_str(logs.lines().last().unwrap_or_default()).context(logs.clone())?;
        ensure!(report["ok"] == 1 && report["requests"] == 1, "{name}: {logs}");
        let sidecar = pod["status"]["initContainerStatuses"].as_array();
        let sidecar = sidecar
            .and_then(|all| all.iter().find(|one| one["name"] == "istio-proxy"))
            .with_context(|| format!("{name} had no sidecar"))?;
        ensure!(sidecar["restartCount"] == 0, "{name}: {sidecar}");
    }
    for workload in ["statefulset/ordered", "daemonset/everywhere"] {
        mesh.rolled_out("inject-labelled", workload)?;
    }
    for (app, count) in [("ordered", 1), ("everywhere", mesh.nodes()?.len())] {
        let selector = format!("app={app}");
        let line = [
            "get",
            "pods",
            "-n",
            "inject-labelled",
            "-l",
            &selector,
            "--no-headers",
        ];
        let text = mesh.kubectl_ok(&line)?;
        ensure!(text.matches("2/2").count() == count, "{text}");
    }
    let status = mesh.ctl(&["proxy-status"])?;
    ensure!(
        status.contains("ordered-0") && status.contains("everywhere-"),
        "{status}"
    );
    mesh.kubectl_ok(&[
        "delete",
        "--wait=false",
        "-n",
        "inject-labelled",
        "statefulset,daemonset,job",
        "--all",
    ])?;
    Ok(())
}

const REFUSED: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: custom, namespace: inject-labelled}
spec:
  selector: {matchLabels: {app: custom}}
  template:
    metadata:
      labels: {app: custom}
      annotations: {inject.istio.io/templates: 'sidecar,mine'}
    spec:
      containers: [{name: app, image: 'gossamer/e2e-app:0.1.0', args: [sleep]}]
";

/// Whoever looks for the pods of a Deployment finds the reason where Kubernetes says such things.
pub fn errors_are_events(mesh: &mut Installed) -> anyhow::Result<()> {
    make_namespaces(mesh, &table()?)?;
    mesh.apply(REFUSED)?;
    eventually(READY, "the event", || {
        let text = mesh.kubectl_ok(&["get", "events", "-n", "inject-labelled", "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let events = list["items"].as_array().context("no list")?;
        let event = events
            .iter()
            .find(|event| {
                event["reason"] == "FailedCreate" && event["involvedObject"]["kind"] == "ReplicaSet"
            })
            .context("no event FailedCreate of a ReplicaSet")?;
        let message = event["message"].as_str().unwrap_or_default();
        for part in [
            "GSM0005",
            "metadata.annotations[inject.istio.io/templates]",
            "\"sidecar\" and \"gateway\"",
        ] {
            ensure!(message.contains(part), "no {part:?} in {message}");
        }
        Ok(())
    })?;
    let status = mesh.json(&[
        "get",
        "deployment",
        "custom",
        "-n",
        "inject-labelled",
        "-o",
        "json",
    ])?;
    ensure!(
        status["status"].to_string().contains("GSM0005"),
        "the Deployment does not say it: {}",
        status["status"]
    );
    end(mesh)
}

/// The namespaces of the table go, without anybody waiting for them.
fn end(mesh: &Installed) -> anyhow::Result<()> {
    let table = table()?;
    let own = table.namespaces.keys().map(String::as_str);
    let line: Vec<&str> = ["delete", "namespace", "--wait=false"]
        .into_iter()
        .chain(own)
        .collect();
    mesh.kubectl_ok(&line).map(drop)
}
