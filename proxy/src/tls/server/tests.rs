//! Handshakes between a server at the edge and clients in this process: who is let in, and what is agreed.

use std::collections::HashMap;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm as KeyKind,
};
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, RootCertStore, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};

use super::*;
use crate::config::{
    matcher::StringMatch,
    secret::{KeySource, Secret, SecretKind, Source},
    transport::{Pins, SanKind, SanMatch},
};

struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

struct Leaf {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Authority {
        pem: certificate.pem(),
        der: certificate.der().clone(),
        issuer: Issuer::new(params, key),
    }
}

fn leaf(authority: &Authority, names: Vec<SanType>, serial: u64, kind: &'static KeyKind) -> Leaf {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate_for(kind).unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    Leaf {
        pem: certificate.pem(),
        der: certificate.der().clone(),
        key,
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn revocation_list(authority: &Authority, serials: &[u64], until: i32) -> Source {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: rcgen::date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = params.signed_by(&authority.issuer).unwrap();
    Source::Inline(list.pem().unwrap().into_bytes().into())
}

fn certificate(leaf: &Leaf) -> SecretRef {
    let text = |text: String| Source::Inline(text.into_bytes().into());
    SecretRef::Inline(Arc::new(Secret {
        name: "c".into(),
        kind: SecretKind::Certificate {
            chain: text(leaf.pem.clone()),
            key: KeySource(text(leaf.key.serialize_pem())),
        },
    }))
}

fn trusting(authority: &Authority) -> Validation {
    Validation {
        trusted: Some(SecretRef::Inline(Arc::new(Secret {
            name: "r".into(),
            kind: SecretKind::Validation {
                roots: Source::Inline(authority.pem.clone().into_bytes().into()),
                revoked: None,
            },
        }))),
        ..Validation::default()
    }
}

fn settings(certificates: Vec<SecretRef>) -> DownstreamTls {
    DownstreamTls {
        certificates,
        validation: None,
        require_client_certificate: false,
        alpn: Vec::new(),
        offer: Offer::default(),
        session_tickets: true,
        session_timeout: None,
    }
}

fn server(tls: &DownstreamTls) -> Result<Arc<ServerConfig>, SetupError> {
    let (own, secrets) = (mesh_runtime::tls::IdentityCell::new(), HashMap::new());
    build(
        tls,
        &Material {
            own: &own,
            secrets: &secrets,
        },
    )
}

fn client(authority: &Authority, leaf: Option<&Leaf>, offer: &Offer) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(offered(offer))
        .with_protocol_versions(&versions(offer.versions))
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match leaf {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(leaf.key.serialize_der()).into();
            builder
                .with_client_auth_cert(vec![leaf.der.clone()], key)
                .unwrap()
        }
    })
}

/// Both ends after the handshake, or the first error of either.
fn shake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let name = ServerName::try_from("shop.example.com").unwrap();
    let mut client = ClientConnection::new(client, name)?;
    let mut server = ServerConnection::new(server)?;
    for _ in 0..5 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((server, client))
}

#[test]
fn clients_are_checked_by_all_that_was_asked() {
    let (ours, theirs) = (authority(), authority());
    let shop = leaf(&ours, vec![dns("shop.example.com")], 1, &PKCS_ECDSA_P256_SHA256);
    let names = vec![
        dns("*.clients.example.com"),
        SanType::URI("spiffe://outside/client".try_into().unwrap()),
        SanType::Rfc822Name("ann@example.com".try_into().unwrap()),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
    ];
    let known = leaf(&ours, names.clone(), 7, &PKCS_ECDSA_P256_SHA256);
    let stranger = leaf(&theirs, names, 8, &PKCS_ECDSA_P256_SHA256);
    let comes = |validation: Validation, required: bool, who: Option<&Leaf>| {
        let tls = DownstreamTls {
            validation: Some(validation),
            require_client_certificate: required,
            ..settings(vec![certificate(&shop)])
        };
        shake(server(&tls).unwrap(), client(&ours, who, &Offer::default())).is_ok()
    };
    let trusting = || trusting(&ours);
    for (required, who, expect) in [
        (true, Some(&known), true),
        (true, Some(&stranger), false),
        (true, None, false),
        (false, Some(&known), true),
        (false, Some(&stranger), false),
        (false, None, true),
    ] {
        assert_eq!(comes(trusting(), required, who), expect, "{required}");
    }

    let named = |kind: SanKind, value: &str| Validation {
        names: vec![SanMatch {
            kind,
            rule: StringMatch::Exact {
                value: value.as_bytes().into(),
                ignore_case: false,
            },
        }],
        ..trusting()
    };
    for (kind, value, expect) in [
        (SanKind::Dns, "a.clients.example.com", true),
        (SanKind::Dns, "a.b.clients.example.com", false),
        (SanKind::Dns, "clients.example.com", false),
        (SanKind::Uri, "spiffe://outside/client", true),
        (SanKind::Uri, "spiffe://outside/other", false),
        (SanKind::Dns, "spiffe://outside/client", false),
        (SanKind::Email, "ann@example.com", true),
        (SanKind::Ip, "192.0.2.7", true),
        (SanKind::Ip, "192.0.2.8", false),
    ] {
        assert_eq!(comes(named(kind, value), true, Some(&known)), expect, "{value}");
    }

    let hash = |bytes: &[u8]| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        <[u8; 32]>::try_from(digest.as_ref()).unwrap()
    };
    let pinned = |certificates: Vec<[u8; 32]>, keys: Vec<[u8; 32]>| Validation {
        pins: Pins { certificates, keys },
        ..trusting()
    };
    let key = {
        use x509_parser::prelude::FromDer;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&known.der).unwrap();
        hash(parsed.public_key().raw)
    };
    let of = hash(&known.der);
    assert!(comes(pinned(vec![of], vec![]), true, Some(&known)));
    assert!(comes(pinned(vec![[0; 32]], vec![key]), true, Some(&known)));
    assert!(!comes(pinned(vec![[0; 32]], vec![of]), true, Some(&known)));

    let revoked = |list: Source| Validation {
        revoked: Some(list),
        ..trusting()
    };
    assert!(comes(
        revoked(revocation_list(&ours, &[9], 2200)),
        true,
        Some(&known)
    ));
    assert!(!comes(
        revoked(revocation_list(&ours, &[9, 7], 2200)),
        true,
        Some(&known)
    ));
    assert!(
        !comes(revoked(revocation_list(&ours, &[], 2021)), true, Some(&known)),
        "a list that is past its time says nothing"
    );

    let anybody = || Validation {
        accept_untrusted: true,
        ..named(SanKind::Ip, "192.0.2.8")
    };
    assert!(comes(anybody(), true, Some(&stranger)));
    assert!(
        !comes(anybody(), true, None),
        "a certificate must be shown all the same"
    );
}

#[test]
fn what_is_agreed_is_what_was_offered() {
    let ours = authority();
    let names = || vec![dns("shop.example.com")];
    let elliptic = leaf(&ours, names(), 1, &PKCS_ECDSA_P256_SHA256);
    let rsa = leaf(&ours, names(), 2, &PKCS_RSA_SHA256);
    let agree = |offer: Offer, theirs: &Offer| {
        let tls = DownstreamTls {
            offer,
            validation: Some(trusting(&ours)),
            ..settings(vec![certificate(&elliptic), certificate(&rsa)])
        };
        let (server, client) = shake(server(&tls).unwrap(), client(&ours, None, theirs)).ok()?;
        let suite = client.negotiated_cipher_suite().unwrap().suite();
        Some((
            server.protocol_version().unwrap(),
            suite.as_str().unwrap().to_owned(),
            server.negotiated_key_exchange_group().unwrap().name(),
        ))
    };
    let only = |tls12: bool| Versions { tls12, tls13: !tls12 };
    let of = |versions, ciphers: Option<Vec<Cipher>>, curves: Option<Vec<Curve>>| Offer {
        versions,
        ciphers,
        curves,
    };
    let all = Offer::default();
    let (version, _, _) = agree(of(only(true), None, None), &all).unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_2);
    assert!(agree(of(only(false), None, None), &of(only(true), None, None)).is_none());

    // Each of two certificates for the clients that need it.
    for (cipher, expect) in [
        (Cipher::EcdsaAes256, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (Cipher::RsaChacha20, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ] {
        let narrow = of(only(true), Some(vec![cipher]), None);
        let (_, suite, _) = agree(narrow.clone(), &all).unwrap();
        assert_eq!(suite, expect);
        let (_, suite, _) = agree(Offer::default(), &narrow).unwrap();
        assert_eq!(suite, expect);
    }
    let ours_only = of(only(true), Some(vec![Cipher::RsaAes128]), None);
    let theirs_only = of(only(true), Some(vec![Cipher::RsaAes256]), None);
    assert!(agree(ours_only, &theirs_only).is_none());

    let (_, _, group) = agree(of(Versions::default(), None, Some(vec![Curve::P384])), &all).unwrap();
    assert_eq!(group, NamedGroup::secp384r1);
    let first = of(Versions::default(), None, Some(vec![Curve::P256]));
    assert!(agree(of(Versions::default(), None, Some(vec![Curve::X25519])), &first).is_none());
}

#[test]
fn what_cannot_be_set_up_says_why() {
    let ours = authority();
    let shop = leaf(&ours, vec![dns("shop.example.com")], 1, &PKCS_ECDSA_P256_SHA256);
    let why = |tls: &DownstreamTls| server(tls).unwrap_err().to_string();
    let plain = settings(vec![certificate(&shop)]);
    let required = DownstreamTls {
        require_client_certificate: true,
        ..plain.clone()
    };
    assert!(why(&required).contains("trusted_ca"));
    let list = DownstreamTls {
        validation: Some(Validation {
            revoked: Some(Source::Inline(ours.pem.clone().into_bytes().into())),
            ..trusting(&ours)
        }),
        ..plain
    };
    assert!(why(&list).contains("no X509 CRL"), "{}", why(&list));
}
