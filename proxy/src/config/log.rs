//! Access logs: where a line goes, which lines are written, and the parsed format. The operators are Envoy's
//! (<https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators>);
//! parsing is in [`super::read`], writing in `observe`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    flag::Flags,
    matcher::{Field, HeaderMatch},
    scalar::Fraction,
};

#[derive(Clone, Debug)]
pub struct AccessLog {
    pub sink: Sink,
    pub filter: Option<LogFilter>,
}

#[derive(Clone, Debug)]
pub enum Sink {
    File {
        path: PathBuf,
        format: LogFormat,
    },
    Stdout(LogFormat),
    Stderr(LogFormat),
    /// Envoy's access-log service, HTTP entries.
    HttpGrpc(GrpcSink),
    /// The same, TCP entries.
    TcpGrpc(GrpcSink),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcSink {
    pub cluster: Arc<str>,
    pub log_name: Arc<str>,
    /// Send a batch after this time ...
    pub flush_interval: Duration,
    /// ... or this size; 0 sends every entry at once.
    pub buffer_bytes: usize,
    pub request_headers: Vec<HeaderName>,
    pub response_headers: Vec<HeaderName>,
    pub response_trailers: Vec<HeaderName>,
}

#[derive(Clone, Debug)]
pub enum LogFormat {
    Text(Format),
    Json(JsonFormat),
}

/// A line of text with operators in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Format {
    pub pieces: Vec<Piece>,
    /// A value that is not there is left out, not written as `-`.
    pub omit_empty: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text(Box<str>),
    /// Cut to this length, if one is given.
    Command(Command, Option<usize>),
}

/// A JSON value with operators in its strings.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonFormat {
    Object(Vec<(Box<str>, JsonFormat)>),
    List(Vec<JsonFormat>),
    /// A string that is one operator keeps the operator's type (numbers stay numbers).
    Text(Format),
    /// Numbers, booleans and null as they are, already encoded.
    Literal(Box<str>),
}

/// A header, with a second choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPick {
    pub first: Field,
    pub second: Option<Field>,
}

/// Which of two sides an address or a certificate belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Address and port.
    Whole,
    WithoutPort,
    Port,
}

/// Points in the life of a request, for durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// The first byte from the downstream.
    DownstreamStart,
    /// The last byte from the downstream.
    DownstreamEnd,
    UpstreamStart,
    UpstreamEnd,
    /// The first byte from the upstream.
    UpstreamResponseStart,
    UpstreamResponseEnd,
    DownstreamResponseStart,
    DownstreamResponseEnd,
    UpstreamConnectStart,
    UpstreamConnectEnd,
    UpstreamHandshakeEnd,
    DownstreamHandshakeEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// How a point in time is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-01-31T12:00:00.123Z`
    #[default]
    Iso,
    /// With the directives of strftime and Envoy's `%f`, `%3f`, `%s`.
    Pattern(Box<str>),
}

/// What a certificate tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateFact {
    UriSan,
    DnsSan,
    IpSan,
    Subject,
    Issuer,
    Serial,
    Fingerprint256,
    Fingerprint1,
    ValidFrom,
    ValidUntil,
    Pem,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    StartTime(TimeFormat),
    Request(HeaderPick),
    Response(HeaderPick),
    Trailer(HeaderPick),
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    BytesReceived,
    BytesSent,
    UpstreamWireBytesSent,
    UpstreamWireBytesReceived,
    UpstreamHeaderBytesSent,
    UpstreamHeaderBytesReceived,
    DownstreamWireBytesSent,
    DownstreamWireBytesReceived,
    DownstreamHeaderBytesSent,
    DownstreamHeaderBytesReceived,
    Duration,
    RequestDuration,
    RequestTxDuration,
    ResponseDuration,
    ResponseTxDuration,
    CommonDuration {
        from: Point,
        to: Point,
        unit: Unit,
    },
    UpstreamConnectDuration,
    DownstreamHandshakeDuration,
    RoundtripDuration,
    UpstreamHost,
    UpstreamHostName,
    UpstreamHostNameWithoutPort,
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamLocalAddress(Part),
    UpstreamRemoteAddress(Part),
    UpstreamTransportFailure,
    UpstreamRequestAttempts,
    UpstreamConnectionId,
    UpstreamPeer(CertificateFact),
    UpstreamLocal(CertificateFact),
    UpstreamTlsVersion,
    UpstreamTlsCipher,
    DownstreamRemoteAddress(Part),
    DownstreamDirectRemoteAddress(Part),
    DownstreamLocalAddress(Part),
    DownstreamPeer(CertificateFact),
    DownstreamLocal(CertificateFact),
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    DownstreamTlsSessionId,
    DownstreamTransportFailure,
    DownstreamDetectedCloseType,
    ConnectionId,
    StreamId,
    UniqueId,
    RequestedServerName,
    RouteName,
    VirtualHostName,
    VirtualClusterName,
    FilterChainName,
    ListenerDirection,
    ConnectionTerminationDetails,
    Hostname,
    LocalReplyBody,
    AccessLogType,
    TraceId,
    SpanId,
    GrpcStatus {
        number: bool,
        snake: bool,
    },
    GrpcStatusNumber,
    /// `%DYNAMIC_METADATA(namespace:key*)%`
    DynamicMetadata(Box<[Box<str>]>),
    ClusterMetadata(Box<[Box<str>]>),
    RouteMetadata(Box<[Box<str>]>),
    UpstreamMetadata(Box<[Box<str>]>),
    FilterState(Box<str>),
    /// Already looked up.
    Environment(Box<str>),
}

/// Which requests are logged.
#[derive(Clone, Debug)]
pub enum LogFilter {
    Status(Compare),
    /// Milliseconds.
    Duration(Compare),
    NotHealthCheck,
    /// Sampled for tracing.
    Traceable,
    Chance(Fraction),
    And(Vec<LogFilter>),
    Or(Vec<LogFilter>),
    Header(HeaderMatch),
    /// Any of these flags; an empty set means any flag at all.
    ResponseFlag(Flags),
    /// One of these gRPC statuses (or none of them).
    GrpcStatus {
        statuses: Vec<u32>,
        exclude: bool,
    },
    /// `LogType::name()` is one of these (or none of them).
    LogType {
        types: Vec<LogType>,
        exclude: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compare {
    pub op: CompareOp,
    pub value: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareOp {
    Eq,
    Ne,
    Ge,
    Le,
}

impl Compare {
    pub fn holds(self, value: u64) -> bool {
        let bound = u64::from(self.value);
        match self.op {
            CompareOp::Eq => value == bound,
            CompareOp::Ne => value != bound,
            CompareOp::Ge => value >= bound,
            CompareOp::Le => value <= bound,
        }
    }
}

/// Why a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogType {
    NotSet,
    TcpUpstreamConnected,
    TcpPeriodic,
    TcpConnectionEnd,
    DownstreamStart,
    DownstreamPeriodic,
    DownstreamEnd,
}

impl LogType {
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::TcpUpstreamConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
        }
    }
}
