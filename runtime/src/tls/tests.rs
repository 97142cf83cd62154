//! Handshakes between two ends in this process: who is let in, and who is not.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
};

use super::*;

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    Authority {
        certificate,
        issuer: Issuer::new(params, key),
    }
}

fn leaf(authority: &Authority, name: &str, expired: bool) -> Identity {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(if expired { 2021 } else { 2200 }, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let der = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Identity::new(
        vec![certificate.der().clone()],
        der,
        vec![authority.certificate.clone()],
    )
    .unwrap()
}

fn cell(identity: Identity) -> IdentityCell {
    let cell = IdentityCell::new();
    cell.set(identity).unwrap();
    cell
}

/// Runs a handshake in memory: the server's view of it, or the first error of either side.
fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(ServerConnection, HandshakeKind), String> {
    let name = ServerName::try_from("peer.test").unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server
                .process_new_packets()
                .map_err(|error| format!("server: {error}"))?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client
                .process_new_packets()
                .map_err(|error| format!("client: {error}"))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let kind = server.handshake_kind().unwrap();
    Ok((server, kind))
}

const A: &str = "spiffe://cluster.local/ns/default/sa/a";
const B: &str = "spiffe://cluster.local/ns/default/sa/b";

fn only(name: &str) -> PeerNames {
    PeerNames::Exact(vec![name.into()])
}

#[test]
fn who_is_let_in() {
    let (ours, other) = (authority(), authority());
    let client = |identity, expect| Arc::new(client_config(&cell(identity), expect, &["h2"]).unwrap());
    let server =
        |identity, auth, expect| Arc::new(server_config(&cell(identity), auth, expect, &["h2"]).unwrap());
    let good_client = || client(leaf(&ours, A, false), only(B));
    let good_server = || server(leaf(&ours, B, false), ClientAuth::Required, only(A));
    let anonymous = || {
        Arc::new(
            client_config_with_roots(std::slice::from_ref(&ours.certificate), None, only(B), &["h2"])
                .unwrap(),
        )
    };

    let (connection, _) = shake(good_client(), good_server()).unwrap();
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(uri_sans(&connection.peer_certificates().unwrap()[0]), [A]);

    let optional = server(leaf(&ours, B, false), ClientAuth::Optional, PeerNames::Any);
    assert!(shake(anonymous(), optional.clone()).is_ok());
    assert!(
        shake(
            anonymous(),
            server(leaf(&ours, B, false), ClientAuth::None, PeerNames::Any)
        )
        .is_ok()
    );

    for (name, client, server, expect) in [
        (
            "server is another",
            client(leaf(&ours, A, false), only(A)),
            good_server(),
            "client: ",
        ),
        (
            "client is another",
            good_client(),
            server(leaf(&ours, B, false), ClientAuth::Required, only(B)),
            "server: ",
        ),
        (
            "client expired",
            client(leaf(&ours, A, true), only(B)),
            good_server(),
            "server: ",
        ),
        (
            "server expired",
            good_client(),
            server(leaf(&ours, B, true), ClientAuth::None, PeerNames::Any),
            "client: ",
        ),
        (
            "client of another root",
            client(leaf(&other, A, false), only(B)),
            good_server(),
            "client: ",
        ),
        (
            "server of another root",
            good_client(),
            server(leaf(&other, B, false), ClientAuth::None, only(A)),
            "client: ",
        ),
        ("no client certificate", anonymous(), good_server(), "server: "),
        (
            "optional, but wrong",
            client(leaf(&ours, A, true), only(B)),
            optional,
            "server: ",
        ),
    ] {
        match shake(client, server) {
            Ok(_) => panic!("{name}: let in"),
            Err(error) => assert!(error.starts_with(expect), "{name}: {error}"),
        }
    }
}

#[test]
fn a_stranger_with_our_roots_is_refused_by_the_server() {
    let (ours, other) = (authority(), authority());
    // Trusts our server, but its own certificate is of another root.
    let stranger = cell(leaf(&other, A, false));
    let roots = [ours.certificate.clone()];
    let client = client_config_with_roots(&roots, Some(&stranger), only(B), &[]).unwrap();
    let server = server_config(
        &cell(leaf(&ours, B, false)),
        ClientAuth::Required,
        PeerNames::Any,
        &[],
    )
    .unwrap();
    let error = shake(Arc::new(client), Arc::new(server)).err().unwrap();
    assert!(error.starts_with("server: invalid peer certificate"), "{error}");
}

#[test]
fn the_refusal_names_both_identities() {
    let ours = authority();
    let client = client_config(&cell(leaf(&ours, A, false)), only(A), &[]).unwrap();
    let server = server_config(
        &cell(leaf(&ours, B, false)),
        ClientAuth::None,
        PeerNames::Any,
        &[],
    )
    .unwrap();
    let error = shake(Arc::new(client), Arc::new(server)).err().unwrap();
    assert!(error.contains(A) && error.contains(B), "{error}");
}

#[test]
fn rotation_of_leaf_and_roots_needs_no_new_configuration() {
    let (old, new) = (authority(), authority());
    let (client_cell, server_cell) = (cell(leaf(&old, A, false)), cell(leaf(&old, B, false)));
    let client = Arc::new(client_config(&client_cell, only(B), &[]).unwrap());
    let server = Arc::new(server_config(&server_cell, ClientAuth::Required, only(A), &[]).unwrap());
    shake(client.clone(), server.clone()).unwrap();

    // Both roots are trusted while they change; then each side moves on alone.
    let both = vec![old.certificate.clone(), new.certificate.clone()];
    for cell in [&client_cell, &server_cell] {
        let trusting = cell.get().unwrap().with_roots(both.clone());
        cell.set(trusting).unwrap();
    }
    server_cell
        .set(leaf(&new, B, false).with_roots(both.clone()))
        .unwrap();
    let (connection, _) = shake(client.clone(), server.clone()).unwrap();
    assert_eq!(connection.peer_certificates().unwrap().len(), 1);
    client_cell.set(leaf(&new, A, false)).unwrap();
    server_cell.set(leaf(&new, B, false)).unwrap();
    shake(client.clone(), server.clone()).unwrap();

    // A server that still has the old leaf is no longer trusted by a client that forgot the old root.
    server_cell.set(leaf(&old, B, false).with_roots(both)).unwrap();
    assert!(shake(client, server).is_err());
}

#[test]
fn sessions_are_resumed_until_the_roots_change() {
    let (ours, other) = (authority(), authority());
    let (client_cell, server_cell) = (cell(leaf(&ours, A, false)), cell(leaf(&ours, B, false)));
    let client = Arc::new(client_config(&client_cell, only(B), &[]).unwrap());
    let server = Arc::new(server_config(&server_cell, ClientAuth::Required, only(A), &[]).unwrap());
    assert_eq!(
        shake(client.clone(), server.clone()).unwrap().1,
        HandshakeKind::Full
    );
    let (connection, kind) = shake(client.clone(), server.clone()).unwrap();
    assert_eq!(kind, HandshakeKind::Resumed);
    assert_eq!(
        uri_sans(&connection.peer_certificates().unwrap()[0]),
        [A],
        "a resumed session keeps its peer"
    );

    let more = server_cell
        .get()
        .unwrap()
        .with_roots(vec![ours.certificate.clone(), other.certificate.clone()]);
    server_cell.set(more).unwrap();
    assert_eq!(shake(client, server).unwrap().1, HandshakeKind::Full);
}

#[test]
fn an_identity_that_cannot_work_is_refused_and_the_old_one_stays() {
    let ours = authority();
    let cell = cell(leaf(&ours, A, false));
    let serial = cell.get().unwrap().serial.clone();

    let (mut wrong_key, donor) = (leaf(&ours, A, false), leaf(&ours, A, false));
    wrong_key.key = donor.key.clone_key();
    assert!(matches!(cell.set(wrong_key), Err(TlsError::KeyMismatch)));
    assert!(matches!(
        cell.set(leaf(&ours, A, false).with_roots(vec![])),
        Err(TlsError::NoRoots)
    ));
    assert_eq!(cell.get().unwrap().serial, serial);
}

#[test]
fn empty_cells_refuse_handshakes() {
    let ours = authority();
    let empty = IdentityCell::new();
    let server = Arc::new(server_config(&empty, ClientAuth::Required, PeerNames::Any, &[]).unwrap());
    let client = Arc::new(client_config(&cell(leaf(&ours, A, false)), PeerNames::Any, &[]).unwrap());
    assert!(shake(client, server.clone()).is_err());
    let client = Arc::new(client_config(&empty, PeerNames::Any, &[]).unwrap());
    let server = Arc::new(
        server_config(
            &cell(leaf(&ours, B, false)),
            ClientAuth::None,
            PeerNames::Any,
            &[],
        )
        .unwrap(),
    );
    assert!(shake(client, server).is_err());
}

#[test]
fn reads_leaf_and_pem() {
    let ours = authority();
    let identity = leaf(&ours, A, false);
    assert_eq!(identity.uris(), [A]);
    assert!(identity.is_valid_at(SystemTime::now()));
    assert!(!identity.serial.is_empty());
    assert!(read_certificates(b"nothing here").is_err());
    assert!(read_key(b"nothing here").is_err());
}
