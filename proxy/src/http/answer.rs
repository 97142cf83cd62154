//! Answers: what the mesh itself says, and the last touch on what the upstream said. A failure becomes an answer here and
//! nowhere else; `decide::reply` knows which.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    body::ResponseBody,
    carry,
    exchange::{Exchange, Tail},
    filter::header_mutation,
};
use crate::{
    config::{
        hcm::ServerHeader,
        listener::Direction,
        log::{CertificateFact, Command, Format, Part, Piece},
        route::RouteConfig,
    },
    decide::{
        headers::apply,
        reply::{Failure, reply},
        route::Decision,
    },
};

const X_ENVOY_UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// The answer to a failure.
pub fn failure(exchange: &Rc<Exchange>, failure: &Failure) -> Response<ResponseBody> {
    // A client outside of the mesh has no use for the names of what is in it; the access log has them.
    let edge = exchange.plan.hcm.address.use_remote;
    let object = exchange.object().filter(|_| !edge);
    let reply = reply(failure, object.as_deref());
    for flag in reply.flags.iter() {
        exchange.flag(flag);
    }
    exchange.details(reply.details);
    let mut response = if exchange.grpc.get() {
        let mut response = local(exchange, StatusCode::OK, Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, GRPC);
        headers.insert("grpc-status", reply.grpc.into());
        if let Ok(message) = HeaderValue::from_str(&percent_encoded(&reply.body)) {
            headers.insert("grpc-message", message);
        }
        response
    } else {
        let mut response = local(exchange, reply.status, Bytes::from(reply.body));
        response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
        response
    };
    finish_head(exchange, response.headers_mut(), false);
    header_mutation::response(exchange, response.headers_mut());
    let http = &exchange.http;
    if http.carrier && http.conn.direction() == Direction::Inbound && failure.is_unsent() {
        response
            .headers_mut()
            .insert(carry::UNSENT, HeaderValue::from_static(""));
    }
    exchange.answered(&response);
    response
}

/// The gRPC form of a message: everything but printable ASCII is escaped
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A redirect to this place.
pub fn redirect(exchange: &Rc<Exchange>, status: StatusCode, location: &str) -> Response<ResponseBody> {
    let mut response = local(exchange, status, Bytes::new());
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    exchange.details("direct_response".into());
    finish_head(exchange, response.headers_mut(), false);
    exchange.answered(&response);
    response
}

/// A route's own answer.
pub fn direct(exchange: &Rc<Exchange>, status: StatusCode, body: Bytes) -> Response<ResponseBody> {
    let mut response = local(exchange, status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    exchange.details("direct_response".into());
    finish_head(exchange, response.headers_mut(), false);
    exchange.answered(&response);
    response
}

/// The answer to a preflight request.
pub fn preflight(exchange: &Rc<Exchange>, headers: HeaderMap) -> Response<ResponseBody> {
    let mut response = local(exchange, StatusCode::OK, Bytes::new());
    *response.headers_mut() = headers;
    exchange.details("cors_preflight".into());
    finish_head(exchange, response.headers_mut(), false);
    header_mutation::response(exchange, response.headers_mut());
    exchange.answered(&response);
    response
}

fn local(exchange: &Rc<Exchange>, status: StatusCode, body: Bytes) -> Response<ResponseBody> {
    let tail = Some(Tail::new(exchange.clone(), None).of(body.is_empty()));
    let bytes = (!body.is_empty()).then_some(body);
    let mut response = Response::new(ResponseBody::Local { bytes, tail });
    *response.status_mut() = status;
    response
}

/// What every answer gets: the server's name, the upstream's time, and "no more" while the process drains.
pub fn finish_head(exchange: &Exchange, headers: &mut HeaderMap, from_upstream: bool) {
    let http = &exchange.http;
    let rules = &exchange.plan.hcm.headers;
    match rules.server_transformation {
        ServerHeader::Overwrite => {
            headers.insert(header::SERVER, rules.server_name.clone());
        }
        ServerHeader::AppendIfAbsent if !headers.contains_key(header::SERVER) => {
            headers.insert(header::SERVER, rules.server_name.clone());
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    if from_upstream
        && !exchange.plan.hcm.router.suppress_envoy_headers
        && let (Some(sent), Some(received)) = (exchange.first_tx.get(), exchange.first_rx.get())
    {
        let millis = u64::try_from(received.saturating_sub(sent).as_millis()).unwrap_or(u64::MAX);
        headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, millis.into());
    }
    let worn_out = exchange
        .plan
        .hcm
        .limits
        .max_requests_per_connection
        .is_some_and(|max| http.requests.get() >= max);
    if !http.http2 && (http.conn.worker.is_draining() || worn_out || http.is_obsolete()) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The route's changes to the answer's headers, and after them the filters'.
pub fn mutate(
    exchange: &Exchange,
    response: &mut Response<ResponseBody>,
    config: &RouteConfig,
    decision: Decision,
) {
    let headers = response.headers_mut();
    apply(
        decision.response_mutations(config),
        headers,
        |format| format_value(exchange, format),
        |_, _| {},
    );
    header_mutation::response(exchange, headers);
}

/// The value of a header that is made of facts. What is not known when it is needed leaves the header out, as in Envoy.
pub fn format_value(exchange: &Exchange, format: &Format) -> Option<HeaderValue> {
    let facts = &exchange.http.conn.facts;
    let mut out = String::new();
    for piece in &format.pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Command(command, limit) => {
                let value = match command {
                    Command::Protocol => exchange.protocol().as_str()?.to_owned(),
                    Command::DownstreamRemoteAddress(part) => address(facts.remote, *part),
                    Command::DownstreamDirectRemoteAddress(part) => address(facts.direct_remote, *part),
                    Command::DownstreamLocalAddress(part) => address(facts.local, *part),
                    Command::DownstreamPeer(CertificateFact::UriSan) => {
                        facts.tls.as_ref()?.peer_uris.first()?.to_string()
                    }
                    Command::DownstreamTlsVersion => facts.tls.as_ref()?.version.to_string(),
                    Command::ResponseFlags => exchange.flags.get().to_string(),
                    Command::UpstreamCluster | Command::UpstreamClusterRaw => {
                        exchange.cluster.borrow().as_ref()?.cluster.name.to_string()
                    }
                    Command::UpstreamHost | Command::UpstreamRemoteAddress(Part::Whole) => {
                        exchange.upstream.borrow().as_ref()?.host?.to_string()
                    }
                    _ => return None,
                };
                let end = limit.map_or(value.len(), |limit| limit.min(value.len()));
                out.push_str(value.get(..end)?);
            }
        }
    }
    HeaderValue::from_str(&out).ok()
}

fn address(address: std::net::SocketAddr, part: Part) -> String {
    match part {
        Part::Whole => address.to_string(),
        Part::WithoutPort => address.ip().to_string(),
        Part::Port => address.port().to_string(),
    }
}
