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
pub mod mtls;

/// Every way to prove a caller.
#[derive(Debug)]
pub struct Authenticator {
    pub jwt: Arc<jwt::Jwt>,
    pub trust_domain: TrustDomain,
}

impl Authenticator {
    pub fn authenticate(
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
            return self.jwt.authenticate(token.trim(), &self.trust_domain, now);
        }
        match peer {
            Some(peer) if !peer.uris.is_empty() || peer.not_after.is_some() => mtls::caller(peer, now),
            _ => Err(Refusal::NoCredentials),
        }
    }
}
