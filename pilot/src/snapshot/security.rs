//! PeerAuthentication, RequestAuthentication and AuthorizationPolicy.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::jwks::keys;
use crate::model::{
    AuthorizationPolicy, JwtRule, Key, Labels, PeerAuthentication, RequestAuthentication, World,
    authn::{EffectiveMtls, KeySource, effective},
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

/// A rule with its issuer's public keys; none while they could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issuer {
    pub rule: JwtRule,
    pub keys: Option<Arc<str>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    policies: Vec<Arc<RequestAuthentication>>,
    keys: Arc<BTreeMap<KeySource, Arc<str>>>,
}

impl Tokens {
    pub fn new(world: &World) -> Self {
        Self {
            policies: world.request_authentications.values().cloned().collect(),
            keys: world.keys.clone(),
        }
    }

    /// The rules of all objects that concern a workload, by issuer.
    pub fn of(&self, root: &str, namespace: &str, labels: &Labels) -> Vec<Issuer> {
        let policies = self.policies.iter();
        let mut issuers: Vec<Issuer> = policies
            .filter(|policy| policy.applies_to(root, namespace, labels))
            .flat_map(|policy| &policy.rules)
            .map(|rule| Issuer {
                keys: match &rule.keys {
                    // What cannot be used is told by a finding of the object.
                    KeySource::Inline(keys) => keys::usable(keys.as_bytes()).ok(),
                    source => self.keys.get(source).cloned(),
                },
                rule: rule.clone(),
            })
            .collect();
        issuers.sort_by(|a, b| a.rule.issuer.cmp(&b.rule.issuer));
        issuers
    }

    /// Where keys are to be fetched from, and the objects that ask for them.
    pub fn wanted(&self) -> BTreeMap<KeySource, BTreeSet<Key>> {
        let mut wanted: BTreeMap<KeySource, BTreeSet<Key>> = BTreeMap::new();
        for policy in &self.policies {
            for rule in &policy.rules {
                if !matches!(rule.keys, KeySource::Inline(_)) {
                    let asking = wanted.entry(rule.keys.clone()).or_default();
                    asking.insert(policy.origin.key());
                }
            }
        }
        wanted
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
