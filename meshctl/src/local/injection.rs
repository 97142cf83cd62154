//! The way of a new pod into the store, in one place: the platform's defaults, then the sidecar, computed by the very
//! function that the admission webhook uses on Kubernetes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use mesh_pilot::{
    convert,
    inject::{self, Outcome, Settings},
    model::{Labels, ProxySettings},
};
use mesh_proto::{
    kube::{Kind, Manifest},
    mesh::MeshConfig,
    names::{MESH_CONFIG_MAP, SYSTEM_NAMESPACE},
    validate,
};
use serde_json::{Value, json};

use super::{
    object::{self, Key},
    platform::NODE_NAME,
    store::Store,
};

/// The pod as it will be stored; an error says why it cannot be.
pub fn admit(store: &Store, mut pod: Value) -> Result<Value, String> {
    let namespace = object::text(&pod, "/metadata/namespace").to_owned();
    if !pod["spec"].is_object() {
        return Err("spec: missing; a pod needs containers".into());
    }
    if pod["spec"]["serviceAccountName"].is_null() {
        let old_name = pod["spec"].get("serviceAccount").cloned();
        pod["spec"]["serviceAccountName"] = old_name.unwrap_or_else(|| "default".into());
    }
    pod["spec"]["nodeName"] = NODE_NAME.into();
    pod["status"] = json!({"phase": "Pending"});
    inject(store, &namespace, pod)
}

/// The decision and the sidecar are pilot's; a refusal is a sentence with the field in it.
fn inject(store: &Store, namespace: &str, value: Value) -> Result<Value, String> {
    let labels = store
        .get(&Key::new("Namespace", "", namespace))
        .map(|ns| ns["metadata"]["labels"].clone());
    let labels: Labels = labels
        .and_then(|labels| serde_json::from_value(labels).ok())
        .unwrap_or_default();
    let pod: Pod =
        serde_json::from_value(value.clone()).map_err(|error| format!("it is not a pod: {error}"))?;
    let (mesh, proxies) = (mesh_config(store), proxy_settings(store));
    match inject::inject(&pod, &labels, &mesh, &proxies, &Settings::default()) {
        Outcome::Skipped(_) => Ok(value),
        Outcome::Refused(finding) => Err(finding.to_string()),
        Outcome::Injected(pod) => serde_json::to_value(pod).map_err(|error| error.to_string()),
    }
}

/// The mesh's settings; the defaults where there are none, or none that can be read (which is a finding of its own).
fn mesh_config(store: &Store) -> MeshConfig {
    let object = store.get(&Key::new("ConfigMap", SYSTEM_NAMESPACE, MESH_CONFIG_MAP));
    let manifest = object.and_then(|object| Manifest::read((*object).clone(), None).ok());
    manifest
        .and_then(|manifest| validate::mesh_config(&manifest).0)
        .unwrap_or_default()
}

/// The ProxyConfigs; one that cannot be read counts for nothing (which is a finding of its own).
fn proxy_settings(store: &Store) -> Vec<Arc<ProxySettings>> {
    let Some(kind) = object::Kind::by_word(&Kind::ProxyConfig.lower()) else {
        return Vec::new();
    };
    let objects = store.list(kind).into_iter();
    let manifests = objects.filter_map(|(_, object)| Manifest::read((*object).clone(), None).ok());
    convert::proxy_settings(manifests.collect::<Vec<_>>().iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(labels: Value) -> Value {
        let folder = std::env::temp_dir().join(format!("gossamer-injection-{}-{labels}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let (store, _) = Store::open(&folder).unwrap();
        let key = Key::new("Namespace", "", "default");
        store
            .create(
                &key,
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": labels}}),
            )
            .unwrap();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "app", "image": "i"}]}});
        let pod = admit(&store, pod).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        pod
    }

    #[test]
    fn a_labelled_namespace_gets_sidecars() {
        let pod = admitted(json!({"istio-injection": "enabled"}));
        let names: Vec<&str> = pod["spec"]["initContainers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|container| container["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["istio-init", "istio-proxy"]);
        assert_eq!(
            (&pod["kind"], &pod["spec"]["serviceAccountName"]),
            (&json!("Pod"), &json!("default"))
        );
        assert!(admitted(json!({}))["spec"].get("initContainers").is_none());
    }

    #[test]
    fn a_pod_without_a_spec_is_refused() {
        let folder = std::env::temp_dir().join(format!("gossamer-injection-none-{}", std::process::id()));
        let (store, _) = Store::open(&folder).unwrap();
        assert!(
            admit(&store, json!({"metadata": {"name": "p"}}))
                .unwrap_err()
                .starts_with("spec: missing")
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}
