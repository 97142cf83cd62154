//! The same YAML has the same outcome, whoever is the data plane: each case is asked of every combination of client, server
//! and gateway, each of them our proxy or a stock Envoy; straight to the server, and through the gateway. Answers (status,
//! headers, body, what the application saw) and the access logs of every hop (status, response flags, cluster, route) are held
//! against what must be, and against those of Envoy alone.

#[path = "matrix/cases.rs"]
mod cases;
#[path = "matrix/log.rs"]
mod log;
#[path = "matrix/outcome.rs"]
mod outcome;

use anyhow::{Context, ensure};
use base64::Engine;
use cases::{Case, Expect};
use log::Line;
use mesh_e2e::{
    client::ask::{Ask, Outcome},
    mesh::{Mesh, PATIENCE},
    process::{eventually, run},
    site::Site,
};
use outcome::Normal;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write, time::Duration};

const BASE: &str = include_str!("../../manifests/matrix-base.yaml");
const PODS: &str = include_str!("../../manifests/matrix-pods.yaml");
const RULES: &str = include_str!("../../manifests/matrix-rules.yaml");
const ROUTES: &str = include_str!("../../manifests/matrix-routes.yaml");
/// The planes, with the values of the annotation.
const PLANES: [(&str, &str); 2] = [("ours", "gossamer"), ("envoy", "envoy")];
const SECRET: &[u8] = b"the secret of the matrix, long enough for HS256";
/// More differences than this are not shown.
const SHOWN: usize = 60;

/// The way of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    client: &'static str,
    gateway: Option<&'static str>,
    server: &'static str,
}

impl Way {
    fn all() -> Vec<Self> {
        let planes = || PLANES.iter().map(|(plane, _)| *plane);
        let gateways = || [None].into_iter().chain(planes().map(Some));
        planes()
            .flat_map(|client| gateways().map(move |gateway| (client, gateway)))
            .flat_map(|(client, gateway)| {
                planes().map(move |server| Self {
                    client,
                    gateway,
                    server,
                })
            })
            .collect()
    }

    /// The same with Envoy wherever there is a choice; the server stays, or not.
    fn reference(&self, server: &'static str) -> Self {
        Self {
            client: "envoy",
            gateway: self.gateway.map(|_| "envoy"),
            server,
        }
    }

    pub fn name(&self) -> String {
        match self.gateway {
            None => format!("{}-{}", self.client, self.server),
            Some(gateway) => format!("{}-{gateway}-{}", self.client, self.server),
        }
    }

    /// Where a port of the server is asked for.
    pub fn target(&self, port: u16) -> String {
        let end = u16::from(self.server == "envoy") + 1;
        match self.gateway {
            None => format!("server-{}:{port}", self.server),
            Some(gateway) => {
                let port = match port {
                    7002 => 7100,
                    8443 => 8440,
                    9090 => 9000,
                    _ => 8000,
                };
                format!("gateway-{gateway}:{}", port + end)
            }
        }
    }
}

pub fn same_outcome(mesh: &mut Mesh) -> anyhow::Result<()> {
    let outcome = start(mesh).and_then(|()| compare(mesh));
    if outcome.is_ok() {
        mesh.ctl(&["local", "delete", "namespace", "matrix"])?;
    }
    outcome
}

fn start(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.apply(BASE)?;
    for (plane, choice) in PLANES {
        mesh.apply(&PODS.replace("PLANE", plane).replace("CHOICE", choice))?;
    }
    let external = eventually(PATIENCE, "the application outside has an address", || {
        mesh.pod_address("matrix", "external")
    })?;
    let keys = json!({ "keys": [{
        "kty": "oct", "alg": "HS256", "kid": "matrix",
        "k": base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(SECRET),
    }] });
    let rules: Vec<String> = PLANES
        .iter()
        .map(|(plane, _)| rules(plane, &keys.to_string(), &external))
        .collect();
    for text in &rules {
        mesh.apply(text)?;
    }
    mesh.wait_ready()?;
    rules.iter().try_for_each(|text| mesh.settled(text))
}

/// The rules for one server.
fn rules(server: &str, keys: &str, external: &str) -> String {
    let end = if server == "ours" { "1" } else { "2" };
    let to = |port: u16, subset: &str| {
        let host = format!("server-{server}.matrix.svc.cluster.local");
        format!("destination: {{host: {host}, subset: {subset}, port: {{number: {port}}}}}")
    };
    let mut text = RULES.replace("ROUTES", ROUTES.trim_end());
    for (name, port, subset) in [
        ("TO_GRPC", 9090, "v1"),
        ("TO_ROUTED", 7002, "v2"),
        ("TO_TLS", 8443, "v2"),
        ("TO_STICKY", 8080, "sticky"),
        ("TO_FRAGILE_OURS", 8080, "fragile-ours"),
        ("TO_FRAGILE_ENVOY", 8080, "fragile-envoy"),
        ("TO_NONE", 8080, "none"),
        ("TO_STRICT", 8085, "v1"),
        ("TO_PLAIN", 8085, "plain"),
        ("TO_1", 8080, "v1"),
        ("TO_2", 8080, "v2"),
    ] {
        text = text.replace(name, &format!("{{{}}}", to(port, subset)));
    }
    text.replace("WEIGHED_1", &to(8080, "v1"))
        .replace("WEIGHED_2", &to(8080, "v2"))
        .replace("MIRROR_2", &to(8080, "v2"))
        .replace("SERVER", server)
        .replace("KEYS", keys)
        .replace("OUTSIDE", external)
        .replace("END", end)
}

fn token(group: &str) -> anyhow::Result<String> {
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some("matrix".to_owned());
    let claims = json!({ "iss": "matrix", "sub": "somebody", "group": group, "exp": 4_000_000_000_u64 });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}

/// Everything that came of one way.
type Results = BTreeMap<Way, Vec<(Case, Vec<Outcome>)>>;

fn compare(mesh: &Mesh) -> anyhow::Result<()> {
    let (good, outcast) = (token("friends")?, token("outcasts")?);
    let mut results = Results::new();
    for way in Way::all() {
        let mut rest = Vec::new();
        let cases = cases::all(&good, &outcast, way.client);
        let asks: Vec<Ask> = cases.iter().flat_map(|case| case.asks(&way)).collect();
        let mut outcomes = ask(mesh, way.client, &asks)?.into_iter();
        for case in cases {
            let count = case.asks(&way).len();
            rest.push((case, outcomes.by_ref().take(count).collect()));
        }
        results.insert(way, rest);
    }
    let logs = logs(mesh)?;
    let mut problems = Vec::new();
    let mut report = String::new();
    for (way, cases) in &results {
        for (case, outcomes) in cases {
            if let Err(error) = expected(case.expect(way), outcomes) {
                problems.push(format!("{} / {}: {error:#}", way.name(), case.name));
            }
        }
    }
    problems.extend(different(&results, &logs)?);
    problems.extend(rejected(mesh)?);
    for problem in &problems {
        let _ = writeln!(report, "{problem}");
    }
    std::fs::create_dir_all(mesh.artifacts())?;
    let file = mesh.artifacts().join("matrix.txt");
    std::fs::write(&file, &report)?;
    let shown: Vec<&str> = problems.iter().take(SHOWN).map(String::as_str).collect();
    ensure!(
        problems.is_empty(),
        "{} differences, all of them in {}:\n{}",
        problems.len(),
        file.display(),
        shown.join("\n")
    );
    Ok(())
}

/// Asks from the client of a plane.
fn ask(mesh: &Mesh, client: &str, asks: &[Ask]) -> anyhow::Result<Vec<Outcome>> {
    let app = mesh.app.display().to_string();
    let pod = format!("deployment/client-{client}");
    let words = [
        "local", "exec", &pod, "-n", "matrix", "-c", "app", "-i", "--", &app, "ask",
    ];
    let text = run(
        mesh.command(&words),
        Some(&serde_json::to_string(asks)?),
        Duration::from_secs(120),
    )?
    .ok()?;
    let outcomes: Vec<Outcome> = serde_json::from_str(text.trim()).context("the client's outcomes")?;
    ensure!(
        outcomes.len() == asks.len(),
        "{} outcomes of {} requests",
        outcomes.len(),
        asks.len()
    );
    Ok(outcomes)
}

fn expected(expect: Expect, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let version = |outcome: &Outcome| outcome.headers.get("x-version").map(|all| all.join(","));
    match expect {
        Expect::Each(all) => {
            let got: Vec<String> = outcomes
                .iter()
                .map(
                    |outcome| match (&outcome.error, outcome.status, version(outcome)) {
                        (Some(error), ..) => error.clone(),
                        (None, 0, _) if outcome.body.is_object() => "calls".to_owned(),
                        (None, 0, _) => outcome.body.as_str().unwrap_or_default().to_owned(),
                        (None, status, Some(version)) => format!("{status} {version}"),
                        (None, status, None) => status.to_string(),
                    },
                )
                .collect();
            ensure!(got == all, "got {got:?}, not {all:?}");
        }
        Expect::Share(least, most) => {
            let first = outcomes
                .iter()
                .filter(|one| version(one).as_deref() == Some("v1"))
                .count();
            let good = outcomes.iter().all(|one| one.status == 200);
            ensure!(
                good && (least..=most).contains(&first),
                "{first} of {} went to v1, or some failed",
                outcomes.len()
            );
        }
        Expect::Pairs => {
            for pair in outcomes.chunks(2) {
                let versions: Vec<Option<String>> = pair.iter().map(version).collect();
                ensure!(
                    versions[0].is_some() && versions[0] == versions[1],
                    "one key went to {versions:?}"
                );
            }
        }
    }
    Ok(())
}

/// What the hops say about each request, by its id; and about connections, by proxy.
struct Logs {
    by_request: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
    connections: BTreeMap<String, Vec<Value>>,
}

fn logs(mesh: &Mesh) -> anyhow::Result<Logs> {
    // Lines wait for company at most so long.
    std::thread::sleep(Duration::from_millis(1500));
    let mut logs = Logs {
        by_request: BTreeMap::new(),
        connections: BTreeMap::new(),
    };
    let pods = mesh.all("pods")?;
    for pod in pods.iter().filter(|pod| pod["metadata"]["namespace"] == "matrix") {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let labels = &pod["metadata"]["labels"];
        let app = labels["app"].as_str().unwrap_or_default();
        let Some((role, plane)) = app.split_once('-') else {
            continue;
        };
        let hop = match role {
            "server" => format!("{role}-{}", labels["version"].as_str().unwrap_or_default()),
            _ => role.to_owned(),
        };
        let text = mesh.logs("matrix", name, "istio-proxy")?;
        for line in text.lines().filter_map(Line::parse) {
            let request = line.agent().strip_suffix("-shadow").unwrap_or(line.agent());
            if request.contains('/') {
                let hops = logs.by_request.entry(request.to_owned()).or_default();
                hops.entry(hop.clone()).or_default().push(line.told());
            } else if line.cluster().contains("|7002|") || line.cluster().contains("|8443|") {
                let told = logs.connections.entry(format!("{hop} {plane}")).or_default();
                if !told.contains(&line.told()) {
                    told.push(line.told());
                }
            }
        }
    }
    Ok(logs)
}

/// Where ways differ from Envoy's.
fn different(results: &Results, logs: &Logs) -> anyhow::Result<Vec<String>> {
    let normal = Normal::new()?;
    let told = |id: &str| {
        let hops = logs.by_request.get(id).cloned().unwrap_or_default();
        normal.told(&json!(hops))
    };
    let seen = |outcomes: &[Outcome]| -> Vec<Value> {
        outcomes
            .iter()
            .map(|one| json!({ "answer": normal.answer(one), "log": told(&one.id) }))
            .collect()
    };
    let mut problems = Vec::new();
    for (way, cases) in results {
        for (place, (case, outcomes)) in cases.iter().enumerate() {
            // Shares are of chance, and who has a key depends on the server's addresses.
            let reference = match case.expect(way) {
                Expect::Share(..) => continue,
                Expect::Pairs => way.reference(way.server),
                Expect::Each(_) => way.reference("envoy"),
            };
            let of = results.get(&reference).and_then(|cases| cases.get(place));
            let (_, wanted) = of.context("there is no reference")?;
            for (number, (left, right)) in seen(wanted).iter().zip(seen(outcomes)).enumerate() {
                for line in outcome::differences(left, &right) {
                    problems.push(format!("{} / {} ({number}): {line}", way.name(), case.name));
                }
            }
        }
    }
    for role in ["client", "gateway", "server-v1", "server-v2"] {
        let of = |plane: &str| {
            let all = logs.connections.get(&format!("{role} {plane}"));
            let mut all: Vec<Value> = all.into_iter().flatten().map(|told| normal.told(told)).collect();
            all.sort_by_key(Value::to_string);
            all.dedup();
            json!(all)
        };
        for line in outcome::differences(&of("envoy"), &of("ours")) {
            problems.push(format!("connections of {role}: {line}"));
        }
    }
    Ok(problems)
}

/// What a stock Envoy has refused of what pilot sent.
fn rejected(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for app in ["client-envoy", "gateway-envoy"] {
        let url = "http://127.0.0.1:15000/stats?filter=rejected";
        let words = ["curl", "-sS", "-m", "10", url];
        let text = mesh.exec("matrix", app, "istio-proxy", &words)?.ok()?;
        let bad = text
            .lines()
            .filter(|line| line.contains("rejected") && !line.ends_with(": 0"));
        problems.extend(bad.map(|line| format!("{app} has refused: {line}")));
    }
    for entry in mesh.syncz()? {
        for (kind, state) in entry["types"].as_object().into_iter().flatten() {
            if !state["nack"].is_null() {
                problems.push(format!("{} refuses {kind}: {}", entry["proxy"], state["nack"]));
            }
        }
    }
    Ok(problems)
}
