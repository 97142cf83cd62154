//! What has been told about the objects of one kind. Pure: events of a watch in, changes out.
//!
//! A listing is compared with what was told: the same is not told again, what is missing at its end is deleted. So a watch
//! may begin anew as often as it likes, and a listing that breaks off deletes nothing. Of an object only a hash is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use mesh_proto::kube::{Kind, Manifest, ObjectKey};
use serde_json::Value;

use crate::ingest::Change;

#[derive(Debug)]
pub struct Ledger {
    kind: Kind,
    told: BTreeMap<ObjectKey, u64>,
    /// What the listing under way has named so far.
    listed: Option<BTreeSet<ObjectKey>>,
}

impl Ledger {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            told: BTreeMap::new(),
            listed: None,
        }
    }

    /// How many objects are told.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// A listing begins.
    pub fn begin(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    /// The object is there; `None`: nothing of it is of use.
    pub fn apply(&mut self, key: ObjectKey, value: Option<Value>) -> Option<Change> {
        let Some(value) = value else {
            return self.delete(key);
        };
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        let hash = hash(&value);
        if self.told.insert(key.clone(), hash) == Some(hash) {
            return None;
        }
        Some(Change::Apply(Box::new(Manifest {
            kind: self.kind,
            key,
            value,
            source: None,
        })))
    }

    pub fn delete(&mut self, key: ObjectKey) -> Option<Change> {
        self.told
            .remove(&key)
            .map(|_| Change::Delete { kind: self.kind, key })
    }

    /// The listing is complete.
    pub fn end(&mut self) -> Vec<Change> {
        let Some(listed) = self.listed.take() else {
            return Vec::new();
        };
        let gone: Vec<ObjectKey> = self
            .told
            .keys()
            .filter(|key| !listed.contains(key))
            .cloned()
            .collect();
        gone.into_iter().filter_map(|key| self.delete(key)).collect()
    }

    /// The kind itself is gone, and its objects with it.
    pub fn clear(&mut self) -> Vec<Change> {
        self.begin();
        self.end()
    }
}

/// Of everything but the version: an object that says the same is the same. (Its status, which is not kept, changes the
/// version too.)
fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (name, part) in value.as_object().into_iter().flatten() {
        name.hash(&mut hasher);
        match part {
            Value::Object(fields) if name == "metadata" => {
                for (name, field) in fields.iter().filter(|(name, _)| *name != "resourceVersion") {
                    (name, field.to_string()).hash(&mut hasher);
                }
            }
            other => other.to_string().hash(&mut hasher),
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    fn object(version: &str, spec: &str) -> Option<Value> {
        Some(json!({"metadata": {"resourceVersion": version}, "spec": spec}))
    }

    /// `+name`, `-name`.
    fn show<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Vec<String> {
        changes
            .into_iter()
            .map(|change| match change {
                Change::Apply(manifest) => format!("+{}", manifest.key.name),
                Change::Delete { key, .. } => format!("-{}", key.name),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn tells_differences() {
        let mut ledger = Ledger::new(Kind::VirtualService);
        ledger.begin();
        assert!(ledger.apply(key("a"), object("1", "x")).is_some());
        assert!(ledger.apply(key("b"), object("2", "x")).is_some());
        assert_eq!(show(&ledger.end()), Vec::<String>::new());
        // A status was written: only the version differs.
        assert_eq!(ledger.apply(key("a"), object("3", "x")), None);
        assert_eq!(show(&ledger.apply(key("a"), object("4", "y"))), ["+a"]);
        // Listed anew: b is gone, c has come.
        ledger.begin();
        assert_eq!(ledger.apply(key("a"), object("5", "y")), None);
        assert_eq!(show(&ledger.apply(key("c"), object("6", "x"))), ["+c"]);
        assert_eq!(show(&ledger.end()), ["-b"]);
        assert_eq!(show(&ledger.delete(key("c"))), ["-c"]);
        assert_eq!(ledger.delete(key("c")), None);
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn a_listing_that_breaks_off_deletes_nothing() {
        let mut ledger = Ledger::new(Kind::Pod);
        ledger.begin();
        ledger.apply(key("a"), object("1", "x"));
        ledger.apply(key("b"), object("1", "x"));
        ledger.end();
        ledger.begin();
        ledger.apply(key("a"), object("1", "x"));
        // The connection broke; the next one lists everything.
        ledger.begin();
        ledger.apply(key("b"), object("1", "x"));
        ledger.apply(key("a"), object("1", "x"));
        assert_eq!(ledger.end(), []);
    }

    #[test]
    fn what_is_of_no_use_any_more_is_deleted() {
        let mut ledger = Ledger::new(Kind::Pod);
        ledger.apply(key("a"), object("1", "x"));
        assert_eq!(show(&ledger.apply(key("a"), None)), ["-a"]);
        ledger.apply(key("b"), object("1", "x"));
        assert_eq!(show(&ledger.clear()), ["-b"]);
    }
}
