//! Traces: spans that belong together, as they came over OTLP. A store with bounds; whoever holds it locks it.
//! The oldest trace goes first; a trace with too many spans loses the later ones, and says so.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Serialize;

/// Spans kept of one trace.
pub const MAX_SPANS: usize = 256;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    pub span_id: String,
    pub parent_span_id: String,
    pub name: String,
    /// `client`, `server`, `internal`, …
    pub kind: &'static str,
    pub service: String,
    pub start_unix_nano: u64,
    pub duration_ms: f64,
    pub error: bool,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub trace_id: String,
    /// The name and service of the span that began first.
    pub name: String,
    pub service: String,
    pub start_unix_nano: u64,
    pub duration_ms: f64,
    pub spans: usize,
    pub lost_spans: u64,
    pub error: bool,
}

#[derive(Debug, Default)]
struct Trace {
    spans: Vec<Span>,
    lost: u64,
}

/// Which traces to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only traces in which this service took part.
    pub service: Option<String>,
    pub min_ms: f64,
    pub errors_only: bool,
    pub limit: usize,
}

#[derive(Debug)]
pub struct Traces {
    traces: HashMap<String, Trace>,
    /// Oldest first.
    order: VecDeque<String>,
    max: usize,
}

impl Traces {
    pub fn new(max: usize) -> Self {
        Self {
            traces: HashMap::new(),
            order: VecDeque::new(),
            max: max.max(1),
        }
    }

    /// Adds a span; false when its trace is full.
    pub fn add(&mut self, trace_id: &str, span: Span) -> bool {
        if !self.traces.contains_key(trace_id) {
            while self.order.len() >= self.max {
                let Some(oldest) = self.order.pop_front() else {
                    break;
                };
                self.traces.remove(&oldest);
            }
            self.order.push_back(trace_id.to_owned());
        }
        let trace = self.traces.entry(trace_id.to_owned()).or_default();
        let room = trace.spans.len() < MAX_SPANS;
        if room {
            trace.spans.push(span);
        } else {
            trace.lost += 1;
        }
        room
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The newest first.
    pub fn list(&self, filter: &Filter) -> Vec<Summary> {
        let fits = |trace: &Trace, summary: &Summary| {
            let took_part = |service: &String| trace.spans.iter().any(|span| span.service == *service);
            filter.service.as_ref().is_none_or(took_part)
                && summary.duration_ms >= filter.min_ms
                && (summary.error || !filter.errors_only)
        };
        self.order
            .iter()
            .rev()
            .filter_map(|id| {
                let trace = self.traces.get(id)?;
                let summary = trace.summary(id)?;
                fits(trace, &summary).then_some(summary)
            })
            .take(filter.limit)
            .collect()
    }

    /// The spans of one trace, by time.
    pub fn get(&self, trace_id: &str) -> Option<Vec<Span>> {
        let mut spans = self.traces.get(trace_id)?.spans.clone();
        spans.sort_by_key(|span| span.start_unix_nano);
        Some(spans)
    }
}

impl Trace {
    fn summary(&self, id: &str) -> Option<Summary> {
        let first = self
            .spans
            .iter()
            .min_by_key(|span| (span.start_unix_nano, !span.parent_span_id.is_empty()))?;
        let end = |span: &Span| span.start_unix_nano as f64 / 1e6 + span.duration_ms;
        let last = self.spans.iter().map(end).fold(0.0, f64::max);
        Some(Summary {
            trace_id: id.to_owned(),
            name: first.name.clone(),
            service: first.service.clone(),
            start_unix_nano: first.start_unix_nano,
            duration_ms: super::rounded(last - first.start_unix_nano as f64 / 1e6),
            spans: self.spans.len(),
            lost_spans: self.lost,
            error: self.spans.iter().any(|span| span.error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(service: &str, start_ms: u64, duration_ms: f64, error: bool) -> Span {
        Span {
            span_id: format!("{service}{start_ms}"),
            parent_span_id: String::new(),
            name: format!("{service} call"),
            kind: "server",
            service: service.into(),
            start_unix_nano: start_ms * 1_000_000,
            duration_ms,
            error,
            attributes: BTreeMap::new(),
        }
    }

    fn store() -> Traces {
        let mut traces = Traces::new(2);
        for (id, at) in [("a", 1000), ("b", 2000), ("c", 3000)] {
            traces.add(id, span("ratings", at + 5, 10.0, id == "c"));
            traces.add(id, span("productpage", at, 20.0, false));
        }
        traces
    }

    #[test]
    fn lists_the_newest_and_forgets_the_oldest() {
        let traces = store();
        let all = traces.list(&Filter {
            limit: 10,
            ..Filter::default()
        });
        let ids: Vec<&str> = all.iter().map(|summary| summary.trace_id.as_str()).collect();
        assert_eq!(ids, ["c", "b"]);
        assert_eq!(
            (all[0].name.as_str(), all[0].duration_ms, all[0].spans),
            ("productpage call", 20.0, 2)
        );
        assert_eq!(traces.get("a"), None);
        assert_eq!(traces.get("b").unwrap()[0].service, "productpage");
    }

    #[test]
    fn filters() {
        let traces = store();
        let count = |filter: Filter| traces.list(&Filter { limit: 10, ..filter }).len();
        assert_eq!(
            count(Filter {
                errors_only: true,
                ..Filter::default()
            }),
            1
        );
        assert_eq!(
            count(Filter {
                service: Some("ratings".into()),
                ..Filter::default()
            }),
            2
        );
        assert_eq!(
            count(Filter {
                service: Some("reviews".into()),
                ..Filter::default()
            }),
            0
        );
        assert_eq!(
            count(Filter {
                min_ms: 21.0,
                ..Filter::default()
            }),
            0
        );
    }

    #[test]
    fn long_traces_say_what_they_lost() {
        let mut traces = Traces::new(2);
        for at in 0..MAX_SPANS as u64 + 3 {
            traces.add("a", span("x", at, 1.0, false));
        }
        assert_eq!(
            traces.list(&Filter {
                limit: 1,
                ..Filter::default()
            })[0]
                .lost_spans,
            3
        );
    }
}
