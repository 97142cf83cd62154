//! The busiest, slowest or most failing services during a window.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{View, rounded};
use crate::{
    aggregate::{Merge, edge::Slot},
    rule,
};

/// What is "top".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    #[default]
    Rps,
    Errors,
    P99,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The host that was asked for, or the workload where none was.
    pub service: String,
    pub namespace: String,
    pub protocol: &'static str,
    pub rps: f64,
    pub error_ratio: f64,
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub requests: u64,
}

pub fn top(views: Vec<View>, by: By, limit: usize) -> Vec<Row> {
    let mut sums: BTreeMap<_, (Slot, f64)> = BTreeMap::new();
    for view in rule::prefer(views) {
        let key = &view.key;
        let service = if key.service.is_empty() {
            key.destination.name.clone()
        } else {
            key.service.clone()
        };
        let sum = sums
            .entry((service, key.destination.namespace.clone(), key.protocol))
            .or_default();
        sum.0.merge(&view.slot);
        sum.1 += view.rate();
    }
    let mut rows: Vec<Row> = sums
        .into_iter()
        .map(|((service, namespace, protocol), (slot, rate))| Row {
            service: service.into(),
            namespace: namespace.into(),
            protocol: protocol.as_str(),
            rps: rounded(rate),
            error_ratio: rounded(slot.counts.error_ratio()),
            p50_ms: slot.latency.quantile_ms(0.5).map(rounded),
            p90_ms: slot.latency.quantile_ms(0.9).map(rounded),
            p99_ms: slot.latency.quantile_ms(0.99).map(rounded),
            requests: slot.counts.requests,
        })
        .collect();
    let weight = |row: &Row| match by {
        By::Rps => row.rps,
        By::Errors => row.error_ratio * row.rps,
        By::P99 => row.p99_ms.unwrap_or_default(),
    };
    rows.sort_by(|a, b| {
        weight(b)
            .total_cmp(&weight(a))
            .then_with(|| a.service.cmp(&b.service))
    });
    rows.truncate(limit);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EdgeKey;
    use std::time::Duration;

    fn view(service: &str, requests: u64, errors: u64, ms: u64) -> View {
        let mut slot = Slot::default();
        (slot.counts.requests, slot.counts.errors) = (requests, errors);
        slot.latency.record(Duration::from_millis(ms));
        View {
            key: EdgeKey {
                service: service.into(),
                ..EdgeKey::other()
            }
            .into(),
            slot,
            seconds: 10.0,
        }
    }

    #[test]
    fn sorted_by_what_was_asked() {
        let views = || {
            vec![
                view("a", 100, 0, 5),
                view("b", 50, 25, 9),
                view("c", 10, 1, 900),
                view("a", 100, 0, 5),
            ]
        };
        for (by, expect) in [
            (By::Rps, ["a", "b"]),
            (By::Errors, ["b", "c"]),
            (By::P99, ["c", "b"]),
        ] {
            let services: Vec<String> = top(views(), by, 2).into_iter().map(|row| row.service).collect();
            assert_eq!(services, expect, "{by:?}");
        }
        assert_eq!(top(views(), By::Rps, 9)[0].rps, 20.0);
    }
}
