use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, SignatureAlgorithm,
};

use super::*;
use crate::{authority::signer::Wish, testing};

const DAY: Duration = Duration::from_secs(86_400);

struct Ca {
    pem: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

/// How one authority of a test differs from an ordinary one.
#[derive(Clone, Copy)]
struct Odd {
    path_length: Option<u8>,
    ca: bool,
    sign: bool,
    from: i32,
    days: i32,
    algorithm: &'static SignatureAlgorithm,
}

impl Default for Odd {
    fn default() -> Self {
        Self {
            path_length: None,
            ca: true,
            sign: true,
            from: -1,
            days: 30,
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

fn day(now: SystemTime, days: i32) -> SystemTime {
    if days < 0 {
        now - DAY * days.unsigned_abs()
    } else {
        now + DAY * days.unsigned_abs()
    }
}

fn ca(name: &str, above: Option<&Ca>, odd: Odd, now: SystemTime) -> Ca {
    let key = KeyPair::generate_for(odd.algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = match (odd.ca, odd.path_length) {
        (false, _) => IsCa::ExplicitNoCa,
        (true, None) => IsCa::Ca(BasicConstraints::Unconstrained),
        (true, Some(length)) => IsCa::Ca(BasicConstraints::Constrained(length)),
    };
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if odd.sign {
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    }
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = day(now, odd.from).into();
    params.not_after = day(now, odd.days).into();
    let certificate = match above {
        Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Ca {
        pem: certificate.pem(),
        key: key.serialize_pem(),
        issuer: Issuer::from_ca_cert_der(certificate.der(), key).unwrap(),
    }
}

fn material<'a>(ca: &'a Ca, chain: &'a str, roots: &'a str) -> Material<'a> {
    Material {
        certificate: ca.pem.as_bytes(),
        key: ca.key.as_bytes(),
        chain: chain.as_bytes(),
        roots: roots.as_bytes(),
    }
}

#[test]
fn the_chain_is_complete_and_the_leaf_ends_with_it() {
    let now = SystemTime::now();
    let root = ca(
        "root",
        None,
        Odd {
            days: 300,
            ..Odd::default()
        },
        now,
    );
    let odd = Odd {
        days: 10,
        algorithm: &PKCS_ECDSA_P384_SHA384,
        ..Odd::default()
    };
    let middle = ca("middle", Some(&root), odd, now);
    let issuing = ca(
        "issuing",
        Some(&middle),
        Odd {
            days: 20,
            path_length: Some(0),
            ..Odd::default()
        },
        now,
    );
    let other = ca("other", None, Odd::default(), now);
    let roots = format!("{}{}", other.pem, root.pem);
    // In any order, with the signing certificate and the root again, as people paste it.
    for chain in [
        format!("{}{}{}", root.pem, issuing.pem, middle.pem),
        format!("{}{}", issuing.pem, middle.pem),
        middle.pem.clone(),
    ] {
        let signer = read(material(&issuing, &chain, &roots), now).unwrap();
        assert!(signer.end() <= now + DAY * 10, "the middle one ends first");
        assert_eq!(signer.others().len(), 1);
        let wish = Wish {
            id: &"spiffe://cluster.local/ns/default/sa/a".parse().unwrap(),
            dns: &[],
            key: &testing::proven_key(),
            life: DAY * 100,
        };
        let signed = signer.sign(&wish, [1; 16], now).unwrap();
        let expect = [&issuing.pem, &middle.pem, &root.pem];
        for (served, expect) in signed.chain[1..].iter().zip(expect) {
            assert_eq!(
                read_certificates(served.as_bytes()).unwrap(),
                read_certificates(expect.as_bytes()).unwrap()
            );
        }
        assert_eq!(signed.chain.len(), 4);
        assert!(signed.not_after <= now + DAY * 10);
        verifies(&signed, &root, now);
    }
}

/// What a peer does with the chain.
fn verifies(signed: &crate::authority::signer::Signed, root: &Ca, now: SystemTime) {
    let mut store = rustls::RootCertStore::empty();
    store
        .add(read_certificates(root.pem.as_bytes()).unwrap().remove(0))
        .unwrap();
    let provider = mesh_runtime::tls::provider();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(store.into(), provider)
        .build()
        .unwrap();
    let between: Vec<CertificateDer<'static>> = signed.chain[1..signed.chain.len() - 1]
        .iter()
        .flat_map(|pem| read_certificates(pem.as_bytes()).unwrap())
        .collect();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = rustls_pki_types::UnixTime::since_unix_epoch(seconds);
    verifier.verify_client_cert(&signed.leaf, &between, now).unwrap();
}

#[test]
fn a_root_of_the_users_own_and_foreign_key_forms() {
    let now = SystemTime::now();
    let root = ca("root", None, Odd::default(), now);
    let signer = read(material(&root, "", &root.pem), now).unwrap();
    assert!(signer.others().is_empty());
    // Made by `openssl req -x509 -newkey rsa:2048` with its key in PKCS #1, and `openssl ecparam -genkey`.
    for (certificate, key) in [
        (include_str!("rsa-cert.pem"), include_str!("rsa-key.pem")),
        (include_str!("ec-cert.pem"), include_str!("ec-key.pem")),
    ] {
        let material = Material {
            certificate: certificate.as_bytes(),
            key: key.as_bytes(),
            chain: b"\n",
            roots: certificate.as_bytes(),
        };
        let wish = Wish {
            id: &"spiffe://cluster.local/ns/default/sa/a".parse().unwrap(),
            dns: &[],
            key: &testing::proven_key(),
            life: DAY,
        };
        read(material, now).unwrap().sign(&wish, [1; 16], now).unwrap();
    }
}

#[test]
fn refusals_name_the_text_and_the_reason() {
    let now = SystemTime::now();
    let odd = Odd::default();
    let root = ca("root", None, odd, now);
    let issuing = ca("issuing", Some(&root), odd, now);
    let expired = ca(
        "expired",
        Some(&root),
        Odd {
            from: -20,
            days: -1,
            ..odd
        },
        now,
    );
    let early = ca("early", Some(&root), Odd { from: 2, ..odd }, now);
    let plain = ca("plain", Some(&root), Odd { ca: false, ..odd }, now);
    let mute = ca("mute", Some(&root), Odd { sign: false, ..odd }, now);
    let short = ca(
        "short",
        None,
        Odd {
            path_length: Some(0),
            ..odd
        },
        now,
    );
    let below = ca("below", Some(&short), odd, now);
    let stranger = ca("root", None, odd, now);
    let many = root.pem.repeat(MAX_ROOTS + 1);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let case = |material: Material<'_>, expect: &str| {
        let error = read(material, now).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
    };
    let good = material(&issuing, "", &root.pem);
    assert!(read(good, now).is_ok());
    case(
        Material {
            key: root.key.as_bytes(),
            ..good
        },
        "ca-key.pem is not the key of ca-cert.pem",
    );
    case(Material { key: b"", ..good }, "ca-key.pem is missing");
    case(
        Material {
            certificate: b"",
            ..good
        },
        "ca-cert.pem is missing",
    );
    case(
        Material {
            roots: b" \n",
            ..good
        },
        "root-cert.pem is missing",
    );
    case(Material { key: b"x", ..good }, "ca-key.pem");
    case(
        Material {
            roots: broken.as_bytes(),
            ..good
        },
        "root-cert.pem",
    );
    case(Material { chain: b"x", ..good }, "cert-chain.pem");
    case(
        Material {
            roots: stranger.pem.as_bytes(),
            ..good
        },
        "no chain leads from \"CN=issuing\"",
    );
    case(
        Material {
            roots: many.as_bytes(),
            ..good
        },
        "17 roots",
    );
    case(
        material(&expired, "", &root.pem),
        "\"CN=expired\" ended 86400 s ago",
    );
    case(material(&early, "", &root.pem), "is not valid for another 172");
    case(
        material(&plain, "", &root.pem),
        "is not a certificate authority's",
    );
    case(material(&mute, "", &root.pem), "keyCertSign");
    case(
        material(&below, "", &short.pem),
        "allows 0 authorities below it, but there are 1",
    );
}
