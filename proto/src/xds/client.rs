//! The client side of delta xDS on one ADS stream, as a state machine without I/O.
//!
//! It keeps what is wanted (names per type) and what is held (name → version), and turns both into requests. The caller
//! sends them in the order given. [`Client::receive`] takes a response; after the caller has tried to use it,
//! [`Client::ack`] or [`Client::nack`] gives the answer to send. Versions are recorded only when a resource was
//! accepted, so after a reconnect the server learns what this client really has and sends only the rest.
//!
//! It is bounded by the caller's configuration: it keeps one entry per wanted name and one per accepted resource.

use std::collections::{BTreeMap, BTreeSet};

use super::{Type, WILDCARD};
use crate::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    pb::google::{protobuf::Any, rpc::Status},
};

/// `google.rpc.Code::INVALID_ARGUMENT`: the configuration was not accepted.
const INVALID_ARGUMENT: i32 = 3;

/// One resource as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub name: String,
    pub version: String,
    pub body: Any,
}

/// One response, checked against the subscription. It must be answered by `ack` or `nack`.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "every update is answered by ack or nack"]
pub struct Update {
    pub type_url: String,
    pub changed: Vec<Resource>,
    pub removed: Vec<String>,
    pub system_version: String,
    pub nonce: String,
}

/// A response that breaks the protocol. `request` refuses it on the wire.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    pub reason: String,
    pub request: Box<DeltaDiscoveryRequest>,
}

/// The state of one type.
#[derive(Debug, Default)]
struct Subscription {
    type_url: String,
    wildcard: bool,
    names: BTreeSet<String>,
    held: BTreeMap<String, String>,
    /// Whether this stream has carried a request of this type.
    asked: bool,
}

/// The client side of one ADS stream, over all its reconnects.
#[derive(Debug)]
pub struct Client {
    types: Vec<Subscription>,
    connected: bool,
    /// Sent with the first request of each stream, then gone.
    node: Option<Node>,
}

impl Client {
    /// A client of these types, subscribed in this order at each connect: to all resources where the type allows that,
    /// else to the names that [`Client::subscribe`] adds.
    pub fn new<'a>(type_urls: impl IntoIterator<Item = &'a str>) -> Self {
        let types = type_urls
            .into_iter()
            .map(|url| Subscription {
                type_url: url.to_owned(),
                wildcard: Type::from_url(url).is_some_and(Type::allows_wildcard),
                ..Subscription::default()
            })
            .collect();
        Self {
            types,
            connected: false,
            node: None,
        }
    }

    /// A new stream is open. The first requests: everything wanted, with the versions already held.
    pub fn connect(&mut self, node: Node) -> Vec<DeltaDiscoveryRequest> {
        self.connected = true;
        self.node = Some(node);
        let mut requests = Vec::new();
        for subscription in &mut self.types {
            subscription.asked = false;
            if let Some(request) = subscription.first_request() {
                requests.push(stamp(&mut self.node, request));
            }
        }
        requests
    }

    /// The stream is gone. Subscriptions and versions stay.
    pub fn disconnect(&mut self) {
        self.connected = false;
    }

    /// Wants these names too. Gives the request to send now, if anything is new and a stream is open.
    pub fn subscribe<S: Into<String>>(
        &mut self,
        type_url: &str,
        names: impl IntoIterator<Item = S>,
    ) -> Option<DeltaDiscoveryRequest> {
        self.change(type_url, names.into_iter().map(Into::into).collect(), Vec::new())
    }

    /// Wants these names no more.
    pub fn unsubscribe<S: Into<String>>(
        &mut self,
        type_url: &str,
        names: impl IntoIterator<Item = S>,
    ) -> Option<DeltaDiscoveryRequest> {
        self.change(type_url, Vec::new(), names.into_iter().map(Into::into).collect())
    }

    /// Wants exactly these names: one request with what is new and what is gone.
    pub fn want(
        &mut self,
        type_url: &str,
        names: impl IntoIterator<Item = String>,
    ) -> Option<DeltaDiscoveryRequest> {
        let names: BTreeSet<String> = names.into_iter().collect();
        let gone = self.find(type_url)?.names.difference(&names).cloned().collect();
        self.change(type_url, names.into_iter().collect(), gone)
    }

    /// What is wanted by name.
    pub fn names(&self, type_url: &str) -> impl Iterator<Item = &str> {
        self.find(type_url)
            .into_iter()
            .flat_map(|s| s.names.iter().map(String::as_str))
    }

    /// The version of an accepted resource.
    pub fn version(&self, type_url: &str, name: &str) -> Option<&str> {
        self.find(type_url)?.held.get(name).map(String::as_str)
    }

    /// A response has arrived.
    pub fn receive(&self, response: DeltaDiscoveryResponse) -> Result<Update, Refused> {
        let refuse = |reason: String| {
            let status = Status {
                code: INVALID_ARGUMENT,
                message: reason.clone(),
                details: Vec::new(),
            };
            let request = DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce.clone(),
                error_detail: Some(status),
                ..DeltaDiscoveryRequest::default()
            };
            Refused {
                reason,
                request: Box::new(request),
            }
        };
        let Some(subscription) = self.find(&response.type_url) else {
            return Err(refuse(format!("{} was never asked for", response.type_url)));
        };
        let mut seen = BTreeSet::new();
        let mut changed = Vec::with_capacity(response.resources.len());
        for resource in &response.resources {
            if resource.name.is_empty() {
                return Err(refuse("a resource has no name".to_owned()));
            }
            if !seen.insert(resource.name.as_str()) {
                return Err(refuse(format!("{} comes twice in one response", resource.name)));
            }
            let Some(body) = &resource.resource else {
                return Err(refuse(format!("{} has no body", resource.name)));
            };
            if body.type_url != response.type_url {
                return Err(refuse(format!("{} is a {}", resource.name, body.type_url)));
            }
            // An unsubscribe may cross a response on the wire: what nobody wants any more is not applied.
            if subscription.wants(&resource.name) {
                let (name, version) = (resource.name.clone(), resource.version.clone());
                changed.push(Resource {
                    name,
                    version,
                    body: body.clone(),
                });
            }
        }
        let removed = response
            .removed_resources
            .iter()
            .filter(|name| !seen.contains(name.as_str()));
        Ok(Update {
            removed: removed.filter(|name| subscription.wants(name)).cloned().collect(),
            changed,
            type_url: response.type_url.clone(),
            system_version: response.system_version_info.clone(),
            nonce: response.nonce.clone(),
        })
    }

    /// The update is in use.
    pub fn ack(&mut self, update: &Update) -> DeltaDiscoveryRequest {
        self.record(update, |_| true);
        answer(update, None)
    }

    /// The update was refused, as a whole when `rejected` is empty, else the named resources of it.
    pub fn nack(&mut self, update: &Update, rejected: &[String], error: String) -> DeltaDiscoveryRequest {
        if !rejected.is_empty() {
            self.record(update, |name| !rejected.iter().any(|other| other == name));
        }
        answer(update, Some(error))
    }

    fn record(&mut self, update: &Update, accepted: impl Fn(&str) -> bool) {
        let Some(subscription) = self.types.iter_mut().find(|s| s.type_url == update.type_url) else {
            return;
        };
        for resource in &update.changed {
            // It may have been unsubscribed while the update was being applied.
            if accepted(&resource.name) && subscription.wants(&resource.name) {
                subscription
                    .held
                    .insert(resource.name.clone(), resource.version.clone());
            }
        }
        for name in &update.removed {
            if accepted(name) {
                subscription.held.remove(name);
            }
        }
    }

    fn change(
        &mut self,
        type_url: &str,
        mut add: Vec<String>,
        mut remove: Vec<String>,
    ) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.types.iter_mut().find(|s| s.type_url == type_url)?;
        add.retain(|name| subscription.names.insert(name.clone()));
        remove.retain(|name| subscription.names.remove(name));
        if !subscription.wildcard {
            for name in &remove {
                subscription.held.remove(name);
            }
        }
        if !self.connected || (add.is_empty() && remove.is_empty()) {
            return None;
        }
        let request = if subscription.asked {
            DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names_subscribe: add,
                resource_names_unsubscribe: remove,
                ..DeltaDiscoveryRequest::default()
            }
        } else {
            subscription.first_request()?
        };
        Some(stamp(&mut self.node, request))
    }

    fn find(&self, type_url: &str) -> Option<&Subscription> {
        self.types.iter().find(|s| s.type_url == type_url)
    }
}

impl Subscription {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// The first request of this type on a stream; none while nothing is wanted.
    fn first_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        if !self.wildcard && self.names.is_empty() {
            return None;
        }
        self.asked = true;
        let everything = self.wildcard.then(|| WILDCARD.to_owned());
        Some(DeltaDiscoveryRequest {
            type_url: self.type_url.clone(),
            resource_names_subscribe: everything.into_iter().chain(self.names.iter().cloned()).collect(),
            initial_resource_versions: self.held.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            ..DeltaDiscoveryRequest::default()
        })
    }
}

fn stamp(node: &mut Option<Node>, request: DeltaDiscoveryRequest) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node.take(),
        ..request
    }
}

fn answer(update: &Update, error: Option<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: update.type_url.clone(),
        response_nonce: update.nonce.clone(),
        error_detail: error.map(|message| Status {
            code: INVALID_ARGUMENT,
            message,
            details: Vec::new(),
        }),
        ..DeltaDiscoveryRequest::default()
    }
}

#[cfg(test)]
#[path = "client/tests.rs"]
mod tests;
