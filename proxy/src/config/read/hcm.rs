//! The HTTP connection manager.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{mem::take, sync::Arc};

use mesh_proto::{
    envoy::{
        config::{
            core::v3 as core,
            trace::v3::{self as trace, OpenTelemetryConfig},
        },
        extensions::{
            filters::network::http_connection_manager::v3::{self as pb, http_connection_manager as parts},
            request_id::uuid::v3::UuidRequestIdConfig,
        },
        r#type::tracing::v3 as tags,
    },
    pb::google::protobuf::UInt32Value,
};

use super::{
    At, Result, access_log, boolean, done, each, filter, http, number, open, opt_duration, refuse, required,
    required_text, route, scalar, timeout, tls, unsupported,
};
use crate::config::{
    filter::HttpFilter,
    hcm::{
        AuthorityRules, ClientAddress, ClientCert, Codec, EscapedSlashes, ForwardClientCert, Hcm,
        HeaderRules, Limits, PathRules, RouteSource, Router, Scheme, ServerHeader, StripPort, Tag, TagValue,
        Timeouts, Tracing, TracingProvider, Underscores, Upgrade,
    },
    scalar::Fraction,
};

/// The `server` header where none is named.
const SERVER: &str = "gossamer";

pub fn hcm(mut value: pb::HttpConnectionManager) -> Result<Hcm> {
    let common = take(&mut value.common_http_protocol_options).unwrap_or_default();
    let (mut timeouts, limits, underscores) = common_options(common).at("common_http_protocol_options")?;
    self::timeouts(&mut value, &mut timeouts)?;
    let (filters, router) = filters(take(&mut value.http_filters))?;
    let logs = take(&mut value.access_log_options).unwrap_or_default();
    let old_interval = take(&mut value.access_log_flush_interval);
    let hcm = Hcm {
        stat_prefix: take(&mut value.stat_prefix).into(),
        codec: codec(take(&mut value.codec_type))?,
        routes: routes(required(take(&mut value.route_specifier), "route_specifier")?)?,
        filters,
        router,
        access_log: access_log::access_logs(take(&mut value.access_log), "access_log")?,
        log_interval: opt_duration(
            logs.access_log_flush_interval.or(old_interval),
            "access_log_flush_interval",
        )?,
        tracing: take(&mut value.tracing)
            .map(|one| tracing(one).at("tracing"))
            .transpose()?,
        upgrades: each(take(&mut value.upgrade_configs), "upgrade_configs", upgrade)?,
        timeouts,
        limits: Limits {
            max_request_headers_bytes: number(&mut value.max_request_headers_kb).map_or(60, |kb| kb as usize)
                << 10,
            ..limits
        },
        address: ClientAddress {
            use_remote: boolean(&mut value.use_remote_address, false),
            xff_trusted_hops: take(&mut value.xff_num_trusted_hops),
            skip_xff_append: take(&mut value.skip_xff_append),
            append_forwarded_port: take(&mut value.append_x_forwarded_port),
        },
        internal: internal(take(&mut value.internal_address_config)).at("internal_address_config")?,
        client_cert: client_cert(&mut value)?,
        path: path_rules(&mut value)?,
        authority: authority_rules(&mut value),
        headers: headers(&mut value, underscores)?,
        http1: http::http1(take(&mut value.http_protocol_options)).at("http_protocol_options")?,
        http2: http::http2(take(&mut value.http2_protocol_options)).at("http2_protocol_options")?,
    };
    request_id(take(&mut value.request_id_extension)).at("request_id_extension")?;
    drop_hints(&mut value);
    done(&value)?;
    Ok(hcm)
}

/// Whose requests are internal. Clients on unix sockets have no address here.
fn internal(
    value: Option<pb::http_connection_manager::InternalAddressConfig>,
) -> Result<Box<[ipnet::IpNet]>> {
    let Some(mut value) = value else {
        return Ok(Box::default());
    };
    value.unix_sockets = false;
    let ranges = take(&mut value.cidr_ranges)
        .into_iter()
        .map(scalar::network)
        .collect::<Result<_>>()
        .at("cidr_ranges")?;
    done(&value)?;
    Ok(ranges)
}

/// What changes no answer here: an invalid message always ends its connection, 100-continue always passes.
fn drop_hints(value: &mut pb::HttpConnectionManager) {
    value.http3_protocol_options = None;
    value.stream_error_on_invalid_http_message = None;
    value.proxy_100_continue = false;
    value.delayed_close_timeout = None;
    value.stream_flush_timeout = None;
    value.drain_timeout_jitter = None;
    value.append_local_overload = false;
    value.http1_safe_max_connection_duration = false;
    value.represent_ipv4_remote_address_as_ipv4_mapped_ipv6 = false;
}

fn codec(kind: i32) -> Result<Codec> {
    match parts::CodecType::try_from(kind) {
        Ok(parts::CodecType::Auto) => Ok(Codec::Auto),
        Ok(parts::CodecType::Http1) => Ok(Codec::Http1),
        Ok(parts::CodecType::Http2) => Ok(Codec::Http2),
        Ok(parts::CodecType::Http3) => refuse("HTTP3 is not supported by this proxy").at("codec_type"),
        Err(_) => refuse("is not known").at("codec_type"),
    }
}

fn routes(value: parts::RouteSpecifier) -> Result<RouteSource> {
    match value {
        parts::RouteSpecifier::RouteConfig(config) => Ok(RouteSource::Inline(Arc::new(
            route::route_config(config).at("route_config")?,
        ))),
        parts::RouteSpecifier::Rds(mut rds) => {
            let name = required_text(&mut rds.route_config_name, "route_config_name").at("rds")?;
            let source = required(rds.config_source, "config_source").at("rds")?;
            match source.config_source_specifier {
                Some(core::config_source::ConfigSourceSpecifier::Ads(_)) => Ok(RouteSource::Rds(name.into())),
                _ => refuse("only ads is supported by this proxy").at("rds.config_source"),
            }
        }
        parts::RouteSpecifier::ScopedRoutes(_) => unsupported("scoped_routes"),
    }
}

fn filters(list: Vec<pb::HttpFilter>) -> Result<(Vec<HttpFilter>, Router)> {
    let mut filters = Vec::new();
    let last = list.len().saturating_sub(1);
    for (n, one) in list.into_iter().enumerate() {
        match filter::http_filter(one).nth("http_filters", n)? {
            filter::Read::Router(router) if n == last => return Ok((filters, router)),
            filter::Read::Router(_) => return refuse("the router must be the last").nth("http_filters", n),
            filter::Read::Filter(filter) => filters.push(filter),
            filter::Read::Skipped => {}
        }
    }
    refuse("must end with the router").at("http_filters")
}

fn common_options(mut value: core::HttpProtocolOptions) -> Result<(Timeouts, Limits, Underscores)> {
    let default = Timeouts::default();
    let timeouts = Timeouts {
        idle: timeout(take(&mut value.idle_timeout), default.idle, "idle_timeout")?,
        max_connection: timeout(
            take(&mut value.max_connection_duration),
            None,
            "max_connection_duration",
        )?,
        max_stream: timeout(take(&mut value.max_stream_duration), None, "max_stream_duration")?,
        ..default
    };
    let limits = Limits {
        max_headers_count: number(&mut value.max_headers_count).map_or(100, |count| count as usize),
        max_requests_per_connection: number(&mut value.max_requests_per_connection).filter(|max| *max > 0),
        ..Limits::default()
    };
    let underscores = http::underscores(take(&mut value.headers_with_underscores_action))?;
    value.max_connection_duration_jitter = None;
    // Of the upstream's answers; meant for clusters.
    value.max_response_headers_kb = None;
    done(&value)?;
    Ok((timeouts, limits, underscores))
}

fn timeouts(value: &mut pb::HttpConnectionManager, timeouts: &mut Timeouts) -> Result<()> {
    timeouts.stream_idle = timeout(
        take(&mut value.stream_idle_timeout),
        timeouts.stream_idle,
        "stream_idle_timeout",
    )?;
    timeouts.request = timeout(take(&mut value.request_timeout), None, "request_timeout")?;
    timeouts.request_headers = timeout(
        take(&mut value.request_headers_timeout),
        None,
        "request_headers_timeout",
    )?;
    if let Some(drain) = opt_duration(take(&mut value.drain_timeout), "drain_timeout")? {
        timeouts.drain = drain;
    }
    Ok(())
}

fn client_cert(value: &mut pb::HttpConnectionManager) -> Result<ClientCert> {
    use parts::ForwardClientCertDetails as Forward;
    let forward = match Forward::try_from(take(&mut value.forward_client_cert_details)) {
        Ok(Forward::Sanitize) => ForwardClientCert::Sanitize,
        Ok(Forward::ForwardOnly) => ForwardClientCert::ForwardOnly,
        Ok(Forward::AppendForward) => ForwardClientCert::AppendForward,
        Ok(Forward::SanitizeSet) => ForwardClientCert::SanitizeSet,
        Ok(Forward::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
        Err(_) => return refuse("is not known").at("forward_client_cert_details"),
    };
    let mut set = take(&mut value.set_current_client_cert_details).unwrap_or_default();
    let read = ClientCert {
        forward,
        subject: boolean(&mut set.subject, false),
        cert: take(&mut set.cert),
        chain: take(&mut set.chain),
        dns: take(&mut set.dns),
        uri: take(&mut set.uri),
    };
    done(&set).at("set_current_client_cert_details")?;
    Ok(read)
}

fn path_rules(value: &mut pb::HttpConnectionManager) -> Result<PathRules> {
    use parts::PathWithEscapedSlashesAction as Action;
    let escaped_slashes = match Action::try_from(take(&mut value.path_with_escaped_slashes_action)) {
        Ok(Action::ImplementationSpecificDefault | Action::KeepUnchanged) => EscapedSlashes::Keep,
        Ok(Action::RejectRequest) => EscapedSlashes::Reject,
        Ok(Action::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Ok(Action::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
        Err(_) => return refuse("is not known").at("path_with_escaped_slashes_action"),
    };
    Ok(PathRules {
        normalize: boolean(&mut value.normalize_path, false),
        merge_slashes: take(&mut value.merge_slashes),
        escaped_slashes,
    })
}

fn authority_rules(value: &mut pb::HttpConnectionManager) -> AuthorityRules {
    let any = matches!(
        take(&mut value.strip_port_mode),
        Some(parts::StripPortMode::StripAnyHostPort(true))
    );
    let matching = take(&mut value.strip_matching_host_port);
    AuthorityRules {
        strip_port: match (any, matching) {
            (true, _) => StripPort::Any,
            (false, true) => StripPort::Matching,
            (false, false) => StripPort::No,
        },
        strip_trailing_dot: take(&mut value.strip_trailing_host_dot),
    }
}

fn headers(value: &mut pb::HttpConnectionManager, underscores: Underscores) -> Result<HeaderRules> {
    use parts::ServerHeaderTransformation as Server;
    let name = take(&mut value.server_name);
    let via = take(&mut value.via);
    let scheme = take(&mut value.scheme_header_transformation)
        .map(scheme)
        .transpose()
        .at("scheme_header_transformation")?;
    Ok(HeaderRules {
        server_name: scalar::header_value(if name.is_empty() { SERVER } else { &name }).at("server_name")?,
        server_transformation: match Server::try_from(take(&mut value.server_header_transformation)) {
            Ok(Server::Overwrite) => ServerHeader::Overwrite,
            Ok(Server::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
            Ok(Server::PassThrough) => ServerHeader::PassThrough,
            Err(_) => return refuse("is not known").at("server_header_transformation"),
        },
        generate_request_id: boolean(&mut value.generate_request_id, true),
        preserve_external_request_id: take(&mut value.preserve_external_request_id),
        request_id_in_response: take(&mut value.always_set_request_id_in_response),
        via: (!via.is_empty())
            .then(|| scalar::header_value(&via).at("via"))
            .transpose()?,
        add_user_agent: boolean(&mut value.add_user_agent, false),
        scheme: scheme.flatten(),
        underscores,
    })
}

fn scheme(value: core::SchemeHeaderTransformation) -> Result<Option<Scheme>> {
    use core::scheme_header_transformation::Transformation::SchemeToOverwrite;
    match value.transformation {
        Some(SchemeToOverwrite(text)) => match text.as_str() {
            "http" => Ok(Some(Scheme::Http)),
            "https" => Ok(Some(Scheme::Https)),
            _ => refuse(format!("{text:?} is neither http nor https")).at("scheme_to_overwrite"),
        },
        None => Ok(value.match_upstream.then_some(Scheme::MatchUpstream)),
    }
}

fn upgrade(mut value: parts::UpgradeConfig) -> Result<Upgrade> {
    let protocol = required_text(&mut value.upgrade_type, "upgrade_type")?.to_ascii_lowercase();
    let enabled = route::enabled(take(&mut value.enabled));
    done(&value)?;
    Ok(Upgrade {
        protocol: protocol.into(),
        enabled,
    })
}

/// Request ids are UUIDs, as Envoy's default extension makes them.
fn request_id(value: Option<pb::RequestIdExtension>) -> Result<()> {
    let Some(any) = value.and_then(|extension| extension.typed_config) else {
        return Ok(());
    };
    match open::<UuidRequestIdConfig>(&any)? {
        Some(_) => Ok(()),
        None => refuse(format!("{} is not supported by this proxy", any.type_url)).at("typed_config.@type"),
    }
}

fn tracing(mut value: parts::Tracing) -> Result<Tracing> {
    let tracing = Tracing {
        provider: take(&mut value.provider)
            .map_or(Ok(TracingProvider::None), provider)
            .at("provider")?,
        client: scalar::percent(take(&mut value.client_sampling), Fraction::ALWAYS),
        random: scalar::percent(take(&mut value.random_sampling), Fraction::ALWAYS),
        overall: scalar::percent(take(&mut value.overall_sampling), Fraction::ALWAYS),
        max_path_length: take(&mut value.max_path_tag_length)
            .map_or(256, |max: UInt32Value| max.value as usize),
        tags: each(take(&mut value.custom_tags), "custom_tags", tag)?,
        spawn_upstream_span: boolean(&mut value.spawn_upstream_span, false),
    };
    // More events on spans.
    value.verbose = false;
    done(&value)?;
    Ok(tracing)
}

fn provider(value: trace::tracing::Http) -> Result<TracingProvider> {
    let Some(trace::tracing::http::ConfigType::TypedConfig(any)) = value.config_type else {
        return refuse("is missing").at("typed_config");
    };
    let Some(mut config) = open::<OpenTelemetryConfig>(&any).at("typed_config")? else {
        return refuse(format!("{} is not supported by this proxy", any.type_url)).at("typed_config.@type");
    };
    let service = required(take(&mut config.grpc_service), "grpc_service").at("typed_config")?;
    let cluster = tls::grpc_service(service).at("typed_config.grpc_service")?;
    let provider = TracingProvider::OpenTelemetry {
        cluster,
        service: take(&mut config.service_name).into(),
    };
    config.max_cache_size = None;
    // What describes the process is told anyway.
    config.resource_detectors.clear();
    config.set_telemetry_sdk_resource_attributes = None;
    config.set_service_name_resource_attribute = None;
    config.set_instrumentation_scope = None;
    done(&config).at("typed_config")?;
    Ok(provider)
}

fn tag(mut value: tags::CustomTag) -> Result<Tag> {
    let name = required_text(&mut value.tag, "tag")?.into();
    let value = match required(value.r#type, "type")? {
        tags::custom_tag::Type::Literal(literal) => TagValue::Literal(literal.value.into()),
        tags::custom_tag::Type::Environment(one) => TagValue::Environment {
            name: one.name.into(),
            default: one.default_value.into(),
        },
        tags::custom_tag::Type::RequestHeader(header) => TagValue::RequestHeader {
            name: scalar::header_name(&header.name).at("request_header.name")?,
            default: header.default_value.into(),
        },
        tags::custom_tag::Type::Metadata(_) => return unsupported("metadata"),
        tags::custom_tag::Type::Value(_) => return unsupported("value"),
    };
    Ok(Tag { name, value })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::{chain::Terminal, read::testing};

    /// How long a connection may idle where nothing is said.
    const HOUR: Duration = Duration::from_secs(3600);

    fn listener(hcm: &str) -> String {
        format!(
            r#"{{name: l, address: {{socket_address: {{address: 0.0.0.0, port_value: 80}}}}, filter_chains: [{{filters: [{{name: hcm, typed_config: {{"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", {hcm}}}}}]}}]}}"#
        )
    }

    const ROUTER: &str = r#"{name: router, typed_config: {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}"#;

    #[test]
    fn defaults_are_envoys() {
        let yaml = listener(&format!(
            "stat_prefix: x, route_config: {{name: r}}, http_filters: [{ROUTER}]"
        ));
        let listener = testing::listener(&yaml);
        let Terminal::Http(hcm) = &listener.chains[0].terminal else {
            panic!()
        };
        assert_eq!(
            (hcm.timeouts.idle, hcm.timeouts.stream_idle),
            (Some(HOUR), Some(HOUR / 12))
        );
        assert_eq!(
            (hcm.limits.max_headers_count, hcm.limits.max_request_headers_bytes),
            (100, 61_440)
        );
        assert!(
            hcm.headers.generate_request_id
                && !hcm.path.normalize
                && hcm.http2.max_concurrent_streams == 1024
        );
    }

    #[test]
    fn what_is_not_known_is_refused_by_path() {
        let refused = |hcm: &str| testing::listener_refused(&listener(hcm));
        let path = "filter_chains[0].filters[0].typed_config";
        let error = refused("route_config: {name: r}, http_filters: []");
        assert_eq!(error.path, format!("{path}.http_filters"));
        let lua = r#"{name: lua, typed_config: {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}}"#;
        let error = refused(&format!(
            "route_config: {{name: r}}, http_filters: [{lua}, {ROUTER}]"
        ));
        assert_eq!(error.path, format!("{path}.http_filters[0].typed_config.@type"));
        let error = refused(&format!(
            "route_config: {{name: r}}, local_reply_config: {{mappers: [{{}}]}}, http_filters: [{ROUTER}]"
        ));
        assert_eq!(error.path, format!("{path}.local_reply_config"));
        assert_eq!(error.why, "is not supported by this proxy");
        let error = refused(&format!(
            "route_config: {{name: r, virtual_hosts: [{{name: v, domains: [a, '*', b*c]}}]}}, http_filters: [{ROUTER}]"
        ));
        assert_eq!(
            error.path,
            format!("{path}.route_config.virtual_hosts[0].domains[2]")
        );
    }

    #[test]
    fn an_optional_filter_may_be_unknown() {
        let lua = r#"{name: lua, is_optional: true, typed_config: {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}}"#;
        let listener = testing::listener(&listener(&format!(
            "route_config: {{name: r}}, http_filters: [{lua}, {ROUTER}]"
        )));
        let Terminal::Http(hcm) = &listener.chains[0].terminal else {
            panic!()
        };
        assert!(hcm.filters.is_empty());
    }
}
