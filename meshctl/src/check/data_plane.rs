//! The proxies: connected, in step, of the control plane's version; and the configuration they get.

use std::collections::BTreeSet;

use mesh_proto::{finding::Level as Finding, names::container};
use serde_json::Value;

use super::{Check, Facts, Level, Outcome};
use crate::local::object;

const CATEGORY: &str = "data plane";

pub const CHECKS: &[Check] = &[
    Check {
        category: CATEGORY,
        anchor: "data-plane-ready",
        text: "pods with a proxy are ready",
        level: Level::Warning,
        meaning: "A pod that is not ready gets no traffic. It may be the application, or a proxy that has no certificate or no \
                  configuration yet.",
        remedy: "`kubectl describe pod NAME` shows which container is not ready; `kubectl logs NAME -c istio-proxy` why the \
                 proxy is not.",
        judge: ready,
    },
    Check {
        category: CATEGORY,
        anchor: "data-plane-connected",
        text: "every proxy is connected to pilot",
        level: Level::Error,
        meaning: "A proxy without a connection keeps its last configuration and hears of no change.",
        remedy: "`kubectl logs NAME -c istio-proxy` says why: the network to port 15012 of pilot, or its certificate.",
        judge: connected,
    },
    Check {
        category: CATEGORY,
        anchor: "data-plane-synced",
        text: "no proxy has refused its configuration",
        level: Level::Error,
        meaning: "The proxy goes on with its last good configuration of that type.",
        remedy: "`meshctl proxy-status` shows what was refused and why; the object that is named there has the fault, or we \
                 have: then send a bug report.",
        judge: synced,
    },
    Check {
        category: CATEGORY,
        anchor: "data-plane-version",
        text: "proxies are of the control plane's version",
        level: Level::Warning,
        meaning: "Proxies of an older version work, but do not have what is new.",
        remedy: "Restart the workloads: `kubectl rollout restart deployment -n NAMESPACE`.",
        judge: version,
    },
    Check {
        category: CATEGORY,
        anchor: "configuration-errors",
        text: "the configuration has no errors",
        level: Level::Error,
        meaning: "An object with an error is not in effect (its last good version is), or what it refers to is not there.",
        remedy: "`meshctl analyze -A` lists them with what to do; `docs/reference/findings.md` has each code.",
        judge: configuration,
    },
];

fn has_proxy(pod: &Value) -> bool {
    ["initContainers", "containers"].into_iter().any(|group| {
        let containers = pod["spec"][group].as_array().into_iter().flatten();
        containers.into_iter().any(|one| one["name"] == container::PROXY)
    })
}

/// Pods with a proxy, in one of these phases, that are not about to go.
fn meshed<'a>(facts: &'a Facts, phases: &[&str]) -> Result<Vec<&'a Value>, Outcome> {
    match &facts.pods {
        Err(problem) => Err(Outcome::Skipped(problem.clone())),
        Ok(pods) => Ok(pods
            .iter()
            .filter(|pod| {
                has_proxy(pod)
                    && phases.contains(&object::text(pod, "/status/phase"))
                    && pod["metadata"]["deletionTimestamp"].is_null()
            })
            .collect()),
    }
}

fn name(pod: &Value) -> String {
    format!(
        "{}.{}",
        object::text(pod, "/metadata/name"),
        object::text(pod, "/metadata/namespace")
    )
}

fn ready(facts: &Facts) -> Outcome {
    let pods = match meshed(facts, &["Running", "Pending"]) {
        Ok(pods) => pods,
        Err(outcome) => return outcome,
    };
    let complaints = pods.into_iter().filter_map(|pod| {
        let conditions = pod["status"]["conditions"].as_array()?;
        let bad = conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "False");
        let statuses = ["initContainerStatuses", "containerStatuses"]
            .into_iter()
            .flat_map(|field| pod["status"][field].as_array().into_iter().flatten());
        let why: Vec<String> = statuses
            .filter_map(|status| {
                let reason = status.pointer("/state/waiting/reason").and_then(Value::as_str)?;
                Some(format!(
                    "{}: {reason}",
                    status["name"].as_str().unwrap_or_default()
                ))
            })
            .collect();
        let why = match why.is_empty() {
            true => String::new(),
            false => format!(" ({})", why.join(", ")),
        };
        bad.then(|| format!("{} is not ready{why}", name(pod)))
    });
    Outcome::of(complaints.collect())
}

fn connected(facts: &Facts) -> Outcome {
    let (pods, proxies) = match (meshed(facts, &["Running"]), &facts.proxies) {
        (Ok(pods), Ok(proxies)) => (pods, proxies),
        (Err(outcome), _) => return outcome,
        (_, Err(problem)) => return Outcome::Skipped(problem.clone()),
    };
    let known: BTreeSet<&str> = proxies
        .iter()
        .filter_map(|proxy| proxy["proxy"].as_str())
        .collect();
    let missing = pods
        .into_iter()
        .map(name)
        .filter(|name| !known.contains(name.as_str()))
        .map(|name| format!("{name} is not"));
    Outcome::of(missing.collect())
}

fn synced(facts: &Facts) -> Outcome {
    let proxies = match &facts.proxies {
        Ok(proxies) => proxies,
        Err(problem) => return Outcome::Skipped(problem.clone()),
    };
    let mut complaints = Vec::new();
    for proxy in proxies {
        let types = proxy["types"].as_object().into_iter().flatten();
        for (kind, row) in types.filter(|(_, row)| row["state"] == "REJECTED") {
            complaints.push(format!(
                "{} refused {kind}: {}",
                proxy["proxy"].as_str().unwrap_or_default(),
                row["nack"]["error"].as_str().unwrap_or_default()
            ));
        }
    }
    Outcome::of(complaints)
}

fn version(facts: &Facts) -> Outcome {
    let proxies = match &facts.proxies {
        Ok(proxies) => proxies,
        Err(problem) => return Outcome::Skipped(problem.clone()),
    };
    let control: BTreeSet<&str> = facts.versions.values().flatten().map(String::as_str).collect();
    if control.is_empty() {
        return Outcome::Skipped("the control plane's version is not known".into());
    }
    let complaints = proxies.iter().filter_map(|proxy| {
        let version = proxy["version"].as_str().filter(|version| !version.is_empty())?;
        let other = !control.contains(version);
        other.then(|| format!("{} is {version}", proxy["proxy"].as_str().unwrap_or_default()))
    });
    Outcome::of(complaints.collect())
}

fn configuration(facts: &Facts) -> Outcome {
    match &facts.findings {
        Err(problem) => Outcome::Skipped(problem.clone()),
        Ok(findings) => {
            let errors = findings.iter().filter(|finding| finding.level == Finding::Error);
            Outcome::of(
                errors
                    .map(|finding| format!("[{}] {}", finding.code, finding.object))
                    .collect(),
            )
        }
    }
}
