//! Who is calling: by the platform's token if there is one, else by a current certificate. A token that is wrong is
//! refused even beside a good certificate: it says that something is broken where it comes from.

use std::{sync::Arc, time::SystemTime};

use mesh_proto::identity::TrustDomain;
use mesh_runtime::grpc::PeerCertificate;
use tonic::metadata::MetadataMap;

use crate::{caller::Caller, error::Refusal};

pub mod claims;
pub mod jwks;
pub mod jwt;
pub mod kube;
pub mod mtls;

/// Who knows the platform's tokens.
#[derive(Clone)]
pub enum Tokens {
    /// Signed by one of these keys.
    Jwt(Arc<jwt::Jwt>),
    /// Known to the API server of Kubernetes.
    Kube(Arc<kube::Kube>),
}

/// Every way to prove a caller.
pub struct Authenticator {
    pub tokens: Tokens,
    pub trust_domain: TrustDomain,
}

impl Authenticator {
    pub async fn authenticate(
        &self,
        metadata: &MetadataMap,
        peer: Option<&PeerCertificate>,
        now: SystemTime,
    ) -> Result<Caller, Refusal> {
        if let Some(header) = metadata.get("authorization") {
            let header = header.to_str().map_err(|_| Refusal::Header)?;
            let (scheme, token) = header.split_once(' ').ok_or(Refusal::Header)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(Refusal::Header);
            }
            let token = token.trim();
            return match &self.tokens {
                Tokens::Jwt(jwt) => jwt.authenticate(token, &self.trust_domain, now),
                Tokens::Kube(kube) => kube.authenticate(token, &self.trust_domain, now).await,
            };
        }
        match peer {
            Some(peer) if !peer.uris.is_empty() || peer.not_after.is_some() => mtls::caller(peer, now),
            _ => Err(Refusal::NoCredentials),
        }
    }
}
