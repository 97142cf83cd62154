//! Looks at the first bytes of a connection: a TLS hello, HTTP, or neither. The bytes are kept and read again by whoever
//! serves the connection. A client that says nothing is waited for only briefly ([`GRACE`]; where TLS may come, as
//! [`super::grace`] says): its server may be the one to speak first, and whoever does decides (see `conn::tcp`).

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};

use crate::{
    config::listener::Inspect,
    sniff::{
        Sniff,
        http::{self, Version},
        proxy_protocol,
        tls::{self, Hello},
    },
};

/// How long a silent client is given before the server may speak first.
pub const GRACE: Duration = Duration::from_millis(20);
/// The most that is looked at: a TLS record is at most 16 KiB and a hello fits into one.
const LIMIT: usize = 17 * 1024;

/// What the first bytes say.
#[derive(Debug, Default)]
pub struct Peeked {
    /// Everything read so far, to be read again.
    pub bytes: Bytes,
    pub hello: Option<Hello>,
    pub http: Option<Version>,
    /// From a PROXY protocol header, which is no longer among the bytes.
    pub proxied: Option<proxy_protocol::Header>,
    /// The client said nothing in the time it was given.
    pub silent: bool,
    /// It ended before anything could be told.
    pub ended: bool,
}

/// Reads until the questions of `inspect` are answered, or `limit` has passed (`None`: no limit). `grace` cuts the wait
/// for the very first byte short.
pub async fn peek(
    tcp: &mut TcpStream,
    inspect: Inspect,
    limit: Option<Duration>,
    grace: Option<Duration>,
) -> io::Result<Peeked> {
    let mut buffer = BytesMut::with_capacity(2048);
    let start = Instant::now();
    let mut peeked = Peeked::default();
    let mut proxy_asked = inspect.proxy_protocol;
    loop {
        if proxy_asked {
            match proxy_protocol::header(&buffer) {
                Sniff::NeedMore => {}
                Sniff::Not if inspect.proxy_protocol_optional => proxy_asked = false,
                Sniff::Not => {
                    let why = "the listener expects a PROXY protocol header and got something else";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                Sniff::Found(header) => {
                    let _ = buffer.split_to(header.length);
                    peeked.proxied = Some(header);
                    proxy_asked = false;
                }
            }
        }
        if !proxy_asked && answer(&buffer, inspect, &mut peeked) {
            break;
        }
        let wait = match (limit, grace) {
            (_, Some(grace)) if buffer.is_empty() => Some(grace),
            (limit, _) => limit.map(|limit| limit.saturating_sub(start.elapsed())),
        };
        buffer.reserve(2048);
        let read = tcp.read_buf(&mut buffer);
        let count = match wait {
            None => read.await?,
            Some(wait) => match tokio::time::timeout(wait, read).await {
                Ok(result) => result?,
                Err(_) => {
                    peeked.silent = true;
                    break;
                }
            },
        };
        if count == 0 {
            peeked.ended = true;
            break;
        }
    }
    peeked.bytes = buffer.freeze();
    Ok(peeked)
}

/// Are all questions answered by these bytes?
pub fn answer(buffer: &[u8], inspect: Inspect, peeked: &mut Peeked) -> bool {
    if inspect.tls && peeked.hello.is_none() {
        match tls::hello(buffer) {
            Sniff::Found(hello) => {
                peeked.hello = Some(hello);
                return true;
            }
            Sniff::NeedMore => return buffer.len() >= LIMIT,
            Sniff::Not => {}
        }
    }
    if inspect.http && peeked.http.is_none() {
        match http::detect(buffer) {
            Sniff::Found(version) => peeked.http = Some(version),
            Sniff::NeedMore => return buffer.len() >= LIMIT,
            Sniff::Not => {}
        }
    }
    !buffer.is_empty() || !inspect.needs_bytes()
}
