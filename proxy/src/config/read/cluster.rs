//! Clusters.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{collections::HashMap, mem::take, sync::Arc, time::Duration};

use mesh_proto::{
    envoy::{
        config::{
            cluster::v3::{self as pb, cluster as parts},
            common::matcher::v3::{MatchPredicate, match_predicate},
            core::v3 as core,
            route::v3::header_matcher::HeaderMatchSpecifier,
        },
        extensions::upstreams::http::v3::{HttpProtocolOptions, http_protocol_options as options},
        r#type::matcher::v3::string_matcher::MatchPattern,
    },
    names,
    node::to_json,
    pb::google::protobuf::Any,
};

use super::{
    At, Result, balance, done, each, endpoint, http, number, opt_duration, refuse, required, required_text,
    scalar, timeout, tls, unsupported,
};
use crate::config::{
    Reject,
    cluster::{
        Breakers, Cluster, Dns, Family, Kind, Outlier, Protocol, ProxyProtocol, RetryBudget, ServiceName,
        Statuses, Thresholds, TransportMatch, UpstreamHttp,
    },
    endpoint::Assignment,
    transport::UpstreamTls,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const BUFFER_LIMIT: u32 = 1 << 20;
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub fn cluster(mut value: pb::Cluster) -> Result<Cluster> {
    let name: Arc<str> = required_text(&mut value.name, "name")?.into();
    let common =
        balance::common(take(&mut value.common_lb_config).unwrap_or_default()).at("common_lb_config")?;
    let (kind, assignment) = kind(&mut value, &name)?;
    let connection = take(&mut value.upstream_connection_options).unwrap_or_default();
    let metadata = take(&mut value.metadata);
    let (balance, slow_start) = balance::balance(&mut value)?;
    let (http, errors) = upstream_http(&mut value)?;
    let sockets = sockets(&mut value)?;
    let cluster = Cluster {
        balance,
        slow_start,
        connect_timeout: opt_duration(take(&mut value.connect_timeout), "connect_timeout")?
            .filter(|time| !time.is_zero())
            .unwrap_or(CONNECT_TIMEOUT),
        assignment: Arc::new(assignment),
        breakers: breakers(take(&mut value.circuit_breakers).unwrap_or_default()).at("circuit_breakers")?,
        outlier: take(&mut value.outlier_detection)
            .map(|one| outlier(one, errors).at("outlier_detection"))
            .transpose()?,
        transport: sockets.transport,
        transport_matches: sockets.matches,
        proxy_protocol: sockets.proxy_protocol,
        http,
        bind_source: bind_source(take(&mut value.upstream_bind_config)).at("upstream_bind_config")?,
        keepalive: connection.tcp_keepalive.map(scalar::keepalive),
        buffer_limit: number(&mut value.per_connection_buffer_limit_bytes).unwrap_or(BUFFER_LIMIT) as usize,
        panic_threshold: common.panic_threshold,
        locality_weighted: common.locality_weighted,
        close_on_health_failure: take(&mut value.close_connections_on_host_health_failure),
        services: services(metadata.as_ref()),
        subset: istio(metadata.as_ref(), "subset").map(Into::into),
        object: scalar::object(metadata.as_ref()),
        kind,
        name,
    };
    drop_hints(&mut value);
    done(&value)?;
    Ok(cluster)
}

/// Names and kinds of statistics; when a host that is gone is forgotten; eager connections.
fn drop_hints(value: &mut pb::Cluster) {
    value.alt_stat_name.clear();
    value.track_cluster_stats = None;
    value.track_timeout_budgets = false;
    value.cleanup_interval = None;
    value.ignore_health_on_host_removal = false;
    value.wait_for_warm_on_init = None;
    value.preconnect_policy = None;
    value.typed_dns_resolver_config = None;
    value.dns_resolution_config = None;
    value.dns_resolvers.clear();
    value.dns_jitter = None;
    value.dns_failure_refresh_rate = None;
    value.use_tcp_for_dns_lookups = false;
}

fn kind(value: &mut pb::Cluster, name: &Arc<str>) -> Result<(Kind, Assignment)> {
    use parts::{ClusterDiscoveryType, DiscoveryType};
    let discovery = match take(&mut value.cluster_discovery_type) {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => match DiscoveryType::try_from(kind) {
            Ok(kind) => kind,
            Err(_) => return refuse("is not known").at("type"),
        },
        Some(ClusterDiscoveryType::ClusterType(_)) => return unsupported("cluster_type"),
    };
    let dns = dns(value)?;
    let inline = take(&mut value.load_assignment);
    let eds = take(&mut value.eds_cluster_config);
    let original_dst = balance::original_dst(value)?;
    let given = inline.is_some();
    let assignment = inline
        .map_or(Ok(Assignment::default()), endpoint::assignment)
        .at("load_assignment")?;
    let kind = match discovery {
        DiscoveryType::Static => {
            let named = assignment
                .endpoints()
                .position(|endpoint| endpoint.address.socket().is_none());
            if named.is_some() {
                return refuse("a STATIC cluster needs IP addresses; for names use STRICT_DNS")
                    .at("load_assignment");
            }
            Kind::Static
        }
        DiscoveryType::StrictDns => Kind::StrictDns(dns),
        DiscoveryType::LogicalDns if assignment.endpoints().count() == 1 => Kind::LogicalDns(dns),
        DiscoveryType::LogicalDns => {
            return refuse("LOGICAL_DNS needs exactly one endpoint").at("load_assignment");
        }
        DiscoveryType::Eds if given => {
            return refuse("an EDS cluster must not have one").at("load_assignment");
        }
        DiscoveryType::Eds => eds_kind(eds.unwrap_or_default(), name).at("eds_cluster_config")?,
        DiscoveryType::OriginalDst if given => {
            return refuse("an ORIGINAL_DST cluster must not have one").at("load_assignment");
        }
        DiscoveryType::OriginalDst => original_dst,
    };
    Ok((kind, assignment))
}

fn eds_kind(value: parts::EdsClusterConfig, name: &Arc<str>) -> Result<Kind> {
    use core::config_source::ConfigSourceSpecifier as Source;
    let source = required(value.eds_config, "eds_config")?;
    if !matches!(source.config_source_specifier, Some(Source::Ads(_))) {
        return refuse("only ads is supported by this proxy").at("eds_config");
    }
    let service = if value.service_name.is_empty() {
        name.clone()
    } else {
        value.service_name.into()
    };
    Ok(Kind::Eds { service })
}

fn dns(value: &mut pb::Cluster) -> Result<Dns> {
    use parts::DnsLookupFamily as Lookup;
    let default = Dns::default();
    let refresh =
        opt_duration(take(&mut value.dns_refresh_rate), "dns_refresh_rate")?.unwrap_or(default.refresh);
    if refresh < Duration::from_millis(1) {
        return refuse("must be at least 1 ms").at("dns_refresh_rate");
    }
    Ok(Dns {
        refresh,
        respect_ttl: take(&mut value.respect_dns_ttl),
        family: match Lookup::try_from(take(&mut value.dns_lookup_family)) {
            Ok(Lookup::Auto) => Family::Auto,
            Ok(Lookup::V4Only) => Family::V4Only,
            Ok(Lookup::V6Only) => Family::V6Only,
            Ok(Lookup::V4Preferred) => Family::V4Preferred,
            Ok(Lookup::All) => Family::All,
            Err(_) => return refuse("is not known").at("dns_lookup_family"),
        },
    })
}

fn breakers(mut value: pb::CircuitBreakers) -> Result<Breakers> {
    let mut breakers = Breakers::default();
    for (n, one) in take(&mut value.thresholds).into_iter().enumerate() {
        let high = one.priority == 1;
        let read = thresholds(one).nth("thresholds", n)?;
        *(if high {
            &mut breakers.high
        } else {
            &mut breakers.default
        }) = read;
    }
    done(&value)?;
    Ok(breakers)
}

fn thresholds(mut value: pb::circuit_breakers::Thresholds) -> Result<Thresholds> {
    let default = Thresholds::default();
    let read = Thresholds {
        connections: number(&mut value.max_connections).unwrap_or(default.connections),
        pending: number(&mut value.max_pending_requests).unwrap_or(default.pending),
        requests: number(&mut value.max_requests).unwrap_or(default.requests),
        retries: number(&mut value.max_retries).unwrap_or(default.retries),
        retry_budget: take(&mut value.retry_budget)
            .map(|mut budget| {
                let percent = take(&mut budget.budget_percent).map_or(20.0, |percent| percent.value);
                let interval =
                    opt_duration(take(&mut budget.budget_interval), "retry_budget.budget_interval")?;
                Ok(RetryBudget {
                    percent,
                    least: number(&mut budget.min_retry_concurrency).unwrap_or(3),
                    interval: interval.filter(|time| !time.is_zero()),
                })
            })
            .transpose()?,
    };
    value.priority = 0;
    value.track_remaining = false;
    // One pool per cluster and worker here: there is nothing to count.
    value.max_connection_pools = None;
    done(&value)?;
    Ok(read)
}

fn outlier(mut value: pb::OutlierDetection, errors: Option<Statuses>) -> Result<Outlier> {
    // A rule that is enforced in 0 % of the cases is off.
    let rule = |count: Option<u32>, enforcing: Option<u32>, default: u32, enforced: u32| {
        if enforcing.unwrap_or(enforced) == 0 {
            0
        } else {
            count.unwrap_or(default)
        }
    };
    let time = |value, default, name: &str| opt_duration(value, name).map(|time| time.unwrap_or(default));
    let base = time(
        take(&mut value.base_ejection_time),
        Duration::from_secs(30),
        "base_ejection_time",
    )?;
    let outlier = Outlier {
        consecutive_5xx: rule(
            number(&mut value.consecutive_5xx),
            number(&mut value.enforcing_consecutive_5xx),
            5,
            100,
        ),
        consecutive_gateway: rule(
            number(&mut value.consecutive_gateway_failure),
            number(&mut value.enforcing_consecutive_gateway_failure),
            5,
            0,
        ),
        consecutive_local: rule(
            number(&mut value.consecutive_local_origin_failure),
            number(&mut value.enforcing_consecutive_local_origin_failure),
            5,
            100,
        ),
        split_local: take(&mut value.split_external_local_origin_errors),
        interval: time(take(&mut value.interval), Duration::from_secs(10), "interval")?,
        base_ejection: base,
        max_ejection: time(
            take(&mut value.max_ejection_time),
            base.max(Duration::from_secs(300)),
            "max_ejection_time",
        )?,
        max_percent: number(&mut value.max_ejection_percent).unwrap_or(10).min(100),
        errors,
    };
    drop_statistics_rules(&mut value)?;
    done(&value)?;
    Ok(outlier)
}

/// Rules over the success rates of all hosts are on by default in Envoy where a cluster has many hosts and requests.
/// Their parameters mean nothing while they are not enforced; enforcing them by name is refused.
fn drop_statistics_rules(value: &mut pb::OutlierDetection) -> Result<()> {
    for (field, name) in [
        (&mut value.enforcing_success_rate, "enforcing_success_rate"),
        (
            &mut value.enforcing_local_origin_success_rate,
            "enforcing_local_origin_success_rate",
        ),
        (
            &mut value.enforcing_failure_percentage,
            "enforcing_failure_percentage",
        ),
        (
            &mut value.enforcing_failure_percentage_local_origin,
            "enforcing_failure_percentage_local_origin",
        ),
    ] {
        if number(field).unwrap_or(0) > 0 {
            return unsupported(name);
        }
    }
    value.success_rate_minimum_hosts = None;
    value.success_rate_request_volume = None;
    value.success_rate_stdev_factor = None;
    value.failure_percentage_threshold = None;
    value.failure_percentage_minimum_hosts = None;
    value.failure_percentage_request_volume = None;
    value.max_ejection_time_jitter = None;
    // Active health checks are refused, so there is none that could bring a host back.
    value.successful_active_health_check_uneject_host = None;
    value.always_eject_one_host = None;
    Ok(())
}

/// How a cluster's connections begin.
struct Sockets {
    transport: Option<Arc<UpstreamTls>>,
    matches: Vec<TransportMatch>,
    proxy_protocol: Option<ProxyProtocol>,
}

fn sockets(value: &mut pb::Cluster) -> Result<Sockets> {
    let mut said: Vec<Option<ProxyProtocol>> = Vec::new();
    let matches = each(
        take(&mut value.transport_socket_matches),
        "transport_socket_matches",
        |row| transport_match(row, &mut said),
    )?;
    // Beside rows without a default, as pilots write them, the rows take every endpoint.
    let given = value.transport_socket.is_some() || matches.is_empty();
    let (transport, version) = take(&mut value.transport_socket)
        .map_or(Ok((None, None)), tls::upstream)
        .at("transport_socket")?;
    if given {
        said.push(version);
    }
    if said.windows(2).any(|pair| pair[0] != pair[1]) {
        return refuse("all of them must tell of the client in the same way, or not at all")
            .at("transport_socket_matches");
    }
    Ok(Sockets {
        transport: transport.map(Arc::new),
        matches,
        proxy_protocol: said.pop().flatten(),
    })
}

fn transport_match(
    value: parts::TransportSocketMatch,
    said: &mut Vec<Option<ProxyProtocol>>,
) -> Result<TransportMatch> {
    let (transport, version) = value
        .transport_socket
        .map_or(Ok((None, None)), tls::upstream)
        .at("transport_socket")?;
    said.push(version);
    Ok(TransportMatch {
        labels: value
            .r#match
            .as_ref()
            .map(|labels| scalar::labels(labels).collect())
            .unwrap_or_default(),
        transport: transport.map(Arc::new),
        name: value.name.into(),
    })
}

fn bind_source(value: Option<core::BindConfig>) -> Result<Option<std::net::IpAddr>> {
    let Some(mut value) = value else { return Ok(None) };
    let source = take(&mut value.source_address)
        .map(scalar::source_ip)
        .transpose()
        .at("source_address")?;
    // Where to connect from is always allowed to be an address that is not ours yet.
    value.freebind = None;
    done(&value)?;
    Ok(source.filter(|address| !address.is_unspecified()))
}

fn upstream_http(value: &mut pb::Cluster) -> Result<(UpstreamHttp, Option<Statuses>)> {
    let old = HttpProtocolOptions {
        common_http_protocol_options: take(&mut value.common_http_protocol_options),
        upstream_http_protocol_options: take(&mut value.upstream_http_protocol_options),
        upstream_protocol_options: old_protocol(value),
        ..HttpProtocolOptions::default()
    };
    let old_max = number(&mut value.max_requests_per_connection);
    let given = typed_options(take(&mut value.typed_extension_protocol_options))?;
    let mut given = given.unwrap_or(old);
    let path = || format!("typed_extension_protocol_options[{HTTP_OPTIONS:?}]");
    let errors = take(&mut given.outlier_detection)
        .and_then(|detection| detection.error_matcher)
        .map(|matcher| statuses(matcher).at("outlier_detection.error_matcher"))
        .transpose()
        .map_err(|reject| reject.under(&path()))?;
    let mut http = protocol_options(given).map_err(|reject| reject.under(&path()))?;
    http.max_requests = http.max_requests.or(old_max.filter(|max| *max > 0));
    Ok((http, errors))
}

/// Which answers are errors: one status, or one of several.
fn statuses(matcher: MatchPredicate) -> Result<Statuses> {
    use match_predicate::Rule;
    let mut read = Statuses::default();
    let rules = match matcher.rule {
        Some(Rule::OrMatch(set)) => set.rules,
        rule => vec![MatchPredicate { rule }],
    };
    for one in rules {
        let Some(Rule::HttpResponseHeadersMatch(mut given)) = one.rule else {
            return refuse(
                "only http_response_headers_match is supported by this proxy, alone or in or_match",
            );
        };
        let header = given.headers.pop().filter(|_| given.headers.is_empty());
        let status = header
            .filter(|header| header.name == ":status" && !header.invert_match)
            .and_then(|header| match header.header_match_specifier {
                Some(HeaderMatchSpecifier::StringMatch(matcher)) => match matcher.match_pattern {
                    Some(MatchPattern::Exact(text)) => text.parse().ok(),
                    _ => None,
                },
                _ => None,
            });
        if !status.is_some_and(|status| read.insert(status)) {
            return refuse("only one exact :status from 100 to 599 is supported by this proxy")
                .at("http_response_headers_match.headers");
        }
    }
    Ok(read)
}

fn typed_options(map: HashMap<String, Any>) -> Result<Option<HttpProtocolOptions>> {
    let mut found = None;
    for (name, any) in map {
        let path = format!("typed_extension_protocol_options[{name:?}]");
        if name != HTTP_OPTIONS {
            return Err(Reject::new(path, "is not supported by this proxy"));
        }
        found = Some(super::must_open(&any).at(&path)?);
    }
    Ok(found)
}

/// The fields that clusters had for their protocol before.
fn old_protocol(value: &mut pb::Cluster) -> Option<options::UpstreamProtocolOptions> {
    let http1 = take(&mut value.http_protocol_options);
    let http2 = take(&mut value.http2_protocol_options);
    let use_downstream = take(&mut value.protocol_selection) == 1;
    if use_downstream {
        return Some(options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            options::UseDownstreamHttpConfig {
                http_protocol_options: http1,
                http2_protocol_options: http2,
                ..options::UseDownstreamHttpConfig::default()
            },
        ));
    }
    use options::explicit_http_config::ProtocolConfig as Explicit;
    let config = match (http1, http2) {
        (_, Some(http2)) => Explicit::Http2ProtocolOptions(http2),
        (Some(http1), None) => Explicit::HttpProtocolOptions(http1),
        (None, None) => return None,
    };
    Some(options::UpstreamProtocolOptions::ExplicitHttpConfig(
        options::ExplicitHttpConfig {
            protocol_config: Some(config),
        },
    ))
}

fn protocol_options(mut value: HttpProtocolOptions) -> Result<UpstreamHttp> {
    use options::{UpstreamProtocolOptions as Options, explicit_http_config::ProtocolConfig as Explicit};
    let (protocol, http1, http2) = match take(&mut value.upstream_protocol_options) {
        None => (Protocol::Http1, None, None),
        Some(Options::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            None => (Protocol::Http1, None, None),
            Some(Explicit::HttpProtocolOptions(http1)) => (Protocol::Http1, Some(http1), None),
            Some(Explicit::Http2ProtocolOptions(http2)) => (Protocol::Http2, None, Some(http2)),
            Some(Explicit::Http3ProtocolOptions(_)) => {
                return unsupported("explicit_http_config.http3_protocol_options");
            }
        },
        Some(Options::UseDownstreamProtocolConfig(config)) => (
            Protocol::UseDownstream,
            config.http_protocol_options,
            config.http2_protocol_options,
        ),
        Some(Options::AutoConfig(config)) => (
            Protocol::Auto,
            config.http_protocol_options,
            config.http2_protocol_options,
        ),
    };
    let mut common = take(&mut value.common_http_protocol_options).unwrap_or_default();
    let http = UpstreamHttp {
        protocol,
        idle_timeout: timeout(
            take(&mut common.idle_timeout),
            Some(IDLE_TIMEOUT),
            "common_http_protocol_options.idle_timeout",
        )?,
        max_connection: timeout(
            take(&mut common.max_connection_duration),
            None,
            "common_http_protocol_options.max_connection_duration",
        )?,
        max_requests: number(&mut common.max_requests_per_connection).filter(|max| *max > 0),
        max_response_headers_count: number(&mut common.max_headers_count).map_or(100, |count| count as usize),
        http2: http::http2(http2).at("http2_protocol_options")?,
        preserve_case: http::http1(http1).at("http_protocol_options")?.preserve_case,
    };
    common.max_response_headers_kb = None;
    common.headers_with_underscores_action = 0;
    done(&common).at("common_http_protocol_options")?;
    sni_options(take(&mut value.upstream_http_protocol_options))?;
    done(&value)?;
    Ok(http)
}

/// The server name from the request's authority is not there yet.
fn sni_options(value: Option<core::UpstreamHttpProtocolOptions>) -> Result<()> {
    match value {
        Some(value) => done(&value).at("upstream_http_protocol_options"),
        None => Ok(()),
    }
}

fn istio(metadata: Option<&core::Metadata>, key: &str) -> Option<String> {
    let value = metadata?
        .filter_metadata
        .get(names::metadata::ISTIO)?
        .fields
        .get(key)?;
    to_json(value).as_str().map(str::to_owned)
}

fn services(metadata: Option<&core::Metadata>) -> Vec<Arc<ServiceName>> {
    let list = metadata
        .and_then(|metadata| metadata.filter_metadata.get(names::metadata::ISTIO))
        .and_then(|fields| fields.fields.get("services"))
        .map(to_json);
    let text = |json: &serde_json::Value, key: &str| json[key].as_str().unwrap_or_default().into();
    let read = |json: &serde_json::Value| {
        Arc::new(ServiceName {
            host: text(json, "host"),
            name: text(json, "name"),
            namespace: text(json, "namespace"),
        })
    };
    list.and_then(|list| list.as_array().map(|list| list.iter().map(read).collect()))
        .unwrap_or_default()
}
