//! Annotations in the mesh's domains, on objects of any kind: unknown, misplaced, or with a value that cannot be read
//! (IST0107, IST0108, IST0125).

use crate::{
    finding::{self, Finding, ObjectRef, Report},
    kube::{Kind, Manifest},
    mesh::ProxyConfig,
    names::annotation,
};

/// What an annotation's value must be.
enum Value {
    Any,
    Bool,
    /// Ports, ranges of ports are not possible; `*` for all where allowed.
    Ports,
    Ranges,
    ProxyConfig,
    /// CPU or memory, as Kubernetes writes it: `100m`, `128Mi`.
    Quantity,
    /// A JSON object or list.
    Json,
    /// A level, and perhaps levels of modules: `info,mesh_proxy=debug`.
    LogLevel,
    OneOf(&'static [&'static str]),
}

/// As `mesh-proxy --log-level` takes them; "warning" and "critical" are Envoy's words.
const LOG_LEVELS: [&str; 8] = [
    "trace", "debug", "info", "warn", "warning", "error", "critical", "off",
];
/// Kinds that have a pod, or a template of one (where the annotation belongs into the template).
const POD: &[Kind] = &[Kind::Pod];
const WORKLOADS: [Kind; 6] = [
    Kind::Deployment,
    Kind::ReplicaSet,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::Job,
    Kind::CronJob,
];

/// Name, the kinds it has an effect on, its value.
const KNOWN: &[(&str, &[Kind], Value)] = &[
    (annotation::INJECT, POD, Value::Bool),
    (annotation::STATUS, POD, Value::Any),
    (annotation::PROXY_CONFIG, POD, Value::ProxyConfig),
    (annotation::EXCLUDE_OUTBOUND_PORTS, POD, Value::Ports),
    (annotation::INCLUDE_OUTBOUND_PORTS, POD, Value::Ports),
    (annotation::EXCLUDE_INBOUND_PORTS, POD, Value::Ports),
    (annotation::INCLUDE_INBOUND_PORTS, POD, Value::Ports),
    (annotation::EXCLUDE_OUTBOUND_RANGES, POD, Value::Ranges),
    (annotation::INCLUDE_OUTBOUND_RANGES, POD, Value::Ranges),
    (annotation::EXCLUDE_INTERFACES, POD, Value::Any),
    (annotation::PROXY_CPU, POD, Value::Quantity),
    (annotation::PROXY_MEMORY, POD, Value::Quantity),
    (annotation::PROXY_CPU_LIMIT, POD, Value::Quantity),
    (annotation::PROXY_MEMORY_LIMIT, POD, Value::Quantity),
    (annotation::LOG_LEVEL, POD, Value::LogLevel),
    (annotation::TEMPLATES, POD, Value::Any),
    (annotation::DATA_PLANE, POD, Value::OneOf(&["gossamer", "envoy"])),
    (annotation::PROXY_IMAGE, POD, Value::Any),
    (annotation::NATIVE_SIDECAR, POD, Value::Bool),
    (annotation::REWRITE_PROBES, POD, Value::Bool),
    (
        annotation::INTERCEPTION_MODE,
        POD,
        Value::OneOf(&["REDIRECT", "TPROXY", "NONE"]),
    ),
    (annotation::DISCOVERY_ADDRESS, POD, Value::Any),
    (annotation::USER_VOLUME, POD, Value::Json),
    (annotation::USER_VOLUME_MOUNT, POD, Value::Json),
    ("sidecar.istio.io/statsInclusionPrefixes", POD, Value::Any),
    ("sidecar.istio.io/statsInclusionSuffixes", POD, Value::Any),
    ("sidecar.istio.io/statsInclusionRegexps", POD, Value::Any),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", POD, Value::Any),
    ("galley.istio.io/analyze-suppress", &[], Value::Any),
    ("networking.istio.io/exportTo", &[Kind::Service], Value::Any),
    (
        annotation::TRAFFIC_DISTRIBUTION,
        &[Kind::Service, Kind::ServiceEntry, Kind::Namespace],
        Value::OneOf(&["PreferClose", "PreferSameZone", "PreferSameNode", "Any"]),
    ),
    (
        "alpha.istio.io/canonical-serviceaccounts",
        &[Kind::Service],
        Value::Any,
    ),
    (
        "alpha.istio.io/kubernetes-serviceaccounts",
        &[Kind::Service],
        Value::Any,
    ),
    ("install.operator.istio.io/owner-name", &[], Value::Any),
];

pub fn check(manifest: &Manifest) -> Vec<Finding> {
    let mut report = Report::new(manifest.object_ref(), manifest.source.clone());
    for (name, value) in manifest.annotations() {
        one(
            manifest.kind,
            name,
            value,
            &format!("metadata.annotations[{name}]"),
            &mut report,
        );
    }
    let template = match manifest.kind {
        Kind::CronJob => "/spec/jobTemplate/spec/template/metadata/annotations",
        _ => "/spec/template/metadata/annotations",
    };
    if WORKLOADS.contains(&manifest.kind) {
        let annotations = manifest
            .value
            .pointer(template)
            .and_then(serde_json::Value::as_object);
        let base = template[1..].replace('/', ".");
        for (name, value) in annotations.into_iter().flatten() {
            if let Some(value) = value.as_str() {
                one(Kind::Pod, name, value, &format!("{base}[{name}]"), &mut report);
            }
        }
    }
    report.findings
}

/// One annotation, as it stands on an object of a kind.
fn one(kind: Kind, name: &str, value: &str, path: &str, report: &mut Report) {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    let ours = ["istio.io", "gossamer.dev"]
        .iter()
        .filter_map(|own| domain.strip_suffix(own))
        .any(|rest| rest.is_empty() || rest.ends_with('.'));
    if !ours {
        return;
    }
    let Some((_, kinds, form)) = KNOWN.iter().find(|(known, _, _)| *known == name) else {
        report.add(
            finding::UNKNOWN_ANNOTATION,
            path,
            format!("{name} means nothing to this mesh; it has no effect"),
        );
        return;
    };
    if !kinds.is_empty() && !kinds.contains(&kind) {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let hint = if WORKLOADS.contains(&kind) && *kinds == POD {
            "; put it under spec.template.metadata"
        } else {
            ""
        };
        report.add(
            finding::MISPLACED_ANNOTATION,
            path,
            format!("{name} has an effect only on {}{hint}", names.join(", ")),
        );
        return;
    }
    if let Some(problem) = problem(form, value) {
        report.add(finding::INVALID_ANNOTATION, path, format!("{value:?}: {problem}"));
    }
}

fn problem(form: &Value, value: &str) -> Option<String> {
    let list = || value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    match form {
        Value::Any => None,
        Value::Bool => {
            (!matches!(value, "true" | "false")).then(|| "must be \"true\" or \"false\"".to_owned())
        }
        Value::Ports if value == "*" => None,
        Value::Ports => list()
            .find(|entry| !entry.parse::<u16>().is_ok_and(|port| port > 0))
            .map(|entry| format!("{entry:?} is not a port")),
        Value::Ranges if value == "*" => None,
        Value::Ranges => list()
            .find(|entry| super::field::parse_range(entry).is_none())
            .map(|entry| format!("{entry:?} is not a range of addresses")),
        Value::Quantity => {
            (!is_quantity(value)).then(|| "is not a quantity, such as 100m or 128Mi".to_owned())
        }
        Value::Json => serde_json::from_str::<serde_json::Value>(value)
            .ok()
            .is_none_or(|json| !json.is_object() && !json.is_array())
            .then(|| "is not a JSON object or list".to_owned()),
        Value::LogLevel => list()
            .find(|entry| {
                let level = entry.rsplit('=').next().unwrap_or(entry).to_ascii_lowercase();
                !LOG_LEVELS.contains(&level.as_str())
            })
            .map(|entry| format!("{entry:?} is no level; levels are {}", LOG_LEVELS.join(", "))),
        Value::OneOf(names) => {
            (!names.contains(&value)).then(|| format!("is not one of {}", names.join(", ")))
        }
        Value::ProxyConfig => ProxyConfig::default()
            .overridden(value, &ObjectRef::default())
            .err()
            .map(|finding| format!("{} {}", finding.path, finding.text)),
    }
}

/// A decimal number, and perhaps a unit of Kubernetes or an exponent.
fn is_quantity(text: &str) -> bool {
    const UNITS: [&str; 16] = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let exponent = unit.strip_prefix(['e', 'E']).filter(|digits| !digits.is_empty());
    number.parse::<f64>().is_ok()
        && (UNITS.contains(&unit) || exponent.is_some_and(|digits| digits.parse::<i8>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, annotations: &str, template: &str, expect: &[&str]) {
        let value = serde_saphyr::from_str(&format!(
            "apiVersion: {}\nkind: {kind}\nmetadata: {{name: a, annotations: {annotations}}}\n\
             spec: {{template: {{metadata: {{annotations: {template}}}}}}}",
            Kind::named(kind).unwrap().api_version()
        ))
        .unwrap();
        let manifest = Manifest::read(value, None).unwrap();
        let found: Vec<String> = super::check(&manifest)
            .iter()
            .map(|finding| format!("{} {}", finding.code, finding.path))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn annotations() {
        check(
            "Pod",
            "{sidecar.istio.io/inject: 'true', example.com/x: y}",
            "{}",
            &[],
        );
        check(
            "Pod",
            "{sidecar.istio.io/proxyCPU: 100m, sidecar.istio.io/proxyMemory: '1.5Gi', \
             sidecar.istio.io/proxyCPULimit: '2', sidecar.istio.io/proxyMemoryLimit: 1e9, \
             sidecar.istio.io/userVolume: '[]', sidecar.istio.io/interceptionMode: REDIRECT, \
             galley.istio.io/analyze-suppress: '*'}",
            "{}",
            &[],
        );
        check(
            "Pod",
            "{sidecar.istio.io/proxyCPU: much, sidecar.istio.io/userVolume: 'a', \
             sidecar.istio.io/interceptionMode: SOME}",
            "{}",
            &[
                "IST0125 metadata.annotations[sidecar.istio.io/interceptionMode]",
                "IST0125 metadata.annotations[sidecar.istio.io/proxyCPU]",
                "IST0125 metadata.annotations[sidecar.istio.io/userVolume]",
            ],
        );
        check(
            "Pod",
            "{sidecar.istio.io/inject: 'yes'}",
            "{}",
            &["IST0125 metadata.annotations[sidecar.istio.io/inject]"],
        );
        check(
            "Pod",
            "{sidecar.istio.io/injekt: 'true'}",
            "{}",
            &["IST0108 metadata.annotations[sidecar.istio.io/injekt]"],
        );
        check(
            "Service",
            "{sidecar.istio.io/inject: 'true'}",
            "{}",
            &["IST0107 metadata.annotations[sidecar.istio.io/inject]"],
        );
        check(
            "Deployment",
            "{sidecar.istio.io/inject: 'true'}",
            "{sidecar.istio.io/inject: 'false'}",
            &["IST0107 metadata.annotations[sidecar.istio.io/inject]"],
        );
        check(
            "Pod",
            "{traffic.sidecar.istio.io/excludeOutboundPorts: '80, x'}",
            "{}",
            &["IST0125 metadata.annotations[traffic.sidecar.istio.io/excludeOutboundPorts]"],
        );
        check(
            "Pod",
            "{proxy.istio.io/config: 'concurrency: x'}",
            "{}",
            &["IST0125 metadata.annotations[proxy.istio.io/config]"],
        );
    }
}
