//! Every metric family of citadel.

use std::time::SystemTime;

use mesh_runtime::metrics::Registry;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// How a caller was proven.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProofLabel {
    pub proof: &'static str,
}

/// Why a caller was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

#[derive(Clone, Debug)]
pub struct Metrics {
    pub issued: Family<ProofLabel, Counter>,
    pub refused: Family<ReasonLabel, Counter>,
    pub seconds: Histogram,
    pub root_expiry: Gauge,
    pub own_expiry: Gauge,
    pub namespaces: Gauge,
    pub unpublished: Gauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self {
            issued: Family::default(),
            refused: Family::default(),
            seconds: Histogram::new([0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25]),
            root_expiry: Gauge::default(),
            own_expiry: Gauge::default(),
            namespaces: Gauge::default(),
            unpublished: Gauge::default(),
        };
        let m = metrics.clone();
        registry.with(|r| {
            r.register(
                "mesh_citadel_issued",
                "Certificates issued, by proof of the caller",
                m.issued,
            );
            r.register("mesh_citadel_refused", "Requests refused, by reason", m.refused);
            r.register(
                "mesh_citadel_request_seconds",
                "Time to answer a request",
                m.seconds,
            );
            r.register(
                "mesh_citadel_root_expiry_seconds",
                "Unix time at which the signing root ends",
                m.root_expiry,
            );
            r.register(
                "mesh_citadel_own_expiry_seconds",
                "Unix time at which citadel's own leaf ends",
                m.own_expiry,
            );
            r.register(
                "mesh_citadel_namespaces",
                "Namespaces that the leading replica publishes the roots into",
                m.namespaces,
            );
            r.register(
                "mesh_citadel_namespaces_behind",
                "Namespaces whose ConfigMap does not have the roots of now",
                m.unpublished,
            );
        });
        metrics
    }
}

/// Unix seconds, for expiry gauges.
pub fn unix(time: SystemTime) -> i64 {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
