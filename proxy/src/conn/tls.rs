//! What TLS proved about a connection, as facts for rules, labels and logs.

use std::{borrow::Cow, sync::Arc};

use mesh_runtime::tls::uri_sans;
use rustls::{CommonState, ProtocolVersion};

use crate::observe::record::TlsFacts;

/// Reads the facts of a finished handshake.
pub fn facts(session: &CommonState, server_name: Option<Arc<str>>) -> TlsFacts {
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Cow::Borrowed("TLSv1.3"),
        Some(ProtocolVersion::TLSv1_2) => Cow::Borrowed("TLSv1.2"),
        Some(other) => Cow::Owned(format!("{other:?}")),
        None => Cow::Borrowed(""),
    };
    let cipher = session
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .map_or(Cow::Borrowed(""), Cow::Borrowed);
    let alpn = session
        .alpn_protocol()
        .map(|name| Arc::from(String::from_utf8_lossy(name)));
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let peer_uris = leaf
        .map(uri_sans)
        .unwrap_or_default()
        .into_iter()
        .map(Arc::from)
        .collect();
    TlsFacts {
        version,
        cipher,
        server_name,
        alpn,
        peer_uris,
        peer_hash: leaf.map(|leaf| fingerprint(leaf)).unwrap_or_default(),
        ..TlsFacts::default()
    }
}

/// SHA-256 of a certificate, as people write it.
fn fingerprint(der: &[u8]) -> Box<str> {
    use std::fmt::Write;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut text = String::with_capacity(64);
    for byte in digest.as_ref() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}
