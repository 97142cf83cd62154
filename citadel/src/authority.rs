//! Who signs. One file below for each kind of authority.

use std::time::{Duration, SystemTime};

use mesh_proto::identity::SpiffeId;
use rustls_pki_types::CertificateDer;

use crate::{csr::ProvenKey, error::Refusal};

pub mod self_signed;

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

/// Signs names that others have proven.
pub trait Authority: Send + Sync + 'static {
    fn sign(
        &self,
        id: &SpiffeId,
        key: &ProvenKey,
        life: Duration,
        now: SystemTime,
    ) -> Result<Signed, Refusal>;

    /// The roots that the mesh is to trust, as of now.
    fn roots(&self, now: SystemTime) -> Vec<CertificateDer<'static>>;

    /// When signing ends.
    fn not_after(&self) -> SystemTime;
}
