//! The hosts of a cluster, resolved and in order, with everything that can be computed before a request comes.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use super::{maglev::Table, ring::Ring};
use crate::config::{
    cluster::{Balance, Cluster, SlowStart},
    endpoint::{Assignment, Endpoint, Health, Locality},
    scalar::Address,
    transport::UpstreamTls,
};

/// One address of one endpoint.
#[derive(Clone, Debug)]
pub struct Host {
    pub endpoint: Arc<Endpoint>,
    pub address: SocketAddr,
    /// 0 is the highest.
    pub priority: u32,
    /// Index into `Set::localities`.
    pub locality: u32,
    pub weight: u32,
    pub health: Health,
    /// TLS to it; `None` is plaintext.
    pub transport: Option<Arc<UpstreamTls>>,
    /// Since when it is there and healthy, where new hosts start slowly.
    pub since: Option<Instant>,
}

#[derive(Clone, Debug)]
pub struct SetLocality {
    pub locality: Locality,
    pub priority: u32,
    pub weight: u32,
}

/// All hosts of a cluster at one moment.
#[derive(Clone, Debug)]
pub struct Set {
    /// By priority, then locality.
    pub hosts: Vec<Host>,
    pub localities: Vec<SetLocality>,
    pub balance: Balance,
    pub slow_start: Option<SlowStart>,
    /// In percent.
    pub overprovisioning: u32,
    pub panic_threshold: u32,
    pub locality_weighted: bool,
    /// By priority, for the policies that hash.
    pub(super) rings: Vec<Ring>,
    pub(super) tables: Vec<Table>,
}

impl Set {
    /// The set for an assignment. `resolve` gives the addresses of an endpoint: its own, or those of its name (at
    /// most one is used per endpoint of a logical DNS cluster, which the caller sees to).
    pub fn build(
        cluster: &Cluster,
        assignment: &Assignment,
        mut resolve: impl FnMut(&Address) -> Vec<SocketAddr>,
    ) -> Self {
        // Localities of one priority that have the same name are one.
        let mut places: BTreeMap<u32, Vec<(SetLocality, Vec<Host>)>> = BTreeMap::new();
        for given in &assignment.localities {
            let list = places.entry(given.priority).or_default();
            let at = list
                .iter()
                .position(|(place, _)| place.locality == given.locality)
                .unwrap_or_else(|| {
                    let place = SetLocality {
                        locality: given.locality.clone(),
                        priority: given.priority,
                        weight: given
                            .weight
                            .unwrap_or(if cluster.locality_weighted { 0 } else { 1 }),
                    };
                    list.push((place, Vec::new()));
                    list.len() - 1
                });
            for endpoint in &given.endpoints {
                let transport = cluster.transport_for(&endpoint.labels).cloned();
                list[at]
                    .1
                    .extend(resolve(&endpoint.address).into_iter().map(|address| Host {
                        endpoint: endpoint.clone(),
                        address,
                        priority: given.priority,
                        locality: 0,
                        weight: endpoint.weight,
                        health: endpoint.health,
                        transport: transport.clone(),
                        since: None,
                    }));
            }
        }
        let mut set = Self {
            hosts: Vec::new(),
            localities: Vec::new(),
            balance: cluster.balance,
            slow_start: cluster.slow_start,
            overprovisioning: assignment.overprovisioning.max(100),
            panic_threshold: cluster.panic_threshold,
            locality_weighted: cluster.locality_weighted,
            rings: Vec::new(),
            tables: Vec::new(),
        };
        for (place, hosts) in places.into_values().flatten() {
            let locality = set.localities.len() as u32;
            set.localities.push(place);
            set.hosts
                .extend(hosts.into_iter().map(|host| Host { locality, ..host }));
        }
        set.hash();
        set
    }

    /// Takes over since when its hosts are there from the set before it. Those that are new, or were not healthy, are
    /// there since now. Does nothing where new hosts do not start slowly.
    pub fn follow(&mut self, before: &Self, now: Instant) {
        if self.slow_start.is_none() {
            return;
        }
        let known: HashMap<SocketAddr, Instant> = before
            .hosts
            .iter()
            .filter(|host| host.health == Health::Healthy)
            .filter_map(|host| Some((host.address, host.since?)))
            .collect();
        for host in &mut self.hosts {
            host.since = Some(known.get(&host.address).copied().unwrap_or(now));
        }
    }

    /// The priorities that have hosts, highest first.
    pub fn priorities(&self) -> Vec<u32> {
        let mut list: Vec<u32> = self.hosts.iter().map(|host| host.priority).collect();
        list.dedup();
        list
    }

    fn hash(&mut self) {
        if !matches!(self.balance, Balance::RingHash { .. } | Balance::Maglev { .. }) {
            return;
        }
        for priority in self.priorities() {
            let keys: Vec<(u32, String, u32)> = self
                .hosts
                .iter()
                .enumerate()
                .filter(|(_, host)| host.priority == priority)
                .map(|(n, host)| (n as u32, host.address.to_string(), host.weight))
                .collect();
            match self.balance {
                Balance::RingHash { min, max } => self.rings.push(Ring::build(&keys, min, max)),
                Balance::Maglev { size } => self.tables.push(Table::build(&keys, size)),
                _ => {}
            }
        }
    }
}
