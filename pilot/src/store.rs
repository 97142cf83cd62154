//! Every object as it was last applied, its last good meaning, and what is wrong with it.
//!
//! Fed with batches of [`Change`]s; the meaning of all objects together is a [`World`]. An object whose newest version
//! has an error keeps its last good meaning; if there is none, it has no effect, but for policies that must not fail open
//! (see `convert::authorization_policy`): what can be read of them counts. One bad object never touches another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_proto::{
    finding::Finding,
    kube::{Kind, Manifest, ObjectKey},
    validate,
};

use crate::{
    convert::{self, Meaning},
    ingest::Change,
    model::{World, authn::KeySource},
};

/// An object whose meaning changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Changed {
    pub kind: Kind,
    pub key: ObjectKey,
}

/// What a batch of changes did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// In the order of kinds and keys, none twice.
    pub changed: Vec<Changed>,
    /// Any object is another than before, whether its meaning changed or not: what `analyze` reads.
    pub objects_changed: bool,
    /// What [`Store::findings`] returns is another than before.
    pub findings_changed: bool,
}

/// One object.
#[derive(Clone, Debug)]
struct Entry {
    manifest: Arc<Manifest>,
    findings: Vec<Finding>,
    /// The newest version is the one in effect.
    current: bool,
    /// A good version is in effect, the newest or an older one.
    good: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Store {
    world: World,
    objects: BTreeMap<(Kind, ObjectKey), Entry>,
    /// Of parts of a source that are no objects.
    parts: BTreeMap<String, Vec<Finding>>,
    synced: bool,
}

impl Store {
    /// Takes changes in. The mesh's settings come first, since the meaning of other objects depends on them.
    pub fn apply(&mut self, changes: Vec<Change>) -> Applied {
        let mut applied = Applied::default();
        let mut changed = BTreeSet::new();
        let concerns_mesh = |change: &Change| match change {
            Change::Apply(manifest) => validate::is_mesh_config(manifest),
            _ => false,
        };
        let (mesh, others): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(concerns_mesh);
        for change in mesh.into_iter().chain(others) {
            self.one(change, &mut changed, &mut applied);
        }
        if changed.iter().any(|changed| changed.kind == Kind::ConfigMap) {
            self.convert_all(&mut changed);
        }
        applied.changed = changed.into_iter().collect();
        applied
    }

    /// The last good meaning of all objects.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Everything that was there at the start has been told.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Objects as they were last applied, whether they are good or not.
    pub fn manifests(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        self.objects.values().map(|entry| &entry.manifest)
    }

    pub fn manifest(&self, kind: Kind, key: &ObjectKey) -> Option<&Arc<Manifest>> {
        self.objects
            .get(&(kind, key.clone()))
            .map(|entry| &entry.manifest)
    }

    /// Is the newest version of this object the one in effect? `None` if the object is not known.
    pub fn is_current(&self, kind: Kind, key: &ObjectKey) -> Option<bool> {
        self.objects.get(&(kind, key.clone())).map(|entry| entry.current)
    }

    /// What is wrong with single objects and files; `analyze` adds what is wrong between objects.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.parts
            .values()
            .flatten()
            .chain(self.objects.values().flat_map(|entry| &entry.findings))
    }

    fn one(&mut self, change: Change, changed: &mut BTreeSet<Changed>, applied: &mut Applied) {
        match change {
            Change::Apply(manifest) => self.apply_object(*manifest, changed, applied),
            Change::Delete { kind, key } => {
                let id = (kind, key);
                if let Some(entry) = self.objects.remove(&id) {
                    applied.objects_changed = true;
                    applied.findings_changed |= !entry.findings.is_empty();
                    let relevant = kind != Kind::ConfigMap || validate::is_mesh_config(&entry.manifest);
                    if relevant && self.world.remove(kind, &id.1) {
                        changed.insert(Changed { kind, key: id.1 });
                    }
                }
            }
            Change::Findings { part, findings } => {
                let before = if findings.is_empty() {
                    self.parts.remove(&part).unwrap_or_default()
                } else {
                    self.parts.insert(part.clone(), findings).unwrap_or_default()
                };
                applied.findings_changed |= self.parts.get(&part).is_some_and(|now| *now != before)
                    || (!self.parts.contains_key(&part) && !before.is_empty());
            }
            Change::Keys { source, keys } => self.keys(source, keys, changed),
            Change::Synced => self.synced = true,
        }
    }

    /// The objects that ask for these keys mean something else now.
    fn keys(&mut self, source: KeySource, keys: Option<Arc<str>>, changed: &mut BTreeSet<Changed>) {
        let known = Arc::make_mut(&mut self.world.keys);
        let before = match keys.clone() {
            Some(keys) => known.insert(source.clone(), keys),
            None => known.remove(&source),
        };
        if before == keys {
            return;
        }
        let asking = self
            .world
            .request_authentications
            .iter()
            .filter(|(_, policy)| policy.rules.iter().any(|rule| rule.keys == source));
        changed.extend(asking.map(|(key, _)| Changed {
            kind: Kind::RequestAuthentication,
            key: key.clone(),
        }));
    }

    fn apply_object(&mut self, manifest: Manifest, changed: &mut BTreeSet<Changed>, applied: &mut Applied) {
        let mut converted = convert::convert(&manifest, &self.world.mesh);
        let (kind, key) = (manifest.kind, manifest.key.clone());
        let current = !matches!(converted.meaning, Meaning::Invalid);
        let before = self.objects.get(&(kind, key.clone()));
        let good = current || before.is_some_and(|entry| entry.good);
        if let Some(instead) = converted.instead.take().filter(|_| !good) {
            converted.findings.push(instead.finding);
            converted.meaning = instead.item.map_or(Meaning::Nothing, Meaning::Item);
        }
        if take(&mut self.world, kind, &key, &manifest, converted.meaning) {
            changed.insert(Changed {
                kind,
                key: key.clone(),
            });
        }
        let entry = Entry {
            manifest: Arc::new(manifest),
            findings: converted.findings,
            current,
            good,
        };
        let findings = entry.findings.clone();
        let before = self.objects.insert((kind, key), entry);
        applied.objects_changed = true;
        applied.findings_changed |= before.map_or(!findings.is_empty(), |before| before.findings != findings);
    }

    /// The mesh's settings changed: everything may mean something else.
    fn convert_all(&mut self, changed: &mut BTreeSet<Changed>) {
        for ((kind, key), entry) in &self.objects {
            if *kind == Kind::ConfigMap || !entry.current {
                continue;
            }
            let converted = convert::convert(&entry.manifest, &self.world.mesh);
            if take(&mut self.world, *kind, key, &entry.manifest, converted.meaning) {
                changed.insert(Changed {
                    kind: *kind,
                    key: key.clone(),
                });
            }
        }
    }
}

/// Puts a meaning into the world. True if that changed anything.
fn take(world: &mut World, kind: Kind, key: &ObjectKey, manifest: &Manifest, meaning: Meaning) -> bool {
    match meaning {
        Meaning::Item(item) => world.set(key, item),
        // Only one ConfigMap has a meaning; another one must not take it away.
        Meaning::Nothing if kind == Kind::ConfigMap && !validate::is_mesh_config(manifest) => false,
        Meaning::Nothing => world.remove(kind, key),
        Meaning::Invalid => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::changes;

    const ROUTE: &str =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: ns}\n";

    fn spec(host: &str, timeout: &str) -> String {
        format!(
            "{ROUTE}spec: {{hosts: [{host}], http: [{{timeout: {timeout}, route: [{{destination: {{host: a}}}}]}}]}}\n"
        )
    }

    #[test]
    fn the_last_good_version_stays() {
        let mut store = Store::default();
        let key = ObjectKey::new("ns", "a");
        assert_eq!(store.apply(changes(&spec("a", "5s"))).changed.len(), 1);
        let good = store.world().virtual_services[&key].clone();

        let applied = store.apply(changes(&spec("a", "5 parsecs")));
        assert_eq!((applied.changed, applied.findings_changed), (vec![], true));
        assert_eq!(store.world().virtual_services[&key], good);
        assert_eq!(store.is_current(Kind::VirtualService, &key), Some(false));
        assert_eq!(
            store
                .findings()
                .map(|finding| finding.path.as_str())
                .collect::<Vec<_>>(),
            ["spec.http[0].timeout"]
        );

        let applied = store.apply(changes(&spec("a", "6s")));
        assert_eq!((applied.changed.len(), applied.findings_changed), (1, true));
        assert_eq!(store.findings().count(), 0);

        let delete = Change::Delete {
            kind: Kind::VirtualService,
            key: key.clone(),
        };
        assert_eq!(
            store.apply(vec![delete]).changed,
            [Changed {
                kind: Kind::VirtualService,
                key
            }]
        );
        assert!(store.world().virtual_services.is_empty());
    }

    #[test]
    fn a_policy_that_was_never_good_restricts_by_what_can_be_read() {
        let policy = |rules: &str| {
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: a, namespace: ns}}\nspec: {{rules: {rules}}}\n"
            )
        };
        let (good, bad) = (
            "{to: [{operation: {methods: [GET]}}]}",
            "{from: [{source: {ipBlocks: [x]}}]}",
        );
        let key = ObjectKey::new("ns", "a");
        let mut store = Store::default();
        let rules = |store: &Store| store.world().authorization_policies[&key].rules.len();
        store.apply(changes(&policy(&format!("[{bad}]"))));
        assert_eq!(rules(&store), 0, "nothing is allowed");
        assert_eq!(store.is_current(Kind::AuthorizationPolicy, &key), Some(false));
        store.apply(changes(&policy(&format!("[{good}, {bad}]"))));
        assert_eq!(rules(&store), 1, "the newest readable part counts");
        assert!(
            store
                .findings()
                .any(|finding| finding.text.contains("1 of its 2 rules"))
        );
        store.apply(changes(&policy(&format!("[{good}, {good}]"))));
        assert_eq!((rules(&store), store.findings().count()), (2, 0));
        store.apply(changes(&policy(&format!("[{bad}]"))));
        assert_eq!(rules(&store), 2, "the last good version stays");
        assert!(
            store
                .findings()
                .all(|finding| !finding.text.contains("until it is repaired"))
        );
    }

    #[test]
    fn settings_change_meanings() {
        let mut store = Store::default();
        store.apply(changes(&spec("a", "5s")));
        let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                      data: {mesh: 'defaultVirtualServiceExportTo: [\".\"]'}\n";
        let kinds: Vec<Kind> = store
            .apply(changes(config))
            .changed
            .iter()
            .map(|changed| changed.kind)
            .collect();
        assert_eq!(kinds, [Kind::ConfigMap, Kind::VirtualService]);
        let other = config.replace("name: istio,", "name: other,");
        assert_eq!(store.apply(changes(&other)).changed, []);
        let key = ObjectKey::new("istio-system", "other");
        assert_eq!(
            store
                .apply(vec![Change::Delete {
                    kind: Kind::ConfigMap,
                    key
                }])
                .changed,
            []
        );
        assert_eq!(store.world().mesh.default_virtual_service_export_to, ["."]);
    }
}
