//! A request's head, made canonical once: one authority, one path, one client address, for routing, authorization and
//! the upstream alike. What claims to be proven (client certificates, our own private headers) is taken off unless the
//! connection proves it.

use std::{fmt::Write as _, net::IpAddr, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request::Parts, uri::PathAndQuery};

use super::{HttpConn, carry, http1::spelling::Spelling};
use crate::{
    config::{
        hcm::{ClientAddress, ForwardClientCert, Hcm, Underscores},
        listener::Direction,
    },
    conn::edge,
    decide::{
        facts::{Connection, Facts, canonical_authority, canonical_path},
        jwt::Kept,
        reply::Failure,
    },
};

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// What only internal clients may say (after `x-envoy-`).
const INSIDE: [&str; 13] = [
    "retriable-status-codes",
    "retriable-header-names",
    "retry-on",
    "retry-grpc-on",
    "max-retries",
    "upstream-alt-stat-name",
    "upstream-rq-timeout-ms",
    "upstream-rq-per-try-timeout-ms",
    "upstream-rq-timeout-alt-response",
    "expected-rq-timeout-ms",
    "force-trace",
    "ip-tags",
    "hedge-on-per-try-timeout",
];
/// What nobody from outside may say to the first proxy (likewise).
const NOT_AT_THE_EDGE: [&str; 5] = [
    "decorator-operation",
    "downstream-service-cluster",
    "downstream-service-node",
    "original-path",
    "original-host",
];

/// The canonical head.
pub struct Head {
    pub method: Method,
    pub version: Version,
    pub scheme: &'static str,
    pub authority: Box<str>,
    pub target: PathAndQuery,
    /// The target as it came, where it was changed.
    pub original: Option<PathAndQuery>,
    pub headers: HeaderMap,
    /// How an HTTP/1.x sender wrote the headers.
    pub spelling: Option<Rc<Spelling>>,
    pub client: IpAddr,
    /// Answer with a redirect to the canonical path.
    pub redirect: bool,
    /// Verified tokens whose claims rules may look at.
    pub tokens: Vec<Kept>,
}

impl Head {
    pub fn facts<'a>(&'a self, connection: &'a Connection<'a>) -> Facts<'a> {
        Facts {
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            path: self.target.path(),
            query: self.target.query(),
            headers: &self.headers,
            client: self.client,
            tokens: &self.tokens,
            connection,
        }
    }
}

/// Makes a request's head canonical, or says why it cannot be.
pub fn read(
    http: &HttpConn,
    hcm: &Hcm,
    parts: Parts,
    mut spelling: Option<Rc<Spelling>>,
) -> Result<Head, Failure> {
    let Parts {
        method,
        uri,
        version,
        mut headers,
        ..
    } = parts;
    let version = unpack(http, &mut headers, version, &mut spelling);
    if version == Version::HTTP_10 && !hcm.http1.accept_http_10 {
        return Err(Failure::BadRequest {
            why: "this listener does not accept HTTP/1.0 (accept_http_10)",
        });
    }
    if method == Method::CONNECT {
        // A tunnel is nothing that a route could have allowed here.
        return Err(Failure::UpgradeRefused);
    }
    check_underscores(hcm.headers.underscores, &mut headers)?;
    if uri
        .scheme_str()
        .is_some_and(|scheme| !matches!(scheme, "http" | "https"))
    {
        return Err(Failure::BadRequest {
            why: "the target's scheme is neither http nor https",
        });
    }
    let raw = match uri.authority() {
        Some(authority) if is_host(authority.as_str()) => authority.as_str(),
        Some(_) => {
            return Err(Failure::BadRequest {
                why: "the authority has user information, or characters that no host has",
            });
        }
        None => match headers.get(header::HOST).map(HeaderValue::to_str) {
            Some(Ok(host)) if !host.is_empty() && is_host(host) => host,
            Some(Ok(host)) if !host.is_empty() => {
                return Err(Failure::BadRequest {
                    why: "the Host header has characters that no host has",
                });
            }
            Some(Err(_)) => {
                return Err(Failure::BadRequest {
                    why: "the Host header is not text",
                });
            }
            _ if version == Version::HTTP_10 => "",
            _ => {
                return Err(Failure::BadRequest {
                    why: "the request names no host",
                });
            }
        },
    };
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Failure::BadRequest {
            why: "the request has more than one Host header",
        });
    }
    let authority: Box<str> = canonical_authority(raw, &hcm.authority, http.conn.facts.local.port()).into();
    headers.remove(header::HOST);
    let original = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let canonical = canonical_path(original.path(), &hcm.path).map_err(|_| bad_path(http))?;
    let redirect = canonical.redirect;
    let (target, original) = if canonical.text == original.path() {
        (original, None)
    } else {
        let mut text = canonical.text.into_owned();
        if let Some(query) = original.query() {
            // Writing to a string does not fail.
            let _ = write!(text, "?{query}");
        }
        (
            PathAndQuery::try_from(text).map_err(|_| bad_path(http))?,
            Some(original),
        )
    };
    let client = client_address(http, hcm, &mut headers);
    inside_or_outside(hcm, client, &mut headers);
    let scheme = scheme(http, hcm, &mut headers);
    client_certificate(http, hcm, &mut headers);
    request_id(http, hcm, client, &mut headers);
    Ok(Head {
        method,
        version,
        scheme,
        authority,
        target,
        original,
        headers,
        spelling,
        client,
        redirect,
        tokens: Vec::new(),
    })
}

fn bad_path(http: &HttpConn) -> Failure {
    http.stats.downstream_rq_failed_path_normalization.inc();
    Failure::BadPath
}

/// What a host and port may be written with (RFC 3986 §3.2, without user information).
fn is_host(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte))
}

/// Takes our private headers off. A carried request is the HTTP/1.1 it was.
fn unpack(
    http: &HttpConn,
    headers: &mut HeaderMap,
    version: Version,
    spelling: &mut Option<Rc<Spelling>>,
) -> Version {
    let (carried, peer) = carry::unpack(headers);
    if !http.carrier {
        return version;
    }
    if let Some(peer) = peer
        && let (Some(principal), Ok(text)) = (http.conn.principal(), peer.to_str())
        && let Some(workload) = edge::introduced(principal, text)
    {
        *http.conn.peer_workload.borrow_mut() = workload.into();
    }
    match carried {
        None => version,
        Some(text) => {
            *spelling = http.spellings.borrow_mut().of_text(text.as_bytes());
            Version::HTTP_11
        }
    }
}

fn check_underscores(rule: Underscores, headers: &mut HeaderMap) -> Result<(), Failure> {
    if rule == Underscores::Allow {
        return Ok(());
    }
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    match rule {
        Underscores::RejectRequest if !names.is_empty() => Err(Failure::BadRequest {
            why: "a header name contains an underscore, which this listener refuses",
        }),
        _ => {
            for name in names {
                headers.remove(name);
            }
            Ok(())
        }
    }
}

/// Finds the client's address, and says it to the upstream
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-for>).
fn client_address(http: &HttpConn, hcm: &Hcm, headers: &mut HeaderMap) -> IpAddr {
    let ClientAddress {
        use_remote,
        xff_trusted_hops,
        skip_xff_append,
        ..
    } = hcm.address;
    let peer = http.conn.facts.remote.ip();
    let forwarded = headers
        .get(&X_FORWARDED_FOR)
        .and_then(|value| value.to_str().ok());
    if !use_remote {
        let back = usize::try_from(xff_trusted_hops).unwrap_or(usize::MAX);
        return forwarded.and_then(|list| nth_last(list, back)).unwrap_or(peer);
    }
    let client = match xff_trusted_hops.checked_sub(1) {
        None => peer,
        Some(back) => forwarded
            .and_then(|list| nth_last(list, back as usize))
            .unwrap_or(peer),
    };
    if !skip_xff_append {
        let text = match forwarded {
            Some(list) => format!("{list},{peer}"),
            None => peer.to_string(),
        };
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
    client
}

/// Is this one of the addresses that the configuration calls internal? Without any, everybody is outside, as in Envoy.
fn is_internal(hcm: &Hcm, client: IpAddr) -> bool {
    let client = client.to_canonical();
    hcm.internal.iter().any(|range| range.contains(&client))
}

/// Says whether the client is internal, and takes off what only those may say
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-envoy-internal>).
fn inside_or_outside(hcm: &Hcm, client: IpAddr, headers: &mut HeaderMap) {
    let edge = hcm.address.use_remote;
    if edge {
        headers.remove(&X_ENVOY_INTERNAL);
    }
    if is_internal(hcm, client) {
        headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
        return;
    }
    let theirs: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let rest = name.as_str().strip_prefix("x-envoy-");
            rest.is_some_and(|rest| INSIDE.contains(&rest) || edge && NOT_AT_THE_EDGE.contains(&rest))
        })
        .cloned()
        .collect();
    for name in theirs {
        headers.remove(name);
    }
    if edge && let Ok(value) = HeaderValue::from_str(&client.to_string()) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, value);
    }
}

fn nth_last(list: &str, back: usize) -> Option<IpAddr> {
    list.rsplit(',').nth(back)?.trim().parse().ok()
}

fn scheme(http: &HttpConn, hcm: &Hcm, headers: &mut HeaderMap) -> &'static str {
    let tls = http.conn.facts.tls.is_some();
    let said = headers.get(&X_FORWARDED_PROTO).map(HeaderValue::as_bytes);
    // Inside the mesh TLS is ours; the application's own scheme came in the header, or was http.
    let inside = http.conn.direction() != Direction::Unspecified && !hcm.address.use_remote;
    match (inside, said) {
        (true, Some(b"https")) => "https",
        (true, Some(b"http")) => "http",
        _ => {
            let scheme = if tls && !inside { "https" } else { "http" };
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
            scheme
        }
    }
}

/// Gives the request an id, if it has none; at the edge, whatever the outside claims
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-request-id>).
fn request_id(http: &HttpConn, hcm: &Hcm, client: IpAddr, headers: &mut HeaderMap) {
    let outside = hcm.address.use_remote && !is_internal(hcm, client);
    let keep = headers.contains_key(&X_REQUEST_ID) && (!outside || hcm.headers.preserve_external_request_id);
    if keep || !hcm.headers.generate_request_id {
        return;
    }
    let (high, low) = (http.conn.worker.random(), http.conn.worker.random());
    // A version 4 UUID (RFC 9562 §5.4).
    let id = format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 50 | 0x8000,
        low & 0xffff_ffff_ffff
    );
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(X_REQUEST_ID, value);
    }
}

/// Keeps, sets or removes `x-forwarded-client-cert`
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert>).
fn client_certificate(http: &HttpConn, hcm: &Hcm, headers: &mut HeaderMap) {
    let rule = &hcm.client_cert;
    let principal = http.conn.principal();
    match (rule.forward, principal) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet, Some(principal)) => {
            let mut text = String::new();
            if let Some(own) = http.conn.worker.principal() {
                let _ = write!(text, "By={own};");
            }
            if let Some(hash) = http.conn.peer.as_ref().map(|peer| &peer.hash)
                && !hash.is_empty()
            {
                let _ = write!(text, "Hash={hash};");
            }
            if rule.subject {
                let subject = http.conn.peer.as_ref().map_or("", |peer| &*peer.subject);
                let _ = write!(text, "Subject=\"{}\";", subject.replace('"', "\\\""));
            }
            if rule.uri {
                let _ = write!(text, "URI={principal};");
            }
            let text = text.trim_end_matches(';');
            let old = headers
                .get(&X_FORWARDED_CLIENT_CERT)
                .filter(|_| rule.forward == ForwardClientCert::AppendForward)
                .and_then(|value| value.to_str().ok());
            let new = old.map_or_else(|| text.to_owned(), |old| format!("{old},{text}"));
            if let Ok(value) = HeaderValue::from_str(&new) {
                headers.insert(X_FORWARDED_CLIENT_CERT, value);
            }
        }
        _ => {
            headers.remove(&X_FORWARDED_CLIENT_CERT);
        }
    }
}
