//! Versions, ciphers and curves of TLS. Of those that are named, the ones that this proxy speaks are offered; what it
//! does not speak is weaker than what it does, so leaving it out narrows the offer and never widens it.

use std::mem::take;

use mesh_proto::envoy::extensions::transport_sockets::tls::v3::{self as pb, tls_parameters::TlsProtocol};

use super::super::{At, Result, done, refuse};
use crate::config::transport::{Cipher, Curve, Offer, Versions};

pub(super) fn read(mut value: pb::TlsParameters) -> Result<Offer> {
    let minimum = take(&mut value.tls_minimum_protocol_version);
    let maximum = take(&mut value.tls_maximum_protocol_version);
    let mut versions = Versions {
        tls12: minimum <= TlsProtocol::TlSv12 as i32
            && (maximum == 0 || maximum >= TlsProtocol::TlSv12 as i32),
        tls13: maximum == 0 || maximum >= TlsProtocol::TlSv13 as i32,
    };
    if !versions.tls12 && !versions.tls13 {
        return refuse("only TLS 1.2 and 1.3 are supported by this proxy").at("tls_maximum_protocol_version");
    }
    let ciphers = ciphers(&take(&mut value.cipher_suites));
    if ciphers.as_ref().is_some_and(Vec::is_empty) {
        // They are about TLS 1.2 alone.
        versions.tls12 = false;
        if !versions.tls13 {
            return refuse("names no cipher suite of TLS 1.2 that is supported by this proxy")
                .at("cipher_suites");
        }
    }
    let names = take(&mut value.ecdh_curves);
    let curves: Vec<Curve> = names.iter().filter_map(|name| Curve::named(name)).collect();
    if curves.is_empty() && !names.is_empty() {
        return refuse("names no curve that is supported by this proxy").at("ecdh_curves");
    }
    // Signatures are verified by all safe algorithms.
    value.signature_algorithms.clear();
    done(&value)?;
    Ok(Offer {
        versions,
        ciphers,
        curves: (!curves.is_empty()).then_some(curves),
    })
}

/// `[A|B]` are equally good; the first counts first here.
fn ciphers(names: &[String]) -> Option<Vec<Cipher>> {
    let single = names
        .iter()
        .flat_map(|name| name.trim_matches(['[', ']']).split('|'));
    (!names.is_empty()).then(|| single.filter_map(Cipher::named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(minimum: i32, maximum: i32, ciphers: &[&str], curves: &[&str]) -> Result<Offer> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        read(pb::TlsParameters {
            tls_minimum_protocol_version: minimum,
            tls_maximum_protocol_version: maximum,
            cipher_suites: owned(ciphers),
            ecdh_curves: owned(curves),
            ..pb::TlsParameters::default()
        })
    }

    #[test]
    fn what_is_offered() {
        let rsa = "ECDHE-RSA-AES256-GCM-SHA384";
        assert_eq!(parameters(0, 0, &[], &[]).unwrap(), Offer::default());
        let read = parameters(0, 0, &["AES128-SHA", rsa], &["P-521", "P-384", "X25519"]).unwrap();
        assert_eq!(read.ciphers, Some(vec![Cipher::RsaAes256]));
        assert_eq!(read.curves, Some(vec![Curve::P384, Curve::X25519]));
        let groups = parameters(
            0,
            0,
            &["[ECDHE-ECDSA-CHACHA20-POLY1305|ECDHE-RSA-AES128-GCM-SHA256]", rsa],
            &[],
        );
        assert_eq!(
            groups.unwrap().ciphers,
            Some(vec![Cipher::EcdsaChacha20, Cipher::RsaAes128, Cipher::RsaAes256])
        );
        let only13 = parameters(0, 0, &["AES128-SHA"], &[]).unwrap();
        assert!(!only13.versions.tls12 && only13.versions.tls13);
        let tls12 = TlsProtocol::TlSv12 as i32;
        let none = parameters(0, tls12, &["AES128-SHA"], &[]).unwrap_err();
        assert!(none.to_string().contains("cipher_suites"), "{none}");
        let none = parameters(0, 0, &[], &["P-521"]).unwrap_err();
        assert!(none.to_string().contains("ecdh_curves"), "{none}");
        let tls11 = TlsProtocol::TlSv11 as i32;
        assert!(parameters(0, tls11, &[], &[]).is_err());
    }
}
