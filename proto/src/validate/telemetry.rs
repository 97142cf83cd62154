//! Telemetry alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{Object, telemetry::Telemetry},
};

impl Validate for Telemetry {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if let Some(selector) = &self.selector {
            field::labels(&selector.match_labels, "spec.selector.matchLabels", report);
        }
        if self.target_ref.is_some() || !self.target_refs.is_empty() {
            report.refuse_unsupported("spec.targetRefs", "not supported; use selector");
        }
        if !self.metrics.is_empty() {
            report.unsupported(
                "spec.metrics",
                "has no effect yet; the standard metrics are kept as they are",
            );
        }
        for (i, logging) in self.access_logging.iter().enumerate() {
            if logging.filter.is_some() {
                report.unsupported(
                    format!("spec.accessLogging[{i}].filter"),
                    "has no effect yet; all requests are logged",
                );
            }
        }
        for (i, tracing) in self.tracing.iter().enumerate() {
            if tracing.custom_tags.is_some() {
                report.unsupported(format!("spec.tracing[{i}].customTags"), "have no effect yet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn telemetries() {
        expect(Kind::Telemetry, "tracing: [{randomSamplingPercentage: 50}]", &[]);
        expect(
            Kind::Telemetry,
            "tracing: [{randomSamplingPercentage: 101}]",
            &["Error spec.tracing[0].randomSamplingPercentage"],
        );
        expect(Kind::Telemetry, "metrics: [{}]", &["Warning spec.metrics"]);
    }
}
