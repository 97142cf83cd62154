//! Pods and their nodes, for what a proxy's own pod says about it.

use crate::model::{Key, Node, Table, Workload, World, endpoint::Locality};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workloads {
    all: Table<Workload>,
    nodes: Table<Node>,
}

impl Workloads {
    pub fn new(world: &World) -> Self {
        Self {
            all: world.workloads.clone(),
            nodes: world.nodes.clone(),
        }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Workload> {
        self.all.get(&Key::new(namespace, name)).map(AsRef::as_ref)
    }

    /// Where a pod runs.
    pub fn locality(&self, pod: &Workload) -> Locality {
        pod.locality_on(self.nodes.get(&Key::new("", &pod.node)).map(AsRef::as_ref))
    }
}
