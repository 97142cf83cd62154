//! All edges of the mesh: the one place where records arrive and sinks and queries look. Bounds: a budget of edges,
//! and edges without traffic for a while are forgotten. Time is passed in, as the time since the process began.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    aggregate::{
        cardinality::{Budget, Place},
        edge::{Edge, Total},
    },
    query::View,
    record::{EdgeKey, Record},
};

/// The edges, shared by receivers, sinks and queries.
#[derive(Clone, Debug)]
pub struct Series(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    edges: HashMap<Arc<EdgeKey>, Edge>,
    other: Option<(Arc<EdgeKey>, Edge)>,
    budget: Budget,
    idle: Duration,
}

impl Series {
    pub fn new(budget: Budget, idle: Duration) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            edges: HashMap::new(),
            other: None,
            budget,
            idle,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch; returns how many of it went to "other".
    pub fn add(&self, records: &[Record], now: Duration) -> u64 {
        let mut inner = self.lock();
        records
            .iter()
            .map(|record| u64::from(inner.add(record, now) == Place::Other))
            .sum()
    }

    /// Every edge with traffic in the last `window`.
    pub fn views(&self, now: Duration, window: Duration) -> Vec<View> {
        let inner = self.lock();
        let all = inner
            .edges
            .iter()
            .chain(inner.other.as_ref().map(|(key, edge)| (key, edge)));
        all.filter_map(|(key, edge)| {
            let (slot, seconds) = edge.window.sum(now, window);
            (slot.counts.requests > 0).then(|| View {
                key: key.clone(),
                slot,
                seconds,
            })
        })
        .collect()
    }

    /// Everything since each edge was first seen, sorted by key.
    pub fn totals(&self) -> Vec<(Arc<EdgeKey>, Total)> {
        let inner = self.lock();
        let all = inner
            .edges
            .iter()
            .chain(inner.other.as_ref().map(|(key, edge)| (key, edge)));
        let mut totals: Vec<_> = all.map(|(key, edge)| (key.clone(), edge.total.clone())).collect();
        drop(inner);
        totals.sort_by(|(a, _), (b, _)| a.cmp(b));
        totals
    }

    /// Forgets idle edges; returns how many.
    pub fn expire(&self, now: Duration) -> usize {
        let mut inner = self.lock();
        let (before, idle) = (inner.edges.len(), inner.idle);
        inner
            .edges
            .retain(|_, edge| now.saturating_sub(edge.last_seen) < idle);
        before - inner.edges.len()
    }

    pub fn len(&self) -> usize {
        self.lock().edges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn add(&mut self, record: &Record, now: Duration) -> Place {
        if let Some(edge) = self.edges.get_mut(&record.key) {
            edge.record(record, now);
            return Place::Own;
        }
        let place = self.budget.place(false, self.edges.len());
        let edge = match place {
            Place::Own => self.edges.entry(Arc::new(record.key.clone())).or_default(),
            Place::Other => {
                &mut self
                    .other
                    .get_or_insert_with(|| (Arc::new(EdgeKey::other()), Edge::default()))
                    .1
            }
        };
        edge.record(record, now);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Outcome;

    fn record(source: &str) -> Record {
        let mut key = EdgeKey::other();
        key.source.name = source.into();
        Record {
            key,
            outcome: Outcome::default(),
            latency: None,
            mtls: false,
            sent: 0,
            received: 0,
        }
    }

    const IDLE: Duration = Duration::from_secs(600);

    #[test]
    fn beyond_the_budget_is_other() {
        let series = Series::new(Budget { max: 2 }, IDLE);
        let now = Duration::from_secs(1);
        assert_eq!(
            series.add(
                &[record("a"), record("b"), record("c"), record("a"), record("d")],
                now
            ),
            2
        );
        assert_eq!(series.len(), 2);
        let totals = series.totals();
        let requests = |name: &str| {
            let found = totals.iter().find(|(key, _)| &*key.source.name == name);
            found.map(|(_, total)| total.counts.requests)
        };
        assert_eq!(
            (requests("a"), requests("b"), requests("other"), requests("c")),
            (Some(2), Some(1), Some(2), None)
        );
        assert_eq!(series.views(now, Duration::from_secs(60)).len(), 3);
    }

    #[test]
    fn idle_edges_make_room() {
        let series = Series::new(Budget { max: 1 }, IDLE);
        series.add(&[record("a")], Duration::ZERO);
        assert_eq!(series.expire(IDLE - Duration::from_secs(1)), 0);
        assert_eq!(
            series.views(IDLE, Duration::from_secs(60)).len(),
            0,
            "no traffic lately"
        );
        assert_eq!(series.expire(IDLE), 1);
        assert_eq!(series.add(&[record("b")], IDLE), 0);
    }
}
