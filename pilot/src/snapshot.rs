//! The whole configuration at one moment, as small indexes. Each index is made again only when a kind that it reads has
//! changed, and keeps its place in time ([`Part::since`]) when the new value equals the old one; so a reader that asks for
//! the highest `since` of the indexes it reads knows whether anything changed for it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    model::{Host, Kind, MeshConfig, Resolution, ServiceKey, World},
    registry::{Registry, Touched},
};

pub mod delegate;
mod endpoints;
mod gateways;
mod policies;
mod routes;
mod security;
mod services;
mod sidecars;
mod telemetry;
mod workloads;

pub use endpoints::{Endpoints, PortTraits, Traits};
pub use gateways::{Credentials, Gateways};
pub use policies::Policies;
pub use routes::{Connections, Routes};
pub use security::{Authorization, Issuer, PeerSecurity, Tokens};
pub use services::Services;
pub use sidecars::Sidecars;
pub use telemetry::Telemetries;
pub use workloads::Workloads;

/// One index, and the sequence number of the snapshot in which it became what it is.
#[derive(Debug)]
pub struct Part<T> {
    pub value: Arc<T>,
    pub since: u64,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            since: self.since,
        }
    }
}

impl<T: Default> Default for Part<T> {
    fn default() -> Self {
        Self {
            value: Arc::default(),
            since: 0,
        }
    }
}

impl<T> std::ops::Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> Part<T> {
    fn replace(&mut self, value: T, sequence: u64) {
        if *self.value != value {
            *self = Self {
                value: Arc::new(value),
                since: sequence,
            };
        }
    }
}

/// When endpoints changed last of services whose endpoints matter by more than EDS.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByName {
    /// Headless ones: DNS tells the endpoints themselves.
    pub headless: u64,
    /// Those that proxies resolve: the endpoints stand in the cluster.
    pub resolved: u64,
}

/// Changes of endpoints, and of rules, that are remembered.
const MOVES: usize = 64;

/// What all views look at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every snapshot.
    pub sequence: u64,
    pub mesh: Part<MeshConfig>,
    pub services: Part<Services>,
    pub endpoints: Part<Endpoints>,
    /// What clusters must know about endpoints; it changes far less often than they do.
    pub traits: Part<Traits>,
    pub by_name: ByName,
    /// The services whose endpoints changed, of the last snapshots in which any did, oldest first.
    pub moves: VecDeque<(u64, Arc<BTreeSet<ServiceKey>>)>,
    /// The hosts of sidecars' VirtualServices that changed, likewise.
    pub rules: VecDeque<(u64, Arc<BTreeSet<Host>>)>,
    /// What VirtualServices say about connections, which changes far less often than what they say about requests.
    pub connections: Part<Connections>,
    pub routes: Part<Routes>,
    pub policies: Part<Policies>,
    pub gateways: Part<Gateways>,
    pub credentials: Part<Credentials>,
    pub sidecars: Part<Sidecars>,
    pub peers: Part<PeerSecurity>,
    pub tokens: Part<Tokens>,
    pub authorization: Part<Authorization>,
    pub telemetries: Part<Telemetries>,
    pub workloads: Part<Workloads>,
}

impl Snapshot {
    /// The next snapshot, where objects of these kinds have changed since this one, and these services.
    pub fn next(
        &self,
        world: &World,
        changed: &BTreeSet<Kind>,
        registry: &Registry,
        services: &Touched,
    ) -> Self {
        let mut next = self.clone();
        next.sequence += 1;
        let now = next.sequence;
        let touched = |kinds: &[Kind]| kinds.iter().any(|kind| changed.contains(kind));
        if touched(&[Kind::ConfigMap]) {
            next.mesh.replace(MeshConfig::clone(&world.mesh), now);
        }
        if !services.services.is_empty() {
            next.services.replace(Services::new(registry), now);
        }
        if !(services.services.is_empty() && services.endpoints.is_empty()) {
            next.endpoints = Part {
                value: Arc::new(Endpoints::new(registry)),
                since: now,
            };
            let concerned: BTreeSet<ServiceKey> =
                services.services.union(&services.endpoints).cloned().collect();
            next.note_moves(registry, &concerned);
            if let Some(traits) = self.traits.updated(registry, &concerned) {
                next.traits = Part {
                    value: Arc::new(traits),
                    since: now,
                };
            }
        }
        if touched(&[Kind::Pod, Kind::Node]) {
            next.workloads.replace(Workloads::new(world), now);
        }
        if touched(&[Kind::VirtualService]) {
            next.routes.replace(Routes::new(world), now);
            next.note_rules(&self.routes);
            next.connections.replace(Connections::new(world), now);
        }
        if touched(&[Kind::DestinationRule]) {
            next.policies.replace(Policies::new(world), now);
        }
        if touched(&[Kind::Gateway]) {
            next.gateways.replace(Gateways::new(world), now);
        }
        if touched(&[Kind::Secret]) {
            next.credentials.replace(Credentials::new(world), now);
        }
        if touched(&[Kind::Sidecar]) {
            next.sidecars.replace(Sidecars::new(world), now);
        }
        if touched(&[Kind::PeerAuthentication]) {
            next.peers.replace(PeerSecurity::new(world), now);
        }
        if touched(&[Kind::RequestAuthentication]) {
            next.tokens.replace(Tokens::new(world), now);
        }
        if touched(&[Kind::AuthorizationPolicy]) {
            next.authorization.replace(Authorization::new(world), now);
        }
        if touched(&[Kind::Telemetry]) {
            next.telemetries.replace(Telemetries::new(world), now);
        }
        next
    }

    fn note_moves(&mut self, registry: &Registry, concerned: &BTreeSet<ServiceKey>) {
        let now = self.sequence;
        let resolution = |key: &ServiceKey| Some(registry.service(key)?.resolution);
        for resolution in concerned.iter().filter_map(resolution) {
            match resolution {
                Resolution::Headless => self.by_name.headless = now,
                Resolution::Dns | Resolution::DnsRoundRobin => self.by_name.resolved = now,
                Resolution::Static | Resolution::None => {}
            }
        }
        remember(&mut self.moves, now, concerned.clone());
    }

    fn note_rules(&mut self, before: &Routes) {
        if self.routes.since == self.sequence {
            let hosts = self.routes.changed_hosts(before);
            remember(&mut self.rules, self.sequence, hosts);
        }
    }

    /// The services whose endpoints changed after this snapshot; `None`: that is too long ago.
    pub fn moved_since(&self, sequence: u64) -> Option<BTreeSet<&ServiceKey>> {
        later(&self.moves, sequence)
    }

    /// The hosts whose VirtualServices changed after this snapshot; `None`: that is too long ago.
    pub fn ruled_since(&self, sequence: u64) -> Option<BTreeSet<&Host>> {
        later(&self.rules, sequence)
    }
}

type Log<T> = VecDeque<(u64, Arc<BTreeSet<T>>)>;

fn remember<T>(log: &mut Log<T>, now: u64, what: BTreeSet<T>) {
    if log.len() >= MOVES {
        log.pop_front();
    }
    log.push_back((now, Arc::new(what)));
}

fn later<T: Ord>(log: &Log<T>, sequence: u64) -> Option<BTreeSet<&T>> {
    let oldest = log.front().map_or(0, |(first, _)| *first);
    // Of what was before the oldest one that is remembered, nothing is known unless all are.
    if sequence < oldest && log.len() >= MOVES {
        return None;
    }
    let later = log.iter().filter(|(then, _)| *then > sequence);
    Some(later.flat_map(|(_, all)| all.iter()).collect())
}
