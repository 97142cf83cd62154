//! One certificate: proven name + proven key + life → signed leaf. Pure: serial and time are passed in.
//!
//! A leaf has one URI name, the SPIFFE id of the proven caller (X.509-SVID §2, §4), no subject, and may be used by both
//! sides of a connection. Parts of the control plane have the DNS names of their Service beside it, for callers that
//! know nothing of SPIFFE, like the API server. A leaf never outlives its issuer.

use std::time::{Duration, SystemTime};

use mesh_proto::identity::SpiffeId;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::{csr::ProvenKey, error::Refusal};

/// Leaves are valid a little before they are made, for machines whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(60);

/// How long leaves live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub default: Duration,
    pub max: Duration,
}

impl Life {
    /// The life that a wish in seconds gets: none asked for is the default, too much is cut.
    pub fn of_wish(self, seconds: i64) -> Result<Duration, Refusal> {
        match u64::try_from(seconds) {
            Err(_) => Err(Refusal::Duration(seconds)),
            Ok(0) => Ok(self.default.min(self.max)),
            Ok(seconds) => Ok(Duration::from_secs(seconds).min(self.max)),
        }
    }
}

/// What is to be signed.
#[derive(Debug)]
pub struct Order<'a> {
    pub id: &'a SpiffeId,
    pub dns: &'a [String],
    pub key: &'a ProvenKey,
    pub life: Duration,
    pub serial: [u8; 16],
    pub now: SystemTime,
}

/// A signed leaf.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    pub not_after: SystemTime,
}

pub fn issue(
    order: &Order<'_>,
    issuer: &Issuer<'_, KeyPair>,
    issuer_end: SystemTime,
) -> Result<Issued, Refusal> {
    let failed = |error: rcgen::Error| Refusal::Signing(error.to_string());
    let not_after = (order.now + order.life).min(issuer_end);
    if not_after <= order.now {
        return Err(Refusal::Signing("the root has ended; it must be replaced".into()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(order.id.to_string().try_into().map_err(failed)?)];
    for name in order.dns {
        let name = name.as_str().try_into().map_err(failed)?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&positive(order.serial)));
    params.not_before = (order.now - BACKDATE).into();
    params.not_after = not_after.into();
    let certificate = params.signed_by(order.key, issuer).map_err(failed)?;
    Ok(Issued {
        pem: certificate.pem(),
        certificate: certificate.der().clone(),
        not_after,
    })
}

/// RFC 5280 §4.1.2.2: a serial number is positive and not zero.
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{root, testing};
    use mesh_runtime::tls::Leaf;

    const ID: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn issued(life: Duration, serial: [u8; 16]) -> (Issued, SystemTime) {
        let (root, key, now) = (testing::root(), testing::proven_key(), SystemTime::now());
        let order = Order {
            id: &ID.parse().unwrap(),
            dns: &[],
            key: &key,
            life,
            serial,
            now,
        };
        (issue(&order, &root.issuer, root.not_after).unwrap(), now)
    }

    #[test]
    fn the_leaf_says_what_it_should() {
        let (leaf, now) = issued(Duration::from_secs(60), [0; 16]);
        let read = Leaf::read(&leaf.certificate).unwrap();
        assert_eq!(read.uris, [ID]);
        assert!(read.not_before <= now - BACKDATE && read.not_after <= now + Duration::from_secs(60));
        let (_, x509) = x509_parser::parse_x509_certificate(&leaf.certificate).unwrap();
        assert!(!x509.is_ca() && x509.subject().iter().next().is_none());
        let names = x509.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical && names.value.general_names.len() == 1);
        let usage = x509.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth && !usage.any);
        assert!(!x509.key_usage().unwrap().unwrap().value.key_cert_sign());
        assert!(x509.raw_serial()[0] < 0x80 && x509.raw_serial().len() == 16);
    }

    #[test]
    fn never_outlives_the_root() {
        let (leaf, now) = issued(root::LIFE * 2, [0xff; 16]);
        assert!(leaf.not_after <= now + root::LIFE);
        let (root, key) = (testing::root(), testing::proven_key());
        let now = root.not_after + Duration::from_secs(1);
        let order = Order {
            id: &ID.parse().unwrap(),
            dns: &[],
            key: &key,
            life: Duration::from_secs(60),
            serial: [1; 16],
            now,
        };
        assert!(issue(&order, &root.issuer, root.not_after).is_err());
    }

    #[test]
    fn wishes() {
        let life = Life {
            default: Duration::from_secs(100),
            max: Duration::from_secs(500),
        };
        for (wish, expect) in [
            (0, Some(100)),
            (60, Some(60)),
            (500, Some(500)),
            (501, Some(500)),
            (-1, None),
        ] {
            assert_eq!(life.of_wish(wish).ok(), expect.map(Duration::from_secs), "{wish}");
        }
        let short = Life {
            default: Duration::from_secs(100),
            max: Duration::from_secs(60),
        };
        assert_eq!(short.of_wish(0), Ok(Duration::from_secs(60)));
    }
}
