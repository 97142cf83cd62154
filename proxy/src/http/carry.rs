//! Between two of our proxies an application's HTTP/1.1 travels in HTTP/2: many requests share a write, a read and a TLS
//! record. Two private headers go with it, and never beyond the second proxy: one says that the request was HTTP/1.1, one
//! introduces the sender once per connection. Both are taken off every request that comes from anybody else.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// On a carried request: its own version.
pub const CARRIED: HeaderName = HeaderName::from_static("x-gossamer-carried");
/// On the first request of a connection: `workload;namespace;canonical name;canonical revision;cluster`.
pub const PEER: HeaderName = HeaderName::from_static("x-gossamer-peer");

const HTTP_11: HeaderValue = HeaderValue::from_static("1.1");

/// Marks a request as HTTP/1.1 inside.
pub fn mark(headers: &mut HeaderMap) {
    headers.insert(CARRIED, HTTP_11);
}

/// Introduces this proxy's workload.
pub fn introduce(headers: &mut HeaderMap, metadata: &str) {
    if let Ok(value) = HeaderValue::from_str(metadata) {
        headers.insert(PEER, value);
    }
}

/// What a peer said of a request and of itself; both headers are gone afterwards.
pub fn unpack(headers: &mut HeaderMap) -> (bool, Option<HeaderValue>) {
    (headers.remove(CARRIED).is_some(), headers.remove(PEER))
}

/// Removes what is about one connection only (RFC 9110 §7.6.1) and must not be in HTTP/2 (RFC 9113 §8.2.2). Names listed
/// in `Connection` go too. `TE: trailers` may stay.
pub fn strip_connection_headers(headers: &mut HeaderMap) {
    if let Some(connection) = headers.remove(header::CONNECTION)
        && let Ok(text) = connection.to_str()
    {
        for name in text.split(',').map(str::trim) {
            let special = ["close", "keep-alive", "te", "upgrade"]
                .iter()
                .any(|word| name.eq_ignore_ascii_case(word));
            if !special && let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                headers.remove(name);
            }
        }
    }
    headers.remove(HeaderName::from_static("keep-alive"));
    headers.remove(HeaderName::from_static("proxy-connection"));
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_headers_go() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("x-stays", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_connection_headers(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-stays"]
        );
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        strip_connection_headers(&mut headers);
        assert!(headers.contains_key(header::TE));
    }

    #[test]
    fn private_headers_are_taken_off() {
        let mut headers = HeaderMap::new();
        mark(&mut headers);
        introduce(&mut headers, "a;b;c;d;e");
        assert_eq!(
            unpack(&mut headers),
            (true, Some(HeaderValue::from_static("a;b;c;d;e")))
        );
        assert!(headers.is_empty());
    }
}
