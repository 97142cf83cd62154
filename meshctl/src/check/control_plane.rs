//! The control plane: its pods run and are ready, its webhooks lead to it, and it is of one version with this program.

use serde_json::Value;

use super::{Check, Facts, Level, Outcome};
use crate::local::object;

const CATEGORY: &str = "control plane";
/// What there is of it, by label `app`.
pub const PARTS: [&str; 3] = ["pilot", "citadel", "telemetry"];

pub const CHECKS: &[Check] = &[
    Check {
        category: CATEGORY,
        anchor: "control-plane-namespace",
        text: "the control plane's namespace exists",
        level: Level::Error,
        meaning: "There is no control plane where this command looks for one.",
        remedy: "Install the mesh (`meshctl install`), or name its namespace with `--istioNamespace`.",
        judge: namespace,
    },
    Check {
        category: CATEGORY,
        anchor: "control-plane-pilot",
        text: "pilot runs and is ready",
        level: Level::Error,
        meaning: "Without pilot, proxies keep what they have: traffic goes on, but no change of configuration or of endpoints \
                  reaches them, and new pods are not injected.",
        remedy: "Look at the pods (`kubectl describe pod -n istio-system -l app=pilot`) and their logs; `/ready` on port 15014 \
                 says what pilot waits for.",
        judge: |facts| part(facts, "pilot"),
    },
    Check {
        category: CATEGORY,
        anchor: "control-plane-citadel",
        text: "citadel runs and is ready",
        level: Level::Error,
        meaning: "Without citadel no new pod gets a certificate, and those of running pods end within a day.",
        remedy: "Look at the pods (`kubectl describe pod -n istio-system -l app=citadel`) and their logs.",
        judge: |facts| part(facts, "citadel"),
    },
    Check {
        category: CATEGORY,
        anchor: "control-plane-telemetry",
        text: "telemetry runs and is ready",
        level: Level::Warning,
        meaning: "Traffic does not need it; the dashboard and the service graph are empty, and access logs that it would have \
                  gathered are lost.",
        remedy: "Look at the pods (`kubectl describe pod -n istio-system -l app=telemetry`) and their logs.",
        judge: |facts| part(facts, "telemetry"),
    },
    Check {
        category: CATEGORY,
        anchor: "control-plane-webhooks",
        text: "webhooks lead to a Service and trust its certificate",
        level: Level::Error,
        meaning: "The API server cannot call the webhook: pods are made without sidecars, or not at all, and wrong objects are \
                  not refused (or none is taken).",
        remedy: "Look at pilot's log for why it cannot write `caBundle`; webhooks of an older installation are removed with \
                 `kubectl delete mutatingwebhookconfiguration NAME`.",
        judge: webhooks,
    },
    Check {
        category: CATEGORY,
        anchor: "control-plane-version",
        text: "the control plane and this program are of one version",
        level: Level::Warning,
        meaning: "Commands of another version may ask for pages that the control plane does not have.",
        remedy: "Use the meshctl of the installed version, or `meshctl upgrade`.",
        judge: version,
    },
];

fn namespace(facts: &Facts) -> Outcome {
    match &facts.namespaces {
        Err(problem) => Outcome::Skipped(problem.clone()),
        Ok(all)
            if all
                .iter()
                .any(|one| object::text(one, "/metadata/name") == facts.system) =>
        {
            Outcome::Passed
        }
        Ok(_) => Outcome::Failed(format!("there is no namespace {}", facts.system)),
    }
}

fn part(facts: &Facts, app: &str) -> Outcome {
    if let Err(problem) = &facts.pods {
        return Outcome::Skipped(problem.clone());
    }
    let pods = facts.parts(app);
    let live: Vec<&&Value> = pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect();
    if live.is_empty() {
        return Outcome::Failed(format!(
            "no pod has the label app={app} in namespace {}",
            facts.system
        ));
    }
    Outcome::of(live.into_iter().filter_map(|pod| unready(pod)).collect())
}

/// What is wrong with a pod that should be ready.
fn unready(pod: &Value) -> Option<String> {
    let name = object::text(pod, "/metadata/name");
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions
        .into_iter()
        .find(|condition| condition["type"] == "Ready");
    match ready {
        Some(condition) if condition["status"] == "True" => None,
        _ if object::text(pod, "/status/phase") == "Running" && ready.is_none() => None,
        _ => {
            let statuses = pod["status"]["containerStatuses"]
                .as_array()
                .into_iter()
                .flatten();
            let why: Vec<&str> = statuses
                .filter_map(|status| status.pointer("/state/waiting/reason").and_then(Value::as_str))
                .collect();
            let phase = object::text(pod, "/status/phase");
            Some(format!(
                "{name} is not ready ({})",
                if why.is_empty() {
                    phase.to_owned()
                } else {
                    why.join(", ")
                }
            ))
        }
    }
}

fn webhooks(facts: &Facts) -> Outcome {
    if !facts.cluster {
        return Outcome::Skipped("the local mesh has none".into());
    }
    let (webhooks, services) = match (&facts.webhooks, &facts.services) {
        (Ok(webhooks), Ok(services)) => (webhooks, services),
        (Err(problem), _) | (_, Err(problem)) => return Outcome::Skipped(problem.clone()),
    };
    let mut complaints = Vec::new();
    let mut injectors = 0;
    for configuration in webhooks {
        let name = object::text(configuration, "/metadata/name");
        let hooks = configuration["webhooks"].as_array().into_iter().flatten();
        let ours: Vec<&Value> = hooks
            .filter(|hook| {
                hook["name"]
                    .as_str()
                    .is_some_and(|name| name.ends_with("istio.io"))
            })
            .collect();
        injectors += usize::from(!ours.is_empty() && configuration["kind"] == "MutatingWebhookConfiguration");
        for hook in ours {
            if let Some(complaint) = webhook(hook, services) {
                complaints.push(format!("{name}: {complaint}"));
                break;
            }
        }
    }
    if injectors == 0 {
        complaints.push("no webhook injects sidecars".to_owned());
    }
    Outcome::of(complaints)
}

fn webhook(hook: &Value, services: &[Value]) -> Option<String> {
    let config = &hook["clientConfig"];
    if config["caBundle"].as_str().unwrap_or_default().is_empty() && config["url"].is_null() {
        return Some("caBundle is empty, so the API server trusts no answer".into());
    }
    let to = &config["service"];
    if to.is_null() {
        return None;
    }
    let (namespace, name) = (to["namespace"].as_str()?, to["name"].as_str()?);
    let there = services.iter().any(|service| {
        object::text(service, "/metadata/name") == name
            && object::text(service, "/metadata/namespace") == namespace
    });
    (!there).then(|| format!("there is no Service {namespace}/{name}"))
}

fn version(facts: &Facts) -> Outcome {
    if facts.versions.is_empty() {
        return Outcome::Skipped("no part of the control plane runs".into());
    }
    let complaints = facts.versions.iter().filter_map(|(pod, version)| match version {
        Ok(version) if *version == facts.version => None,
        Ok(version) => Some(format!("{pod} is {version}, this program {}", facts.version)),
        Err(problem) => Some(format!("{pod} does not tell its version: {problem}")),
    });
    Outcome::of(complaints.collect())
}
