//! The server side of xDS for one type on one stream, as a state machine without I/O.
//!
//! A [`Subscription`] remembers what the client asked for, what it was told, and whether it accepted that. Requests go
//! in by [`Subscription::delta_request`] or [`Subscription::sotw_request`] (one stream speaks one of the two); responses come out of
//! [`Subscription::delta_response`] or [`Subscription::sotw_response`], given the resources the client may see now.
//!
//! It promises: nothing is sent twice unless the client asks again; a refused resource is sent again only when it has
//! changed; at most one response is unanswered at any time, so a slow client gets fewer, larger steps instead of a
//! queue; a delta response carries at most [`RESPONSE_BYTES`] (and at least one resource), the rest follows its answer.
//!
//! It is bounded by the wanted names (at most [`MAX_NAMES`]) and the resources visible to the client.

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

mod news;
mod table;

use super::{Encoded, Resources, Type, Version, WILDCARD};
use crate::{
    envoy::{
        config::core::v3::ControlPlane,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
        },
    },
    pb::google::rpc::Status,
};
pub use news::{News, Pieces};
use table::{Table, order};

/// What one delta response may carry; a gRPC client accepts 4 MiB unless told otherwise.
pub const RESPONSE_BYTES: usize = 2 << 20;
/// How many names one client may want of one type.
pub const MAX_NAMES: usize = 100_000;

/// What a request meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first of this type on this stream.
    Subscribed,
    /// Other names are wanted now.
    Changed,
    /// The last response was accepted.
    Accepted,
    /// The last response was refused.
    Rejected(Rejection),
    /// It speaks of a response that is not the last one; nothing is concluded from it.
    Stale,
    /// More names than [`MAX_NAMES`]: those beyond were not taken.
    TooManyNames,
}

/// A refused response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub error: String,
    /// The resources at fault: those that the error names, else all of the response.
    pub resources: Vec<(Arc<str>, Version)>,
}

/// What the client thinks of what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Sent, not answered yet.
    Sent,
    Accepted,
    Rejected,
}

/// What the client was last told of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Never,
    Has(Version),
    Absent,
    /// It has something that is not known here: a claim in a foreign form, or a name that must be told again.
    Unknown,
}

/// One name that is wanted, or that the client was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// It is wanted by name.
    named: bool,
    told: Told,
    standing: Standing,
}

impl Entry {
    const NAMED: Self = Self {
        named: true,
        told: Told::Never,
        standing: Standing::Sent,
    };
}

#[derive(Debug)]
struct InFlight {
    nonce: String,
    names: Vec<Arc<str>>,
}

/// One type on one stream.
#[derive(Debug)]
pub struct Subscription {
    kind: Type,
    /// Makes nonces of this stream differ from those of another.
    stream: u64,
    count: u64,
    asked: bool,
    /// The client speaks state-of-the-world.
    sotw: bool,
    wildcard: bool,
    /// A wildcard's first request is answered even when there is nothing, so that the client need not wait.
    answer_due: bool,
    entries: Table,
    /// How many entries are wanted by name.
    named: usize,
    in_flight: Option<InFlight>,
    rejection: Option<Rejection>,
}

impl Subscription {
    pub fn new(kind: Type, stream: u64) -> Self {
        Self {
            kind,
            stream,
            count: 0,
            asked: false,
            sotw: false,
            wildcard: false,
            answer_due: false,
            entries: Table::default(),
            named: 0,
            in_flight: None,
            rejection: None,
        }
    }

    pub fn kind(&self) -> Type {
        self.kind
    }

    /// Whether the client asked for this type on this stream.
    pub fn asked(&self) -> bool {
        self.asked
    }

    /// Whether a response waits for its answer.
    pub fn waiting(&self) -> bool {
        self.in_flight.is_some()
    }

    pub fn wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names wanted beside a wildcard.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.named)
            .map(|(name, _)| name)
    }

    /// The last refusal, as long as one of its resources stands refused.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.rejection.as_ref()
    }

    /// Every resource the client was sent: its version, and what the client thinks of it.
    pub fn versions(&self) -> impl Iterator<Item = (&Arc<str>, Version, Standing)> {
        self.entries.iter().filter_map(|(name, entry)| match entry.told {
            Told::Has(version) => Some((name, version, entry.standing)),
            Told::Never | Told::Absent | Told::Unknown => None,
        })
    }

    /// Whether the client was sent this name, in whatever version.
    pub fn knows(&self, name: &str) -> bool {
        self.entries
            .get(name)
            .is_some_and(|entry| matches!(entry.told, Told::Has(_)))
    }

    /// Whether the client accepted this name in this version.
    pub fn has(&self, name: &str, version: Version) -> bool {
        let entry = self.entries.get(name);
        entry.is_some_and(|e| e.told == Told::Has(version) && e.standing == Standing::Accepted)
    }

    /// Sends these again even though they did not change: what referred to them was replaced, and the client may wait for
    /// them anew.
    pub fn repeat<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            self.entries.change(name, |entry| {
                if entry.told != Told::Never {
                    entry.told = Told::Unknown;
                }
            });
        }
    }

    /// If these are exactly what the client has accepted, they need not be noted one by one: many clients that have the
    /// same share it.
    pub fn settle(&mut self, resources: &Arc<Resources>) {
        if !self.sotw && self.rejection.is_none() {
            self.entries.settle(resources);
        }
    }

    /// Whether there is something to send, were no response unanswered.
    pub fn pending(&self, resources: &Resources) -> bool {
        if !self.asked {
            return false;
        }
        let (send, removed) = self.due(resources);
        let gone = if self.sotw {
            self.kind.allows_wildcard() && self.were_told(&removed)
        } else {
            !removed.is_empty()
        };
        self.answer_due || !send.is_empty() || gone
    }

    /// Whether the client has any of these.
    fn were_told(&self, names: &[Arc<str>]) -> bool {
        names.iter().any(|name| {
            self.entries
                .get(name)
                .is_some_and(|entry| entry.told != Told::Never)
        })
    }

    // ---- delta ----

    pub fn delta_request(&mut self, request: &DeltaDiscoveryRequest) -> Event {
        let first = !std::mem::replace(&mut self.asked, true);
        if first {
            for (name, version) in &request.initial_resource_versions {
                let told = Version::parse(version).map_or(Told::Unknown, Told::Has);
                let entry = Entry {
                    named: false,
                    told,
                    standing: Standing::Accepted,
                };
                self.entries.insert(name.as_str().into(), entry);
            }
            if self.kind.allows_wildcard() && request.resource_names_subscribe.is_empty() {
                self.start_wildcard();
            }
        }
        let mut full = false;
        for name in &request.resource_names_subscribe {
            full |= !self.add(name, first);
        }
        for name in &request.resource_names_unsubscribe {
            self.remove(name);
        }
        if first && !self.wildcard {
            self.forget_unnamed();
        }
        if full {
            return Event::TooManyNames;
        }
        if first {
            return Event::Subscribed;
        }
        if request.response_nonce.is_empty() {
            return Event::Changed;
        }
        self.answered(&request.response_nonce, request.error_detail.as_ref())
    }

    fn start_wildcard(&mut self) {
        self.wildcard = true;
        self.answer_due = true;
    }

    /// Wants one more name. A name wanted again is sent again, since the client may have forgotten the resource.
    fn add(&mut self, name: &str, first: bool) -> bool {
        if name == WILDCARD {
            if self.kind.allows_wildcard() {
                self.start_wildcard();
            }
            return true;
        }
        let known = self.entries.get(name);
        if self.named >= MAX_NAMES && !known.is_some_and(|entry| entry.named) {
            return false;
        }
        let entry = match known {
            // What the client says it has at first need not be sent.
            Some(entry) if first => Entry { named: true, ..entry },
            _ => Entry::NAMED,
        };
        self.named += usize::from(!known.is_some_and(|entry| entry.named));
        self.entries.insert(name.into(), entry);
        true
    }

    fn remove(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            self.forget_unnamed();
        } else if self.entries.get(name).is_some_and(|entry| entry.named) {
            self.named -= 1;
            if self.wildcard {
                // It may still be part of everything: the client waits to be told which.
                let unknown = Entry {
                    named: false,
                    told: Told::Unknown,
                    standing: Standing::Sent,
                };
                self.entries.change(name, |entry| *entry = unknown);
            } else {
                self.entries.remove(name);
            }
        }
    }

    fn forget_unnamed(&mut self) {
        self.entries.forget_unnamed();
    }

    /// What to send now, if anything, as a message.
    pub fn delta_response(&mut self, resources: &Resources, version: &str) -> Option<DeltaDiscoveryResponse> {
        Some(self.delta_news(resources, version)?.message())
    }

    /// What to send now, if anything. `version` is the whole configuration's, for the reader's eye only.
    pub fn delta_news(&mut self, resources: &Resources, version: &str) -> Option<News> {
        if !self.asked || self.waiting() {
            return None;
        }
        let (mut send, removed) = self.due(resources);
        let mut bytes = 0;
        let fits = send.iter().take_while(|resource| {
            let first = bytes == 0;
            bytes += resource.body.len() + resource.name.len();
            first || bytes <= RESPONSE_BYTES
        });
        send.truncate(fits.count());
        if send.is_empty() && removed.is_empty() && !self.answer_due {
            return None;
        }
        self.answer_due = false;
        for name in &removed {
            self.told_absent(name);
        }
        let nonce = self.told(&send);
        Some(News {
            kind: self.kind,
            version: version.to_owned(),
            resources: send,
            removed,
            nonce,
        })
    }

    /// What the client lacks, and what it must forget. One walk over both maps, which are in the same order; names are
    /// mostly the very same text, so they are seldom compared.
    fn due(&self, resources: &Resources) -> (Vec<Arc<Encoded>>, Vec<Arc<str>>) {
        let mut send: Vec<Arc<Encoded>> = Vec::new();
        let mut removed: Vec<Arc<str>> = Vec::new();
        if self.entries.is_settled(resources) {
            return (send, removed);
        }
        if !self.wildcard && self.entries.is_small_beside(resources) {
            for (name, entry) in self.entries.iter() {
                match resources.get(name) {
                    Some(own) if entry.named && entry.told != Told::Has(own.version) => {
                        send.push(own.clone())
                    }
                    None if entry.told != Told::Absent => removed.push(name.clone()),
                    _ => {}
                }
            }
            return (send, removed);
        }
        let (mut entries, mut resources) = (self.entries.iter().peekable(), resources.iter().peekable());
        loop {
            let next = match (entries.peek(), resources.peek()) {
                (None, None) => return (send, removed),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some(b)) => order(a, &b.name),
            };
            let entry = if next.is_le() { entries.next() } else { None };
            let resource = if next.is_ge() { resources.next() } else { None };
            match (entry, resource) {
                (Some((_, entry)), Some(resource))
                    if (self.wildcard || entry.named) && entry.told != Told::Has(resource.version) =>
                {
                    send.push(resource.clone());
                }
                (None, Some(resource)) if self.wildcard => send.push(resource.clone()),
                (Some((name, entry)), None) if entry.told != Told::Absent => removed.push(name.clone()),
                _ => {}
            }
        }
    }

    // ---- state of the world ----

    pub fn sotw_request(&mut self, request: &DiscoveryRequest) -> Event {
        let first = !std::mem::replace(&mut self.asked, true);
        self.sotw = true;
        let nonce = &request.response_nonce;
        if !first && !nonce.is_empty() && self.last_nonce().as_deref() != Some(nonce.as_str()) {
            return Event::Stale;
        }
        let full = request.resource_names.len() > MAX_NAMES;
        let named = request.resource_names.iter().take(MAX_NAMES);
        let names: BTreeSet<&str> = named
            .map(String::as_str)
            .filter(|name| *name != WILDCARD)
            .collect();
        let everything = request.resource_names.iter().any(|name| name == WILDCARD)
            // An empty list means everything until the first name is given, and nothing from then on.
            || (request.resource_names.is_empty() && (first || (self.wildcard && self.named == 0)));
        self.want_exactly(everything && self.kind.allows_wildcard(), &names);
        if full {
            return Event::TooManyNames;
        }
        if first {
            return Event::Subscribed;
        }
        if nonce.is_empty() || !self.waiting() {
            return Event::Changed;
        }
        self.answered(nonce, request.error_detail.as_ref())
    }

    fn want_exactly(&mut self, wildcard: bool, names: &BTreeSet<&str>) {
        self.answer_due |= wildcard && !self.wildcard;
        self.wildcard = wildcard;
        self.entries
            .change_all(|name, entry| entry.named = names.contains(name));
        for name in names {
            if self.entries.get(name).is_none() {
                self.entries.insert((*name).into(), Entry::NAMED);
            }
        }
        self.named = names.len();
        if !wildcard {
            self.forget_unnamed();
        }
    }

    /// What to send now, if anything. Types with a wildcard are sent whole, the others only what is new.
    pub fn sotw_response(&mut self, resources: &Resources, version: &str) -> Option<DiscoveryResponse> {
        if !self.asked || self.waiting() {
            return None;
        }
        let (mut send, removed) = self.due(resources);
        let whole = self.kind.allows_wildcard();
        let gone = whole && self.were_told(&removed);
        // An absence has no words in this variant; it is noted so that a later presence is news.
        for name in &removed {
            self.told_absent(name);
        }
        if send.is_empty() && !gone && !self.answer_due {
            return None;
        }
        self.answer_due = false;
        if whole {
            let wanted = |name: &Arc<str>| self.entries.get(name).is_some_and(|entry| entry.named);
            send = resources
                .iter()
                .filter(|own| self.wildcard || wanted(&own.name))
                .cloned()
                .collect();
        }
        let nonce = self.told(&send);
        Some(DiscoveryResponse {
            version_info: version.to_owned(),
            resources: send.iter().map(|resource| resource.any()).collect(),
            type_url: self.kind.url().to_owned(),
            nonce,
            control_plane: Some(control_plane()),
            ..DiscoveryResponse::default()
        })
    }

    // ---- both ----

    fn told_absent(&mut self, name: &Arc<str>) {
        match self.entries.get(name) {
            Some(entry) if entry.named => {
                let absent = Entry {
                    told: Told::Absent,
                    ..Entry::NAMED
                };
                self.entries.insert(name.clone(), absent);
            }
            _ => self.entries.forget(name),
        }
    }

    /// Notes what is sent now; gives the nonce to send with it.
    fn told(&mut self, send: &[Arc<Encoded>]) -> String {
        for resource in send {
            let named = self.entries.get(&resource.name).is_some_and(|entry| entry.named);
            let entry = Entry {
                named,
                told: Told::Has(resource.version),
                standing: Standing::Sent,
            };
            self.entries.insert(resource.name.clone(), entry);
        }
        self.count += 1;
        let nonce = format!("{:x}-{}", self.stream, self.count);
        let names = send.iter().map(|resource| resource.name.clone()).collect();
        self.in_flight = Some(InFlight {
            nonce: nonce.clone(),
            names,
        });
        nonce
    }

    fn last_nonce(&self) -> Option<String> {
        (self.count > 0).then(|| format!("{:x}-{}", self.stream, self.count))
    }

    fn answered(&mut self, nonce: &str, error: Option<&Status>) -> Event {
        let Some(flight) = self.in_flight.take_if(|flight| flight.nonce == nonce) else {
            return Event::Stale;
        };
        let Some(status) = error else {
            self.judge(&flight.names, Standing::Accepted);
            let still = |(name, _): &(Arc<str>, Version)| {
                self.entries
                    .get(name)
                    .is_some_and(|entry| entry.standing == Standing::Rejected)
            };
            if self
                .rejection
                .as_ref()
                .is_some_and(|rejection| !rejection.resources.iter().any(still))
            {
                self.rejection = None;
            }
            return Event::Accepted;
        };
        let named: Vec<Arc<str>> = flight
            .names
            .iter()
            .filter(|name| mentions(&status.message, name))
            .cloned()
            .collect();
        self.judge(&flight.names, Standing::Accepted);
        let guilty = if named.is_empty() { &flight.names } else { &named };
        self.judge(guilty, Standing::Rejected);
        let version = |name: &Arc<str>| match self.entries.get(name)?.told {
            Told::Has(version) => Some((name.clone(), version)),
            Told::Never | Told::Absent | Told::Unknown => None,
        };
        let rejection = Rejection {
            error: status.message.clone(),
            resources: guilty.iter().filter_map(version).collect(),
        };
        self.rejection = Some(rejection.clone());
        Event::Rejected(rejection)
    }

    fn judge(&mut self, names: &[Arc<str>], standing: Standing) {
        for name in names {
            self.entries.change(name, |entry| entry.standing = standing);
        }
    }
}

/// Whether a text speaks of a name, as a word of its own: `80` is not meant by `8080`.
fn mentions(text: &str, name: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "|_-".contains(c));
    text.match_indices(name).any(|(start, _)| {
        !part(text[..start].chars().next_back()) && !part(text[start + name.len()..].chars().next())
    })
}

fn delta_resource(resource: &Encoded) -> Resource {
    Resource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(resource.any()),
        ..Resource::default()
    }
}

fn control_plane() -> ControlPlane {
    ControlPlane {
        identifier: concat!("gossamer/", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
