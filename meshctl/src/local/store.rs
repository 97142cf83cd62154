//! The store: the local platform's "API server" without the server. All objects are in memory and, one file each, under
//! `D/cluster/<namespace or _>/<kind>[.group]/<name>.yaml`, where pilot watches them. A write goes to the file first
//! (a temporary name, then a rename, so that no reader ever sees half an object) and then to memory; if the file cannot
//! be written, nothing changed. The store keeps what Kubernetes keeps: uid, creationTimestamp, resourceVersion (one
//! counter for all), generation (counts changes of the spec).
//!
//! Readers get shared values; a watcher gets the counter and looks for itself. Bounds: 50,000 objects, 1.5 MiB each
//! (Kubernetes' own limit for an object).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::sync::watch;

use super::{
    manifest, moment,
    object::{self, Key, Kind},
};

const MAX_OBJECTS: usize = 50_000;
const MAX_OBJECT: usize = 3 << 19;

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0} exists already")]
    Exists(String),
    #[error("{0} is not there")]
    Missing(String),
    #[error("{name} has {size} bytes; an object may have at most {MAX_OBJECT}")]
    TooBig { name: String, size: usize },
    #[error("the store holds {MAX_OBJECTS} objects, which is its limit; delete some first")]
    Full,
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{name} cannot be written as YAML: {text}")]
    Encode { name: String, text: String },
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Created,
    Configured,
    Unchanged,
}

struct Inner {
    objects: BTreeMap<Key, Arc<Value>>,
    version: u64,
}

pub struct Store {
    folder: PathBuf,
    inner: Mutex<Inner>,
    revision: watch::Sender<u64>,
}

impl Store {
    /// Opens a folder, reading what an earlier run left. Files that are no objects are named and left alone.
    pub fn open(folder: &Path) -> std::io::Result<(Self, Vec<String>)> {
        std::fs::create_dir_all(folder)?;
        let (mut objects, mut strange, mut version) = (BTreeMap::new(), Vec::new(), 0);
        for file in yaml_files(folder)? {
            match load(&file) {
                Ok((key, object)) => {
                    let own: u64 = object::text(&object, "/metadata/resourceVersion")
                        .parse()
                        .unwrap_or(0);
                    version = version.max(own);
                    objects.insert(key, Arc::new(object));
                }
                Err(text) => strange.push(format!("{}: {text}", file.display())),
            }
        }
        let inner = Mutex::new(Inner { objects, version });
        Ok((
            Self {
                folder: folder.to_owned(),
                inner,
                revision: watch::Sender::new(version),
            },
            strange,
        ))
    }

    /// Moves with every change of anything.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().objects.get(key).cloned()
    }

    pub fn list(&self, kind: &'static Kind) -> Vec<(Key, Arc<Value>)> {
        let inner = self.lock();
        let first = Key {
            kind,
            namespace: String::new(),
            name: String::new(),
        };
        inner
            .objects
            .range(first..)
            .take_while(|(key, _)| key.kind == kind)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    /// Every object of a namespace (or, with the empty name, every object without one).
    pub fn keys_in(&self, namespace: &str) -> Vec<Key> {
        self.lock()
            .objects
            .keys()
            .filter(|key| key.namespace == namespace)
            .cloned()
            .collect()
    }

    pub fn create(&self, key: &Key, object: Value) -> Result<Arc<Value>, StoreError> {
        let mut inner = self.lock();
        if inner.objects.contains_key(key) {
            return Err(StoreError::Exists(key.to_string()));
        }
        self.write(&mut inner, key, None, object)
    }

    /// Changes an object in place; `change` sees a copy of the live one. Nothing is written when nothing changed.
    pub fn update(&self, key: &Key, change: impl FnOnce(&mut Value)) -> Result<Change, StoreError> {
        let mut inner = self.lock();
        let Some(live) = inner.objects.get(key).cloned() else {
            return Err(StoreError::Missing(key.to_string()));
        };
        let mut object = (*live).clone();
        change(&mut object);
        if object == *live {
            return Ok(Change::Unchanged);
        }
        self.write(&mut inner, key, Some(&live), object)?;
        Ok(Change::Configured)
    }

    /// Makes the object be as given, whether it was there or not. System fields of the live one are kept.
    pub fn put(&self, key: &Key, object: Value) -> Result<Change, StoreError> {
        let mut inner = self.lock();
        let live = inner.objects.get(key).cloned();
        if let Some(live) = &live {
            let mut candidate = object.clone();
            keep_system_fields(&mut candidate, live);
            if candidate == **live {
                return Ok(Change::Unchanged);
            }
        }
        self.write(&mut inner, key, live.as_deref(), object)?;
        Ok(if live.is_some() {
            Change::Configured
        } else {
            Change::Created
        })
    }

    /// Takes an object out; true if it was there.
    pub fn remove(&self, key: &Key) -> Result<bool, StoreError> {
        let mut inner = self.lock();
        if !inner.objects.contains_key(key) {
            return Ok(false);
        }
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Write { path, source });
            }
            _ => {}
        }
        inner.objects.remove(key);
        inner.version += 1;
        self.revision.send_replace(inner.version);
        Ok(true)
    }

    pub fn path(&self, key: &Key) -> PathBuf {
        let namespace = if key.namespace.is_empty() {
            "_"
        } else {
            &key.namespace
        };
        self.folder
            .join(namespace)
            .join(key.kind.full_name())
            .join(format!("{}.yaml", key.name))
    }

    fn write(
        &self,
        inner: &mut Inner,
        key: &Key,
        live: Option<&Value>,
        mut object: Value,
    ) -> Result<Arc<Value>, StoreError> {
        if live.is_none() && inner.objects.len() >= MAX_OBJECTS {
            return Err(StoreError::Full);
        }
        let version = inner.version + 1;
        stamp(&mut object, key, live, version);
        let text = manifest::to_yaml(&object).map_err(|error| StoreError::Encode {
            name: key.to_string(),
            text: error.to_string(),
        })?;
        if text.len() > MAX_OBJECT {
            return Err(StoreError::TooBig {
                name: key.to_string(),
                size: text.len(),
            });
        }
        let path = self.path(key);
        write_atomically(&path, text.as_bytes(), 0o600)
            .map_err(|source| StoreError::Write { path, source })?;
        let object = Arc::new(object);
        inner.objects.insert(key.clone(), object.clone());
        inner.version = version;
        self.revision.send_replace(version);
        Ok(object)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the map whole, so a poisoned lock still guards a good value.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file appears whole or not at all.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.tmp"));
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)
}

/// The fields that the store owns.
fn stamp(object: &mut Value, key: &Key, live: Option<&Value>, version: u64) {
    if let Some(live) = live {
        keep_system_fields(object, live);
    }
    object::set_metadata(object, "name", key.name.as_str().into());
    if key.kind.namespaced {
        object::set_metadata(object, "namespace", key.namespace.as_str().into());
    }
    let generation = match live {
        None => {
            object::set_metadata(object, "uid", new_uid().into());
            object::set_metadata(object, "creationTimestamp", moment::now().into());
            1
        }
        Some(live) => {
            let before = live
                .pointer("/metadata/generation")
                .and_then(Value::as_u64)
                .unwrap_or(1);
            if object.get("spec") == live.get("spec") {
                before
            } else {
                before + 1
            }
        }
    };
    object::set_metadata(object, "generation", generation.into());
    object::set_metadata(object, "resourceVersion", version.to_string().into());
}

fn keep_system_fields(object: &mut Value, live: &Value) {
    for field in [
        "uid",
        "creationTimestamp",
        "generation",
        "resourceVersion",
        "name",
        "namespace",
    ] {
        if let Some(value) = live["metadata"].get(field) {
            object::set_metadata(object, field, value.clone());
        }
    }
}

/// A random (version 4) UUID.
pub fn new_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn load(file: &Path) -> Result<(Key, Value), String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let object: Value = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    let key = object::key_of(&object, "default").map_err(|error| error.to_string())?;
    Ok((key, object))
}

fn yaml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(port: u16) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": port}]}})
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("gossamer-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn versions_generations_and_files() {
        let folder = folder("versions");
        let key = Key::new("Service", "default", "a");
        let (store, _) = Store::open(&folder).unwrap();
        assert_eq!(store.put(&key, service(80)).unwrap(), Change::Created);
        assert_eq!(store.put(&key, service(80)).unwrap(), Change::Unchanged);
        assert_eq!(store.put(&key, service(81)).unwrap(), Change::Configured);
        let live = store.get(&key).unwrap();
        assert_eq!(
            (
                &live["metadata"]["generation"],
                &live["metadata"]["resourceVersion"]
            ),
            (&json!(2), &json!("2"))
        );
        assert!(matches!(
            store.create(&key, service(80)),
            Err(StoreError::Exists(_))
        ));
        // A change of the status is no new generation.
        store
            .update(&key, |object| object["status"] = json!({"x": 1}))
            .unwrap();
        assert_eq!(store.get(&key).unwrap()["metadata"]["generation"], 2);
        // Another run sees the same.
        let uid = live["metadata"]["uid"].clone();
        let (again, strange) = Store::open(&folder).unwrap();
        assert!(strange.is_empty(), "{strange:?}");
        assert_eq!(again.get(&key).unwrap()["metadata"]["uid"], uid);
        assert!(again.remove(&key).unwrap());
        assert!(!again.remove(&key).unwrap());
        assert!(!again.path(&key).exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn lists_are_by_kind() {
        let folder = folder("lists");
        let (store, _) = Store::open(&folder).unwrap();
        for (kind, namespace) in [
            ("Service", "b"),
            ("Service", "a"),
            ("ServiceAccount", "a"),
            ("Secret", "a"),
        ] {
            store
                .put(
                    &Key::new(kind, namespace, "x"),
                    json!({"apiVersion": "v1", "kind": kind}),
                )
                .unwrap();
        }
        let names: Vec<String> = store
            .list(Kind::named("Service"))
            .into_iter()
            .map(|(key, _)| key.namespace)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(store.keys_in("a").len(), 3);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_strange_is_named() {
        let folder = folder("strange");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("x.yaml"), "kind: [").unwrap();
        let (_, strange) = Store::open(&folder).unwrap();
        assert_eq!(strange.len(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
