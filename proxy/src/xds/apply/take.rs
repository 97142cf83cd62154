//! Reading what arrived: each resource of an update becomes a typed value or a refusal with the path of its field.
//! What was good of an update is taken even if another part of it was not.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use mesh_proto::{
    envoy::{
        config::{
            cluster::v3::Cluster as ProtoCluster, endpoint::v3::ClusterLoadAssignment,
            listener::v3::Listener as ProtoListener, route::v3::RouteConfiguration,
        },
        extensions::transport_sockets::tls::v3::Secret as ProtoSecret,
    },
    nds::NameTable,
    xds::{
        Type,
        client::{Resource, Update},
    },
};
use prost::Message;

use super::Apply;
use crate::{
    config::{Reject, read},
    dns::Table,
    observe::stats::Counter,
    store::{Failure, State},
};

/// A resource that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub name: String,
    pub reject: Reject,
}

/// What became of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub rejected: Vec<Rejected>,
}

impl Taken {
    /// The text of the NACK: every refusal with its path, as much as one may reasonably send.
    pub fn error(&self) -> String {
        const MOST: usize = 20;
        let mut lines: Vec<String> = self
            .rejected
            .iter()
            .take(MOST)
            .map(|rejected| format!("{}: {}", rejected.name, rejected.reject))
            .collect();
        if self.rejected.len() > MOST {
            lines.push(format!("and {} more", self.rejected.len() - MOST));
        }
        lines.join("; ")
    }

    pub fn names(&self) -> Vec<String> {
        self.rejected
            .iter()
            .map(|rejected| rejected.name.clone())
            .collect()
    }
}

impl Apply {
    /// Takes an update. [`Apply::settle`] then puts it in force as far as it can be.
    pub fn take(&mut self, update: &Update) -> Taken {
        let Some(kind) = Type::from_url(&update.type_url) else {
            return Taken::default();
        };
        let mut taken = Taken::default();
        self.unanswered.remove(&kind);
        // First what leaves: a new listener may take the address of one that goes with the same update.
        for name in &update.removed {
            self.remove(kind, name);
        }
        for resource in &update.changed {
            let name: Arc<str> = resource.name.as_str().into();
            self.absent.remove(&(kind, name.clone()));
            let result = if self.fixed.contains(&(kind, name.clone())) {
                Err(Reject::new(
                    "name",
                    "the bootstrap has a static resource of this name",
                ))
            } else {
                self.take_one(kind, &name, resource)
            };
            let now = SystemTime::now();
            self.store.ledger(|ledger| match &result {
                Ok(()) => {
                    let body = Bytes::copy_from_slice(&resource.body.value);
                    ledger.taken(kind, &name, body, &resource.version, now, initial_state(kind));
                }
                Err(reject) => {
                    let body = Bytes::copy_from_slice(&resource.body.value);
                    let failure = Failure {
                        body,
                        version: resource.version.clone(),
                        at: now,
                        why: reject.to_string(),
                    };
                    ledger.refused(kind, &name, failure);
                }
            });
            if let Err(reject) = result {
                // Nobody should wait for what was refused; what was taken before serves on.
                if !kind.allows_wildcard() {
                    self.absent.insert((kind, name.clone()));
                }
                taken.rejected.push(Rejected {
                    name: resource.name.clone(),
                    reject,
                });
            }
        }
        if matches!(kind, Type::Cluster | Type::Listener) {
            self.look_for_wanted();
        }
        let (success, rejected) = self.counters(kind);
        if taken.rejected.is_empty() {
            success.add_shared(1)
        } else {
            rejected.add_shared(1)
        }
        self.settle(Instant::now());
        taken
    }

    fn take_one(&mut self, kind: Type, name: &Arc<str>, resource: &Resource) -> Result<(), Reject> {
        let bytes = resource.body.value.as_slice();
        match kind {
            Type::Cluster => {
                let cluster = Arc::new(read::cluster(decode::<ProtoCluster>(bytes)?)?);
                check_name(&cluster.name, name)?;
                self.taken.clusters.insert(name.clone(), cluster);
            }
            Type::Endpoint => {
                let assignment = Arc::new(read::assignment(decode::<ClusterLoadAssignment>(bytes)?)?);
                self.assignments.insert(name.clone(), assignment);
                self.refill(name);
            }
            Type::Listener => {
                let listener = Arc::new(read::listener(decode::<ProtoListener>(bytes)?)?);
                check_name(&listener.name, name)?;
                self.check_address(&listener)?;
                self.taken.listeners.insert(name.clone(), listener);
            }
            Type::Route => {
                let routes = Arc::new(read::route_config(decode::<RouteConfiguration>(bytes)?)?);
                check_name(&routes.name, name)?;
                self.taken.routes.insert(name.clone(), routes);
            }
            Type::Secret => {
                let secret = Arc::new(read::secret(decode::<ProtoSecret>(bytes)?)?);
                check_name(&secret.name, name)?;
                self.secrets.insert(name.clone(), secret);
                self.publish();
            }
            Type::NameTable => {
                let table = Table::build(&decode::<NameTable>(bytes)?, &self.search);
                if table.skipped() > 0 {
                    tracing::warn!(
                        skipped = table.skipped(),
                        "the name table has more names than fit; the rest is left to DNS"
                    );
                }
                self.names.set(table);
            }
        }
        Ok(())
    }

    fn remove(&mut self, kind: Type, name: &str) {
        let key = (kind, Arc::<str>::from(name));
        if self.fixed.contains(&key) {
            return;
        }
        match kind {
            Type::Cluster => drop(self.taken.clusters.remove(name)),
            Type::Listener => drop(self.taken.listeners.remove(name)),
            Type::Route => drop(self.taken.routes.remove(name)),
            Type::Endpoint => drop(self.assignments.remove(name)),
            Type::Secret => {
                if self.secrets.remove(name).is_some() {
                    self.publish();
                }
            }
            Type::NameTable => self.names.set(Table::default()),
        }
        self.store.ledger(|ledger| ledger.removed(kind, name));
        if !kind.allows_wildcard() {
            self.absent.insert(key);
        }
        if kind == Type::Endpoint {
            self.refill(name);
        }
    }

    /// New endpoints go into the cells of the clusters that use them, at once.
    fn refill(&self, service: &str) {
        for cluster in self.active.clusters.values() {
            if super::want::endpoints(cluster).is_some_and(|name| &**name == service) {
                self.fill(cluster);
            }
        }
    }

    /// Two listeners cannot have one socket.
    fn check_address(&self, listener: &crate::config::listener::Listener) -> Result<(), Reject> {
        let taken = self.taken.listeners.values().find(|other| {
            other.bind && listener.bind && other.address == listener.address && other.name != listener.name
        });
        match taken {
            Some(other) => Err(Reject::new(
                "address",
                format!("{} is taken by listener {}", other.address, other.name),
            )),
            None => Ok(()),
        }
    }

    fn counters(&self, kind: Type) -> (&Counter, &Counter) {
        let control = self.stats.control();
        match kind {
            Type::Cluster => (&control.cds_update_success, &control.cds_update_rejected),
            Type::Endpoint => (&control.eds_update_success, &control.eds_update_rejected),
            Type::Listener => (&control.lds_update_success, &control.lds_update_rejected),
            Type::Route => (&control.rds_update_success, &control.rds_update_rejected),
            Type::Secret => (&control.sds_update_success, &control.sds_update_rejected),
            Type::NameTable => (&control.nds_update_success, &control.nds_update_rejected),
        }
    }
}

/// Endpoints, secrets and the name table are in force as soon as they are read.
fn initial_state(kind: Type) -> State {
    match kind {
        Type::Endpoint | Type::Secret | Type::NameTable => State::Active,
        Type::Cluster | Type::Listener | Type::Route => State::Warming,
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Reject> {
    M::decode(bytes)
        .map_err(|error| Reject::new("resource", format!("is no valid message of its type: {error}")))
}

fn check_name(own: &str, name: &str) -> Result<(), Reject> {
    if own == name {
        Ok(())
    } else {
        Err(Reject::new(
            "name",
            format!("is {own:?}, but the resource came as {name:?}"),
        ))
    }
}
