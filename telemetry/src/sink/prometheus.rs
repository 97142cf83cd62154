//! Edges for Prometheus: a collector that writes the totals of every edge at each scrape. The number of label sets is that
//! of the edges, which have a budget.

use std::fmt;

use mesh_runtime::metrics::Registry;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::{query::prom, series::Series};

/// Every family written here: name, type, help.
pub const FAMILIES: [(&str, MetricType, &str); 5] = [
    (
        "mesh_edge_requests",
        MetricType::Counter,
        "Requests, or connections, between two workloads, by class of the answer",
    ),
    (
        "mesh_edge_errors",
        MetricType::Counter,
        "Requests, or connections, that the destination failed",
    ),
    (
        "mesh_edge_request_duration_milliseconds",
        MetricType::Histogram,
        "Time from the first byte of a request to the last of its answer",
    ),
    (
        "mesh_edge_sent_bytes",
        MetricType::Counter,
        "Bytes from source to destination",
    ),
    (
        "mesh_edge_received_bytes",
        MetricType::Counter,
        "Bytes from destination to source",
    ),
];

#[derive(Debug)]
struct Edges(Series);

/// Shows the edges in this registry.
pub fn register(registry: &Registry, series: Series) {
    registry.with(|registry| registry.register_collector(Box::new(Edges(series))));
}

impl Collector for Edges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.0.totals();
        for (index, (name, kind, help)) in FAMILIES.into_iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (key, total) in &totals {
                let labels = prom::labels(key);
                let counts = &total.counts;
                match index {
                    0 => {
                        for (class, count) in prom::classes(key, total) {
                            let labels = (labels, [("response_class", class)]);
                            family
                                .encode_family(&Both(&labels.0, &labels.1))?
                                .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
                        }
                    }
                    2 => family
                        .encode_family(&Both(&labels, &[]))?
                        .encode_histogram::<NoLabelSet>(
                            total.latency_ms,
                            total.buckets.iter().sum(),
                            &prom::buckets(total),
                            None,
                        )?,
                    _ => {
                        let value = match index {
                            1 => counts.errors,
                            3 => counts.sent,
                            _ => counts.received,
                        };
                        family
                            .encode_family(&Both(&labels, &[]))?
                            .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Labels in two parts.
#[derive(Debug)]
struct Both<'a>(&'a [(&'static str, &'a str)], &'a [(&'static str, &'a str)]);

impl prometheus_client::encoding::EncodeLabelSet for Both<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        for (name, value) in self.0.iter().chain(self.1) {
            (*name, *value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aggregate::cardinality::Budget,
        record::{EdgeKey, Outcome, Record},
    };
    use std::time::Duration;

    #[test]
    fn edges_are_scraped() {
        let series = Series::new(Budget { max: 10 }, Duration::from_secs(60));
        let mut key = EdgeKey::other();
        key.source.name = "productpage-v1".into();
        key.destination.name = "evil\"}\n".into();
        let record = |status| Record {
            key: key.clone(),
            outcome: Outcome {
                status,
                ..Outcome::default()
            },
            latency: Some(Duration::from_millis(7)),
            mtls: true,
            sent: 3,
            received: 4,
        };
        series.add(&[record(200), record(200), record(503)], Duration::from_secs(1));
        let registry = Registry::new();
        register(&registry, series);
        let text = registry.encode();
        let line = |start: &str, part: &str, end: &str| {
            let found = text
                .lines()
                .any(|l| l.starts_with(start) && l.contains(part) && l.ends_with(end));
            assert!(found, "{start} {part} {end}\n{text}");
        };
        line(
            "mesh_edge_requests_total{reporter=\"source\",source_workload=\"productpage-v1\"",
            "response_class=\"2xx\"",
            "} 2",
        );
        line("mesh_edge_requests_total{", "response_class=\"5xx\"", "} 1");
        line(
            "mesh_edge_errors_total{",
            "destination_workload=\"evil\\\"}\\n\"",
            "} 1",
        );
        line("mesh_edge_request_duration_milliseconds_count{", "", "} 3");
        line(
            "mesh_edge_request_duration_milliseconds_bucket{",
            "le=\"5.0\"",
            "} 0",
        );
        line(
            "mesh_edge_request_duration_milliseconds_bucket{",
            "le=\"10.0\"",
            "} 3",
        );
        line(
            "mesh_edge_request_duration_milliseconds_bucket{",
            "le=\"+Inf\"",
            "} 3",
        );
        line("mesh_edge_sent_bytes_total{", "", "} 9");
    }
}
