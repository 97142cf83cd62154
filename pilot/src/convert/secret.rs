//! Secret → a gateway's credential: type `kubernetes.io/tls`, or Istio's generic form (`key`, `cert`, `cacert`).

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1 as core;
use mesh_proto::finding::{self, Report};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};

use crate::model::{Credential, Item, Origin};

const REVOKED: &str = "ca.crl";

/// Other Secrets mean nothing. A certificate that does not fit its key is an error, so the last good one stays.
pub fn convert(object: &core::Secret, origin: Origin, report: &mut Report) -> Option<Item> {
    let mut data: BTreeMap<String, Vec<u8>> = object
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    for (key, value) in object.string_data.iter().flatten() {
        data.insert(key.clone(), value.clone().into_bytes());
    }
    let declared = object.type_.as_deref() == Some("kubernetes.io/tls");
    let (certificate, key) = if declared || data.contains_key("tls.crt") {
        ("tls.crt", "tls.key")
    } else {
        ("cert", "key")
    };
    let ca = ["ca.crt", "cacert"]
        .iter()
        .find_map(|name| Some((*name, data.get(*name)?)));
    let revoked = data.get(REVOKED).cloned();
    if let Some(pem) = &revoked {
        readable_list(pem, report)?;
    }
    let pair = data.contains_key(certificate) && data.contains_key(key);
    if !declared && !pair {
        // Perhaps only a CA, beside the credential `x` in a Secret called `x-cacert`.
        let (name, ca) = ca?;
        certificates(name, ca, report)?;
        return Some(item(Credential {
            origin,
            certificate: Vec::new(),
            private_key: Vec::new(),
            ca_certificates: Some(ca.clone()),
            revoked,
        }));
    }
    let chain = certificates(
        certificate,
        data.get(certificate).map_or(&[][..], Vec::as_slice),
        report,
    )?;
    let key_pem = data.get(key).cloned().unwrap_or_default();
    let private_key = match PrivateKeyDer::from_pem_slice(&key_pem) {
        Ok(private_key) => private_key,
        Err(error) => {
            report.add(
                finding::INVALID_GATEWAY_CREDENTIAL,
                format!("data.{key}"),
                format!("no private key in PEM: {error}"),
            );
            return None;
        }
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Err(error) = rustls::sign::CertifiedKey::from_der(chain, private_key, &provider) {
        let text = format!("the private key cannot be used with the certificate in {certificate}: {error}");
        report.add(finding::INVALID_GATEWAY_CREDENTIAL, format!("data.{key}"), text);
        return None;
    }
    if let Some((name, ca)) = ca {
        certificates(name, ca, report)?;
    }
    Some(item(Credential {
        origin,
        certificate: data.get(certificate).cloned().unwrap_or_default(),
        private_key: key_pem,
        ca_certificates: ca.map(|(_, ca)| ca.clone()),
        revoked,
    }))
}

fn item(credential: Credential) -> Item {
    Item::Credential(Arc::new(credential))
}

/// At least one list of revoked certificates, all of them readable.
fn readable_list(pem: &[u8], report: &mut Report) -> Option<()> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let why = match lists {
        Ok(lists) if lists.is_empty() => "holds no X509 CRL in PEM".to_owned(),
        Ok(lists) => {
            let broken = lists
                .iter()
                .find_map(|list| x509_parser::parse_x509_crl(list).err());
            match broken {
                None => return Some(()),
                Some(error) => format!("no list of revoked certificates: {error}"),
            }
        }
        Err(error) => format!("no list of revoked certificates in PEM: {error}"),
    };
    report.add(
        finding::INVALID_GATEWAY_CREDENTIAL,
        format!("data.{REVOKED}"),
        why,
    );
    None
}

/// At least one certificate, all of them readable.
fn certificates(name: &str, pem: &[u8], report: &mut Report) -> Option<Vec<CertificateDer<'static>>> {
    let path = format!("data.{name}");
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {
            for certificate in &certificates {
                if let Err(error) = x509_parser::parse_x509_certificate(certificate) {
                    report.add(
                        finding::INVALID_GATEWAY_CREDENTIAL,
                        path,
                        format!("no X.509 certificate: {error}"),
                    );
                    return None;
                }
            }
            Some(certificates)
        }
        Ok(_) => {
            report.add(
                finding::INVALID_GATEWAY_CREDENTIAL,
                path,
                "holds no certificate in PEM",
            );
            None
        }
        Err(error) => {
            report.add(
                finding::INVALID_GATEWAY_CREDENTIAL,
                path,
                format!("no certificate in PEM: {error}"),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::{Meaning, convert},
        model::MeshConfig,
        testing::manifests,
    };

    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).expect("a certificate");
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    fn indent(text: &str) -> String {
        text.lines().map(|line| format!("    {line}\n")).collect()
    }

    fn secret(kind: &str, entries: &[(&str, &str)]) -> (Meaning, Vec<String>) {
        let data: String = entries
            .iter()
            .map(|(key, value)| format!("  {key}: |\n{}", indent(value)))
            .collect();
        let text =
            format!("apiVersion: v1\nkind: Secret\ntype: {kind}\nmetadata: {{name: c}}\nstringData:\n{data}");
        let converted = convert(&manifests(&text)[0], &MeshConfig::default());
        (
            converted.meaning,
            converted
                .findings
                .into_iter()
                .map(|finding| finding.path)
                .collect(),
        )
    }

    #[test]
    fn credentials() {
        let (certificate, key) = pair();
        let (_, other) = pair();
        let good = secret(
            "kubernetes.io/tls",
            &[
                ("tls.crt", &certificate),
                ("tls.key", &key),
                ("ca.crt", &certificate),
            ],
        );
        assert!(
            matches!(&good, (Meaning::Item(Item::Credential(credential)), _) if credential.ca_certificates.is_some())
        );
        assert!(
            !format!("{good:?}").contains("PRIVATE"),
            "a key must not be printed"
        );
        assert!(matches!(
            secret("Opaque", &[("cert", &certificate), ("key", &key)]).0,
            Meaning::Item(_)
        ));
        assert!(matches!(
            secret("Opaque", &[("cacert", &certificate)]).0,
            Meaning::Item(_)
        ));
        assert_eq!(secret("Opaque", &[("password", "x")]), (Meaning::Nothing, vec![]));
        let check = |entries: &[(&str, &str)], path: &str| {
            assert_eq!(
                secret("kubernetes.io/tls", entries),
                (Meaning::Invalid, vec![path.to_owned()])
            );
        };
        check(
            &[
                ("tls.crt", &certificate),
                ("tls.key", &key),
                ("ca.crl", &certificate),
            ],
            "data.ca.crl",
        );
        check(&[("tls.crt", &certificate), ("tls.key", &other)], "data.tls.key");
        check(&[("tls.crt", "x"), ("tls.key", &key)], "data.tls.crt");
        check(&[("tls.crt", &certificate), ("tls.key", "x")], "data.tls.key");
    }
}
