//! What every namespace has without being asked: a `default` ServiceAccount, and the mesh's root certificate as a
//! ConfigMap, as soon as citadel has published it. And how a namespace goes: when the last of its objects has gone.

use mesh_proto::names::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use crate::local::{
    node::Node,
    object::{self, Key, Kind},
    store::{Store, StoreError},
};

/// The ConfigMap that pods mount to know the mesh's root.
pub const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
pub const ROOT_KEY: &str = "root-cert.pem";

/// Namespaces that exist from the beginning.
pub const FIRST: [&str; 2] = ["default", SYSTEM_NAMESPACE];

pub fn standard_objects(node: &Node) -> Result<(), StoreError> {
    // Not there before citadel's first start; a half-written file is none (citadel renames it into place).
    let root = std::fs::read_to_string(node.layout.citadel().join(ROOT_KEY))
        .ok()
        .filter(|text| !text.is_empty());
    for (key, namespace) in node.store.list(Kind::named("Namespace")) {
        if is_leaving(&namespace) {
            continue;
        }
        let account = Key::new("ServiceAccount", &key.name, "default");
        if node.store.get(&account).is_none() {
            node.store.create(
                &account,
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {}}),
            )?;
        }
        if let Some(root) = &root {
            let key = Key::new("ConfigMap", &key.name, ROOT_CONFIG_MAP);
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {ROOT_KEY: root}});
            node.store.put(&key, map)?;
        }
    }
    Ok(())
}

/// Has citadel published its root yet?
pub fn has_root(store: &Store) -> bool {
    store
        .get(&Key::new("ConfigMap", SYSTEM_NAMESPACE, ROOT_CONFIG_MAP))
        .is_some()
}

/// Removes namespaces that are on their way out and empty.
pub fn finish_removal(store: &Store) -> Result<(), StoreError> {
    for (key, namespace) in store.list(Kind::named("Namespace")) {
        if is_leaving(&namespace) && store.keys_in(&key.name).is_empty() {
            store.remove(&key)?;
        }
    }
    Ok(())
}

fn is_leaving(namespace: &Value) -> bool {
    !object::text(namespace, "/metadata/deletionTimestamp").is_empty()
}
