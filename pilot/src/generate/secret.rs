//! SDS: a gateway's credentials, `kubernetes://<name>` for the certificate and key, `kubernetes://<name>-cacert` for the
//! roots by which clients are verified. The workload's own certificate never passes here.

use std::sync::Arc;

use mesh_proto::{
    envoy::extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret, TlsCertificate, secret::Type,
    },
    names,
};

use super::value::inline_bytes;
use crate::model::Credential;

const ROOTS: &str = "-cacert";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// As the proxy asks for it.
    pub name: String,
    pub credential: Arc<Credential>,
    pub part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Certificate,
    Roots,
}

/// Under which name the roots of a Secret travel: one named `x-cacert` is the roots of credential `x` itself.
pub fn roots_name(secret: &str) -> String {
    if secret.ends_with(ROOTS) {
        secret.to_owned()
    } else {
        format!("{secret}{ROOTS}")
    }
}

/// The secrets that one credential makes.
pub fn inputs(credential: &Arc<Credential>) -> Vec<Input> {
    let prefixed = |name: &str| format!("{}{name}", names::SECRET_CREDENTIAL_PREFIX);
    let name = prefixed(&credential.origin.name);
    let mut inputs = Vec::new();
    if credential.ca_certificates.is_some() {
        inputs.push(Input {
            name: prefixed(&roots_name(&credential.origin.name)),
            credential: credential.clone(),
            part: Part::Roots,
        });
    }
    if !credential.certificate.is_empty() {
        inputs.push(Input {
            name,
            credential: credential.clone(),
            part: Part::Certificate,
        });
    }
    inputs
}

pub fn generate(input: &Input) -> Secret {
    let credential = &input.credential;
    let kind = match input.part {
        Part::Certificate => Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline_bytes(&credential.certificate)),
            private_key: Some(inline_bytes(&credential.private_key)),
            ..TlsCertificate::default()
        }),
        Part::Roots => Type::ValidationContext(CertificateValidationContext {
            trusted_ca: credential.ca_certificates.as_deref().map(inline_bytes),
            crl: credential.revoked.as_deref().map(inline_bytes),
            ..CertificateValidationContext::default()
        }),
    };
    Secret {
        name: input.name.clone(),
        r#type: Some(kind),
    }
}
