//! Peers that send slowly, read slowly, or are there no longer.

use super::{
    bench::{Kind, LIMIT, Proxy, read_until_quiet, server},
    floods::{frames, get, hello},
};
use anyhow::ensure;
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// All limits of the connection manager are one second.
fn proxy() -> anyhow::Result<Proxy> {
    let limits = json!({
        "request_headers_timeout": "1s",
        "stream_idle_timeout": "1s",
        "drain_timeout": "1s",
        "common_http_protocol_options": {"idle_timeout": "1s"},
    });
    Proxy::start(Kind::Ours, server()?, &[limits])
}

/// Everything until the end, which must come.
fn end(stream: &mut TcpStream) -> anyhow::Result<(Vec<u8>, Duration)> {
    stream.set_read_timeout(Some(LIMIT))?;
    let start = Instant::now();
    let mut bytes = Vec::new();
    // A reset is an end as well.
    if let Err(error) = stream.read_to_end(&mut bytes) {
        ensure!(
            error.kind() != std::io::ErrorKind::WouldBlock,
            "still open after {LIMIT:?}"
        );
    }
    Ok((bytes, start.elapsed()))
}

fn status(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer)
        .split(' ')
        .nth(1)
        .unwrap_or("none")
        .to_owned()
}

#[test]
fn slow_senders_are_told_so() -> anyhow::Result<()> {
    let proxy = proxy()?;
    for (name, bytes, counter) in [
        (
            "half a head",
            "GET / HTTP/1.1\r\nHost:",
            "http.in.downstream_rq_header_timeout",
        ),
        (
            "half a body",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
            "http.in.downstream_rq_idle_timeout",
        ),
    ] {
        let before = proxy.counter(counter)?;
        let mut stream = proxy.connect(0)?;
        stream.write_all(bytes.as_bytes())?;
        let (answer, after) = end(&mut stream)?;
        ensure!(
            status(&answer) == "408",
            "{name} got {:?}",
            String::from_utf8_lossy(&answer)
        );
        ensure!(after < Duration::from_secs(8), "{name} was held for {after:?}");
        proxy.grows(counter, before)?;
    }
    // One byte now and then does not keep a head open.
    let mut stream = proxy.connect(0)?;
    let start = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: endless"
        .iter()
        .chain(std::iter::repeat(&b'x'))
    {
        if stream.write_all(&[*byte]).is_err() || start.elapsed() > LIMIT {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(
        start.elapsed() < Duration::from_secs(8),
        "a head may take {:?}",
        start.elapsed()
    );
    proxy.serves(0)
}

#[test]
fn readers_that_do_not_read_are_left() -> anyhow::Result<()> {
    let proxy = proxy()?;
    let counter = "http.in.downstream_rq_idle_timeout";
    let (before, memory) = (proxy.counter(counter)?, proxy.memory()?);
    // HTTP/1.1: a long answer, and nobody reads.
    let mut one = proxy.connect(0)?;
    one.write_all(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n")?;
    proxy.grows(counter, before)?;
    // HTTP/2: a window of nothing.
    let before = proxy.counter(counter)?;
    let mut two = proxy.connect(0)?;
    two.write_all(&[hello(&[0, 4, 0, 0, 0, 0]), get(1, "/much")].concat())?;
    proxy.grows(counter, before)?;
    let (bytes, _) = read_until_quiet(&mut two);
    let reset = frames(&bytes)
        .iter()
        .any(|(kind, stream, _)| (*kind, *stream) == (3, 1));
    ensure!(reset, "the stream should be reset: {:?}", frames(&bytes));
    let after = proxy.memory()?;
    ensure!(
        after < memory + (24 << 10),
        "memory went from {memory} to {after} KiB"
    );
    proxy.serves(0)
}

#[test]
fn peers_that_are_gone_are_left() -> anyhow::Result<()> {
    let proxy = proxy()?;
    let counter = "http.in.downstream_cx_idle_timeout";
    for (name, bytes) in [
        (
            "nothing after an answer",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        ),
        ("half of HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\n".to_vec()),
        // It acknowledges no GOAWAY.
        ("HTTP/2 and no word more", [hello(&[]), get(1, "/")].concat()),
        ("HTTP/2 without a stream", hello(&[])),
    ] {
        let before = proxy.counter(counter)?;
        let mut stream = proxy.connect(0)?;
        stream.write_all(&bytes)?;
        let (_, after) = end(&mut stream)?;
        ensure!(after < Duration::from_secs(12), "{name}: held for {after:?}");
        if name != "half of HTTP/2's preface" {
            proxy.grows(counter, before)?;
        }
    }
    Ok(())
}
