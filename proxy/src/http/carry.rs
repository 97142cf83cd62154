//! Between two of our proxies an application's HTTP/1.1 travels in HTTP/2: many requests share a write, a read and a TLS
//! record. Private headers go with it, and never beyond the second proxy: one says that the message was HTTP/1.1 and how its
//! headers were written, one keeps an unusual reason phrase, one introduces the sender once per connection, one says that a
//! request got no further than the second proxy. They are taken off every message that comes from anybody else.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::http1::{
    Manner,
    spelling::{Known, Spelling},
};

/// On a carried message: the names of its headers as they were written.
pub const CARRIED: HeaderName = HeaderName::from_static("x-gossamer-carried");
/// On the first request of a connection: `workload;namespace;canonical name;canonical revision;cluster`.
pub const PEER: HeaderName = HeaderName::from_static("x-gossamer-peer");
/// On an answer that a proxy gave in place of its application: the request has reached nobody, so it may go elsewhere.
pub const UNSENT: HeaderName = HeaderName::from_static("x-gossamer-unsent");

/// On a carried answer: its reason phrase, where that is not the standard one.
const REASON: HeaderName = HeaderName::from_static("x-gossamer-reason");

/// Marks a message as HTTP/1.1 inside.
pub fn mark(headers: &mut HeaderMap, spelling: Option<&Spelling>) {
    let text = spelling.and_then(Spelling::value);
    headers.insert(CARRIED, text.unwrap_or(HeaderValue::from_static("")));
}

/// Marks an answer.
pub fn mark_answer(headers: &mut HeaderMap, manner: Manner) {
    mark(headers, manner.spelling.as_deref());
    if let Some(reason) = manner.reason {
        headers.insert(REASON, reason);
    }
}

/// How an answer was written; the private headers are gone afterwards. Only one of ours is believed (`trusted`).
pub fn unpack_answer(headers: &mut HeaderMap, trusted: bool, known: &mut Known) -> Manner {
    let (text, reason) = (headers.remove(CARRIED), headers.remove(REASON));
    if !trusted {
        return Manner::default();
    }
    Manner {
        spelling: text.and_then(|text| known.of_text(text.as_bytes())),
        reason,
    }
}

/// Introduces this proxy's workload.
pub fn introduce(headers: &mut HeaderMap, metadata: &str) {
    if let Ok(value) = HeaderValue::from_str(metadata) {
        headers.insert(PEER, value);
    }
}

/// What a peer said of a request and of itself; both headers are gone afterwards.
pub fn unpack(headers: &mut HeaderMap) -> (Option<HeaderValue>, Option<HeaderValue>) {
    (headers.remove(CARRIED), headers.remove(PEER))
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
        mark(&mut headers, Spelling::read("Host".into()).as_ref());
        introduce(&mut headers, "a;b;c;d;e");
        assert_eq!(
            unpack(&mut headers),
            (
                Some(HeaderValue::from_static("Host")),
                Some(HeaderValue::from_static("a;b;c;d;e"))
            )
        );
        assert!(headers.is_empty());
    }

    #[test]
    fn only_one_of_ours_says_how_an_answer_was_written() {
        let manner = Manner {
            spelling: Some(Spelling::read("X-Odd".into()).unwrap().into()),
            reason: Some(HeaderValue::from_static("Very Well")),
        };
        for trusted in [true, false] {
            let mut headers = HeaderMap::new();
            mark_answer(&mut headers, manner.clone());
            let got = unpack_answer(&mut headers, trusted, &mut Known::default());
            assert!(headers.is_empty());
            assert_eq!(got.spelling.is_some() && got.reason.is_some(), trusted);
        }
    }
}
