//! The totals of every edge as label sets and values, for a scrape. Pure; `sink::prometheus` writes them out.

use std::sync::Arc;

use crate::{
    aggregate::edge::{BOUNDS_MS, Total},
    record::{EdgeKey, Protocol},
};

/// Labels of an edge, under the names that mesh users know.
pub fn labels(key: &EdgeKey) -> [(&'static str, &str); 10] {
    [
        ("reporter", key.reporter.as_str()),
        ("source_workload", or_unknown(&key.source.name)),
        ("source_workload_namespace", or_unknown(&key.source.namespace)),
        ("source_app", or_unknown(&key.source.app)),
        ("source_principal", or_unknown(&key.source.principal)),
        ("destination_workload", or_unknown(&key.destination.name)),
        (
            "destination_workload_namespace",
            or_unknown(&key.destination.namespace),
        ),
        ("destination_principal", or_unknown(&key.destination.principal)),
        ("destination_service", or_unknown(&key.service)),
        ("request_protocol", key.protocol.as_str()),
    ]
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

/// The class of a status code, as a label: few values for any number of codes.
pub fn classes(key: &EdgeKey, total: &Total) -> Vec<(&'static str, u64)> {
    let mut classes: Vec<(&'static str, u64)> = Vec::new();
    for (code, count) in &total.counts.codes {
        let class = match (key.protocol, code) {
            (Protocol::Grpc, 0) => "ok",
            (Protocol::Grpc, _) => "grpc_error",
            (Protocol::Tcp, _) | (_, 0) => "none",
            (_, 100..=199) => "1xx",
            (_, 200..=299) => "2xx",
            (_, 300..=399) => "3xx",
            (_, 400..=499) => "4xx",
            _ => "5xx",
        };
        match classes.iter_mut().find(|(known, _)| *known == class) {
            Some((_, sum)) => *sum += count,
            None => classes.push((class, *count)),
        }
    }
    classes
}

/// Upper bounds with the counts in each bucket alone, as the encoder wants them.
pub fn buckets(total: &Total) -> Vec<(f64, u64)> {
    BOUNDS_MS.into_iter().zip(total.buckets).collect()
}

/// Totals of all edges.
pub type Totals = Vec<(Arc<EdgeKey>, Total)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_fall_into_classes() {
        let key = EdgeKey::other();
        let mut total = Total::default();
        for (code, count) in [(200, 5), (204, 1), (404, 2), (503, 3), (0, 1)] {
            total.counts.codes.insert(code, count);
        }
        let mut classes = classes(&key, &total);
        classes.sort_unstable();
        assert_eq!(classes, [("2xx", 6), ("4xx", 2), ("5xx", 3), ("none", 1)]);
        let grpc = EdgeKey {
            protocol: Protocol::Grpc,
            ..key
        };
        let mut total = Total::default();
        total.counts.codes = [(0, 4), (14, 1)].into();
        assert_eq!(super::classes(&grpc, &total), [("ok", 4), ("grpc_error", 1)]);
    }

    #[test]
    fn labels_are_never_empty() {
        let mut key = EdgeKey::other();
        key.source = crate::attribute::Workload::default();
        assert!(labels(&key).iter().all(|(_, value)| !value.is_empty()));
    }
}
