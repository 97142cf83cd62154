//! Certificates: the root is in every namespace that needs it, everywhere the same, and good for long enough.

use std::collections::BTreeMap;

use mesh_proto::names::label;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Check, Facts, Level, Outcome};
use crate::local::object;

const CATEGORY: &str = "identity";
pub const ROOT_MAP: &str = "istio-ca-root-cert";
const ROOT_KEY: &str = "root-cert.pem";
/// A root that ends sooner should be rotated now.
const WARN_DAYS: i64 = 60;

pub const CHECKS: &[Check] = &[
    Check {
        category: CATEGORY,
        anchor: "identity-root-published",
        text: "the root certificate is in every namespace with sidecars",
        level: Level::Error,
        meaning: "Pods of a namespace without ConfigMap istio-ca-root-cert do not start: their proxies cannot know whom to \
                  trust.",
        remedy: "Citadel publishes it; look at citadel's log for a namespace that it may not write to.",
        judge: published,
    },
    Check {
        category: CATEGORY,
        anchor: "identity-root-same",
        text: "the root certificate is the same everywhere",
        level: Level::Error,
        meaning: "Workloads of different namespaces trust different roots, so they cannot talk to each other.",
        remedy: "Citadel brings all copies in step within seconds; if it does not, look at its log. A copy that somebody else \
                 writes must be left to citadel.",
        judge: same,
    },
    Check {
        category: CATEGORY,
        anchor: "identity-root-lasts",
        text: "the root certificate is good for at least 60 days",
        level: Level::Warning,
        meaning: "When the root ends, no proxy trusts another one any more.",
        remedy: "Citadel rotates its own root by itself; if you brought your own (Secret `cacerts`), replace it in time.",
        judge: lasts,
    },
];

/// ConfigMaps of the root, by namespace.
fn roots(facts: &Facts) -> Result<BTreeMap<&str, &str>, Outcome> {
    if !facts.cluster {
        return Err(Outcome::Skipped(
            "on one machine the root is a file that all pods share".into(),
        ));
    }
    let maps = match &facts.config_maps {
        Ok(maps) => maps,
        Err(problem) => return Err(Outcome::Skipped(problem.clone())),
    };
    let found = maps.iter().filter_map(|map| {
        Some((
            object::text(map, "/metadata/namespace"),
            map["data"][ROOT_KEY].as_str()?,
        ))
    });
    Ok(found.collect())
}

fn published(facts: &Facts) -> Outcome {
    let roots = match roots(facts) {
        Ok(roots) => roots,
        Err(outcome) => return outcome,
    };
    let namespaces = facts.namespaces.iter().flatten();
    let asks = |namespace: &&Value| {
        let labels = &namespace["metadata"]["labels"];
        let active = object::text(namespace, "/status/phase") != "Terminating";
        let wanted = labels[label::INJECTION] == "enabled" || !labels[label::REVISION].is_null();
        active && (wanted || object::text(namespace, "/metadata/name") == facts.system)
    };
    let missing = namespaces
        .filter(asks)
        .map(|namespace| object::text(namespace, "/metadata/name"))
        .filter(|name| !roots.contains_key(name))
        .map(|name| format!("namespace {name} has no ConfigMap {ROOT_MAP}"));
    Outcome::of(missing.collect())
}

fn same(facts: &Facts) -> Outcome {
    let roots = match roots(facts) {
        Ok(roots) => roots,
        Err(outcome) => return outcome,
    };
    let Some(expected) = roots.get(facts.system.as_str()).or_else(|| roots.values().next()) else {
        return Outcome::Skipped("no namespace has it".into());
    };
    let others = roots
        .iter()
        .filter(|(_, root)| root.trim() != expected.trim())
        .map(|(namespace, _)| format!("namespace {namespace} has another one"));
    Outcome::of(others.collect())
}

fn lasts(facts: &Facts) -> Outcome {
    let roots = match roots(facts) {
        Ok(roots) => roots,
        Err(outcome) => return outcome,
    };
    let Some(root) = roots.get(facts.system.as_str()).or_else(|| roots.values().next()) else {
        return Outcome::Skipped("no namespace has it".into());
    };
    // While roots are rotated there are several; the one that lasts longest counts.
    let until = x509_parser::pem::Pem::iter_from_buffer(root.as_bytes())
        .filter_map(Result::ok)
        .filter_map(|pem| {
            let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
            Some(certificate.validity().not_after.timestamp())
        })
        .max();
    match until.map(|until| (until - facts.now.unix_timestamp()) / 86_400) {
        None => Outcome::Failed(format!("ConfigMap {ROOT_MAP} holds no certificate")),
        Some(days) if days < 0 => Outcome::Failed("it has ended".into()),
        Some(days) if days < WARN_DAYS => Outcome::Failed(format!("it ends in {days} days")),
        Some(_) => Outcome::Passed,
    }
}
