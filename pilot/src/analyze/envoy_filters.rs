//! Patches of EnvoyFilters that cannot be applied, or depend on an order that nobody promises (IST0151 to IST0155). They
//! are read as they were written; whether this mesh acts on an EnvoyFilter at all is said elsewhere (GSM0004).

use std::collections::BTreeSet;

use mesh_proto::finding::{self, Code, Finding};
use serde_json::Value;

use super::{Scene, report_of};
use crate::model::Kind;

/// What these patch is made anew with every change, so that parts of it cannot be added or removed.
const MADE_WHOLE: [&str; 2] = ["ROUTE_CONFIGURATION", "HTTP_ROUTE"];
const REPLACEABLE: [&str; 3] = ["HTTP_FILTER", "NETWORK_FILTER", "VIRTUAL_HOST"];

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    // Names of filters that an earlier patch adds for one proxy version only.
    let mut versioned: BTreeSet<String> = BTreeSet::new();
    for manifest in scene.written(Kind::EnvoyFilter) {
        let mut report = report_of(manifest);
        let text = |value: &Value, pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let priority = manifest.value.pointer("/spec/priority").and_then(Value::as_i64);
        let patches = manifest
            .value
            .pointer("/spec/configPatches")
            .and_then(Value::as_array);
        for (i, patch) in patches.into_iter().flatten().enumerate() {
            let own = text(patch, "/patch/value/name");
            let name = match own.is_empty() {
                true => text(patch, "/match/listener/filterChain/filter/name"),
                false => own,
            };
            let (operation, target) = (text(patch, "/patch/operation"), text(patch, "/applyTo"));
            let earlier = versioned.contains(&name);
            if let Some((code, problem)) = judge(&operation, &target, priority.unwrap_or_default(), earlier) {
                report.add(code, format!("spec.configPatches[{i}].patch.operation"), problem);
            }
            if !text(patch, "/match/proxy/proxyVersion").is_empty() && !name.is_empty() {
                versioned.insert(name);
            }
        }
        findings.append(&mut report.findings);
    }
}

fn judge(operation: &str, target: &str, priority: i64, versioned: bool) -> Option<(Code, String)> {
    match operation {
        "ADD" if MADE_WHOLE.contains(&target) => Some((
            finding::ENVOY_FILTER_ADD,
            format!("ADD has no effect on {target}; use MERGE"),
        )),
        "REMOVE" if MADE_WHOLE.contains(&target) => Some((
            finding::ENVOY_FILTER_REMOVE,
            format!("REMOVE has no effect on {target}; change the VirtualService that makes it"),
        )),
        "REPLACE" if !REPLACEABLE.contains(&target) => Some((
            finding::ENVOY_FILTER_REPLACE,
            format!(
                "REPLACE is not possible on {target}, only on {}",
                REPLACEABLE.join(", ")
            ),
        )),
        "INSERT_BEFORE" | "INSERT_AFTER" | "REPLACE" | "REMOVE" if priority == 0 => {
            let (code, more) = match versioned {
                true => (
                    finding::ENVOY_FILTER_RELATIVE_TO_VERSION,
                    "; what it stands relative to is added for one proxy version only",
                ),
                false => (finding::ENVOY_FILTER_RELATIVE, ""),
            };
            let problem = format!(
                "{operation} stands relative to something that may be added later{more}: set priority, or use INSERT_FIRST \
                 or ADD"
            );
            Some((code, problem))
        }
        _ => None,
    }
}
