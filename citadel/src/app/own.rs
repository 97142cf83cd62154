//! Citadel's own serving certificate, signed by its own authority: renewed at half of its life, and at once when the
//! authority changes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_runtime::{
    drain::Drain,
    tls::{Identity, IdentityCell, read_certificates},
};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::{
    authority::{
        Authority,
        signer::{Signed, Wish},
    },
    authorize::{Place, dns_names, own_name},
    csr,
    metrics::{Metrics, unix},
};

/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

pub struct Own {
    pub place: Place,
    pub life: Duration,
    pub authority: Arc<Authority>,
    pub metrics: Metrics,
}

impl Own {
    /// A new key and certificate into the cell; says when to do it again.
    pub fn renew(&self, cell: &IdentityCell) -> anyhow::Result<Duration> {
        let now = SystemTime::now();
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        let id = own_name(&self.place);
        let wish = Wish {
            id: &id,
            dns: &dns_names(&id, &self.place),
            key: &csr::proven_key(&request)?,
            life: self.life,
        };
        let signed = self.authority.sign(&wish, now)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        cell.set(Identity::new(
            presented(&signed)?,
            key,
            self.authority.roots(now),
        )?)?;
        self.metrics.own_expiry.set(unix(signed.not_after));
        self.metrics.root_expiry.set(unix(self.authority.not_after()));
        Ok(signed.not_after.duration_since(now).unwrap_or_default() / 2)
    }

    /// `wait` is what the first renewal said.
    pub async fn run(self, cell: IdentityCell, mut wait: Duration, drain: Drain) {
        let mut changes = self.authority.changes();
        // A change between the first renewal and now is seen too.
        changes.mark_changed();
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = changes.changed() => {}
                () = drain.drained() => return,
            }
            wait = self.renew(&cell).unwrap_or_else(|error| {
                tracing::error!(%error, "citadel's own certificate could not be renewed");
                RETRY
            });
        }
    }
}

/// Leaf and intermediates, without the root.
fn presented(signed: &Signed) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let below = signed.chain.len().saturating_sub(1).max(1);
    let mut chain = Vec::new();
    for pem in &signed.chain[..below] {
        chain.extend(read_certificates(pem.as_bytes())?);
    }
    Ok(chain)
}
