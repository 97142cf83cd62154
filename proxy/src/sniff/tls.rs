//! A TLS ClientHello (RFC 8446, 4.1.2): server name (RFC 6066) and application protocols (RFC 7301). Nothing is
//! verified here; the handshake will do that.

use super::{MAX_BYTES, Sniff};

/// What a ClientHello tells in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Lower-cased.
    pub server_name: Option<String>,
    /// In the client's order of preference.
    pub application_protocols: Vec<Vec<u8>>,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Is this the beginning of TLS, and what does it say?
pub fn hello(bytes: &[u8]) -> Sniff<Hello> {
    match message(bytes) {
        Message::Whole(message) => parse(&message).map_or(Sniff::Not, Sniff::Found),
        Message::Partial if bytes.len() < MAX_BYTES => Sniff::NeedMore,
        Message::Partial | Message::Other => Sniff::Not,
    }
}

enum Message {
    Whole(Vec<u8>),
    Partial,
    Other,
}

/// The handshake message, put together from its records.
fn message(bytes: &[u8]) -> Message {
    let mut rest = bytes;
    let mut message: Vec<u8> = Vec::new();
    loop {
        // A record: type, legacy version 3.x, length.
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3)
        {
            return Message::Other;
        }
        let Some((header, body)) = rest.split_at_checked(5) else {
            return Message::Partial;
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > (1 << 14) {
            return Message::Other;
        }
        let part = &body[..length.min(body.len())];
        message.extend_from_slice(part);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Message::Other;
        }
        if let Some(header) = message.get(..4) {
            let whole =
                4 + (usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]));
            if whole > MAX_BYTES {
                return Message::Other;
            }
            if message.len() >= whole {
                message.truncate(whole);
                return Message::Whole(message.split_off(4));
            }
        }
        if body.len() < length {
            return Message::Partial;
        }
        rest = &body[length..];
    }
}

/// Reads big-endian lengths; anything that does not fit ends the reading.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<usize> {
        self.take(1).map(|bytes| usize::from(bytes[0]))
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length)
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

fn parse(message: &[u8]) -> Option<Hello> {
    let mut reader = Reader(message);
    reader.take(2 + 32)?;
    reader.short()?;
    reader.long()?;
    reader.short()?;
    let mut hello = Hello::default();
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(reader.long()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.long()?;
        match kind {
            SERVER_NAME => hello.server_name = server_name(body),
            ALPN => hello.application_protocols = protocols(body)?,
            _ => {}
        }
    }
    Some(hello)
}

fn server_name(body: &[u8]) -> Option<String> {
    let mut list = Reader(Reader(body).long()?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.long()?;
        // 0 is a host name, the only kind there is.
        if kind == 0 && !name.is_empty() && name.len() <= 255 {
            return std::str::from_utf8(name).ok().map(str::to_ascii_lowercase);
        }
    }
    None
}

fn protocols(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader(Reader(body).long()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.short()?.to_vec());
    }
    Some(protocols)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A real ClientHello, as rustls writes it.
    fn real(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_real_hello_at_every_length() {
        let bytes = real("Reviews.Example.com", &[b"istio-h2", b"h2"]);
        let expect = Hello {
            server_name: Some("reviews.example.com".into()),
            application_protocols: vec![b"istio-h2".to_vec(), b"h2".to_vec()],
        };
        assert_eq!(hello(&bytes), Sniff::Found(expect.clone()));
        for length in 0..bytes.len() {
            assert_eq!(hello(&bytes[..length]), Sniff::NeedMore, "{length}");
        }
        // Bytes that follow do not disturb.
        assert_eq!(hello(&[bytes.as_slice(), b"more"].concat()), Sniff::Found(expect));
    }

    #[test]
    fn a_hello_in_several_records() {
        let bytes = real("a.com", &[]);
        let body = &bytes[5..];
        let mut split = Vec::new();
        for part in body.chunks(100) {
            split.extend_from_slice(&[HANDSHAKE, 3, 1]);
            split.extend_from_slice(&(part.len() as u16).to_be_bytes());
            split.extend_from_slice(part);
        }
        let Sniff::Found(hello) = hello(&split) else {
            panic!()
        };
        assert_eq!(hello.server_name.as_deref(), Some("a.com"));
    }

    #[test]
    fn other_bytes_are_not_tls() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x02",
            b"\x17",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x00\x05\x02",
        ] {
            assert_eq!(hello(bytes), Sniff::Not, "{bytes:?}");
        }
        assert_eq!(hello(b""), Sniff::NeedMore);
    }

    #[test]
    fn verdicts_over_damaged_hellos_hold() {
        let corpus = [
            real("a.com", &[]),
            real("Reviews.Example.com", &[b"istio-h2", b"h2"]),
            real("b.org", &[b"http/1.1"]),
        ];
        let corpus: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
        crate::testing::damaged(&corpus, 10_000, |bytes| {
            crate::testing::verdicts_hold(bytes, hello)
        });
    }

    #[test]
    fn damaged_hellos_do_no_harm() {
        let bytes = real("a.com", &[b"h2"]);
        for at in 5..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                // Any verdict will do, as long as there is one.
                let _ = hello(&damaged);
            }
        }
        let endless = [
            &[HANDSHAKE, 3, 1, 0x40, 0, CLIENT_HELLO, 0xff, 0xff, 0xff][..],
            &[0; 100],
        ]
        .concat();
        assert_eq!(hello(&endless), Sniff::Not);
    }
}
