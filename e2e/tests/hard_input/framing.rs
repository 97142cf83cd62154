//! HTTP/1.x that two parsers could read differently, as one table of bytes against our proxy and a stock Envoy.
//!
//! Where they differ ours is stricter: Envoy mends what it understands (a lone LF, a folded line, a chunk that is longer than it
//! says, a second Host) and sends the server its own reading, so that it is safe behind Envoy and says nothing of others; ours
//! does not guess. Envoy answers all old and future versions with 426, and knows no route for CONNECT.

use super::bench::{Kind, Proxy, each, outcome, server};
use anyhow::ensure;
use serde_json::json;

/// What a case is, its bytes, what comes of it with ours, and with Envoy where that is something else.
#[derive(Clone)]
struct Case {
    name: &'static str,
    bytes: String,
    ours: &'static str,
    envoy: &'static str,
}

fn same(name: &'static str, bytes: impl Into<String>, both: &'static str) -> Case {
    differs(name, bytes, both, both)
}

fn differs(name: &'static str, bytes: impl Into<String>, ours: &'static str, envoy: &'static str) -> Case {
    Case {
        name,
        bytes: bytes.into(),
        ours,
        envoy,
    }
}

/// A GET with these lines after its Host.
fn get(more: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

/// A POST with these lines and this body, and another request behind it.
fn post(more: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{more}\r\n{body}GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn lengths() -> Vec<Case> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let both = "200 POST /a, 200 GET /b";
    vec![
        same("a body by length", post("Content-Length: 2\r\n", "hi"), both),
        same("a body by chunks", post(chunked, "2\r\nhi\r\n0\r\n\r\n"), both),
        same(
            "two lengths",
            post("Content-Length: 2\r\nContent-Length: 3\r\n", "hi"),
            "400",
        ),
        same(
            "the same length twice",
            post("Content-Length: 2\r\nContent-Length: 2\r\n", "hi"),
            "400",
        ),
        same("a list of lengths", post("Content-Length: 2, 2\r\n", "hi"), "400"),
        same(
            "a length with a sign",
            post("Content-Length: +2\r\n", "hi"),
            "400",
        ),
        same("a negative length", post("Content-Length: -2\r\n", "hi"), "400"),
        same(
            "a hexadecimal length",
            post("Content-Length: 0x2\r\n", "hi"),
            "400",
        ),
        same("an empty length", post("Content-Length: \r\n", "hi"), "400"),
        same(
            "a length beyond all numbers",
            post("Content-Length: 99999999999999999999\r\n", "hi"),
            "400",
        ),
        same(
            "length and chunks",
            post(&format!("Content-Length: 2\r\n{chunked}"), "0\r\n\r\n"),
            "400",
        ),
        same(
            "chunks and length",
            post(&format!("{chunked}Content-Length: 2\r\n"), "0\r\n\r\n"),
            "400",
        ),
        same("another encoding", post("Transfer-Encoding: gzip\r\n", ""), "501"),
        same(
            "chunked before another",
            post("Transfer-Encoding: chunked, gzip\r\n", ""),
            "501",
        ),
        same(
            "chunked after another",
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            "501",
        ),
        same(
            "chunked twice",
            post(&format!("{chunked}{chunked}"), "0\r\n\r\n"),
            "501",
        ),
        same(
            "chunked, misspelt",
            post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
            "501",
        ),
        same(
            "chunked with a vertical tab",
            post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
            "400",
        ),
        same(
            "chunked, shouted",
            post("Transfer-Encoding: CHUNKED\r\n", "2\r\nhi\r\n0\r\n\r\n"),
            both,
        ),
        same(
            "a space before the colon",
            post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
            "400",
        ),
        differs(
            "chunks in HTTP/1.0",
            format!("POST /a HTTP/1.0\r\nHost: a\r\n{chunked}\r\n0\r\n\r\n"),
            "501",
            "426",
        ),
    ]
}

fn chunks() -> Vec<Case> {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let both = "200 POST /a, 200 GET /b";
    let long = format!("2;{}\r\nhi\r\n0\r\n\r\n", "x".repeat(20_000));
    vec![
        same("a chunk's extension", chunked("2;a=b\r\nhi\r\n0\r\n\r\n"), both),
        same("a trailer", chunked("2\r\nhi\r\n0\r\na: b\r\n\r\n"), both),
        same("a chunk's line ends in LF", chunked("2\nhi\r\n0\r\n\r\n"), "400"),
        differs("a chunk ends in LF", chunked("2\r\nhi\n0\r\n\r\n"), "400", both),
        differs(
            "a chunk is longer than it says",
            chunked("2\r\nhiho\r\n0\r\n\r\n"),
            "400",
            both,
        ),
        same("a chunk's size with 0x", chunked("0x2\r\nhi\r\n0\r\n\r\n"), "400"),
        same(
            "a chunk's size with a sign",
            chunked("+2\r\nhi\r\n0\r\n\r\n"),
            "400",
        ),
        same(
            "a chunk's size beyond all numbers",
            chunked("fffffffffffffffff\r\nhi\r\n"),
            "400",
        ),
        same("no chunk's size", chunked("\r\nhi\r\n0\r\n\r\n"), "400"),
        same(
            "CR in a chunk's extension",
            chunked("2;a\rb\r\nhi\r\n0\r\n\r\n"),
            "400",
        ),
        differs("an endless chunk's extension", chunked(&long), "400", both),
        differs("LF in trailers", chunked("0\r\na: b\nc: d\r\n\r\n"), "400", both),
    ]
}

fn lines() -> Vec<Case> {
    vec![
        same("empty lines before", format!("\r\n\r\n{}", get("")), "200 GET /a"),
        differs(
            "lines end in LF",
            "GET /a HTTP/1.1\nHost: a\n\n",
            "400",
            "200 GET /a",
        ),
        differs(
            "one line ends in LF",
            "GET /a HTTP/1.1\r\nHost: a\nb: c\r\n\r\n",
            "400",
            "200 GET /a",
        ),
        same(
            "one line ends in CR",
            "GET /a HTTP/1.1\r\nHost: a\rb: c\r\n\r\n",
            "400",
        ),
        differs("CR in a value", get("b: c\rd\r\n"), "400", "200 GET /a"),
        same("NUL in a value", get("b: c\0d\r\n"), "400"),
        same("NUL in a name", get("b\0: c\r\n"), "400"),
        same("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        differs("a folded line", get("b: c\r\n d\r\n"), "400", "200 GET /a"),
        same(
            "a folded first header",
            "GET /a HTTP/1.1\r\n b: c\r\nHost: a\r\n\r\n",
            "400",
        ),
        same("a line without a colon", get("b\r\n"), "400"),
        same("a header without a name", get(": c\r\n"), "400"),
        same("a space in a name", get("b c: d\r\n"), "400"),
        differs(
            "two spaces in the first line",
            "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
            "200 GET /a",
        ),
        differs("no version", "GET /a\r\nHost: a\r\n\r\n", "400", "426"),
        differs("HTTP/0.9", "GET /a\r\n\r\n", "400", "426"),
        differs("HTTP/1.2", "GET /a HTTP/1.2\r\nHost: a\r\n\r\n", "505", "426"),
        differs("HTTP/3.0", "GET /a HTTP/3.0\r\nHost: a\r\n\r\n", "505", "426"),
        same("HTTP/1.10", "GET /a HTTP/1.10\r\nHost: a\r\n\r\n", "400"),
        same("an odd method", "GE\"T /a HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        same("garbage", "\x01\x02\x03\x04\r\n\r\n", "400"),
        same("TLS", "\x16\x03\x01\x00\x05hello\r\n\r\n", "400"),
    ]
}

fn targets() -> Vec<Case> {
    let ask = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\n{more}\r\n");
    vec![
        same(
            "absolute form",
            ask("http://b/c?d", "Host: a\r\n"),
            "200 GET /c?d",
        ),
        same(
            "absolute form without a path",
            ask("http://b", "Host: a\r\n"),
            "200 GET /",
        ),
        differs(
            "absolute form with a user",
            ask("http://u@b/c", "Host: a\r\n"),
            "400",
            "200 GET /c",
        ),
        same("authority form", ask("b:80", "Host: a\r\n"), "400"),
        same("another scheme", ask("ftp://b/c", "Host: a\r\n"), "400"),
        same("a target that is no path", ask("c", "Host: a\r\n"), "400"),
        same("a fragment", ask("/c#d", "Host: a\r\n"), "400"),
        differs(
            "CONNECT",
            "CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n",
            "403",
            "404",
        ),
        same("no host", ask("/c", ""), "400"),
        differs("an empty host", ask("/c", "Host: \r\n"), "400", "200 GET /c"),
        differs(
            "two hosts",
            ask("/c", "Host: a\r\nHost: b\r\n"),
            "400",
            "200 GET /c",
        ),
        differs(
            "a host with a user",
            ask("/c", "Host: u@a\r\n"),
            "400",
            "200 GET /c",
        ),
        same("a host with a path", ask("/c", "Host: a/b\r\n"), "400"),
        same("a host with a space", ask("/c", "Host: a b\r\n"), "400"),
        same(
            "an endless target",
            ask(&format!("/{}", "x".repeat(70_000)), "Host: a\r\n"),
            "431",
        ),
        same(
            "an endless header",
            get(&format!("b: {}\r\n", "x".repeat(70_000))),
            "431",
        ),
        same(
            "an endless name",
            get(&format!("{}: b\r\n", "x".repeat(70_000))),
            "431",
        ),
        same("101 headers and more", get(&"b: c\r\n".repeat(120)), "431"),
        differs("endless empty lines", "\r\n".repeat(40_000), "431", "nothing"),
    ]
}

#[test]
fn one_reading_of_http_1() -> anyhow::Result<()> {
    let server = server()?;
    let manager = [json!({})];
    let (ours, envoy) = (
        Proxy::start(Kind::Ours, server, &manager)?,
        Proxy::start(Kind::Envoy, server, &manager)?,
    );
    let cases = [lengths(), chunks(), lines(), targets()].concat();
    let before = ours.counter("http.in.downstream_cx_protocol_error")?;
    each(&cases, |case| {
        let (one, other) = (
            outcome(ours.connect(0)?, case.bytes.as_bytes())?,
            outcome(envoy.connect(0)?, case.bytes.as_bytes())?,
        );
        let expected = (case.ours.to_owned(), case.envoy.to_owned());
        let name = case.name;
        ensure!(
            (&one, &other) == (&expected.0, &expected.1),
            "{name}: ours {one:?}, Envoy {other:?}"
        );
        Ok(())
    })?;
    let refused = cases.iter().filter(|case| !case.ours.contains("200")).count();
    let counted = ours.counter("http.in.downstream_cx_protocol_error")? - before;
    // CONNECT and hosts are refused by the connection manager, not by the codec.
    ensure!(
        counted as usize + 10 >= refused,
        "{counted} of {refused} were counted"
    );
    ensure!(
        ours.counter("http1.header_overflow")? >= 4,
        "large heads are counted"
    );
    ours.serves(0)
}
