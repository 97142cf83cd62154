//! A certificate authority that is ready to sign: its key, its chain up to the root, and the other roots that came with
//! it. Pure: it is made from what others have read, serial and time are passed in.
//!
//! Promises: what it signs comes with the whole chain, leaf first and root last, and ends no later than any certificate
//! of that chain.

use std::time::{Duration, SystemTime};

use mesh_proto::identity::SpiffeId;
use mesh_runtime::tls::Leaf;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;

use crate::{
    bundle,
    csr::ProvenKey,
    error::Refusal,
    issue::{self, Order},
    root::Root,
};

/// A certificate and those above it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// PEM texts: leaf first, root last.
    pub chain: Vec<String>,
    pub leaf: CertificateDer<'static>,
    pub not_after: SystemTime,
    /// Hexadecimal.
    pub serial: String,
}

/// What is to be signed: a proven name, a proven key.
#[derive(Debug)]
pub struct Wish<'a> {
    pub id: &'a SpiffeId,
    /// DNS names of the caller, as `authorize` gives them.
    pub dns: &'a [String],
    pub key: &'a ProvenKey,
    pub life: Duration,
}

#[derive(Debug)]
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// The signing certificate first, the root last; one and the same for a self-signed root.
    chain: Vec<CertificateDer<'static>>,
    chain_pem: Vec<String>,
    end: SystemTime,
    /// Roots that the same material names beside its own.
    others: Vec<CertificateDer<'static>>,
}

impl Signer {
    /// `chain` is not empty and leads from the signing certificate to the root; `end` is the earliest end in it.
    pub fn new(
        issuer: Issuer<'static, KeyPair>,
        chain: Vec<CertificateDer<'static>>,
        end: SystemTime,
        others: Vec<CertificateDer<'static>>,
    ) -> Self {
        let chain_pem = chain
            .iter()
            .map(|certificate| bundle::to_pem(std::slice::from_ref(certificate)))
            .collect();
        Self {
            issuer,
            chain,
            chain_pem,
            end,
            others,
        }
    }

    pub fn of_root(root: Root, others: Vec<CertificateDer<'static>>) -> Self {
        Self::new(root.issuer, vec![root.certificate], root.not_after, others)
    }

    /// The root that proves what this one signs.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.chain[self.chain.len() - 1]
    }

    pub fn others(&self) -> &[CertificateDer<'static>] {
        &self.others
    }

    /// When signing ends.
    pub fn end(&self) -> SystemTime {
        self.end
    }

    /// Whether both sign with the same certificate.
    pub fn same(&self, other: &Self) -> bool {
        self.chain == other.chain && self.others == other.others
    }

    pub fn sign(&self, wish: &Wish<'_>, serial: [u8; 16], now: SystemTime) -> Result<Signed, Refusal> {
        let order = Order {
            id: wish.id,
            dns: wish.dns,
            key: wish.key,
            life: wish.life,
            serial,
            now,
        };
        let issued = issue::issue(&order, &self.issuer, self.end)?;
        let leaf = Leaf::read(&issued.certificate).map_err(|error| Refusal::Signing(error.to_string()))?;
        let mut chain = vec![issued.pem];
        chain.extend(self.chain_pem.iter().cloned());
        Ok(Signed {
            chain,
            leaf: issued.certificate,
            not_after: issued.not_after,
            serial: leaf.serial,
        })
    }
}
