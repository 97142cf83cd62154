//! What does the caller get when something failed? Every failure of the proxy is one [`Failure`]; this is the one place
//! where it becomes a status, a gRPC status, a response flag, Envoy's response code details and a text that names the
//! object responsible.

use std::{borrow::Cow, fmt::Write as _};

use http::StatusCode;

use super::jwt;
use crate::config::{
    flag::{Flag, Flags},
    scalar::Object,
};

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No virtual host, or no route in it.
    NoRoute,
    /// The route's cluster does not exist; the route says which status that is.
    NoCluster {
        cluster: String,
        status: StatusCode,
    },
    NoHealthyUpstream {
        cluster: String,
    },
    /// The host names of the cluster do not resolve.
    Unresolved {
        cluster: String,
    },
    ConnectFailure {
        address: String,
        why: String,
    },
    /// The TLS handshake with the upstream failed.
    UpstreamTls {
        address: String,
        why: String,
    },
    ConnectTimeout {
        address: String,
    },
    /// The upstream reset the stream before it answered.
    UpstreamReset {
        why: String,
    },
    /// The upstream closed the connection before it answered.
    UpstreamClosed,
    UpstreamProtocol {
        why: String,
    },
    /// The route's timeout.
    UpstreamTimeout,
    PerTryTimeout,
    MaxStreamDuration,
    /// A circuit breaker is open: which one.
    Overflow {
        breaker: &'static str,
    },
    /// The configuration manager's timeouts.
    StreamIdle {
        response_started: bool,
    },
    RequestTimeout,
    HeadersTimeout,
    /// Refused by authorization, and by which policy.
    Denied {
        details: String,
    },
    /// A token is missing or not good.
    Unauthorized {
        status: jwt::Status,
        /// The answer has no body.
        bare: bool,
    },
    FaultAbort {
        status: StatusCode,
    },
    FaultAbortGrpc {
        status: u32,
    },
    RateLimited {
        status: StatusCode,
        resource_exhausted: bool,
    },
    BadPath,
    BadRequest {
        why: &'static str,
    },
    HeadersTooLarge,
    /// A request's head that the codec does not understand, or must not.
    Malformed {
        status: StatusCode,
        details: &'static str,
        why: String,
    },
    PayloadTooLarge,
    UpgradeRefused,
    /// The downstream went away; nobody reads the answer.
    DownstreamClosed,
    DownstreamReset,
    Overload,
    /// Configuration that should be there is not (routes not received yet, a certificate missing).
    NotReady {
        what: String,
    },
    Internal {
        why: String,
    },
}

impl Failure {
    /// Has the request certainly reached nobody? (Where no attempt came before.)
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::ConnectFailure { .. } | Self::ConnectTimeout { .. })
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    /// For gRPC callers, who get HTTP 200 with this.
    pub grpc: u32,
    pub flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: Cow<'static, str>,
    pub body: String,
}

/// The answer to a failure; `object` is what routed the request, if anything did.
pub fn reply(failure: &Failure, object: Option<&Object>) -> Reply {
    let (status, flag, details, text) = row(failure);
    let mut body = text.into_owned();
    if let Some(object) = object.filter(|object| !object.text.is_empty()) {
        // Writing to a string does not fail.
        let _ = write!(body, " ({object})");
    }
    let grpc = match failure {
        Failure::FaultAbortGrpc { status } => *status,
        Failure::RateLimited {
            resource_exhausted: true,
            ..
        } => 8,
        Failure::UpstreamTimeout | Failure::PerTryTimeout | Failure::MaxStreamDuration => 4,
        _ => grpc_status(status),
    };
    Reply {
        status,
        grpc,
        flags: flag.map_or(Flags::none(), Flags::of),
        details,
        body,
    }
}

/// The gRPC status that stands for an HTTP status
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
pub fn grpc_status(status: StatusCode) -> u32 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

type Row = (StatusCode, Option<Flag>, Cow<'static, str>, Cow<'static, str>);

fn row(failure: &Failure) -> Row {
    const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    let fixed = |status, flag, details: &'static str, text: &'static str| {
        (status, flag, Cow::Borrowed(details), Cow::Borrowed(text))
    };
    match failure {
        Failure::NoRoute => fixed(
            StatusCode::NOT_FOUND,
            Some(Flag::NoRouteFound),
            "route_not_found",
            "no route for this request",
        ),
        Failure::NoCluster { .. }
        | Failure::NoHealthyUpstream { .. }
        | Failure::Unresolved { .. }
        | Failure::ConnectFailure { .. }
        | Failure::UpstreamTls { .. }
        | Failure::ConnectTimeout { .. }
        | Failure::UpstreamReset { .. }
        | Failure::UpstreamClosed
        | Failure::UpstreamProtocol { .. }
        | Failure::UpstreamTimeout
        | Failure::PerTryTimeout
        | Failure::MaxStreamDuration
        | Failure::Overflow { .. } => upstream(failure),
        Failure::StreamIdle { response_started: _ } => fixed(
            StatusCode::REQUEST_TIMEOUT,
            Some(Flag::StreamIdleTimeout),
            "stream_idle_timeout",
            "stream timeout: nothing moved for too long",
        ),
        Failure::RequestTimeout => fixed(
            StatusCode::REQUEST_TIMEOUT,
            Some(Flag::DurationTimeout),
            "request_overall_timeout",
            "request timeout: the request did not arrive in time",
        ),
        Failure::HeadersTimeout => fixed(
            StatusCode::REQUEST_TIMEOUT,
            Some(Flag::DurationTimeout),
            "request_header_timeout",
            "request timeout: the headers did not arrive in time",
        ),
        Failure::Denied { details } => (
            StatusCode::FORBIDDEN,
            None,
            Cow::Owned(details.clone()),
            Cow::Borrowed("RBAC: access denied"),
        ),
        Failure::Unauthorized { status, bare } => unauthorized(*status, *bare),
        Failure::FaultAbort { status } => (
            *status,
            Some(Flag::FaultInjected),
            "fault_filter_abort".into(),
            "fault filter abort".into(),
        ),
        Failure::FaultAbortGrpc { status } => (
            http_status(*status),
            Some(Flag::FaultInjected),
            "fault_filter_abort".into(),
            "fault filter abort".into(),
        ),
        Failure::RateLimited { status, .. } => (
            *status,
            Some(Flag::RateLimited),
            "local_rate_limited".into(),
            "local_rate_limited".into(),
        ),
        Failure::BadPath => fixed(
            StatusCode::BAD_REQUEST,
            Some(Flag::DownstreamProtocolError),
            "path_normalization_failed",
            "the path has escaped slashes, which this listener refuses",
        ),
        Failure::BadRequest { why } => (
            StatusCode::BAD_REQUEST,
            Some(Flag::DownstreamProtocolError),
            Cow::Borrowed(why),
            Cow::Borrowed(why),
        ),
        Failure::HeadersTooLarge => fixed(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Some(Flag::DownstreamProtocolError),
            "request_headers_too_large",
            "the request's headers are too large",
        ),
        Failure::Malformed { status, details, why } => (
            *status,
            Some(Flag::DownstreamProtocolError),
            Cow::Borrowed(*details),
            why.clone().into(),
        ),
        Failure::PayloadTooLarge => fixed(
            StatusCode::PAYLOAD_TOO_LARGE,
            None,
            "request_payload_too_large",
            "the request's body is too large to be kept",
        ),
        Failure::UpgradeRefused => fixed(
            StatusCode::FORBIDDEN,
            None,
            "upgrade_failed",
            "this listener allows no such upgrade",
        ),
        Failure::DownstreamClosed => fixed(
            StatusCode::BAD_REQUEST,
            Some(Flag::DownstreamConnectionTermination),
            "downstream_remote_disconnect",
            "the caller went away",
        ),
        Failure::DownstreamReset => fixed(
            StatusCode::BAD_REQUEST,
            Some(Flag::DownstreamRemoteReset),
            "http2.remote_reset",
            "the caller reset the stream",
        ),
        Failure::Overload => fixed(
            UNAVAILABLE,
            Some(Flag::OverloadManager),
            "overload",
            "this proxy has too much to do",
        ),
        Failure::NotReady { what } => (
            UNAVAILABLE,
            Some(Flag::NoRouteFound),
            "not_ready".into(),
            format!("{what} is not there yet").into(),
        ),
        Failure::Internal { why } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            None,
            "internal_error".into(),
            why.clone().into(),
        ),
    }
}

/// Texts and details are Envoy's, as people search for them.
fn unauthorized(status: jwt::Status, bare: bool) -> Row {
    let code = match status {
        jwt::Status::Audience => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let details = format!("jwt_authn_access_denied{{{}}}", status.text().replace(' ', "_"));
    let text = if bare { "" } else { status.text() };
    (code, None, details.into(), text.into())
}

/// The upstream's side. Texts begin as Envoy's do, as people search for them.
fn upstream(failure: &Failure) -> Row {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let before = |reason: &str| Cow::Owned(format!("upstream_reset_before_response_started{{{reason}}}"));
    let disconnect = "upstream connect error or disconnect/reset before headers. reset reason: ";
    match failure {
        Failure::NoCluster { cluster, status } => {
            let text = format!("cluster {cluster} does not exist");
            (
                *status,
                Some(Flag::NoCluster),
                "cluster_not_found".into(),
                text.into(),
            )
        }
        Failure::NoHealthyUpstream { cluster } => {
            let text = format!("no healthy upstream in {cluster}");
            (
                unavailable,
                Some(Flag::NoHealthyUpstream),
                "no_healthy_upstream".into(),
                text.into(),
            )
        }
        Failure::Unresolved { cluster } => {
            let text = format!("no healthy upstream: the host names of {cluster} do not resolve");
            (
                unavailable,
                Some(Flag::DnsFailure),
                "dns_resolution_failure".into(),
                text.into(),
            )
        }
        Failure::ConnectFailure { address, why } => {
            let text = format!("{disconnect}connection failure to {address}: {why}");
            (
                unavailable,
                Some(Flag::UpstreamConnectionFailure),
                before("remote_connection_failure"),
                text.into(),
            )
        }
        Failure::UpstreamTls { address, why } => {
            let text = format!("{disconnect}TLS handshake with {address} failed: {why}");
            (
                unavailable,
                Some(Flag::UpstreamConnectionFailure),
                before("remote_connection_failure|TLS_error"),
                text.into(),
            )
        }
        Failure::ConnectTimeout { address } => {
            let text = format!("{disconnect}connection timeout to {address}");
            (
                unavailable,
                Some(Flag::UpstreamConnectionFailure),
                before("connection_timeout"),
                text.into(),
            )
        }
        Failure::UpstreamReset { why } => {
            let text = format!("{disconnect}remote reset: {why}");
            (
                unavailable,
                Some(Flag::UpstreamRemoteReset),
                before("remote_reset"),
                text.into(),
            )
        }
        Failure::UpstreamClosed => (
            unavailable,
            Some(Flag::UpstreamConnectionTermination),
            before("connection_termination"),
            format!("{disconnect}connection termination").into(),
        ),
        Failure::UpstreamProtocol { why } => (
            StatusCode::BAD_GATEWAY,
            Some(Flag::UpstreamProtocolError),
            before("protocol_error"),
            format!("{disconnect}protocol error: {why}").into(),
        ),
        Failure::PerTryTimeout => (
            StatusCode::GATEWAY_TIMEOUT,
            Some(Flag::UpstreamRequestTimeout),
            "upstream_per_try_timeout".into(),
            "upstream request timeout: every attempt took too long".into(),
        ),
        Failure::MaxStreamDuration => (
            StatusCode::GATEWAY_TIMEOUT,
            Some(Flag::MaxStreamDuration),
            "upstream_max_stream_duration_reached".into(),
            "upstream request timeout: the stream lived too long".into(),
        ),
        Failure::Overflow { breaker } => (
            unavailable,
            Some(Flag::UpstreamOverflow),
            before("overflow"),
            format!("{disconnect}overflow: {breaker} reached").into(),
        ),
        // The last of the upstream's failures.
        _ => (
            StatusCode::GATEWAY_TIMEOUT,
            Some(Flag::UpstreamRequestTimeout),
            "response_timeout".into(),
            "upstream request timeout".into(),
        ),
    }
}

/// The HTTP status that stands for a gRPC status.
fn http_status(grpc: u32) -> StatusCode {
    match grpc {
        0 => StatusCode::OK,
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failure: Failure, status: u16, grpc: u32, flags: &str, details: &str) {
        let reply = reply(&failure, None);
        assert_eq!(
            (
                reply.status.as_u16(),
                reply.grpc,
                reply.flags.to_string().as_str(),
                &*reply.details
            ),
            (status, grpc, flags, details),
            "{failure:?}"
        );
    }

    #[test]
    fn failures_look_as_envoys_do() {
        check(Failure::NoRoute, 404, 12, "NR", "route_not_found");
        let cluster = || "c".to_owned();
        let missing = Failure::NoCluster {
            cluster: cluster(),
            status: StatusCode::SERVICE_UNAVAILABLE,
        };
        check(missing, 503, 14, "NC", "cluster_not_found");
        check(
            Failure::NoHealthyUpstream { cluster: cluster() },
            503,
            14,
            "UH",
            "no_healthy_upstream",
        );
        let overflow = "upstream_reset_before_response_started{overflow}";
        check(
            Failure::Overflow {
                breaker: "max_requests",
            },
            503,
            14,
            "UO",
            overflow,
        );
        check(Failure::UpstreamTimeout, 504, 4, "UT", "response_timeout");
        let denied = Failure::Denied {
            details: "rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]".into(),
        };
        check(
            denied,
            403,
            7,
            "-",
            "rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]",
        );
        check(
            Failure::FaultAbortGrpc { status: 14 },
            503,
            14,
            "FI",
            "fault_filter_abort",
        );
        let limited = Failure::RateLimited {
            status: StatusCode::TOO_MANY_REQUESTS,
            resource_exhausted: true,
        };
        check(limited, 429, 8, "RL", "local_rate_limited");
    }

    #[test]
    fn the_text_names_the_object() {
        let object = Object {
            text: "virtualservice default/reviews".into(),
            version: "12".into(),
        };
        let reply = reply(&Failure::UpstreamTimeout, Some(&object));
        assert_eq!(
            reply.body,
            "upstream request timeout (virtualservice default/reviews, version 12)"
        );
    }
}
