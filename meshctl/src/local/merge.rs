//! `apply` as a pure function: what an object becomes when a manifest is applied to it. Three texts meet: the manifest
//! of last time (kept in an annotation, as kubectl keeps it), the manifest of now, and the live object. What the user
//! wrote wins; what the user wrote last time and no longer writes goes; what others wrote (the platform, `scale`,
//! `rollout restart`) stays. Lists are taken whole.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::object::{self, Key};

/// Where the manifest of last time is kept.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object that a manifest makes of the live one.
pub fn apply(key: &Key, live: Option<&Value>, manifest: &Value) -> Value {
    let mut wanted = manifest.clone();
    if let Some(map) = wanted.as_object_mut() {
        map.remove("status");
    }
    object::set_metadata(&mut wanted, "name", key.name.as_str().into());
    if key.kind.namespaced {
        object::set_metadata(&mut wanted, "namespace", key.namespace.as_str().into());
    }
    let empty = Value::Null;
    let last: Value = live
        .and_then(|live| live["metadata"]["annotations"].get(LAST_APPLIED))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    if let Some(annotations) = wanted
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    let written = wanted.to_string();
    let mut merged = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    three_way(&mut merged, &last, &wanted);
    merged["apiVersion"] = manifest.get("apiVersion").unwrap_or(&empty).clone();
    let mut annotations = merged
        .pointer("/metadata/annotations")
        .cloned()
        .unwrap_or_default();
    if !annotations.is_object() {
        annotations = Value::Object(Map::new());
    }
    annotations[LAST_APPLIED] = written.into();
    object::set_metadata(&mut merged, "annotations", annotations);
    default(&mut merged, key);
    merged
}

fn three_way(live: &mut Value, last: &Value, wanted: &Value) {
    let (Some(target), Some(wanted)) = (live.as_object_mut(), wanted.as_object()) else {
        *live = wanted.clone();
        return;
    };
    if let Some(last) = last.as_object() {
        target.retain(|name, _| !last.contains_key(name) || wanted.contains_key(name));
    }
    for (name, value) in wanted {
        let before = last.get(name).unwrap_or(&Value::Null);
        match target.get_mut(name) {
            Some(present) if present.is_object() && value.is_object() => three_way(present, before, value),
            _ => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The defaults that others rely on being written out.
fn default(object: &mut Value, key: &Key) {
    match key.kind.kind {
        "Namespace" => {
            let mut labels = object
                .pointer("/metadata/labels")
                .cloned()
                .unwrap_or_else(|| json!({}));
            labels[mesh_proto::names::label::NAMESPACE_NAME] = key.name.as_str().into();
            object::set_metadata(object, "labels", labels);
        }
        "Service" => default_service(object),
        "Secret" => default_secret(object),
        _ => {}
    }
}

fn default_service(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    spec.entry("type").or_insert_with(|| "ClusterIP".into());
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        port.entry("protocol").or_insert_with(|| "TCP".into());
        if let Some(number) = port.get("port").cloned() {
            port.entry("targetPort").or_insert(number);
        }
    }
}

/// `stringData` is only a way of writing `data`.
fn default_secret(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    map.entry("type").or_insert_with(|| "Opaque".into());
    let Some(Value::Object(plain)) = map.remove("stringData") else {
        return;
    };
    let encoded: BTreeMap<String, Value> = plain
        .into_iter()
        .filter_map(|(name, value)| Some((name, BASE64_STANDARD.encode(value.as_str()?).into())))
        .collect();
    let data = map.entry("data").or_insert_with(|| json!({}));
    if let Some(data) = data.as_object_mut() {
        data.extend(encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("Deployment", "default", "a")
    }

    fn deployment(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn applying_twice_changes_nothing() {
        let manifest =
            deployment(json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "x"}]}}}));
        let once = apply(&key(), None, &manifest);
        assert_eq!(apply(&key(), Some(&once), &manifest), once);
    }

    #[test]
    fn what_is_no_longer_written_goes_and_what_others_wrote_stays() {
        let mut live = apply(
            &key(),
            None,
            &deployment(json!({"replicas": 2, "minReadySeconds": 5, "template": {}})),
        );
        live["spec"]["template"]["metadata"] = json!({"annotations": {"restartedAt": "now"}});
        live["status"] = json!({"replicas": 2});
        let merged = apply(
            &key(),
            Some(&live),
            &deployment(json!({"replicas": 3, "template": {}})),
        );
        assert_eq!(merged["spec"]["replicas"], 3);
        assert!(merged["spec"].get("minReadySeconds").is_none());
        assert_eq!(
            merged["spec"]["template"]["metadata"]["annotations"]["restartedAt"],
            "now"
        );
        assert_eq!(merged["status"]["replicas"], 2);
    }

    #[test]
    fn lists_are_taken_whole() {
        let live = apply(&key(), None, &deployment(json!({"list": [{"a": 1, "b": 2}]})));
        let merged = apply(&key(), Some(&live), &deployment(json!({"list": [{"a": 1}]})));
        assert_eq!(merged["spec"]["list"], json!([{"a": 1}]));
    }

    #[test]
    fn services_and_secrets_are_completed() {
        let key = Key::new("Service", "default", "a");
        let service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "http"}]}});
        let mut first = apply(&key, None, &service);
        assert_eq!(
            first["spec"]["ports"][0],
            json!({"port": 80, "targetPort": 80, "protocol": "TCP"})
        );
        assert_eq!(first["spec"]["ports"][1]["targetPort"], "http");
        // The address that the platform gave stays.
        first["spec"]["clusterIP"] = "10.96.0.10".into();
        assert_eq!(apply(&key, Some(&first), &service), first);

        let key = Key::new("Secret", "default", "a");
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"k": "v"}, "data": {"o": "bw=="}});
        let merged = apply(&key, None, &secret);
        assert_eq!(merged["data"], json!({"k": "dg==", "o": "bw=="}));
        assert!(merged.get("stringData").is_none());
        assert_eq!(apply(&key, Some(&merged), &secret), merged);
    }
}
