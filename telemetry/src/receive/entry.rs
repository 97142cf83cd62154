//! Access-log entries of Envoy's API → what they say, in our words. Pure.

use std::time::Duration;

use mesh_proto::{
    envoy::data::accesslog::v3::{
        AccessLogCommon, HttpAccessLogEntry, ResponseFlags, TcpAccessLogEntry,
        tls_properties::certificate_properties::subject_alt_name::San,
    },
    names,
    pb::google::protobuf::{self, Struct},
};

use crate::{
    enrich::Entry,
    record::{Outcome, Protocol},
    rule,
};

/// What every entry has.
pub fn http(entry: &HttpAccessLogEntry) -> Option<Entry<'_>> {
    let common = entry.common_properties.as_ref()?;
    let (request, response) = (entry.request.as_ref(), entry.response.as_ref());
    let status = response
        .and_then(|response| response.response_code)
        .map_or(0, |code| code.value);
    let grpc_status = response.and_then(|response| {
        let status = |map: &std::collections::HashMap<String, String>| map.get("grpc-status").cloned();
        status(&response.response_trailers)
            .or_else(|| status(&response.response_headers))?
            .parse()
            .ok()
    });
    let content_type = request.and_then(|request| request.request_headers.get("content-type"));
    let is_grpc =
        grpc_status.is_some() || content_type.is_some_and(|kind| kind.starts_with("application/grpc"));
    let bytes = |headers: u64, body: u64| headers.saturating_add(body);
    Some(Entry {
        outcome: Outcome {
            status: u16::try_from(status).unwrap_or(0),
            grpc_status,
            ..ended(common.response_flags.as_ref())
        },
        request_bytes: request.map_or(0, |r| bytes(r.request_headers_bytes, r.request_body_bytes)),
        response_bytes: response.map_or(0, |r| bytes(r.response_headers_bytes, r.response_body_bytes)),
        ..base(common, if is_grpc { Protocol::Grpc } else { Protocol::Http })?
    })
}

/// A finished connection.
pub fn tcp(entry: &TcpAccessLogEntry) -> Option<Entry<'_>> {
    let common = entry.common_properties.as_ref()?;
    let properties = entry.connection_properties.as_ref();
    Some(Entry {
        outcome: ended(common.response_flags.as_ref()),
        request_bytes: properties.map_or(0, |properties| properties.received_bytes),
        response_bytes: properties.map_or(0, |properties| properties.sent_bytes),
        ..base(common, Protocol::Tcp)?
    })
}

/// Metadata under our name.
pub fn fields(common: &AccessLogCommon) -> Option<&Struct> {
    common
        .metadata
        .as_ref()?
        .filter_metadata
        .get(names::metadata::GOSSAMER)
}

fn base(common: &AccessLogCommon, protocol: Protocol) -> Option<Entry<'_>> {
    // Older Envoys mark progress by a flag, newer ones by a type.
    #[allow(deprecated)]
    let intermediate = common.intermediate_log_entry;
    if !rule::is_final(common.access_log_type, intermediate) {
        return None;
    }
    let peer = common
        .tls_properties
        .as_ref()
        .and_then(|tls| tls.peer_certificate_properties.as_ref());
    let peer_uris = peer
        .iter()
        .flat_map(|peer| &peer.subject_alt_name)
        .filter_map(|name| match &name.san {
            Some(San::Uri(uri)) => Some(uri.as_str()),
            _ => None,
        })
        .collect();
    let latency = [
        &common.time_to_last_downstream_tx_byte,
        &common.duration,
        &common.time_to_last_upstream_rx_byte,
    ]
    .into_iter()
    .find_map(|time| time.as_ref())
    .and_then(duration);
    Some(Entry {
        fields: fields(common),
        cluster: &common.upstream_cluster,
        peer_uris,
        protocol,
        outcome: Outcome::default(),
        latency,
        request_bytes: 0,
        response_bytes: 0,
    })
}

fn duration(time: &protobuf::Duration) -> Option<Duration> {
    let seconds = u64::try_from(time.seconds).ok()?;
    Some(Duration::new(
        seconds,
        u32::try_from(time.nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000)?,
    ))
}

/// What the response flags say about the end.
fn ended(flags: Option<&ResponseFlags>) -> Outcome {
    let Some(flags) = flags else {
        return Outcome::default();
    };
    let upstream_failed = flags.no_healthy_upstream
        || flags.failed_local_healthcheck
        || flags.upstream_request_timeout
        || flags.upstream_remote_reset
        || flags.upstream_connection_failure
        || flags.upstream_connection_termination
        || flags.upstream_overflow
        || flags.upstream_retry_limit_exceeded
        || flags.upstream_protocol_error
        || flags.no_cluster_found
        || flags.no_route_found
        || flags.dns_resolution_failure
        || flags.duration_timeout;
    let client_left = flags.downstream_connection_termination || flags.downstream_remote_reset;
    Outcome {
        upstream_failed,
        client_left: client_left && !upstream_failed,
        ..Outcome::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::envoy::data::accesslog::v3::{
        AccessLogType, ConnectionProperties, HttpRequestProperties, HttpResponseProperties, TlsProperties,
        tls_properties::{CertificateProperties, certificate_properties::SubjectAltName},
    };

    fn common() -> AccessLogCommon {
        AccessLogCommon {
            upstream_cluster: "outbound|9080||reviews.default.svc.cluster.local".into(),
            duration: Some(protobuf::Duration {
                seconds: 0,
                nanos: 9_000_000,
            }),
            time_to_last_downstream_tx_byte: Some(protobuf::Duration {
                seconds: 0,
                nanos: 7_000_000,
            }),
            ..AccessLogCommon::default()
        }
    }

    #[test]
    fn http_entries() {
        let entry = HttpAccessLogEntry {
            common_properties: Some(common()),
            request: Some(HttpRequestProperties {
                request_headers_bytes: 10,
                request_body_bytes: 5,
                ..HttpRequestProperties::default()
            }),
            response: Some(HttpResponseProperties {
                response_code: Some(protobuf::UInt32Value { value: 503 }),
                response_body_bytes: 100,
                ..HttpResponseProperties::default()
            }),
            ..HttpAccessLogEntry::default()
        };
        let read = http(&entry).unwrap();
        assert_eq!((read.outcome.status, read.protocol), (503, Protocol::Http));
        assert_eq!((read.request_bytes, read.response_bytes), (15, 100));
        assert_eq!(read.latency, Some(Duration::from_millis(7)));
        assert!(http(&HttpAccessLogEntry::default()).is_none());
    }

    #[test]
    fn grpc_by_trailer() {
        let response = HttpResponseProperties {
            response_code: Some(protobuf::UInt32Value { value: 200 }),
            response_trailers: [("grpc-status".to_owned(), "14".to_owned())].into(),
            ..HttpResponseProperties::default()
        };
        let entry = HttpAccessLogEntry {
            common_properties: Some(common()),
            response: Some(response),
            ..HttpAccessLogEntry::default()
        };
        let read = http(&entry).unwrap();
        assert_eq!(
            (read.outcome.grpc_status, read.protocol),
            (Some(14), Protocol::Grpc)
        );
    }

    #[test]
    fn tcp_entries_and_flags() {
        let flags = ResponseFlags {
            upstream_connection_failure: true,
            ..ResponseFlags::default()
        };
        let uri = "spiffe://cluster.local/ns/default/sa/a";
        let names = vec![
            SubjectAltName {
                san: Some(San::Dns("x".into())),
            },
            SubjectAltName {
                san: Some(San::Uri(uri.into())),
            },
        ];
        let peer = CertificateProperties {
            subject_alt_name: names,
            ..CertificateProperties::default()
        };
        let tls = TlsProperties {
            peer_certificate_properties: Some(peer),
            ..TlsProperties::default()
        };
        let mut entry = TcpAccessLogEntry {
            common_properties: Some(AccessLogCommon {
                response_flags: Some(flags),
                tls_properties: Some(tls),
                ..common()
            }),
            connection_properties: Some(ConnectionProperties {
                received_bytes: 1,
                sent_bytes: 2,
            }),
        };
        let read = tcp(&entry).unwrap();
        assert!(read.outcome.upstream_failed && !read.outcome.client_left);
        assert_eq!(
            (read.peer_uris, read.request_bytes, read.response_bytes),
            (vec![uri], 1, 2)
        );
        if let Some(common) = &mut entry.common_properties {
            common.access_log_type = AccessLogType::TcpPeriodic as i32;
        }
        assert!(tcp(&entry).is_none(), "progress is not an end");
    }

    #[test]
    fn odd_durations() {
        for (seconds, nanos, expect) in [
            (1, 5, Some(Duration::new(1, 5))),
            (-1, 0, None),
            (0, -5, None),
            (0, 2_000_000_000, None),
        ] {
            assert_eq!(duration(&protobuf::Duration { seconds, nanos }), expect);
        }
    }
}
