//! Every metric family of telemetry about itself; those about the mesh's edges are in `sink::prometheus`.

use mesh_runtime::metrics::Registry;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProtocolLabel {
    pub protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub records: Family<ProtocolLabel, Counter>,
    pub refused: Family<ReasonLabel, Counter>,
    pub dropped: Counter,
    pub other: Counter,
    pub skipped: Counter,
    pub streams: Gauge,
    pub edges: Gauge,
    pub expired: Counter,
    pub spans: Counter,
    pub spans_lost: Counter,
    pub traces: Gauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        let m = metrics.clone();
        registry.with(|r| {
            r.register(
                "mesh_telemetry_records",
                "Records received from proxies",
                m.records,
            );
            r.register(
                "mesh_telemetry_records_refused",
                "Entries not used, by reason",
                m.refused,
            );
            r.register(
                "mesh_telemetry_records_dropped",
                "Records that proxies dropped before sending them",
                m.dropped,
            );
            r.register(
                "mesh_telemetry_records_other",
                "Records beyond the budget of edges, counted as other",
                m.other,
            );
            r.register(
                "mesh_telemetry_entries_skipped",
                "Entries about beginnings and progress, not counted",
                m.skipped,
            );
            r.register("mesh_telemetry_streams", "Proxies that report now", m.streams);
            r.register("mesh_telemetry_edges", "Edges known", m.edges);
            r.register(
                "mesh_telemetry_edges_expired",
                "Edges forgotten for want of traffic",
                m.expired,
            );
            r.register("mesh_telemetry_spans", "Spans received", m.spans);
            r.register(
                "mesh_telemetry_spans_lost",
                "Spans not kept: malformed, or of a trace that is full",
                m.spans_lost,
            );
            r.register("mesh_telemetry_traces", "Traces kept", m.traces);
        });
        metrics
    }

    /// What is missing in the picture, for the dashboard.
    pub fn lost(&self) -> Lost {
        let reasons = ["impersonation", "no_direction"];
        let refused = reasons
            .iter()
            .map(|reason| self.refused.get_or_create(&ReasonLabel { reason }).get())
            .sum();
        Lost {
            dropped_by_proxies: self.dropped.get(),
            refused,
            other: self.other.get(),
        }
    }
}

/// Records that the graph does not show as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Lost {
    pub dropped_by_proxies: u64,
    pub refused: u64,
    pub other: u64,
}
