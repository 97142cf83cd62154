//! From cells to samples: merges all shards and gives every number its two names, Envoy's text name
//! (`cluster.<name>.upstream_rq_total`) and its Prometheus family with labels
//! (`envoy_cluster_upstream_rq_total{envoy_cluster_name="<name>"}`).

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{
    super::labels::Label,
    Registry, Shards,
    cell::Distribution,
    groups::{Cell, ControlStats, Group},
};

/// A merged number.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Counter(u64),
    Gauge(i64),
    Histogram(Box<Distribution>),
}

/// The Prometheus side of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Family {
    pub prometheus: Cow<'static, str>,
}

/// One number with its names.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub family: Family,
    pub labels: Vec<Label>,
    pub value: Value,
    text: Option<String>,
}

impl Sample {
    /// Envoy's dotted name; the standard metrics have only their Prometheus name and labels.
    pub fn text_name(&self) -> Cow<'_, str> {
        match &self.text {
            Some(name) => Cow::Borrowed(name),
            None => {
                let labels: Vec<String> = self
                    .labels
                    .iter()
                    .map(|(name, value)| format!("{name}.{value}"))
                    .collect();
                Cow::Owned(format!("{}.{}", self.family.prometheus, labels.join(".")))
            }
        }
    }

    /// A gauge that is computed at the scrape.
    pub fn gauge(text: &str, value: i64) -> Self {
        let prometheus = format!("envoy_{}", sanitize(text));
        Self {
            family: Family {
                prometheus: prometheus.into(),
            },
            labels: Vec::new(),
            value: Value::Gauge(value),
            text: Some(text.to_owned()),
        }
    }

    fn standard(name: &'static str, labels: Vec<Label>, value: Value) -> Self {
        Self {
            family: Family {
                prometheus: name.into(),
            },
            labels,
            value,
            text: None,
        }
    }
}

/// A name made fit for Prometheus: `[a-zA-Z0-9_]`.
pub fn sanitize(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

/// Merges everything. Runs under the registry's lock, on the thread that scrapes.
pub(super) fn collect(registry: &Registry, control: &ControlStats) -> Vec<Sample> {
    let mut samples = Vec::new();
    groups(&mut samples, &registry.clusters);
    groups(&mut samples, &registry.listeners);
    groups(&mut samples, &registry.http);
    groups(&mut samples, &registry.tcp);
    for (name, shards) in &registry.named {
        let total = shards.iter().map(|(_, counter)| counter.get()).sum();
        let prometheus = format!("envoy_{}", sanitize(name));
        samples.push(Sample {
            family: Family {
                prometheus: prometheus.into(),
            },
            labels: Vec::new(),
            value: Value::Counter(total),
            text: Some(name.to_string()),
        });
    }
    for (name, cell) in control.cells() {
        samples.push(Sample {
            family: Family {
                prometheus: format!("envoy_{}", sanitize(name)).into(),
            },
            labels: Vec::new(),
            value: merge(std::iter::once(cell)),
            text: Some(name.to_owned()),
        });
    }
    samples.sort_by(|a, b| a.text.cmp(&b.text));
    standard(&mut samples, registry);
    samples
}

fn groups<G: Group>(samples: &mut Vec<Sample>, table: &BTreeMap<Arc<str>, Shards<G>>) {
    for (object, shards) in table {
        let columns: Vec<_> = shards.iter().map(|(_, group)| group.cells()).collect();
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        loop {
            let row: Vec<_> = columns.iter_mut().filter_map(Iterator::next).collect();
            let Some((stat, _)) = row.first() else { break };
            let stat = *stat;
            let (family, class) = family(G::SCOPE, stat);
            let mut labels = Vec::with_capacity(2);
            if let Some(class) = class {
                labels.push(("envoy_response_code_class", class.to_string()));
            }
            labels.push((G::LABEL, object.to_string()));
            samples.push(Sample {
                family,
                labels,
                value: merge(row.into_iter().map(|(_, cell)| cell)),
                text: Some(format!(
                    "{}.{}.{}",
                    G::SCOPE,
                    object.replace(':', "_"),
                    dotted(stat)
                )),
            });
        }
    }
}

/// `downstream_rq_5xx` is family `…_downstream_rq_xx` with class 5, as Envoy's tag extraction has it.
fn family(scope: &str, stat: &str) -> (Family, Option<char>) {
    let class = stat
        .strip_suffix("xx")
        .and_then(|head| head.chars().last())
        .filter(char::is_ascii_digit);
    let name = match class {
        Some(_) => format!("envoy_{scope}_{}_xx", &stat[..stat.len() - 4]),
        None => format!("envoy_{scope}_{stat}"),
    };
    (
        Family {
            prometheus: name.into(),
        },
        class,
    )
}

/// Where Envoy's own name has dots (a filter's or TLS's scope inside the object's), the field has an underscore.
fn dotted(stat: &str) -> String {
    for scope in [
        "rbac",
        "jwt_authn",
        "fault",
        "cors",
        "ssl",
        "tracing",
        "outlier_detection",
    ] {
        if let Some(rest) = stat.strip_prefix(scope).and_then(|rest| rest.strip_prefix('_')) {
            return format!("{scope}.{rest}");
        }
    }
    match stat.strip_prefix("upstream_cx_ssl_") {
        Some(rest) => format!("ssl.{rest}"),
        None => stat.to_owned(),
    }
}

fn merge<'a>(cells: impl Iterator<Item = Cell<'a>>) -> Value {
    let mut sum = 0u64;
    let mut total = Distribution::default();
    let (mut gauge, mut histogram) = (false, false);
    for cell in cells {
        match cell {
            Cell::Counter(counter) => sum = sum.wrapping_add(counter.get()),
            Cell::Gauge(cell) => {
                gauge = true;
                sum = sum.wrapping_add(cell.get());
            }
            Cell::Histogram(cell) => {
                histogram = true;
                cell.merge_into(&mut total);
            }
        }
    }
    match (histogram, gauge) {
        (true, _) => Value::Histogram(Box::new(total)),
        // Shards count up and down in wrapping arithmetic; the sum read as signed is the true value.
        (false, true) => Value::Gauge(sum as i64),
        (false, false) => Value::Counter(sum),
    }
}

fn standard(samples: &mut Vec<Sample>, registry: &Registry) {
    let mut requests: [Vec<Sample>; 4] = Default::default();
    for (key, set) in &registry.requests {
        let (mut duration, mut sent, mut received) = (
            Distribution::default(),
            Distribution::default(),
            Distribution::default(),
        );
        for (_, cells) in set.shards() {
            cells.duration.merge_into(&mut duration);
            cells.request_bytes.merge_into(&mut sent);
            cells.response_bytes.merge_into(&mut received);
        }
        let labels = key.labels();
        let count = Value::Counter(duration.count());
        requests[0].push(Sample::standard("istio_requests_total", labels.clone(), count));
        let histogram = |total| Value::Histogram(Box::new(total));
        requests[1].push(Sample::standard(
            "istio_request_duration_milliseconds",
            labels.clone(),
            histogram(duration),
        ));
        requests[2].push(Sample::standard(
            "istio_request_bytes",
            labels.clone(),
            histogram(sent),
        ));
        requests[3].push(Sample::standard(
            "istio_response_bytes",
            labels,
            histogram(received),
        ));
    }
    let mut connections: [Vec<Sample>; 4] = Default::default();
    for (key, set) in &registry.connections {
        let labels = key.labels();
        let mut sums = [0u64; 4];
        for (_, cells) in set.shards() {
            for (sum, cell) in
                sums.iter_mut()
                    .zip([&cells.opened, &cells.closed, &cells.sent, &cells.received])
            {
                *sum += cell.get();
            }
        }
        let names = [
            "istio_tcp_connections_opened_total",
            "istio_tcp_connections_closed_total",
            "istio_tcp_sent_bytes_total",
            "istio_tcp_received_bytes_total",
        ];
        for ((family, name), sum) in connections.iter_mut().zip(names).zip(sums) {
            family.push(Sample::standard(name, labels.clone(), Value::Counter(sum)));
        }
    }
    for mut family in requests.into_iter().chain(connections) {
        family.sort_by(|a, b| a.labels.cmp(&b.labels));
        samples.append(&mut family);
    }
    let build = vec![
        ("component", "proxy".to_owned()),
        ("tag", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    samples.push(Sample::standard("istio_build", build, Value::Gauge(1)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_envoy() {
        assert_eq!(
            family("http", "downstream_rq_5xx").0.prometheus,
            "envoy_http_downstream_rq_xx"
        );
        assert_eq!(family("http", "downstream_rq_5xx").1, Some('5'));
        assert_eq!(
            family("cluster", "upstream_rq_total").0.prometheus,
            "envoy_cluster_upstream_rq_total"
        );
        assert_eq!(dotted("rbac_allowed"), "rbac.allowed");
        assert_eq!(dotted("upstream_cx_ssl_handshake"), "ssl.handshake");
        assert_eq!(sanitize("http.a[b]-c"), "http_a_b__c");
    }
}
