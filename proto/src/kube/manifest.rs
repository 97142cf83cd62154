//! An object as it was written, before anybody looked into it.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::{Kind, ObjectKey, kinds::NotOurs};
use crate::finding::{self, Finding, ObjectRef};

/// An object of a known kind, with a name, and a namespace if its kind has one. Nothing else is known yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub kind: Kind,
    pub key: ObjectKey,
    pub value: Value,
    /// `file:line`, when it comes from a file.
    pub source: Option<String>,
}

/// Where an object goes that does not name its namespace, as with kubectl.
const DEFAULT_NAMESPACE: &str = "default";

impl Manifest {
    /// From a document. What is none of ours, or not even an object, comes back as a finding.
    pub fn read(value: Value, source: Option<String>) -> Result<Self, Box<Finding>> {
        let text = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (api_version, kind_name) = (text("/apiVersion"), text("/kind"));
        let name = text("/metadata/name");
        let written = text("/metadata/namespace");
        let file = || ObjectRef::new("File", "", source.clone().unwrap_or_default());
        let fail = |code, object: ObjectRef, path: &str, text: String| {
            Err(Box::new(
                Finding::new(code, object, path, text).at(source.clone()),
            ))
        };
        if kind_name.is_empty() || api_version.is_empty() {
            let text = "this is no Kubernetes object: it needs apiVersion and kind".to_owned();
            return fail(finding::UNREADABLE_FILE, file(), "", text);
        }
        let object = ObjectRef::new(&kind_name, &written, &name);
        let kind = match Kind::of(&api_version, &kind_name) {
            Ok(kind) => kind,
            Err(NotOurs::Version(kind)) => {
                let text = format!("{api_version} is not served; use {}", kind.api_version());
                return fail(finding::SCHEMA_VALIDATION_ERROR, object, "apiVersion", text);
            }
            Err(NotOurs::MeshKind) => {
                let text =
                    format!("{kind_name} of {api_version} is not supported by this mesh; it has no effect");
                return fail(finding::UNKNOWN_KIND, object, "kind", text);
            }
            Err(NotOurs::Foreign) => {
                let text =
                    format!("{kind_name} of {api_version} means nothing to the mesh; it has no effect");
                let finding =
                    Finding::new(finding::UNKNOWN_KIND, object, "kind", text).level(finding::Level::Info);
                return Err(Box::new(finding.at(source)));
            }
        };
        // `name: on` is a boolean in YAML, as in Kubernetes; say so rather than that it is missing.
        for (pointer, path) in [
            ("/metadata/name", "metadata.name"),
            ("/metadata/namespace", "metadata.namespace"),
        ] {
            if let Some(other) = value
                .pointer(pointer)
                .filter(|value| !value.is_string() && !value.is_null())
            {
                let text = format!("must be a text, but YAML reads it as {other}: put it in quotes");
                return fail(finding::SCHEMA_VALIDATION_ERROR, object, path, text);
            }
        }
        if name.is_empty() {
            let text = format!("a {kind} needs metadata.name");
            return fail(finding::SCHEMA_VALIDATION_ERROR, object, "metadata.name", text);
        }
        let namespace = match (kind.is_namespaced(), written.is_empty()) {
            (false, _) => String::new(),
            (true, true) => DEFAULT_NAMESPACE.to_owned(),
            (true, false) => written,
        };
        Ok(Self {
            kind,
            key: ObjectKey { namespace, name },
            value,
            source,
        })
    }

    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef::new(self.kind.as_str(), &self.key.namespace, &self.key.name)
    }

    /// `metadata.resourceVersion`, else a hash of what the object says (without `status`).
    pub fn version(&self) -> String {
        if let Some(version) = self
            .value
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str)
        {
            return version.to_owned();
        }
        let mut hasher = DefaultHasher::new();
        for (key, value) in self.value.as_object().into_iter().flatten() {
            if key != "status" {
                (key, value.to_string()).hash(&mut hasher);
            }
        }
        format!("{:016x}", hasher.finish())
    }

    /// A label or annotation: `metadata.<field>[key]`.
    pub fn meta(&self, field: &str, key: &str) -> Option<&str> {
        self.value.get("metadata")?.get(field)?.get(key)?.as_str()
    }

    /// Annotations that are texts.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        let map = self
            .value
            .pointer("/metadata/annotations")
            .and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads() {
        let manifest = Manifest::read(
            json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "a"}}),
            None,
        )
        .unwrap();
        assert_eq!(
            (manifest.kind, manifest.key.to_string().as_str()),
            (Kind::VirtualService, "default/a")
        );
    }

    #[test]
    fn refuses() {
        let check = |value: Value, code: &str, path: &str| {
            let finding = Manifest::read(value, Some("a.yaml:1".into())).unwrap_err();
            assert_eq!((finding.code.as_ref(), finding.path.as_str()), (code, path));
        };
        check(json!([1]), "GSM0001", "");
        check(json!({"kind": "Pod"}), "GSM0001", "");
        check(
            json!({"apiVersion": "v1", "kind": "Pod"}),
            "IST0106",
            "metadata.name",
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": true}}),
            "IST0106",
            "metadata.name",
        );
        check(
            json!({"apiVersion": "v2", "kind": "Pod"}),
            "IST0106",
            "apiVersion",
        );
        check(
            json!({"apiVersion": "networking.istio.io/v1", "kind": "EnvoyFilters"}),
            "GSM0002",
            "kind",
        );
        check(
            json!({"apiVersion": "example.com/v1", "kind": "Foo"}),
            "GSM0002",
            "kind",
        );
    }

    #[test]
    fn version_is_of_the_content() {
        let read = |value| Manifest::read(value, None).unwrap().version();
        let pod = |extra: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": extra, "status": {}});
        assert_eq!(read(pod(json!(1))), read(pod(json!(1))));
        assert_ne!(read(pod(json!(1))), read(pod(json!(2))));
        let given =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "resourceVersion": "7"}});
        assert_eq!(read(given), "7");
    }
}
