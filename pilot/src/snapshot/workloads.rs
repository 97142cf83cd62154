//! Pods, for what a proxy's own pod says about it.

use crate::model::{Key, Table, Workload, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workloads {
    all: Table<Workload>,
}

impl Workloads {
    pub fn new(world: &World) -> Self {
        Self {
            all: world.workloads.clone(),
        }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Workload> {
        self.all.get(&Key::new(namespace, name)).map(AsRef::as_ref)
    }
}
