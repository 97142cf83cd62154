//! How a peer's certificate is checked.

use std::{mem::take, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mesh_proto::envoy::extensions::transport_sockets::tls::v3::{
    self as pb, CertificateValidationContext, certificate_validation_context::TrustChainVerification,
    common_tls_context::ValidationContextType as Kind, subject_alt_name_matcher::SanType,
};

use super::{
    super::{At, Result, done, each, matcher, refuse, required, scalar, unsupported},
    secret_ref,
};
use crate::config::{
    secret::{Secret, SecretKind, Source},
    transport::{Pins, SanKind, SanMatch, SecretRef, Validation},
};

pub(super) fn read(value: Kind) -> Result<Option<Validation>> {
    match value {
        Kind::ValidationContext(one) => context(one, None).at("validation_context"),
        Kind::ValidationContextSdsSecretConfig(config) => {
            let trusted = secret_ref(config).at("validation_context_sds_secret_config")?;
            Ok(Some(Validation {
                trusted: Some(trusted),
                ..Validation::default()
            }))
        }
        Kind::CombinedValidationContext(combined) => {
            let trusted = combined
                .validation_context_sds_secret_config
                .map(|config| secret_ref(config).at("validation_context_sds_secret_config"))
                .transpose()
                .at("combined_validation_context")?;
            context(combined.default_validation_context.unwrap_or_default(), trusted)
                .at("default_validation_context")
                .at("combined_validation_context")
        }
        Kind::ValidationContextCertificateProvider(_) => {
            unsupported("validation_context_certificate_provider")
        }
        Kind::ValidationContextCertificateProviderInstance(_) => {
            unsupported("validation_context_certificate_provider_instance")
        }
    }
}

fn context(
    mut value: CertificateValidationContext,
    by_name: Option<SecretRef>,
) -> Result<Option<Validation>> {
    let revoked = revoked(&mut value)?;
    let inline = take(&mut value.trusted_ca)
        .map(|source| {
            let roots = scalar::data_source(source)?;
            Ok(SecretRef::Inline(Arc::new(Secret {
                name: "".into(),
                kind: SecretKind::Validation { roots, revoked: None },
            })))
        })
        .transpose()
        .at("trusted_ca")?;
    let names = each(
        take(&mut value.match_typed_subject_alt_names),
        "match_typed_subject_alt_names",
        san,
    )?;
    let pins = Pins {
        certificates: each(
            take(&mut value.verify_certificate_hash),
            "verify_certificate_hash",
            certificate_hash,
        )?,
        keys: each(
            take(&mut value.verify_certificate_spki),
            "verify_certificate_spki",
            key_hash,
        )?,
    };
    let accept_untrusted =
        take(&mut value.trust_chain_verification) == TrustChainVerification::AcceptUntrusted as i32;
    value.watched_directory = None;
    // Whether the names of the roots are sent to clients changes no answer.
    value.suppress_client_ca_list = false;
    done(&value)?;
    let trusted = by_name.or(inline);
    if trusted.is_none() {
        for (said, field) in [
            (!names.is_empty(), "match_typed_subject_alt_names"),
            (!pins.is_empty(), "verify_certificate_hash"),
            (revoked.is_some(), "crl"),
        ] {
            if said {
                return refuse("proves nothing without trusted roots").at(field);
            }
        }
        if !accept_untrusted {
            return Ok(None);
        }
    }
    Ok(Some(Validation {
        trusted,
        names,
        revoked,
        pins,
        accept_untrusted,
    }))
}

/// The list of revoked certificates.
pub(super) fn revoked(value: &mut CertificateValidationContext) -> Result<Option<Source>> {
    let source = take(&mut value.crl).map(scalar::data_source).transpose();
    source.at("crl")
}

/// Hexadecimal, with colons or without.
fn certificate_hash(text: String) -> Result<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(hash) => Ok(hash),
        None => refuse("is not 32 bytes in hexadecimal digits"),
    }
}

fn key_hash(text: String) -> Result<[u8; 32]> {
    match STANDARD
        .decode(&text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
    {
        Some(hash) => Ok(hash),
        None => refuse("is not 32 bytes in Base64"),
    }
}

fn san(value: pb::SubjectAltNameMatcher) -> Result<SanMatch> {
    let kind = match SanType::try_from(value.san_type) {
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::Dns) => SanKind::Dns,
        Ok(SanType::IpAddress) => SanKind::Ip,
        Ok(SanType::Email) => SanKind::Email,
        _ => return refuse("is not supported by this proxy").at("san_type"),
    };
    let rule = matcher::string(required(value.matcher, "matcher")?).at("matcher")?;
    Ok(SanMatch { kind, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes() {
        let hex = "00".repeat(31) + "fF";
        let colons = "00:".repeat(31) + "ff";
        let mut expect = [0; 32];
        expect[31] = 0xff;
        assert_eq!(certificate_hash(hex).unwrap(), expect);
        assert_eq!(certificate_hash(colons).unwrap(), expect);
        assert_eq!(key_hash(STANDARD.encode(expect)).unwrap(), expect);
        for wrong in ["", "0", "00", "zz", &"00".repeat(33), "é"] {
            assert!(certificate_hash(wrong.to_owned()).is_err(), "{wrong}");
            assert!(key_hash(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_proven_without_roots() {
        let pinned = CertificateValidationContext {
            verify_certificate_hash: vec!["00".repeat(32)],
            ..CertificateValidationContext::default()
        };
        assert!(context(pinned, None).is_err());
        assert!(
            context(CertificateValidationContext::default(), None)
                .unwrap()
                .is_none()
        );
        let anybody = CertificateValidationContext {
            trust_chain_verification: TrustChainVerification::AcceptUntrusted as i32,
            ..CertificateValidationContext::default()
        };
        assert!(context(anybody, None).unwrap().unwrap().accept_untrusted);
    }
}
