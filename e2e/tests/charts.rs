//! The charts beside Helm itself: for every profile, `helm template` and `meshctl manifest generate` give the same objects;
//! `helm lint` finds nothing; values that one refuses, the other refuses. And what is written about the charts (the page
//! of rights, the addons' dashboards) says what they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use mesh_e2e::{need, rights::rights_of};
use serde_json::{Map, Value, json};

const NAMESPACE: &str = "istio-system";
const PROFILES: [&str; 4] = ["default", "demo", "ha", "minimal"];

type Objects = BTreeMap<String, Value>;

fn charts() -> PathBuf {
    need::repository().join("charts")
}

fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "{} {arguments:?}: {told}",
        program.display()
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for piece in text.split("\n---\n") {
        let piece = piece.strip_prefix("---\n").unwrap_or(piece);
        let value: Value = serde_saphyr::from_str(piece).with_context(|| piece.to_owned())?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

/// By kind and name, in one way of writing: texts that are YAML by what they say, numbers by their value.
fn by_name(documents: Vec<Value>) -> Objects {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let key = |object: &Value| {
        let metadata = &object["metadata"];
        format!(
            "{} {}/{}",
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"])
        )
    };
    documents
        .into_iter()
        .map(|object| (key(&object), plain(object)))
        .collect()
}

fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, field)| !field.is_null());
            Value::Object(
                fields
                    .map(|(name, field)| (name, plain(field)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::String(text) if text.contains('\n') || text.starts_with('{') => {
            serde_saphyr::from_str::<Value>(&text).map_or(Value::String(text), plain)
        }
        Value::Number(number) => json!(number.as_f64()),
        other => other,
    }
}

/// What Helm makes of one chart.
fn helms(release: &str, chart: &str, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let chart = charts().join(chart);
    let chart = chart.to_string_lossy();
    let fixed = [
        "template",
        release,
        &chart,
        "--namespace",
        NAMESPACE,
        "--include-crds",
        "--kube-version",
        "1.36.0",
    ];
    let arguments: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
    documents(&run(&need::helm()?, &arguments)?)
}

/// The profile's gateways with their values, as one gives them to the chart `gateway`.
fn gateways(profile: &str) -> anyhow::Result<Vec<(String, Value)>> {
    let text = std::fs::read_to_string(charts().join(format!("profiles/{profile}.yaml")))?;
    let values: Value = serde_saphyr::from_str(&text)?;
    let mut all = Vec::new();
    for (name, values) in values["gateways"].as_object().into_iter().flatten() {
        let mut values = values.clone();
        let enabled = values.as_object_mut().and_then(|fields| fields.remove("enabled"));
        if enabled == Some(json!(true)) {
            all.push((name.clone(), values));
        }
    }
    Ok(all)
}

/// Everything of a profile by Helm, with settings that both tools get.
fn all_of_helm(profile: &str, set: &[&str], for_gateways: &[&str]) -> anyhow::Result<Objects> {
    let file = charts().join(format!("profiles/{profile}.yaml"));
    let mut arguments = vec!["--values".to_owned(), file.display().to_string()];
    arguments.extend(set.iter().flat_map(|one| ["--set".to_owned(), (*one).to_owned()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut all = helms("base", "base", &arguments)?;
    all.extend(helms("control", "control", &arguments)?);
    let folder = std::env::temp_dir().join(format!("gossamer-charts-{}-{profile}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    for (name, values) in gateways(profile)? {
        let file = folder.join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(&values)?)?;
        let file = file.display().to_string();
        let mut arguments = vec!["--values", &file];
        arguments.extend(for_gateways.iter().flat_map(|one| ["--set", *one]));
        all.extend(helms(&name, "gateway", &arguments)?);
    }
    std::fs::remove_dir_all(folder)?;
    Ok(by_name(all))
}

fn all_of_ours(profile: &str, set: &[&str]) -> anyhow::Result<Objects> {
    let mut arguments = vec!["manifest", "generate", "--profile", profile];
    arguments.extend(set.iter().flat_map(|one| ["--set", *one]));
    Ok(by_name(documents(&run(&need::binary("meshctl")?, &arguments)?)?))
}

fn compare(what: &str, ours: &Objects, theirs: &Objects) {
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(theirs), "{what}: other objects");
    for (name, object) in ours {
        assert_eq!(Some(object), theirs.get(name), "{what}: {name}");
    }
}

#[test]
fn helm_and_meshctl_give_the_same_objects() {
    for profile in PROFILES {
        let ours = all_of_ours(profile, &[]).unwrap();
        assert!(ours.len() > 20, "{profile}: only {} objects", ours.len());
        compare(profile, &ours, &all_of_helm(profile, &[], &[]).unwrap());
    }
}

#[test]
fn and_with_values_of_ones_own() {
    let set = [
        "revision=canary",
        "revisionTags={stable,default}",
        "global.hub=example.org/mesh",
        "global.tag=1.2",
        "global.imagePullSecrets={one,two}",
        "global.priorityClassName=system-cluster-critical",
        "meshConfig.accessLogFile=/dev/stdout",
        "meshConfig.defaultConfig.drainDuration=0s",
        "meshConfig.extensionProviders[0].name=jaeger",
        "meshConfig.extensionProviders[0].opentelemetry.service=jaeger.tracing.svc.cluster.local",
        "meshConfig.extensionProviders[0].opentelemetry.port=4317",
        "pilot.autoscaleEnabled=false",
        "pilot.replicaCount=3",
        "pilot.traceSampling=0.5",
        "pilot.env.A=b",
        "pilot.env.N=5",
        "pilot.nodeSelector.disk=fast",
        "pilot.extraContainerArgs={--max-streams=5}",
        "pilot.readSecrets=false",
        "citadel.podAnnotations.a=b",
        "telemetry.resources.limits.memory=1Gi",
        "sidecarInjectorWebhook.enableNamespacesByDefault=true",
        "sidecarInjectorWebhook.failurePolicy=Ignore",
        "validation.timeoutSeconds=5",
    ];
    let own = [
        "revision=canary",
        "imagePullSecrets[0].name=one",
        "imagePullSecrets[1].name=two",
    ];
    let ours = all_of_ours("ha", &set).unwrap();
    compare("own values", &ours, &all_of_helm("ha", &set, &own).unwrap());
}

#[test]
fn what_does_not_fit_is_refused_by_both() {
    for set in [
        "pilot.replicaCont=2",
        "pilot.traceSampling=101",
        "revision=Big",
        "global.imagePullPolicy=Sometimes",
    ] {
        let chart = charts().join("control");
        let theirs = run(
            &need::helm().unwrap(),
            &["template", "c", &chart.to_string_lossy(), "--set", set],
        );
        assert!(theirs.is_err(), "Helm takes {set}");
        let ours = all_of_ours("default", &[set]).unwrap_err().to_string();
        let name = set.split('=').next().unwrap();
        assert!(ours.contains(name), "{ours}");
    }
}

#[test]
fn lint_is_clean() {
    for chart in ["base", "control", "gateway"] {
        let path = charts().join(chart);
        let told = run(
            &need::helm().unwrap(),
            &["lint", "--strict", &path.to_string_lossy()],
        )
        .unwrap();
        assert!(
            told.contains("0 chart(s) failed") && !told.contains("[WARNING]"),
            "{told}"
        );
    }
}

/// Every value of the first two levels has a comment right above it, there or where another part has the same value.
#[test]
fn every_value_is_explained() {
    for chart in ["base", "control", "gateway"] {
        let text = std::fs::read_to_string(charts().join(chart).join("values.yaml")).unwrap();
        let (mut names, mut explained, mut before) = (BTreeSet::new(), BTreeSet::new(), "");
        for line in text.lines() {
            let bare = line.trim_start();
            let name = bare.split(':').next().unwrap_or_default();
            if !bare.starts_with(['#', '-']) && bare.contains(':') && line.len() - bare.len() <= 2 {
                names.insert(name);
                if before.trim_start().starts_with('#') {
                    explained.insert(name);
                }
            }
            before = line;
        }
        // What a Kubernetes object calls so needs no words of ours.
        for known in [
            "requests",
            "limits",
            "prometheus.io/port",
            "prometheus.io/scrape",
            "prometheus.io/path",
            "inject.istio.io/templates",
            "sidecar.istio.io/inject",
        ] {
            names.remove(known);
        }
        let dark: Vec<&&str> = names.difference(&explained).collect();
        assert!(dark.is_empty(), "{chart}: {dark:?} have no comment");
    }
}

/// One right of a role, as `e2e/manifests/rights.yaml` explains it.
#[derive(serde::Deserialize)]
struct Explained {
    right: String,
    r#for: String,
    without: String,
}

/// The page of rights has a row for every right of every role, and no other; `UPDATE=1` writes them again.
#[test]
fn the_page_of_rights_is_true() {
    #[derive(serde::Deserialize)]
    struct Table {
        rights: BTreeMap<String, Vec<Explained>>,
    }
    let read = |path: &str| std::fs::read_to_string(need::repository().join(path)).unwrap();
    let table: Table = serde_saphyr::from_str(&read("e2e/manifests/rights.yaml")).unwrap();
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, object) in all_of_ours("default", &[]).unwrap() {
        if !name.starts_with("Role ") && !name.starts_with("ClusterRole ") {
            continue;
        }
        let role = object["metadata"]["name"].as_str().unwrap().to_owned();
        // `pilot-istio-system` and `pilot` are of one part, and stand in one table.
        let part = role.split('-').next().unwrap().to_owned();
        for right in rights_of(&object["rules"]) {
            let told = right.to_string();
            let explained = table.rights.get(&role).into_iter().flatten();
            let explained = explained.filter(|one| one.right == told).collect::<Vec<_>>();
            let [one] = explained[..] else {
                panic!(
                    "e2e/manifests/rights.yaml explains {role}, {told} {} times",
                    explained.len()
                )
            };
            let (resource, verbs) = told.rsplit_once(": ").unwrap();
            let row = format!(
                "| `{role}` | `{resource}` | {verbs} | {} | {} |",
                one.r#for, one.without
            );
            rows.entry(part.clone()).or_default().push(row);
        }
    }
    let page = read("docs/reference/rbac.md");
    let mut fresh: Vec<String> = Vec::new();
    for line in page.lines() {
        // What was there is written anew, after the head of its table.
        if !line.starts_with("| `") {
            fresh.push(line.to_owned());
        }
        if line.starts_with("| --- ") {
            let heading = fresh
                .iter()
                .rev()
                .find_map(|line| line.strip_prefix("## "))
                .unwrap();
            let part = if heading == "People" { "gossamer" } else { heading };
            fresh.extend(rows.remove(part).unwrap_or_default());
        }
    }
    assert!(
        rows.is_empty(),
        "docs/reference/rbac.md has no table for {:?}",
        rows.keys()
    );
    let fresh = fresh.join("\n") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(need::repository().join("docs/reference/rbac.md"), fresh).unwrap();
    } else {
        assert_eq!(page, fresh, "docs/reference/rbac.md: UPDATE=1 writes it again");
    }
}

/// Grafana's manifest carries the dashboards of the folder; `UPDATE=1` writes it again.
#[test]
fn the_addons_carry_their_dashboards() {
    let folder = need::repository().join("samples/addons");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.join("dashboards"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 4);
    let mut data = String::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let board: Value = serde_json::from_str(&text).unwrap();
        assert!(
            board["panels"].as_array().is_some_and(|panels| panels.len() >= 6),
            "{}",
            file.display()
        );
        let name = file.file_name().unwrap().to_string_lossy();
        data.push_str(&format!("  {name}: |\n"));
        text.lines()
            .for_each(|line| data.push_str(&format!("    {line}\n")));
    }
    let path = folder.join("grafana.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, found) = text.split_at(text.rfind("\ndata:\n").unwrap() + "\ndata:\n".len());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{head}{data}")).unwrap();
    } else {
        assert_eq!(
            found, data,
            "samples/addons/grafana.yaml is behind dashboards/: UPDATE=1 writes it again"
        );
    }
}
