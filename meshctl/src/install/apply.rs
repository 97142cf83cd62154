//! Objects into the cluster, by server-side apply: what the charts say is ours, everything else in an object (the
//! `caBundle` that pilot puts in, the replicas that an autoscaler decides, what a cloud adds) stays with whom it belongs to.
//!
//! Each object gets labels that say who installed it, by which it is found again when it is to be pruned or removed. An
//! object that somebody else installed (Helm, another control plane) is never taken over silently.

use anyhow::{anyhow, bail};
use kube::{
    Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    kind::{Key, Kind},
    plan::Component,
};
use crate::{kube_cluster::explain, local::object::text};

/// The field manager of everything applied here.
pub const MANAGER: &str = "meshctl";

/// Labels of every object that was installed from here.
pub mod label {
    /// The revision that brought it; `base` for what belongs to none.
    pub const OWNER: &str = "install.gossamer.dev/owner";
    /// The part it belongs to.
    pub const COMPONENT: &str = "install.gossamer.dev/component";
    /// On the namespace, when it was made here.
    pub const CREATED: &str = "install.gossamer.dev/created";
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
}

/// The owner of kinds and roles for people.
pub const BASE_OWNER: &str = "base";

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Created,
    Configured,
    Unchanged,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        })
    }
}

/// An object with the labels of its owner.
pub fn owned(object: &Value, component: &Component, revision: &str) -> Value {
    let owner = match component {
        Component::Base => BASE_OWNER,
        _ => revision,
    };
    let mut object = object.clone();
    let labels = &mut object["metadata"]["labels"];
    labels[label::OWNER] = json!(owner);
    labels[label::COMPONENT] = json!(component.label());
    labels[label::MANAGED_BY] = json!(MANAGER);
    object
}

/// Who an object of the cluster belongs to, when it is not `meshctl`.
pub fn stranger(live: &DynamicObject) -> Option<String> {
    let labels = live.metadata.labels.as_ref();
    let label = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
    let annotations = live.metadata.annotations.as_ref();
    match label(label::MANAGED_BY) {
        Some("Helm") => {
            let release = annotations.and_then(|all| all.get("meta.helm.sh/release-name"));
            Some(format!(
                "Helm's release {}",
                release.map_or("(unknown)", String::as_str)
            ))
        }
        _ => None,
    }
}

pub async fn get(client: &Client, key: &Key) -> anyhow::Result<Option<DynamicObject>> {
    let kind = Kind::by_name(&key.kind).ok_or_else(|| anyhow!("{key}: a kind that is not known here"))?;
    let api = kind.api(client, &key.namespace);
    api.get_opt(&key.name)
        .await
        .map_err(|error| explain(&error, &format!("reading {key}")))
}

/// One object; its labels must be in it already.
pub async fn apply(client: &Client, object: &Value) -> anyhow::Result<Change> {
    let key = Key::of(object);
    let before = get(client, &key).await?;
    if let Some(owner) = before.as_ref().and_then(stranger) {
        bail!(
            "{key} belongs to {owner}; upgrade or uninstall that with Helm, or choose another --revision or \
             --istioNamespace"
        );
    }
    let after = patch(client, object, false).await?;
    Ok(match before {
        None => Change::Created,
        Some(before) if wanted(&before)? == wanted(&after)? => Change::Unchanged,
        Some(_) => Change::Configured,
    })
}

/// An object without what controllers write meanwhile.
fn wanted(object: &DynamicObject) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata
            .retain(|name, _| !["resourceVersion", "generation", "managedFields"].contains(&name.as_str()));
    }
    Ok(value)
}

/// What the object would be, were it applied; nothing changes.
pub async fn preview(client: &Client, object: &Value) -> anyhow::Result<DynamicObject> {
    patch(client, object, true).await
}

async fn patch(client: &Client, object: &Value, dry_run: bool) -> anyhow::Result<DynamicObject> {
    let key = Key::of(object);
    let api = Kind::of(object)?.api(client, &key.namespace);
    let mut how = PatchParams::apply(MANAGER).force();
    how.dry_run = dry_run;
    api.patch(&key.name, &how, &Patch::Apply(object))
        .await
        .map_err(|error| explain(&error, &format!("applying {key}")))
}

/// The system namespace, when it is not there yet.
pub async fn ensure_namespace(client: &Client, name: &str) -> anyhow::Result<bool> {
    let key = Key::new("Namespace", "", name);
    if let Some(live) = get(client, &key).await? {
        if live.metadata.deletion_timestamp.is_some() {
            bail!(
                "namespace {name} is being deleted; wait until it is gone (kubectl get namespace {name} -w)"
            );
        }
        return Ok(false);
    }
    let labels = json!({ (label::CREATED): "true", (label::MANAGED_BY): MANAGER });
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    patch(client, &namespace, false).await?;
    Ok(true)
}

/// As JSON, without what only the API server writes.
pub fn plain(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value["metadata"].as_object_mut() {
        for field in [
            "managedFields",
            "resourceVersion",
            "generation",
            "uid",
            "creationTimestamp",
        ] {
            metadata.remove(field);
        }
    }
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    value
}

/// Fields that differ between two objects, as `path: old → new`.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut all = Vec::new();
    compare(old, new, "", &mut all);
    all
}

fn compare(old: &Value, new: &Value, path: &str, all: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a
                .keys()
                .chain(b.keys().filter(|name| !a.contains_key(*name)))
                .collect();
            names.sort();
            for name in names {
                let below = match path {
                    "" => name.clone(),
                    path if name.contains(['.', '/']) => format!("{path}[{name}]"),
                    path => format!("{path}.{name}"),
                };
                let field = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(&field(a), &field(b), &below, all);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(a, b, &format!("{path}[{index}]"), all);
            }
        }
        (old, new) if old == new => {}
        (old, new) => all.push(format!("{path}: {} → {}", short(old), short(new))),
    }
}

fn short(value: &Value) -> String {
    const LONGEST: usize = 120;
    if value.is_null() {
        return "(none)".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The name of an object for progress lines: `deployment/pilot`.
pub fn short_name(object: &Value) -> String {
    format!(
        "{}/{}",
        text(object, "/kind").to_lowercase(),
        text(object, "/metadata/name")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_who_brought_it() {
        let object = json!({"kind": "Service", "metadata": {"name": "pilot", "labels": {"app": "pilot"}}});
        let owned = owned(&object, &Component::Pilot, "canary");
        assert_eq!(
            owned["metadata"]["labels"],
            json!({"app": "pilot", "install.gossamer.dev/owner": "canary",
                "install.gossamer.dev/component": "pilot", "app.kubernetes.io/managed-by": "meshctl"})
        );
        let role = json!({"kind": "ClusterRole", "metadata": {"name": "x"}});
        let role = super::owned(&role, &Component::Base, "canary");
        assert_eq!(role["metadata"]["labels"][label::OWNER], "base");
    }

    #[test]
    fn what_differs() {
        let old = json!({"a": 1, "b": {"c.d/e": "x", "f": [1, 2]}, "g": [1]});
        let new = json!({"a": 1, "b": {"c.d/e": "y", "f": [1, 3]}, "g": [1, 2], "h": true});
        assert_eq!(
            differences(&old, &new),
            [
                "b[c.d/e]: \"x\" → \"y\"",
                "b.f[1]: 2 → 3",
                "g: [1] → [1,2]",
                "h: (none) → true"
            ]
        );
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn helm_s_objects_are_known() {
        let live: DynamicObject = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "pilot", "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"meta.helm.sh/release-name": "control"}}}))
        .unwrap();
        assert_eq!(stranger(&live).as_deref(), Some("Helm's release control"));
    }
}
