//! The certificate service: each call goes through authenticate, limit, authorize, csr and sign, in this order, so that
//! work is only done for proven callers. Bounds: [`MAX_MESSAGE`] of request, [`MAX_AT_ONCE`] calls at once, a rate
//! for each caller and address.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use mesh_proto::ca::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use mesh_runtime::grpc;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::{
    admin::Journal,
    authenticate::Authenticator,
    authority::{
        Authority,
        signer::{Signed, Wish},
    },
    authorize::{Place, authorize, dns_names},
    caller::Caller,
    csr,
    error::Refusal,
    issue::Life,
    limit::{Limiter, Rate},
    metrics::{Metrics, ProofLabel, ReasonLabel},
};

/// Longest request message.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Calls worked on at once; more are told to come back.
pub const MAX_AT_ONCE: usize = 128;
/// What one caller at one address may ask. A rotation of 60-second certificates is far below it.
const RATE: Rate = Rate {
    burst: 30.0,
    per_second: 2.0,
};

/// What the service works with.
pub struct Service {
    pub authenticator: Authenticator,
    pub authority: Arc<Authority>,
    pub place: Place,
    pub life: Life,
    pub metrics: Metrics,
    pub journal: Journal,
    pub limiter: Mutex<Limiter>,
    pub slots: Semaphore,
}

impl Service {
    pub fn new(
        authenticator: Authenticator,
        authority: Arc<Authority>,
        namespace: String,
        life: Life,
        metrics: Metrics,
        journal: Journal,
    ) -> Self {
        Self {
            place: Place {
                trust_domain: authenticator.trust_domain.clone(),
                namespace,
            },
            authenticator,
            authority,
            life,
            metrics,
            journal,
            limiter: Mutex::new(Limiter::new(RATE)),
            slots: Semaphore::new(MAX_AT_ONCE),
        }
    }

    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    async fn answer(&self, request: &Request<IstioCertificateRequest>) -> Result<(Caller, Signed), Refusal> {
        let _slot = self.slots.try_acquire().map_err(|_| Refusal::Busy)?;
        let (now, peer) = (SystemTime::now(), grpc::peer(request));
        let caller = self
            .authenticator
            .authenticate(request.metadata(), peer, now)
            .await?;
        let address = peer
            .and_then(|peer| peer.address)
            .map(|address| address.ip().to_string())
            .unwrap_or_default();
        self.limiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(&format!("{} {address}", caller.id), Instant::now())
            .map_err(|wait| rate(&caller, wait))?;
        authorize(&caller, &self.place)?;
        let life = self.life.of_wish(request.get_ref().validity_duration)?;
        let key = csr::proven_key(&request.get_ref().csr)?;
        let wish = Wish {
            id: &caller.id,
            dns: &dns_names(&caller.id, &self.place),
            key: &key,
            life,
        };
        // The answer about the token may have taken a while.
        let signed = self.authority.sign(&wish, SystemTime::now())?;
        Ok((caller, signed))
    }
}

fn rate(caller: &Caller, wait: Duration) -> Refusal {
    Refusal::Rate {
        caller: caller.id.to_string(),
        wait: wait.as_secs() + 1,
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let start = Instant::now();
        let result = self.answer(&request).await;
        self.metrics.seconds.observe(start.elapsed().as_secs_f64());
        match result {
            Ok((caller, signed)) => {
                self.metrics
                    .issued
                    .get_or_create(&ProofLabel {
                        proof: caller.proof.word(),
                    })
                    .inc();
                tracing::info!(caller = %caller.id, proof = caller.proof.word(), serial = signed.serial, "issued");
                self.journal.issued(&caller, &signed);
                Ok(Response::new(IstioCertificateResponse {
                    cert_chain: signed.chain,
                }))
            }
            Err(refusal) => {
                self.metrics
                    .refused
                    .get_or_create(&ReasonLabel {
                        reason: refusal.word(),
                    })
                    .inc();
                let address = grpc::peer(&request).and_then(|peer| peer.address);
                tracing::warn!(?address, reason = refusal.word(), %refusal, "refused");
                Err(refusal.into())
            }
        }
    }
}
