//! PeerAuthentication and AuthorizationPolicy.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{
    AuthorizationPolicy, Labels, PeerAuthentication, World,
    authn::{EffectiveMtls, effective},
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerSecurity {
    by_namespace: BTreeMap<String, Vec<PeerAuthentication>>,
}

impl PeerSecurity {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for policy in world.peer_authentications.values() {
            let own = index
                .by_namespace
                .entry(policy.origin.namespace.clone())
                .or_default();
            own.push(PeerAuthentication::clone(policy));
        }
        index
    }

    /// What counts for a workload.
    pub fn effective(&self, root: &str, namespace: &str, labels: &Labels) -> EffectiveMtls {
        let of = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten();
        let mesh = of(root).filter(|_| namespace != root);
        effective(of(namespace).chain(mesh), root, namespace, labels)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authorization {
    by_namespace: BTreeMap<String, Vec<Arc<AuthorizationPolicy>>>,
}

impl Authorization {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for policy in world.authorization_policies.values() {
            index
                .by_namespace
                .entry(policy.origin.namespace.clone())
                .or_default()
                .push(policy.clone());
        }
        index
    }

    /// The policies that concern a workload.
    pub fn of(&self, root: &str, namespace: &str, labels: &Labels) -> Vec<Arc<AuthorizationPolicy>> {
        let of = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten();
        let mesh = of(root).filter(|_| namespace != root);
        mesh.chain(of(namespace))
            .filter(|policy| policy.applies_to(root, namespace, labels))
            .cloned()
            .collect()
    }
}
