//! Spans as OTLP messages (<https://opentelemetry.io/docs/specs/otlp/>). Pure.

use std::time::{Duration, SystemTime};

use mesh_proto::otlp::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans,
    Span as Otlp, Status, any_value, span, status,
};

use super::{Span, SpanKind, Target};

/// One export of these spans; `host` is this proxy's.
pub fn encode(target: &Target, host: &str, spans: &[Span]) -> ExportTraceServiceRequest {
    let attributes = vec![
        attribute("service.name", &target.service_name),
        attribute("host.name", host),
    ];
    let scope = InstrumentationScope {
        name: "gossamer".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: spans.iter().map(one).collect(),
            }],
            ..Default::default()
        }],
    }
}

fn one(span: &Span) -> Otlp {
    let start = nanos(span.start);
    let context = &span.context;
    Otlp {
        trace_id: context.trace_id.to_be_bytes().to_vec(),
        span_id: context.span_id.to_be_bytes().to_vec(),
        parent_span_id: context
            .parent_id
            .map(|id| id.to_be_bytes().to_vec())
            .unwrap_or_default(),
        name: span.name.to_string(),
        kind: match span.kind {
            SpanKind::Server => span::SpanKind::Server,
            SpanKind::Client => span::SpanKind::Client,
        } as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(u64::try_from(span.duration.as_nanos()).unwrap_or(u64::MAX)),
        attributes: span
            .tags
            .iter()
            .map(|(name, value)| attribute(name, value))
            .collect(),
        status: span.error.then(|| Status {
            code: status::StatusCode::Error as i32,
            ..Default::default()
        }),
        flags: u32::from(context.sampled),
        ..Default::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since: Duration = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue {
        value: Some(any_value::Value::StringValue(value.to_owned())),
    };
    KeyValue {
        key: name.to_owned(),
        value: Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::trace::TraceContext;

    #[test]
    fn ids_are_big_endian_bytes() {
        let target = std::sync::Arc::new(Target {
            cluster: "c".into(),
            service_name: "reviews.default".into(),
        });
        let span = Span {
            target: target.clone(),
            context: TraceContext {
                trace_id: 1,
                span_id: 2,
                parent_id: Some(3),
                sampled: true,
                formats: Default::default(),
            },
            kind: SpanKind::Client,
            name: "reviews:9080/*".into(),
            start: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            duration: Duration::from_millis(2),
            error: true,
            tags: vec![("http.status_code".into(), "503".into())],
        };
        let request = encode(&target, "pod", &[span]);
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((span.trace_id.len(), span.trace_id[15]), (16, 1));
        assert_eq!(span.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 2_000_000);
        assert_eq!(
            span.status.as_ref().map(|s| s.code),
            Some(status::StatusCode::Error as i32)
        );
    }
}
