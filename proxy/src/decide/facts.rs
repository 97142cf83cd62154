//! What is known of a connection and of a request when it is decided on. Proven facts (the peer's names after the
//! handshake) and claimed facts (headers) have different places. Nothing here is copied: it borrows from the exchange.
//!
//! The path is made canonical once, before routing, so that matching, authorization and the upstream see the same
//! path (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/header_sanitizing>).

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, Method, header};

use super::jwt::Kept;
use crate::config::hcm::{AuthorityRules, EscapedSlashes, PathRules, StripPort};

/// The names in a peer's certificate that has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames {
    pub uris: Vec<Box<str>>,
    pub dns: Vec<Box<str>>,
    /// The subject, as RFC 2253 writes it.
    pub subject: Box<str>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub hash: Box<str>,
}

impl PeerNames {
    /// The name that stands for the peer: the first URI, else the first DNS name, else the subject.
    pub fn principal(&self) -> &str {
        self.uris.first().or(self.dns.first()).unwrap_or(&self.subject)
    }
}

/// One downstream connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// The peer's address.
    pub source: SocketAddr,
    /// Where it wanted to go: the original destination after redirection.
    pub destination: SocketAddr,
    pub server_name: Option<&'a str>,
    pub tls: bool,
    /// The peer's proven names.
    pub peer: Option<&'a PeerNames>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub method: &'a Method,
    pub scheme: &'a str,
    pub authority: &'a str,
    /// Canonical, without the query.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The client, as found from `x-forwarded-for` or the connection.
    pub client: IpAddr,
    /// Verified tokens whose claims rules may look at.
    pub tokens: &'a [Kept],
    pub connection: &'a Connection<'a>,
}

impl Facts<'_> {
    pub fn is_grpc(&self) -> bool {
        is_grpc(self.headers)
    }
}

/// Does the content type say gRPC?
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'+' || rest[0] == b';')
}

/// A canonical path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    pub text: Cow<'a, str>,
    /// The rules ask for a redirect to it instead of going on.
    pub redirect: bool,
}

/// The path has escaped slashes and the rules refuse them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path has escaped slashes, which this listener refuses")]
pub struct BadPath;

/// The canonical form of a path (without query). Borrows where nothing changes.
pub fn canonical_path<'a>(path: &'a str, rules: &PathRules) -> Result<Path<'a>, BadPath> {
    let mut text = Cow::Borrowed(path);
    let mut redirect = false;
    if rules.escaped_slashes != EscapedSlashes::Keep && has_escaped_slash(path) {
        match rules.escaped_slashes {
            EscapedSlashes::Reject => return Err(BadPath),
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
        }
        text = Cow::Owned(unescape_slashes(path));
    }
    // An asterisk-form target (`OPTIONS *`) is not a path.
    if rules.normalize && text.starts_with('/') && needs_normalizing(&text) {
        text = Cow::Owned(normalize(&text));
    }
    if rules.merge_slashes && text.contains("//") {
        text = Cow::Owned(merge_slashes(&text));
    }
    Ok(Path { text, redirect })
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes()
        .windows(3)
        .any(|w| w[0] == b'%' && escaped_slash(w[1], w[2]).is_some())
}

fn escaped_slash(high: u8, low: u8) -> Option<char> {
    match (high, low.to_ascii_lowercase()) {
        (b'2', b'f') => Some('/'),
        (b'5', b'c') => Some('\\'),
        _ => None,
    }
}

fn unescape_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let bytes = from.as_bytes();
        match bytes.get(1..3).and_then(|hex| escaped_slash(hex[0], hex[1])) {
            Some(slash) => {
                out.push(slash);
                rest = &from[3..];
            }
            None => {
                out.push('%');
                rest = &from[1..];
            }
        }
    }
    out + rest
}

fn needs_normalizing(path: &str) -> bool {
    path.contains("/.") || path.bytes().any(|byte| byte == b'%' || byte == b'\\')
}

/// RFC 3986, 6.2.2.2 and 6.2.2.3: unreserved characters are unescaped, dot segments removed; a backslash is a slash.
fn normalize(path: &str) -> String {
    let unescaped = unescape_unreserved(path);
    let mut out: Vec<&str> = Vec::new();
    let mut segments = unescaped.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => out.push(""),
            "." => {}
            ".." => {
                out.pop();
                if last {
                    out.push("");
                }
            }
            other => out.push(other),
        }
    }
    let mut text = String::with_capacity(unescaped.len());
    for segment in &out {
        text.push('/');
        text.push_str(segment);
    }
    if text.is_empty() {
        text.push('/');
    }
    text
}

fn unescape_unreserved(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut chars = path.char_indices();
    while let Some((at, c)) = chars.next() {
        let escaped = (c == '%').then(|| {
            path.get(at + 1..at + 3)
                .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        });
        match (c, escaped.flatten()) {
            ('\\', _) => out.push('/'),
            (_, Some(byte)) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte));
                chars.nth(1);
            }
            _ => out.push(c),
        }
    }
    out
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

/// The authority as the rules want it: without port, without the trailing dot of the host.
pub fn canonical_authority<'a>(authority: &'a str, rules: &AuthorityRules, listener_port: u16) -> &'a str {
    let mut authority = authority;
    if rules.strip_port != StripPort::No {
        let (host, port) = split_port(authority);
        let strip = match (rules.strip_port, port) {
            (StripPort::Any, Some(_)) => true,
            (StripPort::Matching, Some(port)) => port.parse() == Ok(listener_port),
            _ => false,
        };
        if strip {
            authority = host;
        }
    }
    if rules.strip_trailing_dot && split_port(authority).1.is_none() {
        authority = authority.strip_suffix('.').unwrap_or(authority);
    }
    authority
}

/// Host and port of an authority; brackets of IPv6 stay on the host.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, rules: PathRules, expect: &str) {
        assert_eq!(canonical_path(path, &rules).unwrap().text, expect, "{path}");
    }

    #[test]
    fn paths_are_normalized() {
        let rules = PathRules {
            normalize: true,
            ..PathRules::default()
        };
        for (path, expect) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/a%2e%2e", "/a.."),
            ("/a/%2E%2e/b", "/b"),
            ("/%61%7e%2Fb", "/a~%2Fb"),
            ("/a\\b", "/a/b"),
            ("/a%", "/a%"),
            ("/a%2", "/a%2"),
            ("/a%zz", "/a%zz"),
            ("/ä/.x", "/ä/.x"),
            ("//a//b", "//a//b"),
            ("*", "*"),
        ] {
            check(path, rules, expect);
        }
    }

    #[test]
    fn slashes_are_merged_after_normalizing() {
        let rules = PathRules {
            normalize: true,
            merge_slashes: true,
            ..PathRules::default()
        };
        check("//a///b/../c//", rules, "/a/c/");
        check("/a//..//b", rules, "/a/b");
    }

    #[test]
    fn escaped_slashes() {
        let rules = |escaped_slashes| PathRules {
            normalize: true,
            merge_slashes: true,
            escaped_slashes,
        };
        check("/a%2fb%5Cc", rules(EscapedSlashes::UnescapeAndForward), "/a/b/c");
        check("/a%2fb", rules(EscapedSlashes::Keep), "/a%2fb");
        assert_eq!(
            canonical_path("/a%2F..%2fb", &rules(EscapedSlashes::Reject)),
            Err(BadPath)
        );
        let redirected = canonical_path("/a%2F..%2fb", &rules(EscapedSlashes::UnescapeAndRedirect)).unwrap();
        assert_eq!((&*redirected.text, redirected.redirect), ("/b", true));
    }

    #[test]
    fn an_ordinary_path_is_not_copied() {
        let rules = PathRules {
            normalize: true,
            merge_slashes: true,
            escaped_slashes: EscapedSlashes::Reject,
        };
        let path = canonical_path("/api/v1/products/0/reviews", &rules).unwrap();
        assert!(matches!(path.text, Cow::Borrowed(_)));
    }

    #[test]
    fn authorities() {
        let rules = |strip_port, strip_trailing_dot| AuthorityRules {
            strip_port,
            strip_trailing_dot,
        };
        for (authority, rules, expect) in [
            ("a.com:80", rules(StripPort::No, false), "a.com:80"),
            ("a.com:80", rules(StripPort::Matching, false), "a.com"),
            ("a.com:81", rules(StripPort::Matching, false), "a.com:81"),
            ("a.com:81", rules(StripPort::Any, false), "a.com"),
            ("[::1]:81", rules(StripPort::Any, false), "[::1]"),
            ("[::1]", rules(StripPort::Any, false), "[::1]"),
            ("a.com.:80", rules(StripPort::Any, true), "a.com"),
            ("a.com.", rules(StripPort::No, true), "a.com"),
        ] {
            assert_eq!(canonical_authority(authority, &rules, 80), expect, "{authority}");
        }
    }

    #[test]
    fn grpc_by_content_type() {
        for (value, expect) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expect, "{value}");
        }
    }
}
