//! What a route does: forwarding, redirects, direct answers.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{mem::take, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use mesh_proto::envoy::config::route::v3 as pb;

use super::{
    At, Result, boolean, done, each, matcher, mutation, number, opt_duration, refuse, required,
    required_text, retry, route, scalar, timeout, unsupported,
};
use crate::config::{
    action::{
        Choice, Clusters, Direct, Forward, HashPolicy, HashSource, HostRewrite, Mirror, PathRewrite,
        Redirect, RedirectPath, Weighted,
    },
    route::Mutations,
    scalar::Fraction,
    secret::Source,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

pub fn forward(mut value: pb::RouteAction) -> Result<Forward> {
    use pb::route_action::ClusterNotFoundResponseCode as NotFound;
    let not_found = match NotFound::try_from(take(&mut value.cluster_not_found_response_code)) {
        Ok(NotFound::ServiceUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
        Ok(NotFound::NotFound) => StatusCode::NOT_FOUND,
        Ok(NotFound::InternalServerError) => StatusCode::INTERNAL_SERVER_ERROR,
        Err(_) => return refuse("is not known").at("cluster_not_found_response_code"),
    };
    let stream = take(&mut value.max_stream_duration).unwrap_or_default();
    let mut forward = Forward {
        clusters: clusters(required(take(&mut value.cluster_specifier), "cluster_specifier")?)?,
        cluster_not_found: not_found,
        path_rewrite: path_rewrite(&mut value)?,
        host_rewrite: host_rewrite(&mut value)?,
        append_forwarded_host: take(&mut value.append_x_forwarded_host),
        timeout: timeout(take(&mut value.timeout), Some(DEFAULT_TIMEOUT), "timeout")?,
        idle_timeout: opt_duration(take(&mut value.idle_timeout), "idle_timeout")?.map(not_zero),
        max_stream: opt_duration(
            stream.max_stream_duration,
            "max_stream_duration.max_stream_duration",
        )?
        .and_then(not_zero),
        grpc_timeout_max: opt_duration(
            stream.grpc_timeout_header_max,
            "max_stream_duration.grpc_timeout_header_max",
        )?
        .map(not_zero),
        retry: take(&mut value.retry_policy)
            .map(|policy| retry::retry(policy).map(Arc::new).at("retry_policy"))
            .transpose()?,
        hash: each(take(&mut value.hash_policy), "hash_policy", hash_policy)?,
        mirrors: each(
            take(&mut value.request_mirror_policies),
            "request_mirror_policies",
            mirror,
        )?,
        upgrades: each(take(&mut value.upgrade_configs), "upgrade_configs", upgrade)?,
        high_priority: take(&mut value.priority) == 1,
    };
    if stream.grpc_timeout_header_offset.is_some() {
        return unsupported("max_stream_duration.grpc_timeout_header_offset");
    }
    if let Some(max) = opt_duration(take(&mut value.max_grpc_timeout), "max_grpc_timeout")? {
        forward.grpc_timeout_max.get_or_insert(not_zero(max));
    }
    // Both are silent where no rate-limit service is configured, and that filter is refused elsewhere.
    value.flush_timeout = None;
    done(&value)?;
    Ok(forward)
}

fn not_zero(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

fn clusters(value: pb::route_action::ClusterSpecifier) -> Result<Clusters> {
    use pb::route_action::ClusterSpecifier as Cluster;
    Ok(match value {
        Cluster::Cluster(name) if name.is_empty() => return refuse("is missing").at("cluster"),
        Cluster::Cluster(name) => Clusters::Single(name.into()),
        Cluster::ClusterHeader(name) => Clusters::Header(scalar::header_name(&name).at("cluster_header")?),
        Cluster::WeightedClusters(weighted) => {
            Clusters::Weighted(self::weighted(weighted).at("weighted_clusters")?)
        }
        Cluster::ClusterSpecifierPlugin(_) => return unsupported("cluster_specifier_plugin"),
        Cluster::InlineClusterSpecifierPlugin(_) => return unsupported("inline_cluster_specifier_plugin"),
    })
}

fn weighted(mut value: pb::WeightedCluster) -> Result<Weighted> {
    use pb::weighted_cluster::RandomValueSpecifier as Random;
    let random_header = match take(&mut value.random_value_specifier) {
        Some(Random::HeaderName(name)) => Some(scalar::header_name(&name).at("header_name")?),
        Some(Random::UseHashPolicy(on)) if on.value => return unsupported("use_hash_policy"),
        _ => None,
    };
    let choices = each(take(&mut value.clusters), "clusters", choice)?;
    let total: u64 = choices.iter().map(|choice| u64::from(choice.weight)).sum();
    if total == 0 {
        return refuse("the weights sum up to 0").at("clusters");
    }
    // The sum of the weights, whatever the older field says; there is no runtime layer.
    value.total_weight.take();
    value.runtime_key_prefix.clear();
    done(&value)?;
    Ok(Weighted {
        choices,
        total,
        random_header,
    })
}

fn choice(mut value: pb::weighted_cluster::ClusterWeight) -> Result<Choice> {
    use pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral;
    let host_rewrite = match take(&mut value.host_rewrite_specifier) {
        Some(HostRewriteLiteral(text)) if !text.is_empty() => {
            Some(scalar::header_value(&text).at("host_rewrite_literal")?)
        }
        _ => None,
    };
    let choice = Choice {
        cluster: required_text(&mut value.name, "name")?.into(),
        weight: number(&mut value.weight).unwrap_or(0),
        mutations: Mutations {
            request: mutation::mutations(
                take(&mut value.request_headers_to_add),
                "request_headers_to_add",
                take(&mut value.request_headers_to_remove),
                "request_headers_to_remove",
            )?,
            response: mutation::mutations(
                take(&mut value.response_headers_to_add),
                "response_headers_to_add",
                take(&mut value.response_headers_to_remove),
                "response_headers_to_remove",
            )?,
        },
        host_rewrite,
        per_filter: route::own_per_filter(take(&mut value.typed_per_filter_config))?,
    };
    done(&value)?;
    Ok(choice)
}

fn path_rewrite(value: &mut pb::RouteAction) -> Result<PathRewrite> {
    let prefix = take(&mut value.prefix_rewrite);
    match (prefix.is_empty(), take(&mut value.regex_rewrite)) {
        (true, None) => Ok(PathRewrite::None),
        (false, None) => Ok(PathRewrite::Prefix(prefix.into())),
        (true, Some(regex)) => Ok(PathRewrite::Regex(
            matcher::substitution(regex).at("regex_rewrite")?,
        )),
        (false, Some(_)) => refuse("cannot stand beside prefix_rewrite").at("regex_rewrite"),
    }
}

fn host_rewrite(value: &mut pb::RouteAction) -> Result<HostRewrite> {
    use pb::route_action::HostRewriteSpecifier as Host;
    Ok(match take(&mut value.host_rewrite_specifier) {
        None => HostRewrite::None,
        Some(Host::HostRewriteLiteral(text)) => {
            HostRewrite::Literal(scalar::header_value(&text).at("host_rewrite_literal")?)
        }
        Some(Host::AutoHostRewrite(on)) if on.value => HostRewrite::Endpoint,
        Some(Host::AutoHostRewrite(_)) => HostRewrite::None,
        Some(Host::HostRewriteHeader(name)) => {
            HostRewrite::Header(scalar::header_name(&name).at("host_rewrite_header")?)
        }
        Some(Host::HostRewritePathRegex(regex)) => {
            HostRewrite::PathRegex(matcher::substitution(regex).at("host_rewrite_path_regex")?)
        }
        Some(Host::HostRewrite(_)) => return unsupported("host_rewrite"),
    })
}

pub fn mirror(mut value: pb::route_action::RequestMirrorPolicy) -> Result<Mirror> {
    let mirror = Mirror {
        cluster: required_text(&mut value.cluster, "cluster")?.into(),
        fraction: scalar::opt_runtime_fraction(
            take(&mut value.runtime_fraction),
            Fraction::ALWAYS,
            "runtime_fraction",
        )?,
        trace: take(&mut value.trace_sampled).map(|value| value.value),
        keep_host: take(&mut value.disable_shadow_host_suffix_append),
    };
    done(&value)?;
    Ok(mirror)
}

fn upgrade(mut value: pb::route_action::UpgradeConfig) -> Result<(Box<str>, bool)> {
    let protocol = required_text(&mut value.upgrade_type, "upgrade_type")?
        .to_ascii_lowercase()
        .into();
    let enabled = boolean(&mut value.enabled, true);
    done(&value)?;
    Ok((protocol, enabled))
}

fn hash_policy(value: pb::route_action::HashPolicy) -> Result<HashPolicy> {
    use pb::route_action::hash_policy::PolicySpecifier as Source;
    let source = match required(value.policy_specifier, "policy_specifier")? {
        Source::Header(header) if header.regex_rewrite.is_some() => {
            return unsupported("header.regex_rewrite");
        }
        Source::Header(header) => {
            HashSource::Header(scalar::header_name(&header.header_name).at("header.header_name")?)
        }
        Source::Cookie(cookie) => HashSource::Cookie {
            made: cookie_rest(&cookie).at("cookie")?,
            name: cookie.name.into(),
        },
        Source::ConnectionProperties(_) => HashSource::SourceIp,
        Source::QueryParameter(query) => HashSource::Query(query.name.into()),
        Source::FilterState(_) => return unsupported("filter_state"),
    };
    Ok(HashPolicy {
        source,
        terminal: value.terminal,
    })
}

/// What follows the value of a cookie that is made here. Without a TTL none is made.
fn cookie_rest(cookie: &pb::route_action::hash_policy::Cookie) -> Result<Option<Box<str>>> {
    let Some(ttl) = opt_duration(cookie.ttl, "ttl")? else {
        return Ok(None);
    };
    let mut rest = String::new();
    let mut add = |name: &str, value: &str| {
        rest.push_str("; ");
        rest.push_str(name);
        if !value.is_empty() {
            rest.push('=');
            rest.push_str(value);
        }
    };
    if !ttl.is_zero() {
        add("Max-Age", &ttl.as_secs().to_string());
    }
    if !cookie.path.is_empty() {
        add("Path", &cookie.path);
    }
    for attribute in &cookie.attributes {
        add(&attribute.name, &attribute.value);
    }
    add("HttpOnly", "");
    let whole = format!("{}=\"\"{rest}", cookie.name);
    if http::HeaderValue::from_str(&whole).is_err() {
        return refuse(format!("{whole:?} cannot be the value of a header"));
    }
    Ok(Some(rest.into()))
}

pub fn redirect(mut value: pb::RedirectAction) -> Result<Redirect> {
    use pb::redirect_action::{
        PathRewriteSpecifier as Path, RedirectResponseCode as Code, SchemeRewriteSpecifier as Scheme,
    };
    let status = match Code::try_from(take(&mut value.response_code)) {
        Ok(Code::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
        Ok(Code::Found) => StatusCode::FOUND,
        Ok(Code::SeeOther) => StatusCode::SEE_OTHER,
        Ok(Code::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Ok(Code::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
        Err(_) => return refuse("is not known").at("response_code"),
    };
    let scheme = match take(&mut value.scheme_rewrite_specifier) {
        Some(Scheme::HttpsRedirect(true)) => Some("https".into()),
        Some(Scheme::SchemeRedirect(scheme)) if !scheme.is_empty() => Some(scheme.into()),
        _ => None,
    };
    let path = match take(&mut value.path_rewrite_specifier) {
        None => RedirectPath::Keep,
        Some(Path::PathRedirect(path)) if path.is_empty() => RedirectPath::Keep,
        Some(Path::PathRedirect(path)) => RedirectPath::Full(path.into()),
        Some(Path::PrefixRewrite(prefix)) => RedirectPath::Prefix(prefix.into()),
        Some(Path::RegexRewrite(regex)) => {
            RedirectPath::Regex(matcher::substitution(regex).at("regex_rewrite")?)
        }
        Some(Path::PathRewrite(_)) => return unsupported("path_rewrite"),
    };
    let host = take(&mut value.host_redirect);
    let port = match take(&mut value.port_redirect) {
        0 => None,
        port => Some(
            u16::try_from(port).or_else(|_| refuse(format!("{port} is not a port")).at("port_redirect"))?,
        ),
    };
    Ok(Redirect {
        status,
        scheme,
        host: (!host.is_empty()).then(|| host.into()),
        port,
        path,
        strip_query: value.strip_query,
    })
}

pub fn direct(mut value: pb::DirectResponseAction, max_body: usize) -> Result<Direct> {
    let status = scalar::status(take(&mut value.status)).at("status")?;
    let body = match take(&mut value.body)
        .map(scalar::data_source)
        .transpose()
        .at("body")?
    {
        None => Bytes::new(),
        Some(Source::Inline(bytes)) => bytes,
        Some(Source::Environment(name)) => std::env::var(&*name).unwrap_or_default().into(),
        Some(Source::File(path)) => match std::fs::read(&path) {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                return refuse(format!("{} cannot be read: {error}", path.display())).at("body.filename");
            }
        },
    };
    if body.len() > max_body {
        return refuse(format!("has {} bytes, {max_body} are allowed", body.len())).at("body");
    }
    done(&value)?;
    Ok(Direct { status, body })
}
