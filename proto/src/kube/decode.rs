//! From an untyped object to a typed one, with findings that name the field.

use std::{cell::RefCell, fmt::Write as _};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Manifest, Object, ObjectMeta, Resource};
use crate::finding::{Finding, Report};

/// More unknown fields than these are not listed one by one.
const UNKNOWN_LIMIT: usize = 20;

/// An object of the mesh's API. Unknown fields are errors, but do not hide the typed value.
pub fn resource<T: Resource>(manifest: &Manifest) -> (Option<Object<T>>, Vec<Finding>) {
    let mut report = Report::new(manifest.object_ref(), manifest.source.clone());
    let metadata = metadata(manifest, &mut report);
    let spec = match manifest.value.get("spec") {
        None | Some(Value::Null) => Some(T::default()),
        Some(spec) => {
            let (typed, unknown) = typed::<T>(spec.clone(), "spec", &mut report);
            for path in unknown {
                let text = format!(
                    "{} has no such field; the object is not taken, because a field that is dropped silently may \
                     be the one that matters: correct or remove it",
                    T::KIND
                );
                report.error(path, text);
            }
            typed
        }
    };
    for (key, _) in manifest.value.as_object().into_iter().flatten() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&key.as_str()) {
            report.error(
                key,
                format!("{} has no such field; fields belong under spec", T::KIND),
            );
        }
    }
    let object = metadata
        .zip(spec)
        .map(|(metadata, spec)| Object { metadata, spec });
    (object, report.findings)
}

/// An object of Kubernetes' own API. Unknown fields are left to Kubernetes.
pub fn core<T: DeserializeOwned>(manifest: &Manifest) -> (Option<T>, Vec<Finding>) {
    let mut report = Report::new(manifest.object_ref(), manifest.source.clone());
    let (object, _) = typed(manifest.value.clone(), "", &mut report);
    (object, report.findings)
}

/// Settings: unknown fields are warnings.
pub fn lenient<T: DeserializeOwned>(value: Value, path: &str, report: &mut Report) -> Option<T> {
    let (typed, unknown) = typed(value, path, report);
    for path in unknown {
        report.warn(path, "this field is not known here and has no effect");
    }
    typed
}

fn metadata(manifest: &Manifest, report: &mut Report) -> Option<ObjectMeta> {
    let value = manifest.value.get("metadata").cloned().unwrap_or_default();
    let (metadata, _) = typed::<ObjectMeta>(value, "metadata", report);
    metadata.map(|metadata| ObjectMeta {
        name: Some(manifest.key.name.clone()),
        namespace: Some(manifest.key.namespace.clone()),
        ..metadata
    })
}

/// The typed value, or an error in the report; and the paths of fields that the type does not have.
fn typed<T: DeserializeOwned>(mut value: Value, base: &str, report: &mut Report) -> (Option<T>, Vec<String>) {
    drop_nulls(&mut value);
    let unknown = RefCell::new(Vec::new());
    let mut track = serde_path_to_error::Track::new();
    let result = {
        let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
        let mut seen = |path: serde_ignored::Path<'_>| {
            let mut unknown = unknown.borrow_mut();
            if unknown.len() < UNKNOWN_LIMIT {
                let mut text = base.to_owned();
                ignored(&path, &mut text);
                unknown.push(text);
            }
        };
        serde_ignored::deserialize::<_, _, T>(tracked, &mut seen)
    };
    match result {
        Ok(typed) => (Some(typed), unknown.into_inner()),
        Err(error) => {
            let tail = track.path().to_string();
            let path = match (base.is_empty(), tail.as_str()) {
                (_, "" | ".") => base.to_owned(),
                (true, tail) => tail.to_owned(),
                (false, tail) if tail.starts_with('[') => format!("{base}{tail}"),
                (false, tail) => format!("{base}.{tail}"),
            };
            report.error(path, error.to_string());
            (None, Vec::new())
        }
    }
}

/// Kubernetes takes `field: null` for a field that is not there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn ignored(path: &serde_ignored::Path<'_>, text: &mut String) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            ignored(parent, text);
            // Writing to a string cannot fail.
            let _ = write!(text, "[{index}]");
        }
        Path::Map { parent, key } => {
            ignored(parent, text);
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(key);
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored(parent, text);
        }
    }
}
