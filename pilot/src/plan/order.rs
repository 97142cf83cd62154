//! What one stream sends next. Make before break: clusters and their endpoints come before the listeners and routes
//! that use them, and are taken away only after the client has accepted listeners and routes that do without them.
//!
//! A [`Session`] holds the subscriptions of one stream and what its client shall have. It sends nothing itself: the
//! stream asks [`Session::next`] until there is nothing more. Time is passed in, in milliseconds since 1970.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse},
    xds::{
        Encoded, Resources, Type, Version,
        server::{Event, News, Rejection, Subscription},
    },
};

use super::affected::Types;

/// What was sent of one type, and what came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The snapshot of the last response.
    pub sent: Option<u64>,
    /// The snapshot of the last accepted response.
    pub acked: Option<u64>,
    /// The snapshot of the last refused response.
    pub nacked: Option<u64>,
    /// When the last of these happened.
    pub time: u64,
}

/// A response in the form that the stream speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Delta(News),
    Sotw(DiscoveryResponse),
}

/// A request in that form.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Delta(DeltaDiscoveryRequest),
    Sotw(DiscoveryRequest),
}

impl Request {
    pub fn type_url(&self) -> &str {
        match self {
            Self::Delta(request) => &request.type_url,
            Self::Sotw(request) => &request.type_url,
        }
    }
}

#[derive(Debug)]
pub struct Session {
    sotw: bool,
    subscriptions: [Subscription; 6],
    records: [Record; 6],
    /// What the client shall have.
    target: [Arc<Resources>; 6],
    /// What it may still use, though it shall not have it for long.
    retained: [Resources; 6],
    /// Types that may have something to send.
    dirty: Types,
    /// New clusters whose endpoints the client is about to ask for.
    expected: BTreeSet<Arc<str>>,
    /// The snapshot that `target` is of.
    sequence: u64,
}

/// Types whose removals wait until nobody refers to them any more.
const KEPT: [Type; 3] = [Type::Cluster, Type::Endpoint, Type::Route];
/// Types that refer to clusters.
const USERS: [Type; 2] = [Type::Listener, Type::Route];

impl Session {
    /// `stream` makes nonces of different streams differ.
    pub fn new(stream: u64, sotw: bool) -> Self {
        Self {
            sotw,
            subscriptions: Type::ALL.map(|kind| Subscription::new(kind, stream)),
            records: Default::default(),
            target: Default::default(),
            retained: Default::default(),
            dirty: Types::NONE,
            expected: BTreeSet::new(),
            sequence: 0,
        }
    }

    pub fn is_sotw(&self) -> bool {
        self.sotw
    }

    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn subscription(&self, kind: Type) -> &Subscription {
        &self.subscriptions[kind.index()]
    }

    pub fn record(&self, kind: Type) -> &Record {
        &self.records[kind.index()]
    }

    /// The client shall have these from now on; only types whose map is another one are looked at.
    pub fn retarget(&mut self, target: &[Arc<Resources>; 6], sequence: u64) {
        self.sequence = sequence;
        for kind in Type::ALL {
            let i = kind.index();
            if Arc::ptr_eq(&self.target[i], &target[i]) {
                continue;
            }
            let old = std::mem::replace(&mut self.target[i], target[i].clone());
            if KEPT.contains(&kind) && self.subscriptions[i].asked() {
                self.retained[i].extend(gone(&old, &target[i]));
            }
            self.retained[i].retain(|own| !target[i].contains(&own.name));
            self.dirty.insert(kind);
        }
    }

    /// Takes a request in. `None`: of a type that pilot does not serve.
    pub fn request(&mut self, request: &Request, now: u64) -> Option<(Type, Event)> {
        let kind = Type::from_url(request.type_url())?;
        let i = kind.index();
        let event = match request {
            Request::Delta(request) => self.subscriptions[i].delta_request(request),
            Request::Sotw(request) => self.subscriptions[i].sotw_request(request),
        };
        let record = &mut self.records[i];
        match &event {
            Event::Accepted => {
                record.acked = record.sent;
                record.time = now;
            }
            Event::Rejected(_) => {
                record.nacked = record.sent;
                record.time = now;
            }
            Event::Subscribed | Event::Changed | Event::Stale | Event::TooManyNames => {}
        }
        let has_all = matches!(event, Event::Accepted | Event::Subscribed);
        if has_all && self.retained[i].is_empty() {
            self.subscriptions[i].settle(&self.target[i]);
        }
        self.dirty.insert(kind);
        if kind == Type::Endpoint {
            self.look_for_expected();
        }
        Some((kind, event))
    }

    /// The next response, if anything is due.
    pub fn next(&mut self, now: u64) -> Option<Response> {
        loop {
            for kind in Type::ALL {
                if let Some(response) = self.one(kind, now) {
                    return Some(response);
                }
            }
            if !self.release() {
                return None;
            }
        }
    }

    /// Whether listeners or routes wait for a client that may never ask for the endpoints.
    pub fn is_patient(&self) -> bool {
        !self.expected.is_empty() && USERS.iter().any(|kind| self.dirty.contains(*kind))
    }

    /// The client had its time to ask.
    pub fn lose_patience(&mut self) {
        self.expected.clear();
    }

    /// The client has, and has answered for, everything of its target that it asked for.
    pub fn is_settled(&self) -> bool {
        Type::ALL.into_iter().all(|kind| {
            let subscription = self.subscription(kind);
            !subscription.asked() || !(subscription.waiting() || self.dirty.contains(kind))
        })
    }

    /// Refusals that stand.
    pub fn rejections(&self) -> impl Iterator<Item = (Type, &Rejection)> {
        self.subscriptions
            .iter()
            .filter_map(|s| Some((s.kind(), s.rejection()?)))
    }

    fn one(&mut self, kind: Type, now: u64) -> Option<Response> {
        let i = kind.index();
        if !self.dirty.contains(kind) {
            return None;
        }
        if !self.subscriptions[i].asked() {
            self.dirty.remove(kind);
            return None;
        }
        if self.subscriptions[i].waiting() || (USERS.contains(&kind) && self.clusters_under_way()) {
            return None;
        }
        let response = if self.retained[i].is_empty() {
            let target = self.target[i].clone();
            self.respond(kind, &target)
        } else {
            let mut both = Resources::clone(&self.target[i]);
            both.extend(self.retained[i].iter().cloned());
            self.respond(kind, &both)
        };
        match &response {
            None => self.dirty.remove(kind),
            Some(_) => {
                let record = &mut self.records[i];
                record.sent = Some(self.sequence);
                record.time = now;
            }
        }
        response
    }

    fn respond(&mut self, kind: Type, resources: &Resources) -> Option<Response> {
        // What follows is for clusters that are sent, and costs more than to see that there are none.
        if kind == Type::Cluster && !self.subscription(kind).pending(resources) {
            return None;
        }
        let before: BTreeMap<Arc<str>, Version> = match kind {
            Type::Cluster => self
                .subscription(kind)
                .versions()
                .map(|(name, version, _)| (name.clone(), version))
                .collect(),
            _ => BTreeMap::new(),
        };
        let version = self.sequence.to_string();
        let subscription = &mut self.subscriptions[kind.index()];
        let response = if self.sotw {
            Response::Sotw(subscription.sotw_response(resources, &version)?)
        } else {
            Response::Delta(subscription.delta_news(resources, &version)?)
        };
        match kind {
            Type::Cluster => self.clusters_sent(&response, resources, &before),
            Type::Endpoint => self.look_for_expected(),
            _ => {}
        }
        Some(response)
    }

    /// The client warms each cluster that is new or another: it needs the endpoints again, or for the first time.
    fn clusters_sent(
        &mut self,
        response: &Response,
        resources: &Resources,
        before: &BTreeMap<Arc<str>, Version>,
    ) {
        let sent: Vec<&Arc<Encoded>> = match response {
            Response::Delta(response) => response.resources.iter().collect(),
            // The whole state, of which most was there before.
            Response::Sotw(_) => resources
                .iter()
                .filter(|own| before.get(&own.name) != Some(&own.version))
                .collect(),
        };
        let by_eds = |own: &&&Arc<Encoded>| self.target[Type::Endpoint.index()].contains(&own.name);
        let (known, new): (Vec<_>, Vec<_>) = sent
            .iter()
            .filter(by_eds)
            .map(|own| own.name.clone())
            .partition(|name| before.contains_key(name));
        self.subscriptions[Type::Endpoint.index()].repeat(known.iter().map(|name| &**name));
        self.dirty.insert(Type::Endpoint);
        self.expected.extend(new);
        self.look_for_expected();
    }

    fn look_for_expected(&mut self) {
        let endpoints = &self.subscriptions[Type::Endpoint.index()];
        self.expected.retain(|name| !endpoints.knows(name));
    }

    /// Whether clusters or endpoints are still on their way to a client that asked for them.
    fn clusters_under_way(&self) -> bool {
        let under_way = |kind: Type| {
            let subscription = self.subscription(kind);
            subscription.asked() && (subscription.waiting() || self.dirty.contains(kind))
        };
        under_way(Type::Cluster) || under_way(Type::Endpoint) || !self.expected.is_empty()
    }

    /// Lets go of what was kept, once the client's listeners and routes do without it. True if there is news.
    fn release(&mut self) -> bool {
        if self.retained.iter().all(Resources::is_empty) {
            return false;
        }
        let busy = USERS.iter().any(|kind| {
            let subscription = self.subscription(*kind);
            subscription.asked()
                && (subscription.waiting()
                    || self.dirty.contains(*kind)
                    || subscription.rejection().is_some())
        });
        if busy || self.clusters_under_way() {
            return false;
        }
        for kind in KEPT {
            if !self.retained[kind.index()].is_empty() {
                self.retained[kind.index()].clear();
                self.dirty.insert(kind);
            }
        }
        true
    }
}

/// What is in `old` and not in `new`. Both are in the same order, and most names are the very same text.
fn gone(old: &Resources, new: &Resources) -> Vec<Arc<Encoded>> {
    let mut new = new.names().peekable();
    let mut gone = Vec::new();
    for resource in old.iter() {
        let name = &resource.name;
        while new
            .next_if(|other| !Arc::ptr_eq(other, name) && *other < name)
            .is_some()
        {}
        if new
            .next_if(|other| Arc::ptr_eq(other, name) || *other == name)
            .is_none()
        {
            gone.push(resource.clone());
        }
    }
    gone
}

#[cfg(test)]
#[path = "order/tests.rs"]
mod tests;
