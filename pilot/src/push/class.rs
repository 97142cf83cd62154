//! What proxies get, made once for all that are alike. A [`Class`] is for viewers that are equal in
//! everything; what is not about the workload itself it takes from a [`Common`], which is made for narrowed
//! viewers ([`Viewer::narrowed`]) and shared by many classes. When only endpoints have changed, only the
//! endpoints of the services concerned are made again; when only rules for requests have, only the tables of
//! their ports.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use mesh_proto::{
    node::NodeKind,
    xds::{Resources, Type},
};

use super::{Cache, lock};
use crate::{
    generate::{self, Input, route::sidecar},
    snapshot::Snapshot,
    view::{View, Viewer},
};

/// All resources of one type per place of [`Type::ALL`].
pub type Catalog = [Arc<Resources>; 6];

/// The shared resources of one type.
#[derive(Debug)]
pub struct Common {
    viewer: Viewer,
    kind: Type,
    made: Mutex<MadeCommon>,
}

#[derive(Debug, Default)]
struct MadeCommon {
    /// The snapshot that the resources are of; 0: none yet.
    sequence: u64,
    /// [`generate::since`] then.
    since: u64,
    resources: Arc<Resources>,
}

impl Common {
    /// What there is by this snapshot, or by a later one if that was asked for before.
    fn refresh(&self, snapshot: &Snapshot, cache: &Cache) -> Arc<Resources> {
        let mut made = lock(&self.made);
        if made.sequence > 0 && made.sequence >= snapshot.sequence {
            return made.resources.clone();
        }
        let since = generate::since(snapshot, self.kind, self.viewer.kind);
        let resources = if made.sequence == 0 || made.since != since {
            Some(self.anew(snapshot, cache))
        } else if generate::since_whole(snapshot, self.kind, self.viewer.kind) > made.sequence {
            let changed = self.changed(&made, snapshot);
            Some(match changed {
                None => self.anew(snapshot, cache),
                Some(inputs) => {
                    let mut resources = Resources::clone(&made.resources);
                    for resource in cache.resources(inputs) {
                        resources.insert(resource);
                    }
                    resources
                }
            })
        } else {
            None
        };
        // What is equal stays the same map, so that nobody has to look into it.
        if let Some(resources) = resources.filter(|resources| !same(&made.resources, resources)) {
            made.resources = Arc::new(resources);
        }
        made.sequence = snapshot.sequence;
        made.since = since;
        made.resources.clone()
    }

    fn anew(&self, snapshot: &Snapshot, cache: &Cache) -> Resources {
        let view = View::new(&self.viewer, snapshot);
        cache.resources(generate::shared(&view, self.kind))
    }

    /// Nothing but endpoints, or rules for requests, changed: there are the same names as before, and only
    /// these can be something else. `None`: all can.
    fn changed(&self, made: &MadeCommon, snapshot: &Snapshot) -> Option<Vec<Input>> {
        if self.viewer.kind != NodeKind::Sidecar {
            return None;
        }
        match self.kind {
            Type::Endpoint => {
                let moved = snapshot.moved_since(made.sequence)?;
                let hosts = moved.into_iter().map(|key| &key.host).collect();
                let view = View::of_hosts(&self.viewer, snapshot, &hosts);
                Some(generate::shared(&view, self.kind))
            }
            Type::Route => {
                let hosts = snapshot.ruled_since(made.sequence)?;
                let view = View::new(&self.viewer, snapshot);
                let ports = sidecar::ports_of(&view, hosts)?;
                let tables = sidecar::on_ports(&view, &ports);
                Some(tables.into_iter().map(Input::Route).collect())
            }
            _ => None,
        }
    }
}

/// What all proxies that are alike get.
#[derive(Debug)]
pub struct Class {
    pub viewer: Viewer,
    made: Mutex<Made>,
}

#[derive(Clone, Debug, Default)]
struct Made {
    /// The snapshot that the catalog is of.
    sequence: u64,
    /// Per type, [`generate::since_whole`] when it was made.
    since: [Option<u64>; 6],
    common: [Option<Arc<Common>>; 6],
    catalog: Catalog,
}

impl Class {
    /// Brings the catalog to this snapshot. Gives it, and the snapshot it is of (never an older one than
    /// before).
    pub fn refresh(&self, snapshot: &Snapshot, classes: &Classes, cache: &Cache) -> (Catalog, u64) {
        let mut made = lock(&self.made);
        if made.sequence < snapshot.sequence || made.since.contains(&None) {
            for kind in Type::ALL {
                let i = kind.index();
                let since = generate::since_whole(snapshot, kind, self.viewer.kind);
                if made.since[i] == Some(since) {
                    continue;
                }
                let common = classes.common(made.common[i].take(), &self.viewer, snapshot, kind);
                let shared = common.refresh(snapshot, cache);
                made.common[i] = Some(common);
                made.since[i] = Some(since);
                let resources = self.with_own(shared, snapshot, kind, cache);
                if !Arc::ptr_eq(&made.catalog[i], &resources) && !same(&made.catalog[i], &resources) {
                    made.catalog[i] = resources;
                }
            }
            made.sequence = made.sequence.max(snapshot.sequence);
        }
        (made.catalog.clone(), made.sequence)
    }

    fn with_own(
        &self,
        shared: Arc<Resources>,
        snapshot: &Snapshot,
        kind: Type,
        cache: &Cache,
    ) -> Arc<Resources> {
        let own = generate::own(&View::new(&self.viewer, snapshot), kind);
        if own.is_empty() {
            return shared;
        }
        let own = cache.resources(own);
        if shared.is_empty() {
            return Arc::new(own);
        }
        // Of one name the last stays: that of all.
        Arc::new(own.into_iter().chain(shared.iter().cloned()).collect())
    }

    /// What the class gets now.
    pub fn catalog(&self) -> Catalog {
        lock(&self.made).catalog.clone()
    }
}

/// Equal names and versions.
fn same(a: &Resources, b: &Resources) -> bool {
    a.len() == b.len()
        && a.iter().zip(b.iter()).all(|(a, b)| {
            // A body may be written in another order: its version says what is in it.
            Arc::ptr_eq(a, b) || (a.version == b.version && a.name == b.name)
        })
}

/// All that are in use.
#[derive(Debug, Default)]
pub struct Classes {
    whole: Mutex<HashMap<Viewer, Weak<Class>>>,
    common: Mutex<HashMap<(Type, Viewer), Weak<Common>>>,
}

impl Classes {
    /// The class of a viewer; it lives as long as somebody holds it.
    pub fn class(&self, viewer: Viewer) -> Arc<Class> {
        let mut classes = lock(&self.whole);
        if let Some(class) = classes.get(&viewer).and_then(Weak::upgrade) {
            return class;
        }
        let class = Arc::new(Class {
            viewer: viewer.clone(),
            made: Mutex::default(),
        });
        classes.insert(viewer, Arc::downgrade(&class));
        class
    }

    /// The one that counts for a viewer now; the last one, if it still does.
    fn common(
        &self,
        last: Option<Arc<Common>>,
        viewer: &Viewer,
        snapshot: &Snapshot,
        kind: Type,
    ) -> Arc<Common> {
        let viewer = viewer.narrowed(snapshot, kind);
        if let Some(last) = last.filter(|last| last.viewer == viewer) {
            return last;
        }
        let mut all = lock(&self.common);
        if let Some(common) = all.get(&(kind, viewer.clone())).and_then(Weak::upgrade) {
            return common;
        }
        let common = Arc::new(Common {
            viewer: viewer.clone(),
            kind,
            made: Mutex::default(),
        });
        all.insert((kind, viewer), Arc::downgrade(&common));
        common
    }

    /// Forgets those that nobody holds.
    pub fn sweep(&self) {
        lock(&self.whole).retain(|_, class| class.strong_count() > 0);
        lock(&self.common).retain(|_, common| common.strong_count() > 0);
    }
}

#[cfg(test)]
#[path = "class/tests.rs"]
mod tests;
