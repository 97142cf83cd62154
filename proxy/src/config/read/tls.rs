//! TLS settings of both sides, and secrets.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{mem::take, sync::Arc};

use mesh_proto::envoy::{
    config::core::v3 as core,
    extensions::transport_sockets::{
        proxy_protocol::v3::ProxyProtocolUpstreamTransport,
        raw_buffer::v3::RawBuffer,
        tls::v3::{
            self as pb, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsCertificate,
            UpstreamTlsContext,
        },
    },
};

use super::{
    At, Result, boolean, done, each, open, opt_duration, refuse, required, required_text, scalar, unsupported,
};
use crate::config::{
    cluster::ProxyProtocol,
    secret::{KeySource, Secret, SecretKind},
    transport::{DownstreamTls, Offer, SdsSource, SecretRef, UpstreamTls, Validation},
};

mod offer;
mod validation;

/// What a chain's transport socket says; nothing is plaintext.
pub fn downstream(value: core::TransportSocket) -> Result<Option<DownstreamTls>> {
    let Some(any) = config_of(value)? else {
        return Ok(None);
    };
    if let Some(context) = open::<DownstreamTlsContext>(&any).at("typed_config")? {
        return downstream_context(context).map(Some).at("typed_config");
    }
    plaintext(&any).at("typed_config")?;
    Ok(None)
}

/// What a cluster's transport socket says; nothing is plaintext. And how the endpoint is told who the client is.
pub fn upstream(value: core::TransportSocket) -> Result<(Option<UpstreamTls>, Option<ProxyProtocol>)> {
    let Some(any) = config_of(value)? else {
        return Ok((None, None));
    };
    if let Some(outer) = open::<ProxyProtocolUpstreamTransport>(&any).at("typed_config")? {
        return introduced(outer).at("typed_config");
    }
    Ok((secured(&any)?, None))
}

fn introduced(
    mut outer: ProxyProtocolUpstreamTransport,
) -> Result<(Option<UpstreamTls>, Option<ProxyProtocol>)> {
    use core::proxy_protocol_config::Version;
    let mut config = take(&mut outer.config).unwrap_or_default();
    let version = match Version::try_from(take(&mut config.version)) {
        Ok(Version::V1) => ProxyProtocol::V1,
        Ok(Version::V2) => ProxyProtocol::V2,
        Err(_) => return refuse("is not known").at("config.version"),
    };
    done(&config).at("config")?;
    let inner = match take(&mut outer.transport_socket) {
        Some(inner) => config_of(inner).at("transport_socket")?,
        None => return refuse("is missing").at("transport_socket"),
    };
    // A client whose address is not known is told of as such.
    outer.allow_unspecified_address = false;
    done(&outer)?;
    let tls = match inner {
        Some(any) => secured(&any).at("transport_socket")?,
        None => None,
    };
    Ok((tls, Some(version)))
}

fn secured(any: &mesh_proto::pb::google::protobuf::Any) -> Result<Option<UpstreamTls>> {
    if let Some(context) = open::<UpstreamTlsContext>(any).at("typed_config")? {
        return upstream_context(context).map(Some).at("typed_config");
    }
    plaintext(any).at("typed_config")?;
    Ok(None)
}

fn config_of(value: core::TransportSocket) -> Result<Option<mesh_proto::pb::google::protobuf::Any>> {
    match value.config_type {
        Some(core::transport_socket::ConfigType::TypedConfig(any)) => Ok(Some(any)),
        None if value.name == "envoy.transport_sockets.raw_buffer" => Ok(None),
        None => refuse("is missing").at("typed_config"),
    }
}

fn plaintext(any: &mesh_proto::pb::google::protobuf::Any) -> Result<()> {
    match open::<RawBuffer>(any)? {
        Some(_) => Ok(()),
        None => refuse(format!("{} is not supported by this proxy", any.type_url)).at("@type"),
    }
}

struct Common {
    certificates: Vec<SecretRef>,
    validation: Option<Validation>,
    alpn: Vec<Vec<u8>>,
    offer: Offer,
}

fn common(mut value: CommonTlsContext) -> Result<Common> {
    let mut certificates = each(take(&mut value.tls_certificates), "tls_certificates", |one| {
        inline_certificate("".into(), one)
    })?;
    certificates.extend(each(
        take(&mut value.tls_certificate_sds_secret_configs),
        "tls_certificate_sds_secret_configs",
        secret_ref,
    )?);
    let validation = take(&mut value.validation_context_type)
        .map(validation::read)
        .transpose()?
        .flatten();
    let read = Common {
        certificates,
        validation,
        alpn: take(&mut value.alpn_protocols)
            .into_iter()
            .map(String::into_bytes)
            .collect(),
        offer: take(&mut value.tls_params)
            .map_or(Ok(Offer::default()), offer::read)
            .at("tls_params")?,
    };
    done(&value)?;
    Ok(read)
}

fn downstream_context(mut value: DownstreamTlsContext) -> Result<DownstreamTls> {
    use pb::downstream_tls_context::SessionTicketKeysType as Tickets;
    let common = common(take(&mut value.common_tls_context).unwrap_or_default()).at("common_tls_context")?;
    if common.certificates.is_empty() {
        return refuse("has no certificate").at("common_tls_context");
    }
    let session_tickets = match take(&mut value.session_ticket_keys_type) {
        None | Some(Tickets::DisableStatelessSessionResumption(false)) => true,
        Some(Tickets::DisableStatelessSessionResumption(true)) => false,
        Some(Tickets::SessionTicketKeys(_)) => return unsupported("session_ticket_keys"),
        Some(Tickets::SessionTicketKeysSdsSecretConfig(_)) => {
            return unsupported("session_ticket_keys_sds_secret_config");
        }
    };
    let tls = DownstreamTls {
        certificates: common.certificates,
        validation: common.validation,
        require_client_certificate: boolean(&mut value.require_client_certificate, false),
        alpn: common.alpn,
        offer: common.offer,
        session_tickets,
        session_timeout: opt_duration(take(&mut value.session_timeout), "session_timeout")?,
    };
    if tls.require_client_certificate && tls.validation.is_none() {
        return refuse("needs a validation context to check the certificate with")
            .at("require_client_certificate");
    }
    // No stapled answers are ever sent, which lenient stapling allows; the server's own order of ciphers counts.
    value.prefer_client_ciphers = false;
    value.disable_stateful_session_resumption = false;
    value.full_scan_certs_on_sni_mismatch = None;
    done(&value)?;
    Ok(tls)
}

fn upstream_context(mut value: UpstreamTlsContext) -> Result<UpstreamTls> {
    let common = common(take(&mut value.common_tls_context).unwrap_or_default()).at("common_tls_context")?;
    if common
        .validation
        .as_ref()
        .is_some_and(|peer| !peer.pins.is_empty())
    {
        return refuse("servers are not checked by hashes by this proxy").at("common_tls_context");
    }
    let tls = UpstreamTls {
        certificates: common.certificates,
        validation: common.validation,
        alpn: common.alpn,
        offer: common.offer,
        sni: take(&mut value.sni).into(),
        auto_host_sni: take(&mut value.auto_host_sni),
        auto_sni_san: take(&mut value.auto_sni_san_validation),
    };
    // Session resumption keeps as many sessions as rustls keeps; key usage is checked by it anyway.
    value.max_session_keys = None;
    #[allow(deprecated)]
    {
        value.enforce_rsa_key_usage = None;
    }
    done(&value)?;
    Ok(tls)
}

fn inline_certificate(name: Arc<str>, value: TlsCertificate) -> Result<SecretRef> {
    Ok(SecretRef::Inline(Arc::new(certificate(name, value)?)))
}

fn certificate(name: Arc<str>, mut value: TlsCertificate) -> Result<Secret> {
    let chain = scalar::data_source(required(take(&mut value.certificate_chain), "certificate_chain")?)
        .at("certificate_chain")?;
    let key =
        scalar::data_source(required(take(&mut value.private_key), "private_key")?).at("private_key")?;
    value.watched_directory = None;
    done(&value)?;
    Ok(Secret {
        name,
        kind: SecretKind::Certificate {
            chain,
            key: KeySource(key),
        },
    })
}

fn secret_ref(mut value: SdsSecretConfig) -> Result<SecretRef> {
    use core::config_source::ConfigSourceSpecifier as Specifier;
    let name = required_text(&mut value.name, "name")?.into();
    let specifier = value.sds_config.and_then(|config| config.config_source_specifier);
    let source = match specifier {
        None => SdsSource::Static,
        Some(Specifier::Ads(_)) => SdsSource::Ads,
        Some(Specifier::ApiConfigSource(source)) => SdsSource::Cluster(
            grpc_cluster(source.grpc_services).at("sds_config.api_config_source.grpc_services")?,
        ),
        Some(Specifier::Self_(_)) => return unsupported("sds_config.self"),
        Some(_) => return unsupported("sds_config.path_config_source"),
    };
    Ok(SecretRef::Sds { name, source })
}

/// The cluster of the first gRPC service of a list.
pub fn grpc_cluster(services: Vec<core::GrpcService>) -> Result<Arc<str>> {
    match services.into_iter().next() {
        Some(service) => grpc_service(service),
        None => refuse("is missing"),
    }
}

/// The cluster of a gRPC service.
pub fn grpc_service(service: core::GrpcService) -> Result<Arc<str>> {
    use core::grpc_service::TargetSpecifier as Target;
    match service.target_specifier {
        Some(Target::EnvoyGrpc(mut grpc)) => {
            required_text(&mut grpc.cluster_name, "envoy_grpc.cluster_name").map(Into::into)
        }
        Some(Target::GoogleGrpc(_)) => unsupported("google_grpc"),
        None => refuse("is missing").at("envoy_grpc"),
    }
}

/// A secret by its name.
pub fn secret(mut value: pb::Secret) -> Result<Secret> {
    let name: Arc<str> = take(&mut value.name).into();
    match required(value.r#type, "type")? {
        pb::secret::Type::TlsCertificate(certificate) => {
            self::certificate(name, certificate).at("tls_certificate")
        }
        pb::secret::Type::ValidationContext(mut context) => {
            let source = required(take(&mut context.trusted_ca), "trusted_ca").at("validation_context")?;
            let roots = scalar::data_source(source).at("validation_context.trusted_ca")?;
            let revoked = validation::revoked(&mut context).at("validation_context")?;
            context.watched_directory = None;
            done(&context).at("validation_context")?;
            Ok(Secret {
                name,
                kind: SecretKind::Validation { roots, revoked },
            })
        }
        pb::secret::Type::SessionTicketKeys(_) => unsupported("session_ticket_keys"),
        pb::secret::Type::GenericSecret(_) => unsupported("generic_secret"),
    }
}
