//! Telemetry alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{
        Object,
        telemetry::{CustomTag, MetricOverride, ProviderRef, TagOperation, Telemetry},
    },
};

impl Validate for Telemetry {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if let Some(selector) = &self.selector {
            field::labels(&selector.match_labels, "spec.selector.matchLabels", report);
        }
        field::one_target(
            self.selector.is_some(),
            self.target_ref.as_ref(),
            &self.target_refs,
            report,
        );
        for (i, logging) in self.access_logging.iter().enumerate() {
            providers(&logging.providers, &format!("spec.accessLogging[{i}]"), report);
        }
        for (i, tracing) in self.tracing.iter().enumerate() {
            let at = format!("spec.tracing[{i}]");
            providers(&tracing.providers, &at, report);
            for (name, tag) in tracing.custom_tags.iter().flatten() {
                custom_tag(tag, &format!("{at}.customTags.{name}"), report);
            }
        }
        for (i, metrics) in self.metrics.iter().enumerate() {
            let at = format!("spec.metrics[{i}]");
            providers(&metrics.providers, &at, report);
            field::positive(
                metrics.reporting_interval,
                &format!("{at}.reportingInterval"),
                report,
            );
            for (j, one) in metrics.overrides.iter().enumerate() {
                metric_override(one, &format!("{at}.overrides[{j}]"), report);
            }
        }
    }
}

fn providers(list: &[ProviderRef], at: &str, report: &mut Report) {
    for (i, provider) in list.iter().enumerate() {
        if provider.name.is_empty() {
            report.error(format!("{at}.providers[{i}].name"), "must be given");
        }
    }
}

fn custom_tag(tag: &CustomTag, at: &str, report: &mut Report) {
    let texts = [("literal", &tag.literal), ("formatter", &tag.formatter)];
    let sources = [("environment", &tag.environment), ("header", &tag.header)];
    let said: Vec<(&str, bool)> = texts
        .iter()
        .map(|(name, text)| (*name, text.is_some()))
        .chain(sources.iter().map(|(name, source)| (*name, source.is_some())))
        .collect();
    field::at_most_one(&said, at, report);
    for (name, text) in texts {
        if text.as_ref().is_some_and(|text| text.value.is_empty()) {
            report.error(format!("{at}.{name}.value"), "must be given");
        }
    }
    for (name, source) in sources {
        if source.as_ref().is_some_and(|source| source.name.is_empty()) {
            report.error(format!("{at}.{name}.name"), "must be given");
        }
    }
}

fn metric_override(one: &MetricOverride, at: &str, report: &mut Report) {
    if let Some(matched) = &one.matches {
        field::at_most_one(
            &[
                ("metric", matched.metric.is_some()),
                ("customMetric", matched.custom_metric.is_some()),
            ],
            &format!("{at}.match"),
            report,
        );
    }
    for (name, tag) in &one.tag_overrides {
        let path = format!("{at}.tagOverrides.{name}.value");
        match tag.operation {
            TagOperation::Upsert if tag.value.is_empty() => report.error(path, "UPSERT needs a value"),
            TagOperation::Remove if !tag.value.is_empty() => report.error(path, "REMOVE takes no value"),
            TagOperation::Upsert | TagOperation::Remove => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn telemetries() {
        let check = |spec: &str, found: &[&str]| expect(Kind::Telemetry, spec, found);
        check("tracing: [{randomSamplingPercentage: 50}]", &[]);
        check(
            "tracing: [{randomSamplingPercentage: 101}]",
            &["Error spec.tracing[0].randomSamplingPercentage"],
        );
        check("metrics: [{}]", &["Warning spec.metrics"]);
        check(
            "accessLogging: [{providers: [{}], filter: {expression: 'a'}}]",
            &[
                "Error spec.accessLogging[0].providers[0].name",
                "Warning spec.accessLogging[0].filter",
            ],
        );
        check(
            "tracing: [{customTags: {a: {literal: {value: x}, header: {}}}}]",
            &[
                "Error spec.tracing[0].customTags.a",
                "Error spec.tracing[0].customTags.a.header.name",
                "Warning spec.tracing[0].customTags",
            ],
        );
        check(
            "metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: b}, c: {}}}]}]",
            &[
                "Error spec.metrics[0].overrides[0].tagOverrides.a.value",
                "Error spec.metrics[0].overrides[0].tagOverrides.c.value",
                "Warning spec.metrics",
            ],
        );
        check(
            "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: a}]",
            &["Error spec.targetRefs"],
        );
    }
}
