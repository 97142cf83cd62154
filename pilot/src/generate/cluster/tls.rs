//! The client's side of TLS: what a cluster's connections do, and where certificates come from. The server's side
//! (`listener::tls`) takes certificates from the same place.

use std::collections::BTreeSet;

use mesh_proto::envoy::r#type::matcher::v3::StringMatcher;
use mesh_proto::{
    envoy::{
        config::{
            cluster::v3::{Cluster, cluster::TransportSocketMatch},
            core::v3::{
                self as core, ProxyProtocolConfig, config_source::ConfigSourceSpecifier,
                proxy_protocol_config,
            },
        },
        extensions::transport_sockets::{
            proxy_protocol::v3::ProxyProtocolUpstreamTransport,
            raw_buffer::v3::RawBuffer,
            tls::v3::{
                CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
                TlsCertificate, UpstreamTlsContext,
                common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
                subject_alt_name_matcher::SanType,
            },
        },
    },
    names,
};

use crate::{
    generate::value::{ads, any, exact, file, grpc, object, transport_socket},
    model::{
        Protocol,
        policy::{ClientTls, ClientTlsMode, ProxyProtocol},
    },
};

pub const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
/// Where Debian and its kin keep the roots of the public web. Envoy has no word for "the system's".
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
pub const RAW_SOCKET: &str = "envoy.transport_sockets.raw_buffer";
const PROXY_PROTOCOL_SOCKET: &str = "envoy.transport_sockets.upstream_proxy_protocol";

/// Where a proxy finds its own certificate and the mesh's roots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum IdentitySource {
    /// It serves them to itself under the names `default` and `ROOTCA`.
    #[default]
    Sds,
    /// In files; told by node metadata.
    Files {
        certificate: String,
        key: String,
        roots: String,
    },
}

/// The certificate's part and the roots' part of a TLS context that uses the mesh's identity.
pub fn mesh_context(
    source: &IdentitySource,
    accepted: Vec<StringMatcher>,
    alpn: Vec<String>,
) -> CommonTlsContext {
    let uri = |matcher| SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(matcher),
        ..SubjectAltNameMatcher::default()
    };
    let mut validation = CertificateValidationContext {
        match_typed_subject_alt_names: accepted.into_iter().map(uri).collect(),
        ..CertificateValidationContext::default()
    };
    let mut context = CommonTlsContext {
        alpn_protocols: alpn,
        ..CommonTlsContext::default()
    };
    context.validation_context_type = Some(match source {
        IdentitySource::Sds => {
            context.tls_certificate_sds_secret_configs = vec![own_secret(names::SECRET_WORKLOAD)];
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(validation),
                validation_context_sds_secret_config: Some(own_secret(names::SECRET_ROOT)),
                ..CombinedCertificateValidationContext::default()
            })
        }
        IdentitySource::Files {
            certificate,
            key,
            roots,
        } => {
            context.tls_certificates = vec![certificate_files(certificate, key)];
            validation.trusted_ca = Some(file(roots));
            ValidationContextType::ValidationContext(validation)
        }
    });
    context
}

pub fn certificate_files(certificate: &str, key: &str) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: Some(file(certificate)),
        private_key: Some(file(key)),
        ..TlsCertificate::default()
    }
}

/// A secret that the proxy's own agent serves.
fn own_secret(name: &str) -> SdsSecretConfig {
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        grpc_services: vec![grpc(names::cluster::SDS)],
        set_node_on_first_message_only: true,
        ..core::ApiConfigSource::default()
    };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            resource_api_version: core::ApiVersion::V3.into(),
            initial_fetch_timeout: Some(super::super::value::seconds(0)),
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
            ..core::ConfigSource::default()
        }),
    }
}

/// A secret that pilot serves on the ADS stream: `kubernetes://<name>`.
pub fn credential(name: &str) -> SdsSecretConfig {
    SdsSecretConfig {
        name: format!("{}{name}", names::SECRET_CREDENTIAL_PREFIX),
        sds_config: Some(ads()),
    }
}

/// What a client inside the mesh offers, so that the server's proxy knows what is inside the TLS.
pub fn mesh_alpn(protocol: Protocol) -> Vec<String> {
    let offer: &[&str] = if protocol.is_http2() {
        &[names::alpn::HTTP_2, "h2"]
    } else if protocol.is_http() || protocol.is_auto() {
        &[names::alpn::HTTP_11, "http/1.1"]
    } else {
        &[names::alpn::TCP]
    };
    offer.iter().map(|name| (*name).to_owned()).collect()
}

/// The mesh's mutual TLS toward these identities.
pub fn mesh_socket(
    source: &IdentitySource,
    identities: &BTreeSet<String>,
    sni: &str,
    protocol: Protocol,
) -> core::TransportSocket {
    let accepted = identities.iter().map(|identity| exact(identity)).collect();
    let context = UpstreamTlsContext {
        common_tls_context: Some(mesh_context(source, accepted, mesh_alpn(protocol))),
        sni: sni.to_owned(),
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// Each endpoint says by its metadata whether it takes the mesh's TLS.
pub fn automatic(mesh: core::TransportSocket) -> Vec<TransportSocketMatch> {
    let row = |name: &str, wanted, socket| TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(object(wanted)),
        transport_socket: Some(socket),
    };
    vec![
        row(
            "tlsMode-istio",
            serde_json::json!({ (names::metadata::TLS_MODE): names::metadata::ISTIO }),
            mesh,
        ),
        row("tlsMode-disabled", serde_json::json!({}), raw_socket()),
    ]
}

pub fn raw_socket() -> core::TransportSocket {
    transport_socket(RAW_SOCKET, any(&RawBuffer::default()))
}

/// Tells the server who the client is, before all else that the cluster's connections say.
pub fn introduce(cluster: &mut Cluster, version: ProxyProtocol) {
    let version = match version {
        ProxyProtocol::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocol::V2 => proxy_protocol_config::Version::V2,
    };
    let wrap = |inner: Option<core::TransportSocket>| {
        let transport = ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig {
                version: version.into(),
                ..ProxyProtocolConfig::default()
            }),
            transport_socket: Some(inner.unwrap_or_else(raw_socket)),
            ..ProxyProtocolUpstreamTransport::default()
        };
        transport_socket(PROXY_PROTOCOL_SOCKET, any(&transport))
    };
    for row in &mut cluster.transport_socket_matches {
        row.transport_socket = Some(wrap(row.transport_socket.take()));
    }
    cluster.transport_socket = Some(wrap(cluster.transport_socket.take()));
}

/// TLS as a DestinationRule wants it, to a server outside of the mesh's own identities.
pub fn client_socket(tls: &ClientTls, host: &str, protocol: Protocol) -> core::TransportSocket {
    let names_of = |text: &String| SubjectAltNameMatcher {
        // A server's name may stand in any of these; the type that has it is the one that counts.
        san_type: if text.contains("://") {
            SanType::Uri
        } else {
            SanType::Dns
        }
        .into(),
        matcher: Some(exact(text)),
        ..SubjectAltNameMatcher::default()
    };
    let mut common = CommonTlsContext::default();
    if protocol.is_http2() {
        common.alpn_protocols = vec!["h2".to_owned()];
    } else if protocol.is_auto() {
        common.alpn_protocols = vec!["h2".to_owned(), "http/1.1".to_owned()];
    }
    let mut validation = CertificateValidationContext {
        match_typed_subject_alt_names: tls.subject_alt_names.iter().map(names_of).collect(),
        crl: tls.ca_crl.as_deref().map(file),
        ..CertificateValidationContext::default()
    };
    let mutual = tls.mode == ClientTlsMode::Mutual;
    if let Some(name) = &tls.credential {
        if mutual {
            common.tls_certificate_sds_secret_configs = vec![credential(name)];
        }
        let combined = CombinedCertificateValidationContext {
            default_validation_context: Some(validation),
            validation_context_sds_secret_config: Some(credential(&format!("{name}-cacert"))),
            ..CombinedCertificateValidationContext::default()
        };
        common.validation_context_type = Some(ValidationContextType::CombinedValidationContext(combined));
    } else {
        if let (true, Some(certificate), Some(key)) = (mutual, &tls.certificate, &tls.private_key) {
            common.tls_certificates = vec![certificate_files(certificate, key)];
        }
        if !tls.insecure_skip_verify {
            match tls.ca_certificates.as_deref() {
                Some("system") | None => validation.trusted_ca = Some(file(SYSTEM_ROOTS)),
                Some(path) => validation.trusted_ca = Some(file(path)),
            }
            if validation.match_typed_subject_alt_names.is_empty() {
                let name = tls.sni.as_deref().unwrap_or(host);
                if !name.starts_with('*') && name.parse::<std::net::IpAddr>().is_err() {
                    validation.match_typed_subject_alt_names = vec![names_of(&name.to_owned())];
                }
            }
            common.validation_context_type = Some(ValidationContextType::ValidationContext(validation));
        }
    }
    let sni = tls.sni.clone().unwrap_or_else(|| {
        if host.starts_with('*') {
            String::new()
        } else {
            host.to_owned()
        }
    });
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni,
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}
