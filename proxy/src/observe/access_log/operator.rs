//! What each operator of a format says about a record. Pure.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use http::HeaderName;

use crate::config::{
    log::{CertificateFact, Command, HeaderPick, Part, Point, Unit},
    matcher::Field,
};

use super::{Wanted, certificate, format::Host, time_format};
use crate::observe::record::{AccessRecord, HttpFacts, TlsFacts, Upstream};

/// An operator's value: in JSON numbers stay numbers, and what is not there is null.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Absent,
    Text(Cow<'a, str>),
    Number(u64),
}

impl<'a> Value<'a> {
    fn text(text: Option<impl Into<Cow<'a, str>>>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(text.into()))
    }

    fn number(number: Option<impl Into<u64>>) -> Self {
        number.map_or(Self::Absent, |number| Self::Number(number.into()))
    }

    fn time(time: Option<Duration>, unit: Unit) -> Self {
        let number = time.map(|time| match unit {
            Unit::Millis => time.as_millis(),
            Unit::Micros => time.as_micros(),
            Unit::Nanos => time.as_nanos(),
        });
        Self::number(number.map(|number| u64::try_from(number).unwrap_or(u64::MAX)))
    }
}

/// The value of one operator.
pub(super) fn value<'a>(
    command: &'a Command,
    record: &'a AccessRecord,
    wanted: &Wanted,
    host: &'a Host,
) -> Value<'a> {
    let http = record.http.as_deref();
    let upstream = record.upstream.as_deref();
    let downstream = &*record.downstream;
    match command {
        Command::StartTime(format) => Value::Text(time_format::render(record.start, format).into()),
        Command::Request(pick) => picked(pick, |field| request_field(field, http?, wanted)),
        Command::Response(pick) => picked(pick, |field| response_field(field, http?, wanted)),
        Command::Trailer(pick) => picked(pick, |field| match field {
            Field::Header(name) => slot(name, &wanted.trailers, &http?.response_trailers),
            _ => None,
        }),
        Command::Protocol => Value::text(record.protocol.as_str()),
        Command::UpstreamProtocol => Value::text(upstream.and_then(|u| u.protocol?.as_str())),
        Command::ResponseCode => Value::Number(http.map_or(0, |http| http.status.into())),
        Command::ResponseCodeDetails => Value::text((!record.details.is_empty()).then_some(&*record.details)),
        Command::ResponseFlags => Value::Text(record.flags.to_string().into()),
        Command::ResponseFlagsLong => Value::Text(long_flags(record).into()),
        Command::GrpcStatus { number: false, snake } => Value::text(
            http.and_then(|http| http.grpc_status)
                .map(|status| grpc_name(status, *snake)),
        ),
        Command::GrpcStatus { .. } | Command::GrpcStatusNumber => {
            Value::number(http.and_then(|http| http.grpc_status))
        }
        Command::RequestedServerName => Value::text(downstream.server_name.as_deref()),
        Command::RouteName => Value::text(record.route_name.as_deref()),
        Command::VirtualHostName => Value::text(record.virtual_host.as_deref()),
        Command::FilterChainName => Value::text(record.filter_chain.as_deref()),
        Command::ConnectionTerminationDetails => Value::text(record.termination.as_deref()),
        Command::Hostname => Value::Text((&*host.name).into()),
        Command::AccessLogType => Value::Text(record.moment.name().into()),
        Command::ConnectionId => Value::Number(downstream.connection_id),
        Command::StreamId | Command::UniqueId => {
            Value::text(http.and_then(|http| http.request_id.as_deref()))
        }
        Command::TraceId => Value::text(record.trace.map(|trace| format!("{:032x}", trace.trace_id))),
        Command::SpanId => Value::text(record.trace.map(|trace| format!("{:016x}", trace.span_id))),
        Command::Environment(text) => Value::Text((&**text).into()),
        Command::DownstreamRemoteAddress(part) => address(Some(downstream.remote), *part),
        Command::DownstreamDirectRemoteAddress(part) => address(Some(downstream.direct_remote), *part),
        Command::DownstreamLocalAddress(part) => address(Some(downstream.local), *part),
        Command::DownstreamPeer(fact) => certificate_fact(*fact, downstream.tls.as_ref(), Side::Peer),
        Command::DownstreamLocal(fact) => certificate_fact(*fact, downstream.tls.as_ref(), Side::Local),
        Command::DownstreamTlsVersion => Value::text(tls_text(downstream.tls.as_ref(), |tls| &tls.version)),
        Command::DownstreamTlsCipher => Value::text(tls_text(downstream.tls.as_ref(), |tls| &tls.cipher)),
        Command::ListenerDirection => Value::Text(direction(record).into()),
        Command::Duration
        | Command::RequestDuration
        | Command::RequestTxDuration
        | Command::ResponseDuration
        | Command::ResponseTxDuration
        | Command::CommonDuration { .. }
        | Command::UpstreamConnectDuration
        | Command::DownstreamHandshakeDuration
        | Command::RoundtripDuration => duration(command, record),
        Command::BytesReceived
        | Command::BytesSent
        | Command::UpstreamWireBytesSent
        | Command::UpstreamWireBytesReceived
        | Command::UpstreamHeaderBytesSent
        | Command::UpstreamHeaderBytesReceived
        | Command::DownstreamWireBytesSent
        | Command::DownstreamWireBytesReceived
        | Command::DownstreamHeaderBytesSent
        | Command::DownstreamHeaderBytesReceived => size(command, record),
        _ => upstream.map_or(Value::Absent, |upstream| upstream_value(command, upstream)),
    }
}

fn upstream_value<'a>(command: &Command, upstream: &'a Upstream) -> Value<'a> {
    let tls = upstream.tls.as_deref();
    match command {
        Command::UpstreamHost => address(upstream.host, Part::Whole),
        Command::UpstreamHostName => address(upstream.host, Part::Whole),
        Command::UpstreamHostNameWithoutPort => address(upstream.host, Part::WithoutPort),
        Command::UpstreamCluster | Command::UpstreamClusterRaw => Value::Text((&*upstream.cluster).into()),
        Command::UpstreamLocalAddress(part) => address(upstream.local, *part),
        Command::UpstreamRemoteAddress(part) => address(upstream.host, *part),
        Command::UpstreamTransportFailure => Value::text(upstream.transport_failure.as_deref()),
        Command::UpstreamRequestAttempts => Value::Number(upstream.attempts.into()),
        Command::UpstreamConnectionId => Value::number(upstream.connection_id),
        Command::UpstreamPeer(fact) => certificate_fact(*fact, tls, Side::Peer),
        Command::UpstreamLocal(fact) => certificate_fact(*fact, tls, Side::Local),
        Command::UpstreamTlsVersion => Value::text(tls_text(tls, |tls| &tls.version)),
        Command::UpstreamTlsCipher => Value::text(tls_text(tls, |tls| &tls.cipher)),
        // The rest (dynamic metadata, filter state, virtual clusters and the like) is never set by this proxy.
        _ => Value::Absent,
    }
}

fn picked<'a>(pick: &HeaderPick, find: impl Fn(&Field) -> Option<Cow<'a, str>>) -> Value<'a> {
    Value::text(find(&pick.first).or_else(|| pick.second.as_ref().and_then(find)))
}

/// A request header or pseudo header. `x-envoy-original-path` is the path before it was rewritten.
pub(super) fn request_field<'a>(field: &Field, http: &'a HttpFacts, wanted: &Wanted) -> Option<Cow<'a, str>> {
    match field {
        Field::Method => Some(http.method.as_str().into()),
        Field::Authority => (!http.authority.is_empty()).then(|| (&*http.authority).into()),
        Field::Path => Some((&*http.path).into()),
        Field::Scheme => (!http.scheme.is_empty()).then(|| (&*http.scheme).into()),
        Field::Header(name) if name == "x-envoy-original-path" => {
            http.original_path.as_deref().map(Into::into)
        }
        Field::Header(name) if name == "x-request-id" => http
            .request_id
            .as_deref()
            .map(Into::into)
            .or_else(|| slot(name, &wanted.request, &http.request_headers)),
        Field::Header(name) => slot(name, &wanted.request, &http.request_headers),
    }
}

fn response_field<'a>(field: &Field, http: &'a HttpFacts, wanted: &Wanted) -> Option<Cow<'a, str>> {
    match field {
        Field::Header(name) => slot(name, &wanted.response, &http.response_headers),
        _ => None,
    }
}

fn slot<'a>(name: &HeaderName, names: &[HeaderName], values: &'a [Option<Box<str>>]) -> Option<Cow<'a, str>> {
    let index = names.iter().position(|other| other == name)?;
    values.get(index)?.as_deref().map(Into::into)
}

fn address<'a>(address: Option<SocketAddr>, part: Part) -> Value<'a> {
    match (address, part) {
        (None, _) => Value::Absent,
        (Some(address), Part::Whole) => Value::Text(address.to_string().into()),
        (Some(address), Part::WithoutPort) => Value::Text(address.ip().to_string().into()),
        (Some(address), Part::Port) => Value::Number(address.port().into()),
    }
}

fn tls_text<'a>(
    tls: Option<&'a TlsFacts>,
    get: impl Fn(&'a TlsFacts) -> &'a Cow<'static, str>,
) -> Option<&'a str> {
    tls.map(|tls| &**get(tls)).filter(|text| !text.is_empty())
}

#[derive(Clone, Copy)]
enum Side {
    Peer,
    Local,
}

fn certificate_fact<'a>(fact: CertificateFact, tls: Option<&'a TlsFacts>, side: Side) -> Value<'a> {
    let Some(tls) = tls else { return Value::Absent };
    let (uris, leaf) = match side {
        Side::Peer => (&tls.peer_uris, &tls.peer_leaf),
        Side::Local => (&tls.local_uris, &tls.local_leaf),
    };
    if fact == CertificateFact::UriSan && !uris.is_empty() {
        return Value::Text(uris.join(",").into());
    }
    Value::text(leaf.as_deref().and_then(|leaf| certificate::fact(fact, leaf)))
}

/// The reporter knows on which side of the workload it sits.
fn direction(record: &AccessRecord) -> &'static str {
    match record.ends.reporter {
        crate::observe::Reporter::Source => "OUTBOUND",
        crate::observe::Reporter::Destination => "INBOUND",
    }
}

fn long_flags(record: &AccessRecord) -> String {
    let names: Vec<&str> = record.flags.iter().map(crate::config::flag::Flag::long).collect();
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(",")
    }
}

fn duration<'a>(command: &Command, record: &AccessRecord) -> Value<'a> {
    let times = &record.times;
    match command {
        Command::Duration => Value::time(Some(times.end), Unit::Millis),
        Command::RequestDuration => Value::time(times.request_end, Unit::Millis),
        Command::RequestTxDuration => Value::time(times.last_upstream_tx, Unit::Millis),
        Command::ResponseDuration => Value::time(times.first_upstream_rx, Unit::Millis),
        Command::ResponseTxDuration => Value::time(
            between(times.first_upstream_rx, times.last_downstream_tx),
            Unit::Millis,
        ),
        Command::UpstreamConnectDuration => {
            let end = times.upstream_handshake_end.or(times.connect_end);
            Value::time(between(times.connect_start, end), Unit::Millis)
        }
        Command::DownstreamHandshakeDuration => Value::time(times.downstream_handshake_end, Unit::Millis),
        Command::CommonDuration { from, to, unit } => {
            Value::time(between(point(*from, record), point(*to, record)), *unit)
        }
        // The round-trip time of the connection is not measured.
        _ => Value::Absent,
    }
}

fn between(from: Option<Duration>, to: Option<Duration>) -> Option<Duration> {
    to?.checked_sub(from?)
}

fn point(point: Point, record: &AccessRecord) -> Option<Duration> {
    let times = &record.times;
    match point {
        Point::DownstreamStart => Some(Duration::ZERO),
        Point::DownstreamEnd => times.request_end,
        Point::UpstreamStart => times.first_upstream_tx,
        Point::UpstreamEnd => times.last_upstream_tx,
        Point::UpstreamResponseStart => times.first_upstream_rx,
        Point::UpstreamResponseEnd => times.last_upstream_rx,
        Point::DownstreamResponseStart => times.first_downstream_tx,
        Point::DownstreamResponseEnd => times.last_downstream_tx,
        Point::UpstreamConnectStart => times.connect_start,
        Point::UpstreamConnectEnd => times.connect_end,
        Point::UpstreamHandshakeEnd => times.upstream_handshake_end,
        Point::DownstreamHandshakeEnd => times.downstream_handshake_end,
    }
}

fn size<'a>(command: &Command, record: &AccessRecord) -> Value<'a> {
    let sizes = &record.sizes;
    Value::Number(match command {
        Command::BytesReceived => sizes.request_body,
        Command::BytesSent => sizes.response_body,
        Command::UpstreamWireBytesSent => sizes.upstream_sent,
        Command::UpstreamWireBytesReceived => sizes.upstream_received,
        Command::UpstreamHeaderBytesSent | Command::DownstreamHeaderBytesReceived => sizes.request_headers,
        Command::UpstreamHeaderBytesReceived | Command::DownstreamHeaderBytesSent => sizes.response_headers,
        Command::DownstreamWireBytesReceived => sizes.request_headers + sizes.request_body,
        _ => sizes.response_headers + sizes.response_body,
    })
}

/// gRPC's status names (<https://grpc.io/docs/guides/status-codes/>), in the two spellings Envoy offers.
fn grpc_name(status: u32, snake: bool) -> Cow<'static, str> {
    const NAMES: [(&str, &str); 17] = [
        ("OK", "OK"),
        ("Canceled", "CANCELLED"),
        ("Unknown", "UNKNOWN"),
        ("InvalidArgument", "INVALID_ARGUMENT"),
        ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
        ("NotFound", "NOT_FOUND"),
        ("AlreadyExists", "ALREADY_EXISTS"),
        ("PermissionDenied", "PERMISSION_DENIED"),
        ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
        ("FailedPrecondition", "FAILED_PRECONDITION"),
        ("Aborted", "ABORTED"),
        ("OutOfRange", "OUT_OF_RANGE"),
        ("Unimplemented", "UNIMPLEMENTED"),
        ("Internal", "INTERNAL"),
        ("Unavailable", "UNAVAILABLE"),
        ("DataLoss", "DATA_LOSS"),
        ("Unauthenticated", "UNAUTHENTICATED"),
    ];
    match NAMES.get(status as usize) {
        Some((camel, upper)) => (if snake { *upper } else { *camel }).into(),
        None => status.to_string().into(),
    }
}
