//! A record as an entry of Envoy's access-log service
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-v3/data/accesslog/v3/accesslog.proto>). Pure. Who the two ends are
//! rides in `common_properties.metadata.filter_metadata["gossamer"]`, which Envoy's own consumers ignore.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use http::HeaderName;
use mesh_proto::{
    envoy::{
        config::core::v3::{self as core, Address, Metadata, SocketAddress},
        data::accesslog::v3::{
            AccessLogCommon, AccessLogType, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
            HttpResponseProperties, ResponseFlags, TcpAccessLogEntry, TlsProperties,
            http_access_log_entry::HttpVersion,
            response_flags::{Unauthorized, unauthorized::Reason},
            tls_properties::{
                CertificateProperties, TlsVersion,
                certificate_properties::{SubjectAltName, subject_alt_name::San},
            },
        },
    },
    names,
    pb::google::protobuf::{self, Struct, UInt32Value, Value, value::Kind},
};

use crate::{
    config::{
        flag::{Flag, Flags},
        log::{GrpcSink, LogType},
    },
    observe::{
        access_log::Wanted,
        record::{AccessRecord, HttpFacts, TlsFacts, WireProtocol},
    },
};

/// The entry of a request.
pub fn http_entry(
    record: &AccessRecord,
    http: &HttpFacts,
    sink: &GrpcSink,
    wanted: &Wanted,
) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(common(record)),
        protocol_version: match record.protocol {
            WireProtocol::Http10 => HttpVersion::Http10,
            WireProtocol::Http11 => HttpVersion::Http11,
            WireProtocol::Http2 => HttpVersion::Http2,
            WireProtocol::Tcp => HttpVersion::ProtocolUnspecified,
        } as i32,
        request: Some(request(record, http, sink, wanted)),
        response: Some(response(record, http, sink, wanted)),
    }
}

/// The entry of a connection.
pub fn tcp_entry(record: &AccessRecord) -> TcpAccessLogEntry {
    TcpAccessLogEntry {
        common_properties: Some(common(record)),
        connection_properties: Some(ConnectionProperties {
            received_bytes: record.sizes.request_body,
            sent_bytes: record.sizes.response_body,
        }),
    }
}

fn request(
    record: &AccessRecord,
    http: &HttpFacts,
    sink: &GrpcSink,
    wanted: &Wanted,
) -> HttpRequestProperties {
    let header = |name: &HeaderName| text(find(name, &wanted.request, &http.request_headers));
    HttpRequestProperties {
        request_method: method(&http.method) as i32,
        scheme: http.scheme.to_string(),
        authority: http.authority.to_string(),
        path: http.path.to_string(),
        user_agent: header(&http::header::USER_AGENT),
        referer: header(&http::header::REFERER),
        forwarded_for: header(&super::STANDARD_REQUEST_HEADERS[2]),
        request_id: text(http.request_id.as_deref()),
        original_path: text(http.original_path.as_deref()),
        request_headers_bytes: record.sizes.request_headers,
        request_body_bytes: record.sizes.request_body,
        request_headers: pairs(&sink.request_headers, &wanted.request, &http.request_headers),
        ..HttpRequestProperties::default()
    }
}

fn response(
    record: &AccessRecord,
    http: &HttpFacts,
    sink: &GrpcSink,
    wanted: &Wanted,
) -> HttpResponseProperties {
    let mut trailers: std::collections::HashMap<_, _> =
        pairs(&sink.response_trailers, &wanted.trailers, &http.response_trailers);
    // A gRPC call's outcome is in its trailers; without it the HTTP status says 200 to everything.
    if let Some(status) = http.grpc_status {
        trailers.insert("grpc-status".to_owned(), status.to_string());
    }
    HttpResponseProperties {
        response_code: (http.status != 0).then(|| UInt32Value {
            value: http.status.into(),
        }),
        response_headers_bytes: record.sizes.response_headers,
        response_body_bytes: record.sizes.response_body,
        response_headers: pairs(&sink.response_headers, &wanted.response, &http.response_headers),
        response_trailers: trailers,
        response_code_details: record.details.to_string(),
        ..HttpResponseProperties::default()
    }
}

fn common(record: &AccessRecord) -> AccessLogCommon {
    let (times, upstream) = (&record.times, record.upstream.as_deref());
    AccessLogCommon {
        downstream_remote_address: Some(address(record.downstream.remote)),
        downstream_local_address: Some(address(record.downstream.local)),
        downstream_direct_remote_address: Some(address(record.downstream.direct_remote)),
        tls_properties: record.downstream.tls.as_ref().map(tls),
        start_time: Some(timestamp(record.start)),
        time_to_last_rx_byte: times.request_end.map(duration),
        time_to_first_upstream_tx_byte: times.first_upstream_tx.map(duration),
        time_to_last_upstream_tx_byte: times.last_upstream_tx.map(duration),
        time_to_first_upstream_rx_byte: times.first_upstream_rx.map(duration),
        time_to_last_upstream_rx_byte: times.last_upstream_rx.map(duration),
        time_to_first_downstream_tx_byte: times.first_downstream_tx.map(duration),
        time_to_last_downstream_tx_byte: times.last_downstream_tx.map(duration),
        duration: Some(duration(times.end)),
        upstream_remote_address: upstream.and_then(|u| u.host).map(address),
        upstream_local_address: upstream.and_then(|u| u.local).map(address),
        upstream_cluster: text(upstream.map(|u| &*u.cluster)),
        upstream_request_attempt_count: upstream.map_or(0, |u| u.attempts),
        upstream_transport_failure_reason: text(upstream.and_then(|u| u.transport_failure.as_deref())),
        response_flags: (!record.flags.is_empty()).then(|| flags(record.flags)),
        metadata: Some(metadata(record)),
        route_name: text(record.route_name.as_deref()),
        connection_termination_details: text(record.termination.as_deref()),
        stream_id: text(record.http.as_ref().and_then(|http| http.request_id.as_deref())),
        upstream_wire_bytes_sent: record.sizes.upstream_sent,
        upstream_wire_bytes_received: record.sizes.upstream_received,
        access_log_type: moment(record.moment) as i32,
        ..AccessLogCommon::default()
    }
}

/// Notes in an entry that so many others were lost before it.
pub(super) fn tell_dropped(common: &mut AccessLogCommon, count: u64) {
    let metadata = common.metadata.get_or_insert_default();
    let ours = metadata
        .filter_metadata
        .entry(names::metadata::GOSSAMER.to_owned())
        .or_default();
    let value = Value {
        kind: Some(Kind::NumberValue(count as f64)),
    };
    ours.fields.insert(names::metadata::DROPPED.to_owned(), value);
}

fn metadata(record: &AccessRecord) -> Metadata {
    let ends = &record.ends;
    let object = record
        .object
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let fields = [
        ("reporter", ends.reporter.as_str()),
        ("source_workload", &ends.source.name),
        ("source_namespace", &ends.source.namespace),
        ("source_app", &ends.source.app),
        ("source_version", &ends.source.version),
        (
            "source_principal",
            ends.source_principal.as_deref().unwrap_or_default(),
        ),
        ("destination_workload", &ends.destination.name),
        ("destination_namespace", &ends.destination.namespace),
        ("destination_app", &ends.destination.app),
        ("destination_version", &ends.destination.version),
        (
            "destination_principal",
            ends.destination_principal.as_deref().unwrap_or_default(),
        ),
        ("destination_service", &ends.service.host),
        ("destination_service_name", &ends.service.name),
        ("destination_service_namespace", &ends.service.namespace),
        ("object", &object),
    ];
    let fields = fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            (
                name.to_owned(),
                Value {
                    kind: Some(Kind::StringValue(value.to_owned())),
                },
            )
        })
        .collect();
    let filter_metadata = [(names::metadata::GOSSAMER.to_owned(), Struct { fields })].into();
    Metadata {
        filter_metadata,
        ..Metadata::default()
    }
}

fn tls(facts: &TlsFacts) -> TlsProperties {
    let certificate = |uris: &[std::sync::Arc<str>]| {
        let names = uris
            .iter()
            .map(|uri| SubjectAltName {
                san: Some(San::Uri(uri.to_string())),
            })
            .collect();
        CertificateProperties {
            subject_alt_name: names,
            ..CertificateProperties::default()
        }
    };
    TlsProperties {
        tls_version: match &*facts.version {
            "TLSv1.3" => TlsVersion::TlSv13,
            "TLSv1.2" => TlsVersion::TlSv12,
            _ => TlsVersion::VersionUnspecified,
        } as i32,
        tls_sni_hostname: text(facts.server_name.as_deref()),
        peer_certificate_properties: (!facts.peer_uris.is_empty()).then(|| certificate(&facts.peer_uris)),
        local_certificate_properties: (!facts.local_uris.is_empty()).then(|| certificate(&facts.local_uris)),
        ..TlsProperties::default()
    }
}

fn flags(set: Flags) -> ResponseFlags {
    let unauthorized = Unauthorized {
        reason: Reason::ExternalService as i32,
    };
    ResponseFlags {
        failed_local_healthcheck: set.has(Flag::FailedLocalHealthCheck),
        no_healthy_upstream: set.has(Flag::NoHealthyUpstream),
        upstream_request_timeout: set.has(Flag::UpstreamRequestTimeout),
        local_reset: set.has(Flag::LocalReset),
        upstream_remote_reset: set.has(Flag::UpstreamRemoteReset),
        upstream_connection_failure: set.has(Flag::UpstreamConnectionFailure),
        upstream_connection_termination: set.has(Flag::UpstreamConnectionTermination),
        upstream_overflow: set.has(Flag::UpstreamOverflow),
        no_route_found: set.has(Flag::NoRouteFound),
        delay_injected: set.has(Flag::DelayInjected),
        fault_injected: set.has(Flag::FaultInjected),
        rate_limited: set.has(Flag::RateLimited),
        unauthorized_details: set.has(Flag::UnauthorizedExternalService).then_some(unauthorized),
        rate_limit_service_error: set.has(Flag::RateLimitServiceError),
        downstream_connection_termination: set.has(Flag::DownstreamConnectionTermination),
        upstream_retry_limit_exceeded: set.has(Flag::UpstreamRetryLimitExceeded),
        stream_idle_timeout: set.has(Flag::StreamIdleTimeout),
        invalid_envoy_request_headers: set.has(Flag::InvalidEnvoyHeaders),
        downstream_protocol_error: set.has(Flag::DownstreamProtocolError),
        upstream_max_stream_duration_reached: set.has(Flag::MaxStreamDuration),
        response_from_cache_filter: set.has(Flag::ResponseFromCache),
        no_filter_config_found: set.has(Flag::NoFilterConfig),
        duration_timeout: set.has(Flag::DurationTimeout),
        upstream_protocol_error: set.has(Flag::UpstreamProtocolError),
        no_cluster_found: set.has(Flag::NoCluster),
        overload_manager: set.has(Flag::OverloadManager),
        dns_resolution_failure: set.has(Flag::DnsFailure),
        downstream_remote_reset: set.has(Flag::DownstreamRemoteReset),
    }
}

fn moment(moment: LogType) -> AccessLogType {
    match moment {
        LogType::NotSet => AccessLogType::NotSet,
        LogType::TcpUpstreamConnected => AccessLogType::TcpUpstreamConnected,
        LogType::TcpPeriodic => AccessLogType::TcpPeriodic,
        LogType::TcpConnectionEnd => AccessLogType::TcpConnectionEnd,
        LogType::DownstreamStart => AccessLogType::DownstreamStart,
        LogType::DownstreamPeriodic => AccessLogType::DownstreamPeriodic,
        LogType::DownstreamEnd => AccessLogType::DownstreamEnd,
    }
}

fn method(method: &http::Method) -> core::RequestMethod {
    match method.as_str() {
        "GET" => core::RequestMethod::Get,
        "HEAD" => core::RequestMethod::Head,
        "POST" => core::RequestMethod::Post,
        "PUT" => core::RequestMethod::Put,
        "DELETE" => core::RequestMethod::Delete,
        "CONNECT" => core::RequestMethod::Connect,
        "OPTIONS" => core::RequestMethod::Options,
        "TRACE" => core::RequestMethod::Trace,
        "PATCH" => core::RequestMethod::Patch,
        _ => core::RequestMethod::MethodUnspecified,
    }
}

fn find<'a>(name: &HeaderName, names: &[HeaderName], values: &'a [Option<Box<str>>]) -> Option<&'a str> {
    values
        .get(names.iter().position(|other| other == name)?)?
        .as_deref()
}

fn pairs<M: FromIterator<(String, String)>>(
    asked: &[HeaderName],
    names: &[HeaderName],
    values: &[Option<Box<str>>],
) -> M {
    asked
        .iter()
        .filter_map(|name| Some((name.to_string(), find(name, names, values)?.to_owned())))
        .collect()
}

fn text(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

fn address(address: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
            address.port().into(),
        )),
        ..SocketAddress::default()
    };
    Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    }
}

fn duration(time: Duration) -> protobuf::Duration {
    // Nanoseconds below a second always fit.
    protobuf::Duration {
        seconds: time.as_secs() as i64,
        nanos: time.subsec_nanos() as i32,
    }
}

fn timestamp(time: SystemTime) -> protobuf::Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    protobuf::Timestamp {
        seconds: since.as_secs() as i64,
        nanos: since.subsec_nanos() as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record;

    #[test]
    fn an_entry_carries_what_telemetry_needs() {
        let mut record = record::example();
        record.flags = Flags::of(Flag::UpstreamConnectionFailure);
        let sink = GrpcSink {
            cluster: "c".into(),
            log_name: "gossamer".into(),
            flush_interval: Duration::from_secs(1),
            buffer_bytes: 16384,
            request_headers: vec![HeaderName::from_static("x-user")],
            response_headers: Vec::new(),
            response_trailers: Vec::new(),
        };
        let wanted = Wanted {
            request: vec![HeaderName::from_static("x-user"), http::header::USER_AGENT],
            ..Wanted::default()
        };
        let http = record.http.clone().unwrap();
        let entry = http_entry(&record, &http, &sink, &wanted);
        let common = entry.common_properties.unwrap();
        assert!(common.response_flags.unwrap().upstream_connection_failure);
        assert_eq!(
            common.upstream_cluster,
            "outbound|9080||reviews.default.svc.cluster.local"
        );
        let fields = &common.metadata.unwrap().filter_metadata["gossamer"].fields;
        let get = |name: &str| match &fields[name].kind {
            Some(Kind::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(get("source_workload"), "productpage-v1");
        assert_eq!(
            get("destination_principal"),
            "spiffe://cluster.local/ns/default/sa/reviews"
        );
        assert_eq!(get("object"), "virtualservice default/reviews, version 12");
        assert!(!fields.contains_key("source_principal"));
        let request = entry.request.unwrap();
        assert_eq!(
            (request.user_agent.as_str(), request.original_path.as_str()),
            ("curl/8", "/r/0")
        );
        assert!(
            request.request_headers.is_empty(),
            "a header that was not sent is not there"
        );
        assert_eq!(entry.response.unwrap().response_code.unwrap().value, 200);
    }
}
