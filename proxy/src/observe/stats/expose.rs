//! The stats pages: Envoy's text (`name: value`), Envoy's JSON, and the Prometheus text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Pure: samples in, text out.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value as Json, json as object};

use super::{
    cell::BOUNDS,
    sample::{Sample, Value},
};

/// `/stats`: one line a number; histograms as Envoy summarises them.
pub fn text(samples: &[Sample], wanted: impl Fn(&str) -> bool) -> String {
    let mut lines = Vec::with_capacity(samples.len());
    for sample in samples {
        let name = sample.text_name();
        if !wanted(&name) {
            continue;
        }
        lines.push(match &sample.value {
            Value::Counter(n) => format!("{name}: {n}"),
            Value::Gauge(n) => format!("{name}: {n}"),
            Value::Histogram(total) if total.count() == 0 => format!("{name}: No recorded values"),
            Value::Histogram(total) => {
                let quantiles: Vec<String> = QUANTILES
                    .iter()
                    .filter_map(|q| Some(format!("P{}(nan,{})", q * 100.0, short(total.quantile(*q)?))))
                    .collect();
                format!("{name}: {}", quantiles.join(" "))
            }
        });
    }
    lines.sort();
    lines.push(String::new());
    lines.join("\n")
}

const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `/stats?format=json`: `{"stats": [{"name", "value"}, …, {"histograms": {…}}]}`.
pub fn json(samples: &[Sample], wanted: impl Fn(&str) -> bool) -> Json {
    let mut stats = Vec::new();
    let mut histograms = Vec::new();
    for sample in samples {
        let name = sample.text_name();
        if !wanted(&name) {
            continue;
        }
        match &sample.value {
            Value::Counter(n) => stats.push(object!({"name": name, "value": n})),
            Value::Gauge(n) => stats.push(object!({"name": name, "value": n})),
            Value::Histogram(total) => {
                let values: Vec<Json> = QUANTILES
                    .iter()
                    .map(|q| object!({"interval": null, "cumulative": total.quantile(*q)}))
                    .collect();
                histograms.push(object!({"name": name, "values": values}));
            }
        }
    }
    if !histograms.is_empty() {
        let quantiles: Vec<f64> = QUANTILES.iter().map(|q| q * 100.0).collect();
        stats.push(object!({
            "histograms": {"supported_quantiles": quantiles, "computed_quantiles": histograms}
        }));
    }
    object!({"stats": stats})
}

/// `/stats/prometheus`: families together, each with its type; counters that Prometheus' users know without `_total`
/// keep the name they have.
pub fn prometheus(samples: &[Sample]) -> String {
    let mut families: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        families
            .entry(&sample.family.prometheus)
            .or_default()
            .push(sample);
    }
    let mut out = String::with_capacity(samples.len() * 160);
    for (name, samples) in families {
        let kind = match samples[0].value {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
        };
        push(&mut out, format_args!("# TYPE {name} {kind}\n"));
        for sample in samples {
            one(&mut out, name, sample);
        }
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

fn one(out: &mut String, name: &str, sample: &Sample) {
    let labels = labels(sample);
    let braces = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    match &sample.value {
        Value::Counter(n) => push(out, format_args!("{name}{braces} {n}\n")),
        Value::Gauge(n) => push(out, format_args!("{name}{braces} {n}\n")),
        Value::Histogram(total) => {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut below = 0;
            for (bound, count) in BOUNDS.iter().zip(total.buckets) {
                below += count;
                push(
                    out,
                    format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}\n"),
                );
            }
            let count = total.count();
            push(
                out,
                format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n"),
            );
            push(out, format_args!("{name}_sum{braces} {}\n", total.sum()));
            push(out, format_args!("{name}_count{braces} {count}\n"));
        }
    }
}

/// `a="b",c="d"`, values escaped as the format asks.
fn labels(sample: &Sample) -> String {
    let mut text = String::new();
    for (name, value) in &sample.labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Stats;
    use super::*;

    fn some() -> Vec<Sample> {
        let stats = Stats::new();
        let shard = stats.shard();
        let cluster = shard.cluster("outbound|9080||a");
        cluster.answered(200);
        cluster.upstream_rq_time.observe_thousandths(3_000);
        cluster.upstream_cx_active.inc();
        shard.cluster("we\"ird").answered(503);
        stats.collect()
    }

    #[test]
    fn prometheus_text_is_grouped_and_escaped() {
        let text = prometheus(&some());
        for line in [
            "# TYPE envoy_cluster_upstream_rq_xx counter",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|9080||a\"} 1",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"we\\\"ird\"} 1",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|9080||a\",le=\"1\"} 0",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|9080||a\",le=\"5\"} 1",
            "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"outbound|9080||a\"} 3",
            "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"outbound|9080||a\"} 1",
            "envoy_cluster_upstream_cx_active{envoy_cluster_name=\"outbound|9080||a\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let types: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let mut unique = types.clone();
        unique.dedup();
        assert_eq!(types, unique, "a family appears once");
    }

    #[test]
    fn text_and_json_filter_by_name() {
        let samples = some();
        let page = text(&samples, |name| name.ends_with("upstream_rq_2xx"));
        assert_eq!(
            page,
            "cluster.outbound|9080||a.upstream_rq_2xx: 1\ncluster.we\"ird.upstream_rq_2xx: 0\n"
        );
        let page = json(&samples, |name| {
            name == "cluster.outbound|9080||a.upstream_cx_active"
        });
        assert_eq!(page["stats"][0]["value"], 1);
    }
}
