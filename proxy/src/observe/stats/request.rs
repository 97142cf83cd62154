//! Cells of the standard metrics. An [`Edge`] is everything known about a request before its answer; the answer adds
//! status, gRPC status and flags. The edge keeps the few answers it has seen in a short list, so counting a request is
//! a walk over one or two entries and a handful of additions. Cells that were retired for want of use (see
//! [`super::expire`]) are asked for again.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use crate::config::flag::Flags;

use super::{
    super::labels::{ConnectionKey, EdgeKey, Outcome, RequestKey},
    Stats,
    cell::{Counter, Histogram, Local},
    expire::{Aging, Retired},
};

/// Different answers an edge remembers; more of them are counted too, but each by a look into the registry.
const REMEMBERED: usize = 64;

/// `istio_requests_total` (the duration's count) and the three distributions of one label set.
#[derive(Debug, Default)]
pub struct RequestCells {
    pub duration: Histogram,
    pub request_bytes: Histogram,
    pub response_bytes: Histogram,
    retired: Retired,
}

impl Aging for RequestCells {
    fn uses(&self) -> u64 {
        self.duration.count()
    }

    fn retired(&self) -> &Retired {
        &self.retired
    }
}

/// `istio_tcp_*` of one label set.
#[derive(Debug, Default)]
pub struct TcpCells {
    pub opened: Counter,
    pub closed: Counter,
    pub sent: Counter,
    pub received: Counter,
    retired: Retired,
}

impl Aging for TcpCells {
    fn uses(&self) -> u64 {
        self.opened.get() + self.closed.get()
    }

    fn retired(&self) -> &Retired {
        &self.retired
    }
}

pub(super) struct EdgeInner {
    key: Arc<EdgeKey>,
    stats: Stats,
    shard: u32,
    answers: RefCell<Vec<(Outcome, Local<RequestCells>)>>,
    connections: RefCell<Vec<(Flags, Local<TcpCells>)>>,
}

/// A worker's handle to one source–destination–service relation.
#[derive(Clone)]
pub struct Edge(pub(super) Rc<EdgeInner>);

impl EdgeInner {
    pub(super) fn new(key: Arc<EdgeKey>, stats: Stats, shard: u32) -> Self {
        Self {
            key,
            stats,
            shard,
            answers: RefCell::default(),
            connections: RefCell::default(),
        }
    }
}

impl Edge {
    /// What the edge is about.
    pub fn key(&self) -> &Arc<EdgeKey> {
        &self.0.key
    }

    /// Counts a finished request.
    pub fn observe(&self, outcome: Outcome, duration: Duration, request_bytes: u64, response_bytes: u64) {
        let count = |cells: &RequestCells| {
            cells.duration.observe_time(duration);
            cells.request_bytes.observe_bytes(request_bytes);
            cells.response_bytes.observe_bytes(response_bytes);
        };
        // gRPC knows 0 to 16; whatever else a server invents counts as 2, UNKNOWN, so that it cannot make label sets.
        let outcome = Outcome {
            grpc_status: outcome.grpc_status.map(|s| if s <= 16 { s } else { 2 }),
            ..outcome
        };
        if let Some((_, cells)) = self.0.answers.borrow().iter().find(|(seen, _)| *seen == outcome)
            && !cells.retired.get()
        {
            return count(cells);
        }
        count(&self.request(outcome));
    }

    /// The cells of an answer that the edge does not remember.
    fn request(&self, outcome: Outcome) -> Local<RequestCells> {
        let mut answers = self.0.answers.borrow_mut();
        let key = RequestKey::Set {
            edge: Arc::clone(&self.0.key),
            outcome,
        };
        let mut registry = self.0.stats.lock();
        let full =
            registry.requests.len() >= self.0.stats.0.max_label_sets && !registry.requests.contains_key(&key);
        let key = if full {
            self.overflow(RequestKey::Other)
        } else {
            key
        };
        let cells = Local::new(registry.requests.entry(key).or_default().own(self.0.shard));
        remember(&mut answers, outcome, &cells);
        cells
    }

    /// The cells of TCP connections of this edge. Istio counts all of a connection's numbers under the flags known when
    /// it counts, so `opened` goes to [`Flags::none`] and the rest to the final flags.
    pub fn tcp(&self, flags: Flags) -> Local<TcpCells> {
        let mut connections = self.0.connections.borrow_mut();
        if let Some((_, cells)) = connections.iter().find(|(seen, _)| *seen == flags)
            && !cells.retired.get()
        {
            return cells.clone();
        }
        let key = ConnectionKey::Set {
            edge: Arc::clone(&self.0.key),
            flags,
        };
        let mut registry = self.0.stats.lock();
        let full = registry.connections.len() >= self.0.stats.0.max_label_sets
            && !registry.connections.contains_key(&key);
        let key = if full {
            self.overflow(ConnectionKey::Other)
        } else {
            key
        };
        let cells = Local::new(registry.connections.entry(key).or_default().own(self.0.shard));
        remember(&mut connections, flags, &cells);
        cells
    }

    fn overflow<K>(&self, other: K) -> K {
        self.0.stats.control().label_sets_overflow.add_shared(1);
        other
    }
}

/// Keeps cells at hand, in the place of retired ones if there were any.
fn remember<K: PartialEq, T>(list: &mut Vec<(K, Local<T>)>, key: K, cells: &Local<T>) {
    match list.iter().position(|(known, _)| *known == key) {
        Some(place) => list[place].1 = cells.clone(),
        None if list.len() < REMEMBERED => list.push((key, cells.clone())),
        None => {}
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::{
        super::labels::{Reporter, RequestProtocol, Security},
        Value,
    };
    use super::*;

    pub fn edge_key(workload: &str) -> EdgeKey {
        EdgeKey {
            reporter: Reporter::Source,
            source: Arc::default(),
            source_principal: None,
            destination: Arc::new(super::super::super::labels::Workload {
                name: workload.to_owned(),
                ..Default::default()
            }),
            destination_principal: None,
            service: Arc::default(),
            protocol: RequestProtocol::Http,
            security: Security::Unknown,
        }
    }

    pub fn totals(stats: &Stats) -> Vec<(String, u64)> {
        let mut totals = Vec::new();
        for sample in stats.collect() {
            if let (Value::Counter(n), "istio_requests_total") = (&sample.value, &*sample.family.prometheus) {
                let workload = sample
                    .labels
                    .iter()
                    .find(|(name, _)| *name == "destination_workload");
                totals.push((workload.map(|(_, value)| value.clone()).unwrap_or_default(), *n));
            }
        }
        totals.sort();
        totals
    }

    #[test]
    fn equal_edges_share_cells_across_shards() {
        let stats = Stats::new();
        let (one, two) = (stats.shard(), stats.shard());
        let ok = Outcome {
            status: 200,
            ..Outcome::default()
        };
        let edge = one.edge(edge_key("a"));
        edge.observe(ok, Duration::from_millis(3), 0, 100);
        one.edge(edge_key("a"))
            .observe(ok, Duration::from_millis(3), 0, 100);
        two.edge(edge_key("a"))
            .observe(ok, Duration::from_millis(3), 0, 100);
        two.edge(edge_key("a"))
            .observe(Outcome { status: 503, ..ok }, Duration::ZERO, 0, 0);
        assert_eq!(totals(&stats), [("a".to_owned(), 1), ("a".to_owned(), 3)]);
    }

    #[test]
    fn past_the_bound_everything_is_other() {
        let stats = Stats::with_bound(2);
        let shard = stats.shard();
        for n in 0..5 {
            shard
                .edge(edge_key(&n.to_string()))
                .observe(Outcome::default(), Duration::ZERO, 0, 0);
        }
        let expected = [("0".to_owned(), 1), ("1".to_owned(), 1), ("other".to_owned(), 3)];
        assert_eq!(totals(&stats), expected);
        assert_eq!(stats.control().label_sets_overflow.get(), 3);
    }
}
