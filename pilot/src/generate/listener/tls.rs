//! The server's side of TLS: inbound connections with the mesh's identity, and a gateway's own certificates.

use mesh_proto::{
    envoy::{
        config::core::v3::TransportSocket,
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SubjectAltNameMatcher,
            TlsParameters,
            certificate_validation_context::TrustChainVerification,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            subject_alt_name_matcher::SanType,
            tls_parameters::TlsProtocol,
        },
    },
    mesh::MinimumTls,
    names,
};

use crate::{
    generate::{
        cluster::tls::{IdentitySource, TLS_SOCKET, certificate_files, credential, mesh_context},
        secret::roots_name,
        value::{any, boolean, exact, file, prefix, transport_socket},
    },
    model::gateway::{ServerTls, ServerTlsMode, TlsVersion},
};

/// How the mesh's TLS is ended: any workload of these trust domains may come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    pub source: IdentitySource,
    pub trust_domains: Vec<String>,
    pub minimum: MinimumTls,
}

pub fn mesh(own: &Mesh, http: bool) -> TransportSocket {
    // Bytes that a client did not look into come to ports of HTTP too, under the name that they have in the mesh.
    let alpn: &[&str] = if http {
        &["h2", "http/1.1", names::alpn::TCP]
    } else {
        &[]
    };
    let accepted = own
        .trust_domains
        .iter()
        .map(|domain| prefix(&format!("spiffe://{domain}/")))
        .collect();
    let mut context = mesh_context(&own.source, accepted, super::owned(alpn));
    context.tls_params = Some(TlsParameters {
        tls_minimum_protocol_version: match own.minimum {
            MinimumTls::Auto | MinimumTls::V1_2 => TlsProtocol::TlSv12,
            MinimumTls::V1_3 => TlsProtocol::TlSv13,
        }
        .into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..TlsParameters::default()
    });
    downstream(context, true)
}

/// A gateway's server. `None` when its TLS is not ended here.
pub fn server(
    tls: &ServerTls,
    source: &IdentitySource,
    trust_domains: &[String],
    http: bool,
) -> Option<TransportSocket> {
    let alpn = super::owned(if http { &["h2", "http/1.1"] } else { &[] });
    let (verify, require) = match tls.mode {
        ServerTlsMode::None | ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
        ServerTlsMode::MeshMutual => {
            let accepted = trust_domains
                .iter()
                .map(|domain| prefix(&format!("spiffe://{domain}/")))
                .collect();
            let mut context = mesh_context(source, accepted, alpn);
            context.tls_params = parameters(tls);
            return Some(downstream(context, true));
        }
        ServerTlsMode::Simple => (false, false),
        ServerTlsMode::Mutual => (true, true),
        ServerTlsMode::OptionalMutual => (true, false),
    };
    let mut context = CommonTlsContext {
        alpn_protocols: alpn,
        tls_params: parameters(tls),
        tls_certificate_sds_secret_configs: tls.credentials.iter().map(|name| credential(name)).collect(),
        ..CommonTlsContext::default()
    };
    if tls.credentials.is_empty() {
        let files = tls.files.iter();
        context.tls_certificates = files
            .map(|(certificate, key)| certificate_files(certificate, key))
            .collect();
    }
    if verify {
        context.validation_context_type = Some(validation(tls));
    }
    Some(downstream(context, require))
}

fn validation(tls: &ServerTls) -> ValidationContextType {
    let clients = &tls.clients;
    if clients.accept_untrusted {
        return ValidationContextType::ValidationContext(CertificateValidationContext {
            trust_chain_verification: TrustChainVerification::AcceptUntrusted.into(),
            ..CertificateValidationContext::default()
        });
    }
    let name = |text: &String| SubjectAltNameMatcher {
        san_type: san_type(text).into(),
        matcher: Some(exact(text)),
        ..SubjectAltNameMatcher::default()
    };
    let context = CertificateValidationContext {
        match_typed_subject_alt_names: clients.subject_alt_names.iter().map(name).collect(),
        verify_certificate_spki: clients.key_hashes.clone(),
        verify_certificate_hash: clients.certificate_hashes.clone(),
        crl: clients.revoked.as_deref().map(file),
        ..CertificateValidationContext::default()
    };
    let named = clients.ca_credential.as_ref();
    match named.or(tls.credentials.first()) {
        Some(secret) => {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(credential(&roots_name(secret))),
                ..CombinedCertificateValidationContext::default()
            })
        }
        None => ValidationContextType::ValidationContext(CertificateValidationContext {
            trusted_ca: clients.ca_certificates.as_deref().map(file),
            ..context
        }),
    }
}

/// Of which sort a name is shows in its form.
fn san_type(name: &str) -> SanType {
    if name.contains("://") {
        SanType::Uri
    } else if name.contains('@') {
        SanType::Email
    } else if name.parse::<std::net::IpAddr>().is_ok() {
        SanType::IpAddress
    } else {
        SanType::Dns
    }
}

fn parameters(tls: &ServerTls) -> Option<TlsParameters> {
    let version = |version: Option<TlsVersion>| match version {
        None => TlsProtocol::TlsAuto,
        Some(TlsVersion::V1_0) => TlsProtocol::TlSv10,
        Some(TlsVersion::V1_1) => TlsProtocol::TlSv11,
        Some(TlsVersion::V1_2) => TlsProtocol::TlSv12,
        Some(TlsVersion::V1_3) => TlsProtocol::TlSv13,
    };
    let parameters = TlsParameters {
        tls_minimum_protocol_version: version(tls.minimum).into(),
        tls_maximum_protocol_version: version(tls.maximum).into(),
        cipher_suites: tls.cipher_suites.clone(),
        ecdh_curves: tls.curves.clone(),
        ..TlsParameters::default()
    };
    (parameters != TlsParameters::default()).then_some(parameters)
}

fn downstream(context: CommonTlsContext, require: bool) -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(context),
        require_client_certificate: Some(boolean(require)),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}
