//! OTLP: spans from proxies, kept for a while as traces. Which span is whose is the proxy's claim; the service of a span is
//! taken from its resource, and marked with the proven namespace where the resource names none.

use std::{collections::BTreeMap, sync::PoisonError};

use mesh_proto::{
    identity::SpiffeId,
    otlp::{
        AnyValue, ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue,
        Span as OtlpSpan,
        any_value::Value,
        span, status,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tonic::{Request, Response, Status};

use super::{MAX_MESSAGE, State, proven};
use crate::query::traces::Span;

/// Attributes kept of a span, and the length of one.
const MAX_ATTRIBUTES: usize = 64;
const MAX_TEXT: usize = 1024;

/// The service.
#[derive(Clone, Debug)]
pub struct Receiver {
    state: State,
}

impl Receiver {
    pub fn new(state: State) -> Self {
        Self { state }
    }

    pub fn into_server(self) -> TraceServiceServer<Self> {
        TraceServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let proven = proven(&request)?;
        let (mut taken, mut rejected) = (0, 0);
        for resource in request.into_inner().resource_spans {
            let attributes = resource
                .resource
                .map(|resource| resource.attributes)
                .unwrap_or_default();
            let service = service(&attributes, &proven);
            let mut traces = self.state.traces.lock().unwrap_or_else(PoisonError::into_inner);
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let kept = read(span, &service).is_some_and(|(trace, span)| traces.add(&trace, span));
                *(if kept { &mut taken } else { &mut rejected }) += 1;
            }
            self.state
                .metrics
                .traces
                .set(i64::try_from(traces.len()).unwrap_or(i64::MAX));
        }
        self.state.metrics.spans.inc_by(taken + rejected);
        self.state.metrics.spans_lost.inc_by(rejected);
        let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: i64::try_from(rejected).unwrap_or(i64::MAX),
            error_message: "malformed ids or times, or a trace with too many spans".into(),
        });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

fn service(attributes: &[KeyValue], proven: &SpiffeId) -> String {
    let named = attributes.iter().find(|pair| pair.key == "service.name");
    match named.and_then(|pair| pair.value.as_ref()).map(text) {
        Some(name) if !name.is_empty() => name,
        _ => format!("{}.{}", proven.service_account, proven.namespace),
    }
}

/// The trace's id and the span; nothing when ids or times are not what OTLP asks for.
fn read(span: OtlpSpan, service: &str) -> Option<(String, Span)> {
    let length = span.end_time_unix_nano.checked_sub(span.start_time_unix_nano)?;
    if span.trace_id.len() != 16 || span.span_id.len() != 8 || !matches!(span.parent_span_id.len(), 0 | 8) {
        return None;
    }
    let kind = match span.kind() {
        span::SpanKind::Client => "client",
        span::SpanKind::Server => "server",
        span::SpanKind::Producer => "producer",
        span::SpanKind::Consumer => "consumer",
        span::SpanKind::Internal | span::SpanKind::Unspecified => "internal",
    };
    let error = span
        .status
        .as_ref()
        .is_some_and(|status| status.code() == status::StatusCode::Error);
    let attributes: BTreeMap<String, String> = span
        .attributes
        .iter()
        .take(MAX_ATTRIBUTES)
        .filter_map(|pair| Some((cut(&pair.key), text(pair.value.as_ref()?))))
        .collect();
    let read = Span {
        span_id: hex(&span.span_id),
        parent_span_id: hex(&span.parent_span_id),
        name: cut(&span.name),
        kind,
        service: cut(service),
        start_unix_nano: span.start_time_unix_nano,
        duration_ms: length as f64 / 1e6,
        error,
        attributes,
    };
    Some((hex(&span.trace_id), read))
}

fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => cut(text),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(Value::BytesValue(bytes)) => hex(&bytes[..bytes.len().min(MAX_TEXT / 2)]),
        None => String::new(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> OtlpSpan {
        OtlpSpan {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            name: "GET /reviews".into(),
            kind: span::SpanKind::Server as i32,
            start_time_unix_nano: 1_000_000,
            end_time_unix_nano: 3_500_000,
            attributes: vec![KeyValue {
                key: "http.status_code".into(),
                value: Some(AnyValue {
                    value: Some(Value::IntValue(200)),
                }),
            }],
            ..OtlpSpan::default()
        }
    }

    #[test]
    fn reads_spans() {
        let (trace, read) = read(span(), "reviews.default").unwrap();
        assert_eq!(trace, "ab".repeat(16));
        assert_eq!((read.kind, read.duration_ms, read.error), ("server", 2.5, false));
        assert_eq!(read.attributes["http.status_code"], "200");
        assert_eq!(read.parent_span_id, "");
    }

    #[test]
    fn malformed_spans_are_refused() {
        for change in [
            (|s| s.trace_id = vec![1; 8]) as fn(&mut OtlpSpan),
            |s| s.span_id = vec![],
            |s| s.parent_span_id = vec![1],
            |s| s.end_time_unix_nano = 0,
        ] {
            let mut span = span();
            change(&mut span);
            assert!(read(span, "x").is_none());
        }
    }

    #[test]
    fn services() {
        let proven: SpiffeId = "spiffe://cluster.local/ns/default/sa/reviews".parse().unwrap();
        let name = KeyValue {
            key: "service.name".into(),
            value: Some(AnyValue {
                value: Some(Value::StringValue("reviews.default".into())),
            }),
        };
        assert_eq!(service(&[name], &proven), "reviews.default");
        assert_eq!(service(&[], &proven), "reviews.default");
    }
}
