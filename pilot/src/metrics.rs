//! Every metric family of pilot.

use mesh_proto::xds::Type;
use mesh_runtime::metrics::Registry;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// Why a stream was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

/// A type of resources.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    pub r#type: &'static str,
}

/// What became of a question to a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    pub outcome: &'static str,
}

#[derive(Clone, Debug)]
pub struct Metrics {
    pub connected: Gauge,
    pub refused: Family<ReasonLabel, Counter>,
    pub responses: Counter,
    pub rejects: Family<TypeLabel, Counter>,
    pub pushes: Counter,
    pub pushed_proxies: Counter,
    pub push_seconds: Histogram,
    pub findings: Gauge,
    pub injections: Family<OutcomeLabel, Counter>,
    pub validations: Family<OutcomeLabel, Counter>,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self {
            connected: Gauge::default(),
            refused: Family::default(),
            responses: Counter::default(),
            rejects: Family::default(),
            pushes: Counter::default(),
            pushed_proxies: Counter::default(),
            push_seconds: Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5]),
            findings: Gauge::default(),
            injections: Family::default(),
            validations: Family::default(),
        };
        let m = metrics.clone();
        registry.with(|r| {
            r.register("mesh_pilot_proxies", "Proxies connected now", m.connected);
            r.register("mesh_pilot_refused", "Streams refused, by reason", m.refused);
            r.register("mesh_pilot_responses", "Responses sent", m.responses);
            r.register(
                "mesh_pilot_rejects",
                "Responses that a proxy refused, by type",
                m.rejects,
            );
            r.register("mesh_pilot_pushes", "Snapshots made from changes", m.pushes);
            r.register(
                "mesh_pilot_pushed_proxies",
                "Proxies that got something new from a snapshot",
                m.pushed_proxies,
            );
            r.register(
                "mesh_pilot_push_seconds",
                "From a batch of changes to the proxies being told",
                m.push_seconds,
            );
            r.register(
                "mesh_pilot_findings",
                "Things that are wrong with objects, as last asked for on /debug/findings",
                m.findings,
            );
            r.register(
                "mesh_pilot_injections",
                "Pods that the injection webhook was asked about, by outcome",
                m.injections,
            );
            r.register(
                "mesh_pilot_validations",
                "Objects that the validation webhook was asked about, by outcome",
                m.validations,
            );
        });
        metrics
    }

    pub fn refused(&self, reason: &'static str) -> Counter {
        self.refused.get_or_create_owned(&ReasonLabel { reason })
    }

    pub fn injected(&self, outcome: &'static str) -> Counter {
        self.injections.get_or_create_owned(&OutcomeLabel { outcome })
    }

    pub fn validated(&self, outcome: &'static str) -> Counter {
        self.validations.get_or_create_owned(&OutcomeLabel { outcome })
    }

    pub fn rejected(&self, kind: Type) -> Counter {
        self.rejects
            .get_or_create_owned(&TypeLabel { r#type: kind.short() })
    }
}

/// For tests and tools that have no registry.
impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Registry::new())
    }
}
