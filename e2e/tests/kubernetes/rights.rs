//! Point 5: rights: each right of each role that the charts bring is taken away and given back, as `e2e/manifests/rights.yaml` says.
//! Without it the part says which one is missing, does not crash, and what runs goes on; with it again everything is as
//! before, by itself. The rights come from the charts: one that the table does not have fails the test.

use anyhow::{Context, ensure};
use mesh_e2e::{
    installed::{Installed, SYSTEM},
    mesh::read,
    process::{eventually, last},
    rights::{Right, rights_of},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long a part may take to notice, or to recover: the longest pause between two tries is half of it.
const NOTICE: Duration = Duration::from_secs(75);
/// More than a second, by as much as `kubectl` may take to ask.
const GRANULARITY: Duration = Duration::from_millis(1500);
const PARTS: [&str; 2] = ["pilot", "citadel"];
/// Rights of people, whom no log tells.
const PEOPLE: &str = "people";
const ROOT: &str = "istio-ca-root-cert";

#[derive(Deserialize)]
struct Table {
    rights: BTreeMap<String, Vec<Entry>>,
    rounds: Vec<Round>,
}

#[derive(Deserialize)]
struct Entry {
    right: String,
    #[serde(default)]
    says: String,
    round: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Round {
    name: String,
    #[serde(default)]
    restart: Vec<String>,
    #[serde(default)]
    unready: Vec<String>,
    #[serde(default)]
    provoke: Vec<String>,
}

fn table() -> anyhow::Result<Table> {
    serde_saphyr::from_str(&read("e2e/manifests/rights.yaml")?).context("e2e/manifests/rights.yaml")
}

/// A role as it is in the cluster.
struct Role {
    kind: &'static str,
    name: String,
    rules: Value,
}

impl Role {
    fn read(mesh: &Installed, name: &str) -> anyhow::Result<Self> {
        // The roles of a part's own namespace have its name alone.
        let kind = if PARTS.contains(&name) {
            "role"
        } else {
            "clusterrole"
        };
        let object = mesh.json(&["get", kind, name, "-n", SYSTEM, "-o", "json"])?;
        Ok(Self {
            kind,
            name: name.to_owned(),
            rules: object["rules"].clone(),
        })
    }

    fn set(&self, mesh: &Installed, rules: &Value) -> anyhow::Result<()> {
        let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
        let line = [
            "patch",
            self.kind,
            &self.name,
            "-n",
            SYSTEM,
            "--type=json",
            "-p",
            &patch,
        ];
        mesh.kubectl_ok(&line).map(drop)
    }

    fn take(&self, mesh: &Installed, taken: &BTreeSet<&str>) -> anyhow::Result<()> {
        let rights = rights_of(&self.rules);
        let left: Vec<Value> = rights
            .iter()
            .filter(|right| !taken.contains(right.to_string().as_str()))
            .map(Right::rule)
            .collect();
        ensure!(
            left.len() + taken.len() == rights.len(),
            "{} has not all of {taken:?}",
            self.name
        );
        self.set(mesh, &Value::Array(left))
    }
}

/// The rights of all roles of the charts are those of the table.
pub fn all_are_known(mesh: &mut Installed) -> anyhow::Result<()> {
    let table = table()?;
    let text = mesh.ctl(&["manifest", "generate", "--profile", "demo"])?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("the manifest")?;
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for object in &objects {
        if ["Role", "ClusterRole"].contains(&object["kind"].as_str().unwrap_or_default()) {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let rights = rights_of(&object["rules"])
                .into_iter()
                .map(|right| right.to_string());
            found.entry(name).or_default().extend(rights);
        }
    }
    let known = table.rights.iter().map(|(role, entries)| {
        let rights = entries.iter().map(|entry| entry.right.clone());
        (role.clone(), rights.collect())
    });
    let known: BTreeMap<String, BTreeSet<String>> = known.collect();
    ensure!(
        found == known,
        "the charts have {found:#?}\nand e2e/manifests/rights.yaml {known:#?}"
    );
    let rounds: BTreeSet<&str> = table.rounds.iter().map(|round| round.name.as_str()).collect();
    for entry in table.rights.values().flatten() {
        let tested =
            entry.round == PEOPLE || (rounds.contains(entry.round.as_str()) && !entry.says.is_empty());
        ensure!(tested, "{}: round {:?}", entry.right, entry.round);
    }
    gateways_ask_nothing(mesh)
}

/// No token of the API, and nothing that could be done with one.
fn gateways_ask_nothing(mesh: &Installed) -> anyhow::Result<()> {
    for part in ["istio-ingressgateway", "istio-egressgateway", "telemetry"] {
        let pods = mesh.pods(SYSTEM, &format!("app={part}"))?;
        ensure!(!pods.is_empty(), "no pod of {part}");
        for pod in pods {
            let volumes = pod["spec"]["volumes"].to_string();
            ensure!(
                !volumes.contains("kube-api-access"),
                "{part} has a token of the API"
            );
        }
        let account = format!("--as=system:serviceaccount:{SYSTEM}:{part}");
        for what in ["pods", "secrets", "configmaps"] {
            let said = mesh.kubectl_said(&["auth", "can-i", "list", what, "-n", SYSTEM, &account])?;
            ensure!(
                said.stdout.trim() == "no",
                "{part} may list {what}: {}",
                said.said()
            );
        }
    }
    Ok(())
}

/// One after the other, several rights at once where they do not hide each other.
pub fn each_taken_and_given_back(mesh: &mut Installed) -> anyhow::Result<()> {
    let table = table()?;
    let roles: anyhow::Result<Vec<Role>> = table.rights.keys().map(|name| Role::read(mesh, name)).collect();
    let roles = roles?;
    let outcome = table
        .rounds
        .iter()
        .try_for_each(|round| {
            one(mesh, &table, &roles, round).with_context(|| format!("round {}", round.name))
        })
        .and_then(|()| as_before(mesh));
    // Whatever happened, the rights are back.
    let back = roles.iter().try_for_each(|role| role.set(mesh, &role.rules));
    let clean = mesh.kubectl_ok(&[
        "delete",
        "virtualservice,destinationrule",
        "rights",
        "-n",
        "default",
        "--ignore-not-found",
    ]);
    outcome.and(back).and(clean.map(drop))
}

fn one(mesh: &Installed, table: &Table, roles: &[Role], round: &Round) -> anyhow::Result<()> {
    // `kubectl logs --since` counts whole seconds: what the round before made the parts say is not this round's.
    std::thread::sleep(GRANULARITY);
    let begin = Instant::now();
    let mut wanted = BTreeSet::new();
    let mut touched = Vec::new();
    for role in roles {
        let entries = table.rights[&role.name]
            .iter()
            .filter(|entry| entry.round == round.name);
        let entries: Vec<&Entry> = entries.collect();
        if !entries.is_empty() {
            role.take(mesh, &entries.iter().map(|entry| entry.right.as_str()).collect())?;
            wanted.extend(entries.iter().map(|entry| entry.says.as_str()));
            touched.push(role);
        }
    }
    ensure!(!wanted.is_empty(), "no right is in this round");
    for part in &round.restart {
        mesh.kubectl_ok(&["rollout", "restart", &format!("deployment/{part}"), "-n", SYSTEM])?;
    }
    for what in &round.provoke {
        provoke(mesh, what).with_context(|| format!("provoking {what}"))?;
    }
    eventually(NOTICE, "the messages", || {
        let logs = logs(mesh, begin)?;
        let missing: Vec<&&str> = wanted.iter().filter(|text| !logs.contains(**text)).collect();
        ensure!(
            missing.is_empty(),
            "not said: {missing:?}; said was: {}",
            last(&logs, 3000)
        );
        Ok(())
    })?;
    for part in PARTS {
        stands(mesh, part, round)?;
    }
    if round.name == "start" {
        let said = mesh.ctl_said(&["verify-install"])?;
        let named = said.said().contains("pilot-istio-system") && said.code != Some(0);
        ensure!(named, "verify-install does not see it: {}", said.said());
    }
    touched.iter().try_for_each(|role| role.set(mesh, &role.rules))?;
    for part in PARTS {
        mesh.rolled_out(SYSTEM, &format!("deployment/{part}"))?;
    }
    // The next round's message about a Lease is one only after this one's is over.
    for text in wanted
        .iter()
        .filter_map(|text| text.strip_suffix("the right is missing"))
    {
        if text.starts_with("Lease ") {
            eventually(NOTICE, "the Lease is renewed", || {
                let logs = logs(mesh, begin)?;
                ensure!(
                    logs.contains(&format!("{text}the API server answers again")),
                    "{text}: {}",
                    last(&logs, 2000)
                );
                Ok(())
            })?;
        }
    }
    if round.provoke.iter().any(|what| what == "rotation") {
        eventually(NOTICE, "the rotation goes on", || {
            let logs = logs(mesh, begin)?;
            ensure!(logs.contains("root rotation: step done"), "{}", last(&logs, 2000));
            Ok(())
        })?;
        rotation(mesh, false)?;
        mesh.rolled_out(SYSTEM, "deployment/citadel")?;
    }
    println!(
        "  round {}: {} messages ({:.1} s)",
        round.name,
        wanted.len(),
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What both parts have said since then.
fn logs(mesh: &Installed, since: Instant) -> anyhow::Result<String> {
    let since = format!("--since={}s", since.elapsed().as_secs() + 1);
    let mut all = String::new();
    for part in PARTS {
        let selector = format!("app={part}");
        all += &mesh.kubectl_ok(&["logs", "-n", SYSTEM, "-l", &selector, "--tail=-1", &since])?;
    }
    Ok(all)
}

/// Nothing has crashed; one that cannot start is not ready, and the one before it works on.
fn stands(mesh: &Installed, part: &str, round: &Round) -> anyhow::Result<()> {
    for pod in mesh.pods(SYSTEM, &format!("app={part}"))? {
        for container in pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
        {
            ensure!(container["restartCount"] == 0, "{part} has crashed: {container}");
        }
    }
    let workload = format!("deployment/{part}");
    if round.unready.iter().any(|name| name == part) {
        let status = mesh.json(&["get", &workload, "-n", SYSTEM, "-o", "json"])?["status"].clone();
        let count = |field: &str| status[field].as_u64().unwrap_or(0);
        ensure!(
            count("readyReplicas") >= 1 && count("unavailableReplicas") >= 1,
            "{part}: {status}"
        );
    } else if round.restart.iter().any(|name| name == part) {
        mesh.rolled_out(SYSTEM, &workload)?;
    }
    Ok(())
}

/// Makes a part use a right.
fn provoke(mesh: &Installed, what: &str) -> anyhow::Result<()> {
    let quietly = |line: &[&str]| mesh.kubectl_ok(line).map(drop);
    let bundle = |kind: &str, name: &str| {
        let patch = r#"[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ""}]"#;
        quietly(&["patch", kind, name, "--type=json", "-p", patch])
    };
    match what {
        "service-rule" => mesh
            .apply("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: rights, namespace: default}, \
                    spec: {hosts: [rights.example], http: [{directResponse: {status: 404}}]}}")
            .map(drop),
        "destination-rule" => mesh
            .apply("{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: rights, namespace: default}, \
                    spec: {host: details, exportTo: [.], subsets: [{name: v1, labels: {version: v1}}]}}")
            .map(drop),
        "injector" => bundle("mutatingwebhookconfiguration", "istio-sidecar-injector"),
        "validator" => bundle("validatingwebhookconfiguration", "istio-validator-istio-system"),
        "map" => {
            let map = mesh.json(&["get", "configmap", ROOT, "-n", "default", "-o", "json"])?;
            let text = map["data"]["root-cert.pem"].as_str().unwrap_or_default();
            // Another text, of the same roots.
            let patch = json!({"data": {"root-cert.pem": format!("{text}\n")}}).to_string();
            quietly(&["patch", "configmap", ROOT, "-n", "default", "-p", &patch])
        }
        "no-map" => quietly(&["delete", "configmap", ROOT, "-n", "default"]),
        "root" => quietly(&["delete", "secret", "istio-ca-secret", "-n", SYSTEM]),
        "leases" => quietly(&["delete", "lease", "pilot-leader", "pilot-status-leader", "citadel-leader", "-n", SYSTEM]),
        "rotation" => rotation(mesh, true),
        other => anyhow::bail!("nobody knows how to provoke {other:?}"),
    }
}

/// Lets a new root be due at once, or as it was.
fn rotation(mesh: &Installed, due: bool) -> anyhow::Result<()> {
    // The longest that `--root-rotate-before` can be is half of a root's life.
    const FLAGS: [&str; 2] = ["--root-ttl=7300d", "--root-rotate-before=3650d"];
    let object = mesh.json(&["get", "deployment", "citadel", "-n", SYSTEM, "-o", "json"])?;
    let args = &object["spec"]["template"]["spec"]["containers"][0]["args"];
    let mut args: Vec<Value> = args.as_array().cloned().context("citadel has no arguments")?;
    args.retain(|arg| !FLAGS.iter().any(|flag| arg == flag));
    if due {
        args.extend(FLAGS.map(Value::from));
    }
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": args}])
        .to_string();
    let line = [
        "patch",
        "deployment",
        "citadel",
        "-n",
        SYSTEM,
        "--type=json",
        "-p",
        &patch,
    ];
    mesh.kubectl_ok(&line).map(drop)
}

/// What was provoked has been put right, by nobody but the parts themselves.
fn as_before(mesh: &Installed) -> anyhow::Result<()> {
    eventually(NOTICE, "everything is as before", || {
        for (kind, name) in [
            ("mutatingwebhookconfiguration", "istio-sidecar-injector"),
            ("validatingwebhookconfiguration", "istio-validator-istio-system"),
        ] {
            let object = mesh.json(&["get", kind, name, "-o", "json"])?;
            for hook in object["webhooks"].as_array().into_iter().flatten() {
                let bundle = hook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
                ensure!(!bundle.is_empty(), "{name}: {} has no caBundle", hook["name"]);
            }
        }
        for kind in ["virtualservice", "destinationrule"] {
            let object = mesh.json(&["get", kind, "rights", "-n", "default", "-o", "json"])?;
            let conditions = object["status"]["conditions"].as_array();
            ensure!(
                conditions.is_some_and(|all| !all.is_empty()),
                "{kind} rights has no status"
            );
        }
        mesh.kubectl_ok(&["get", "secret", "istio-ca-secret", "-n", SYSTEM])?;
        mesh.kubectl_ok(&[
            "get",
            "lease",
            "pilot-leader",
            "pilot-status-leader",
            "citadel-leader",
            "-n",
            SYSTEM,
        ])?;
        let root = |namespace: &str| {
            let map = mesh.json(&["get", "configmap", ROOT, "-n", namespace, "-o", "json"])?;
            anyhow::Ok(map["data"]["root-cert.pem"].clone())
        };
        ensure!(
            root("default")? == root(SYSTEM)?,
            "the roots of two namespaces differ"
        );
        Ok(())
    })?;
    for part in PARTS {
        stands(
            mesh,
            part,
            &Round {
                name: String::new(),
                restart: vec![],
                unready: vec![],
                provoke: vec![],
            },
        )?;
    }
    mesh.ctl(&["verify-install"]).map(drop)
}

/// Who may see or change a namespace may see or change the mesh's objects in it, by exactly the rights of our two roles.
pub fn of_people(mesh: &mut Installed) -> anyhow::Result<()> {
    let table = table()?;
    for (role, kubernetes) in [("gossamer-view", "view"), ("gossamer-edit", "edit")] {
        let binding = format!("e2e-{kubernetes}");
        let (role_flag, user) = (format!("--clusterrole={kubernetes}"), format!("--user={binding}"));
        mesh.kubectl_ok(&[
            "create",
            "rolebinding",
            &binding,
            "-n",
            "default",
            &role_flag,
            &user,
        ])?;
        let role = Role::read(mesh, role)?;
        let checked = table.rights[&role.name]
            .iter()
            .try_for_each(|entry| person(mesh, &role, entry, &binding));
        role.set(mesh, &role.rules)?;
        mesh.kubectl_ok(&["delete", "rolebinding", &binding, "-n", "default"])?;
        checked?;
    }
    Ok(())
}

fn person(mesh: &Installed, role: &Role, entry: &Entry, user: &str) -> anyhow::Result<()> {
    let verbs = entry.right.rsplit_once(": ").context("no verb")?.1;
    let verb = verbs.split(", ").next().unwrap_or_default();
    let user = format!("--as={user}");
    let may = |expected: &str| {
        eventually(NOTICE, "the right", || {
            let line = [
                "auth",
                "can-i",
                verb,
                "virtualservices.networking.istio.io",
                "-n",
                "default",
                &user,
            ];
            let said = mesh.kubectl_said(&line)?;
            ensure!(said.stdout.trim() == expected, "{verb}: {}", said.said());
            Ok(())
        })
    };
    may("yes")?;
    role.take(mesh, &[entry.right.as_str()].into())?;
    may("no")?;
    role.set(mesh, &role.rules)?;
    may("yes")
}
