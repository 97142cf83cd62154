//! SDS for Envoy: the workload's certificate with its key (`default`) and the mesh's roots (`ROOTCA`), from the identity cell,
//! and again whenever that changes. Asked before there is a certificate, it answers when there is one.
//!
//! Bounds: [`ANSWERS`] answers wait for a slow reader; of each name there is one secret, however often it is asked for.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use mesh_proto::{
    envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret, TlsCertificate, secret::Type as Kind,
        },
        service::{
            discovery::v3::{
                DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            },
            secret::v3::secret_discovery_service_server::SecretDiscoveryService,
        },
    },
    names,
    pb::google::protobuf::Any,
    xds::Type,
};
use mesh_runtime::{
    drain::Drain,
    tls::{Identity, IdentityCell},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const ANSWERS: usize = 4;

/// The service.
pub struct Secrets {
    identity: IdentityCell,
    drain: Drain,
}

impl Secrets {
    pub fn new(identity: IdentityCell, drain: Drain) -> Self {
        Self { identity, drain }
    }
}

type Answer = Result<DiscoveryResponse, Status>;

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type StreamSecretsStream = ReceiverStream<Answer>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented(
            "the agent serves secrets by StreamSecrets, as pilot's configuration asks for them",
        ))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (sender, receiver) = mpsc::channel(ANSWERS);
        let (identity, drain) = (self.identity.clone(), self.drain.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(request.into_inner(), &identity, &sender) => {}
                // Whoever leaves needs its certificate to the end: the stream stays, until the process ends.
                () = async { drain.drained().await; sender.closed().await } => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented(
            "the agent serves secrets by StreamSecrets, which tells of renewals",
        ))
    }
}

/// One stream, until the client ends it.
async fn serve(
    mut requests: Streaming<DiscoveryRequest>,
    identity: &IdentityCell,
    answers: &mpsc::Sender<Answer>,
) {
    let mut changes = identity.subscribe();
    let (mut wanted, mut number) = (Vec::new(), 0_u64);
    loop {
        tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                if let Some(error) = &request.error_detail {
                    tracing::warn!(secrets = ?request.resource_names, why = %error.message, "Envoy refused a secret");
                }
                let known = !request.response_nonce.is_empty() && request.resource_names == wanted;
                wanted = request.resource_names;
                if known {
                    continue;
                }
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let current = changes.borrow_and_update().clone();
        let Some(current) = current.filter(|_| !wanted.is_empty()) else {
            continue;
        };
        number += 1;
        let response = response(&wanted, &current, number);
        if answers.send(Ok(response)).await.is_err() {
            return;
        }
    }
}

fn response(wanted: &[String], identity: &Arc<Identity>, number: u64) -> DiscoveryResponse {
    let mut resources = Vec::new();
    for name in wanted {
        match secret(name, identity) {
            Some(secret) => resources.push(Any {
                type_url: Type::Secret.url().to_owned(),
                value: secret.encode_to_vec(),
            }),
            None => tracing::warn!(
                secret = %name,
                "Envoy asks the agent for a secret that it does not have: it has default and ROOTCA"
            ),
        }
    }
    DiscoveryResponse {
        version_info: format!("{}-{number}", identity.serial),
        resources,
        type_url: Type::Secret.url().to_owned(),
        nonce: number.to_string(),
        ..DiscoveryResponse::default()
    }
}

fn secret(name: &str, identity: &Identity) -> Option<Secret> {
    let inline = |text: String| DataSource {
        specifier: Some(Specifier::InlineBytes(text.into_bytes())),
        ..DataSource::default()
    };
    let certificates = |all: &[rustls_pki_types::CertificateDer<'_>]| -> String {
        all.iter().map(|one| pem("CERTIFICATE", one)).collect()
    };
    let kind = match name {
        names::SECRET_WORKLOAD => Kind::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(certificates(&identity.chain))),
            private_key: Some(inline(pem("PRIVATE KEY", identity.key.secret_der()))),
            ..TlsCertificate::default()
        }),
        names::SECRET_ROOT => Kind::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(certificates(&identity.roots))),
            ..CertificateValidationContext::default()
        }),
        _ => return None,
    };
    Some(Secret {
        name: name.to_owned(),
        r#type: Some(kind),
    })
}

/// One block (RFC 7468). The key is in PKCS #8, as `runtime/identity` makes it.
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .filter_map(|from| text.get(from..text.len().min(from + 64)))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use mesh_runtime::tls::{read_certificates, read_key};
    use rustls_pki_types::PrivateKeyDer;

    use super::*;

    fn identity() -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.example".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let der = certificate.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Identity::new(vec![der.clone()], key, vec![der]).unwrap()
    }

    #[test]
    fn secrets_are_what_the_cell_holds() {
        let identity = identity();
        let Some(Kind::TlsCertificate(own)) = secret("default", &identity).unwrap().r#type else {
            panic!("no certificate");
        };
        let bytes = |source: Option<DataSource>| match source.unwrap().specifier {
            Some(Specifier::InlineBytes(bytes)) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            read_certificates(&bytes(own.certificate_chain)).unwrap(),
            identity.chain
        );
        assert_eq!(
            read_key(&bytes(own.private_key)).unwrap().secret_der(),
            identity.key.secret_der()
        );
        let Some(Kind::ValidationContext(roots)) = secret("ROOTCA", &identity).unwrap().r#type else {
            panic!("no roots");
        };
        assert_eq!(
            read_certificates(&bytes(roots.trusted_ca)).unwrap(),
            identity.roots
        );
        assert!(secret("kubernetes://other", &identity).is_none());
    }
}
