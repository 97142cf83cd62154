//! The CustomResourceDefinitions by which Kubernetes knows the mesh's kinds, generated from the types: names, versions,
//! schemas with their constraints, columns of `kubectl get`.
//!
//! The result is `charts/base/crds/crd-all.gen.yaml`; a test (`tests/generated.rs`) holds the file and the types
//! together. Versions of a kind differ in nothing but their names, so that no conversion is needed; the preferred one is
//! stored. Descriptions are in that one only, since `kubectl explain` reads no other and the definitions grow large.

use serde_json::{Value, json};

use super::{
    Kind,
    extension::{TrafficExtension, WasmPlugin},
    networking::{
        DestinationRule, EnvoyFilter, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService,
        WorkloadEntry, WorkloadGroup,
    },
    schema,
    security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication},
    telemetry::Telemetry,
};

/// A column of `kubectl get`: its title, where its value is, its type, what it is.
type Column = (&'static str, &'static str, &'static str, &'static str);

const AGE: Column = (
    "Age",
    ".metadata.creationTimestamp",
    "date",
    "How long the object has been there.",
);

/// All definitions as one YAML text.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::from(
        "# Generated from the types in proto/src/kube; do not edit. To write it anew: UPDATE=1 cargo test -p mesh-proto generated\n",
    );
    for kind in Kind::ALL.iter().copied() {
        if let Some(definition) = definition(kind) {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(&definition)?);
        }
    }
    Ok(text)
}

/// The definition of one of the mesh's kinds; `None` for kinds of others.
pub fn definition(kind: Kind) -> Option<Value> {
    let spec = spec(kind)?;
    let group = kind.group();
    let mut names = json!({
        "kind": kind.as_str(),
        "listKind": format!("{kind}List"),
        "plural": kind.plural(),
        "singular": kind.lower(),
        "categories": ["istio-io", format!("{}-istio-io", group.split('.').next().unwrap_or_default())],
    });
    if !kind.short_names().is_empty() {
        names["shortNames"] = json!(kind.short_names());
    }
    let versions: Vec<Value> = kind
        .versions()
        .iter()
        .enumerate()
        .map(|(i, name)| version(kind, name, i == 0, &spec))
        .collect();
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{group}", kind.plural()),
            "labels": {"app.kubernetes.io/part-of": "gossamer"},
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": versions},
    }))
}

/// The schema of a kind's `spec`; `None` for kinds of others.
pub fn spec(kind: Kind) -> Option<Value> {
    Some(match kind {
        Kind::VirtualService => schema::of::<VirtualService>(),
        Kind::DestinationRule => schema::of::<DestinationRule>(),
        Kind::Gateway => schema::of::<Gateway>(),
        Kind::ServiceEntry => schema::of::<ServiceEntry>(),
        Kind::WorkloadEntry => schema::of::<WorkloadEntry>(),
        Kind::WorkloadGroup => schema::of::<WorkloadGroup>(),
        Kind::Sidecar => schema::of::<Sidecar>(),
        Kind::ProxyConfig => schema::of::<ProxyConfig>(),
        Kind::EnvoyFilter => schema::of::<EnvoyFilter>(),
        Kind::PeerAuthentication => schema::of::<PeerAuthentication>(),
        Kind::RequestAuthentication => schema::of::<RequestAuthentication>(),
        Kind::AuthorizationPolicy => schema::of::<AuthorizationPolicy>(),
        Kind::Telemetry => schema::of::<Telemetry>(),
        Kind::WasmPlugin => schema::of::<WasmPlugin>(),
        Kind::TrafficExtension => schema::of::<TrafficExtension>(),
        _ => return None,
    })
}

fn version(kind: Kind, name: &str, stored: bool, spec: &Value) -> Value {
    let mut spec = spec.clone();
    if !stored {
        without_descriptions(&mut spec);
    }
    let mut root = json!({
        "type": "object",
        "properties": {
            "spec": spec,
            // Written by the mesh, read by people; its form is not a promise.
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    if needs_spec(kind) {
        root["required"] = json!(["spec"]);
    }
    let mut version = json!({
        "name": name,
        "served": true,
        "storage": stored,
        "schema": {"openAPIV3Schema": root},
        "subresources": {"status": {}},
    });
    let columns: Vec<Value> = columns(kind)
        .iter()
        .map(|(title, path, kind, text)| {
            json!({"name": title, "jsonPath": path, "type": kind, "description": text})
        })
        .collect();
    if !columns.is_empty() {
        version["additionalPrinterColumns"] = columns.into();
    }
    version
}

/// Kinds of which an object that says nothing is wrong.
fn needs_spec(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::VirtualService
            | Kind::DestinationRule
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::WorkloadGroup
            | Kind::WasmPlugin
            | Kind::TrafficExtension
    )
}

/// As users of Istio see them.
fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::VirtualService => &[
            (
                "Gateways",
                ".spec.gateways",
                "string",
                "Gateways that serve the routes.",
            ),
            ("Hosts", ".spec.hosts", "string", "Hosts that clients ask for."),
            AGE,
        ],
        Kind::DestinationRule => &[
            ("Host", ".spec.host", "string", "The service that it is for."),
            AGE,
        ],
        Kind::ServiceEntry => &[
            ("Hosts", ".spec.hosts", "string", "The service's names."),
            (
                "Location",
                ".spec.location",
                "string",
                "Inside of the mesh or outside.",
            ),
            (
                "Resolution",
                ".spec.resolution",
                "string",
                "Where endpoints come from.",
            ),
            AGE,
        ],
        Kind::WorkloadEntry => &[
            AGE,
            ("Address", ".spec.address", "string", "Where the workload is."),
        ],
        Kind::PeerAuthentication => &[
            (
                "Mode",
                ".spec.mtls.mode",
                "string",
                "Whether mutual TLS is demanded.",
            ),
            AGE,
        ],
        Kind::AuthorizationPolicy => &[
            (
                "Action",
                ".spec.action",
                "string",
                "What happens to requests that a rule describes.",
            ),
            AGE,
        ],
        Kind::WorkloadGroup | Kind::Telemetry | Kind::WasmPlugin | Kind::TrafficExtension => &[AGE],
        _ => &[],
    }
}

fn without_descriptions(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    if object.get("description").is_some_and(Value::is_string) {
        object.remove("description");
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(without_descriptions);
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = object.get_mut(nested) {
            without_descriptions(nested);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kubectl apply` without `--server-side` keeps the object in an annotation, and annotations have this bound.
    const ANNOTATION_BOUND: usize = 256 << 10;

    #[test]
    fn every_kind_of_the_mesh_is_defined() {
        for kind in Kind::ALL.iter().copied() {
            let definition = definition(kind);
            assert_eq!(definition.is_some(), kind.is_mesh(), "{kind}");
            let Some(definition) = definition else { continue };
            let size = definition.to_string().len();
            assert!(size < ANNOTATION_BOUND, "{kind} has {size} bytes");
            let versions = definition
                .pointer("/spec/versions")
                .and_then(Value::as_array)
                .unwrap();
            let stored = versions
                .iter()
                .filter(|version| version["storage"] == true)
                .count();
            assert_eq!((versions.len(), stored), (kind.versions().len(), 1), "{kind}");
        }
    }

    #[test]
    fn the_whole_api_is_there() {
        let count = |kind: Kind| schema::leaves(&spec(kind).unwrap()).len();
        assert_eq!(count(Kind::VirtualService), 119);
        assert_eq!(count(Kind::DestinationRule), 293);
        assert_eq!(count(Kind::Gateway), 29);
        assert_eq!(count(Kind::ServiceEntry), 18);
        assert_eq!(count(Kind::WorkloadEntry) + count(Kind::WorkloadGroup), 32);
        assert_eq!(count(Kind::Sidecar), 73);
    }

    #[test]
    fn structural() {
        for kind in Kind::ALL.iter().copied() {
            if let Some(spec) = spec(kind) {
                check(&spec, &kind.to_string());
            }
        }
    }

    /// One type everywhere, nothing that refers to elsewhere.
    fn check(schema: &Value, path: &str) {
        let free = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
        let kind = schema
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{path}: {schema}"));
        for keyword in ["$ref", "$defs", "const", "default", "title"] {
            assert!(schema.get(keyword).is_none(), "{path} has {keyword}");
        }
        for keyword in ["anyOf", "oneOf", "allOf", "not"] {
            let choices = schema.get(keyword).map(Value::to_string).unwrap_or_default();
            assert!(!choices.contains("\"type\""), "{path}: types within {keyword}");
        }
        match kind {
            "object" if !free => {
                let properties = schema.get("properties").and_then(Value::as_object);
                let values = schema.get("additionalProperties");
                assert!(properties.is_some() != values.is_some(), "{path}: {schema}");
                for (name, property) in properties.into_iter().flatten() {
                    check(property, &format!("{path}.{name}"));
                }
                if let Some(values) = values {
                    check(values, &format!("{path}.*"));
                }
            }
            "array" => check(&schema["items"], &format!("{path}[]")),
            "object" | "string" | "integer" | "number" | "boolean" => {}
            other => panic!("{path}: {other}"),
        }
    }
}
