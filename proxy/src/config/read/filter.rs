//! HTTP filters, and how routes override them. A filter is known by the type of its configuration, not by its name.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{mem::take, sync::Arc};

use mesh_proto::{
    envoy::{
        config::route::v3 as route,
        extensions::filters::{
            common::fault::v3 as delay,
            http::{
                cors::v3 as cors_pb, fault::v3 as fault_pb, header_mutation::v3 as mutation_pb,
                jwt_authn::v3 as jwt_pb, local_ratelimit::v3 as limit_pb, rbac::v3 as rbac_pb,
                router::v3::Router as RouterPb,
            },
            network::http_connection_manager::v3 as hcm,
        },
    },
    pb::google::protobuf::Any,
};

use super::{
    At, Result, cors, done, duration, jwt, matcher, mutation, number, open, rbac, refuse, required, scalar,
    unsupported,
};
use crate::config::{
    bucket::Bucket,
    filter::{
        AbortWith, Fault, FaultAbort, FaultDelay, FilterOverride, HttpFilter, HttpFilterKind, LocalRateLimit,
        TokenBucket,
    },
    hcm::Router,
    route::Mutation,
    scalar::Fraction,
};

/// One of the connection manager's filters.
pub enum Read {
    Filter(HttpFilter),
    Router(Router),
    /// Unknown, and its configuration says that it may be missing.
    Skipped,
}

pub fn http_filter(mut value: hcm::HttpFilter) -> Result<Read> {
    let name: Arc<str> = take(&mut value.name).into();
    let optional = take(&mut value.is_optional);
    let disabled = take(&mut value.disabled);
    let any = match take(&mut value.config_type) {
        Some(hcm::http_filter::ConfigType::TypedConfig(any)) => any,
        Some(_) => return unsupported("config_discovery"),
        None => return refuse("is missing").at("typed_config"),
    };
    if let Some(router) = open::<RouterPb>(&any).at("typed_config")? {
        return self::router(router).map(Read::Router).at("typed_config");
    }
    match kind(&any).at("typed_config")? {
        Some(kind) => Ok(Read::Filter(HttpFilter { name, disabled, kind })),
        None if optional => Ok(Read::Skipped),
        None => refuse(format!("{} is not supported by this proxy", any.type_url)).at("typed_config.@type"),
    }
}

fn kind(any: &Any) -> Result<Option<HttpFilterKind>> {
    if let Some(value) = open::<fault_pb::HttpFault>(any)? {
        return Ok(Some(HttpFilterKind::Fault(Arc::new(fault(value)?))));
    }
    if let Some(value) = open::<rbac_pb::Rbac>(any)? {
        return Ok(Some(HttpFilterKind::Rbac(Arc::new(rbac::http(value)?))));
    }
    if let Some(value) = open::<jwt_pb::JwtAuthentication>(any)? {
        return Ok(Some(HttpFilterKind::Jwt(Arc::new(jwt::filter(value)?))));
    }
    if open::<cors_pb::Cors>(any)?.is_some() {
        return Ok(Some(HttpFilterKind::Cors));
    }
    if let Some(value) = open::<limit_pb::LocalRateLimit>(any)? {
        return Ok(Some(HttpFilterKind::LocalRateLimit(Arc::new(local_rate_limit(
            value,
        )?))));
    }
    if let Some(mut value) = open::<mutation_pb::HeaderMutation>(any)? {
        let (request, response) = mutations(take(&mut value.mutations)).at("mutations")?;
        // Of the levels of a route the most specific one counts here in any case.
        value.most_specific_header_mutations_wins = false;
        done(&value)?;
        return Ok(Some(HttpFilterKind::HeaderMutation(request, response)));
    }
    Ok(None)
}

fn router(mut value: RouterPb) -> Result<Router> {
    let router = Router {
        suppress_envoy_headers: take(&mut value.suppress_envoy_headers),
    };
    // Statistics, and a span that is always made.
    value.dynamic_stats = None;
    value.suppress_grpc_request_failure_code_stats = false;
    value.start_child_span = false;
    done(&value)?;
    Ok(router)
}

/// The override of a filter; nothing if it is unknown and says that it may be missing.
pub fn filter_override(name: &str, any: &Any) -> Result<Option<FilterOverride>> {
    if let Some(mut value) = open::<route::FilterConfig>(any)? {
        if take(&mut value.disabled) {
            return Ok(Some(FilterOverride::Disabled));
        }
        let optional = take(&mut value.is_optional);
        return match take(&mut value.config) {
            None => Ok(Some(FilterOverride::Enabled)),
            // An empty message of any type switches a filter on that is off.
            Some(inner) => match overriding(&inner).at("config") {
                Ok(Some(read)) => Ok(Some(read)),
                Ok(None) if optional => Ok(None),
                Ok(None) => {
                    refuse(format!("{} is not supported by this proxy", inner.type_url)).at("config.@type")
                }
                Err(reject) => Err(reject),
            },
        };
    }
    match overriding(any)? {
        Some(read) => Ok(Some(read)),
        None => refuse(format!(
            "{} for {name} is not supported by this proxy",
            any.type_url
        ))
        .at("@type"),
    }
}

fn overriding(any: &Any) -> Result<Option<FilterOverride>> {
    if let Some(value) = open::<fault_pb::HttpFault>(any)? {
        return Ok(Some(FilterOverride::Fault(Arc::new(fault(value)?))));
    }
    if let Some(value) = open::<rbac_pb::RbacPerRoute>(any)? {
        return Ok(Some(match value.rbac {
            None => FilterOverride::Disabled,
            Some(rules) => FilterOverride::Rbac(Arc::new(rbac::http(rules).at("rbac")?)),
        }));
    }
    if let Some(value) = open::<jwt_pb::PerRouteConfig>(any)? {
        return Ok(Some(match jwt::per_route(value)? {
            jwt::PerRoute::Disabled => FilterOverride::Disabled,
            jwt::PerRoute::Named(name) => FilterOverride::Jwt(name),
        }));
    }
    if let Some(value) = open::<cors_pb::CorsPolicy>(any)? {
        return Ok(Some(FilterOverride::Cors(Arc::new(cors::policy(value)?))));
    }
    if let Some(value) = open::<limit_pb::LocalRateLimit>(any)? {
        return Ok(Some(FilterOverride::LocalRateLimit(Arc::new(local_rate_limit(
            value,
        )?))));
    }
    if let Some(value) = open::<mutation_pb::HeaderMutationPerRoute>(any)? {
        let (request, response) = mutations(value.mutations).at("mutations")?;
        return Ok(Some(FilterOverride::HeaderMutation(request, response)));
    }
    Ok(None)
}

fn fault(mut value: fault_pb::HttpFault) -> Result<Fault> {
    let delay = take(&mut value.delay)
        .map(|delay| fault_delay(delay).at("delay"))
        .transpose()?;
    let abort = take(&mut value.abort)
        .map(|abort| fault_abort(abort).at("abort"))
        .transpose()?;
    let cluster = take(&mut value.upstream_cluster);
    let fault = Fault {
        delay,
        abort,
        headers: matcher::headers(take(&mut value.headers), "headers")?,
        cluster: (!cluster.is_empty()).then(|| cluster.into()),
        max_active: number(&mut value.max_active_faults),
    };
    // There is no runtime layer: the keys are names of values that do not exist.
    for key in [
        &mut value.delay_percent_runtime,
        &mut value.abort_percent_runtime,
        &mut value.delay_duration_runtime,
        &mut value.abort_http_status_runtime,
        &mut value.max_active_faults_runtime,
        &mut value.response_rate_limit_percent_runtime,
        &mut value.abort_grpc_status_runtime,
    ] {
        key.clear();
    }
    value.disable_downstream_cluster_stats = false;
    value.filter_metadata = None;
    done(&value)?;
    Ok(fault)
}

fn fault_delay(value: delay::FaultDelay) -> Result<FaultDelay> {
    use delay::fault_delay::FaultDelaySecifier as Delay;
    let chance = value
        .percentage
        .as_ref()
        .map_or(Ok(Fraction::NEVER), scalar::fraction)
        .at("percentage")?;
    let fixed = match required(value.fault_delay_secifier, "fixed_delay")? {
        Delay::FixedDelay(time) => Some(duration(&time).at("fixed_delay")?),
        Delay::HeaderDelay(_) => None,
    };
    Ok(FaultDelay { fixed, chance })
}

fn fault_abort(mut value: fault_pb::FaultAbort) -> Result<FaultAbort> {
    use fault_pb::fault_abort::ErrorType;
    let chance = take(&mut value.percentage)
        .as_ref()
        .map_or(Ok(Fraction::NEVER), scalar::fraction)
        .at("percentage")?;
    let with = match required(take(&mut value.error_type), "error_type")? {
        ErrorType::HttpStatus(code) => AbortWith::Status(scalar::status(code).at("http_status")?),
        ErrorType::GrpcStatus(code) => AbortWith::Grpc(code),
        ErrorType::HeaderAbort(_) => AbortWith::Header,
    };
    done(&value)?;
    Ok(FaultAbort { with, chance })
}

fn local_rate_limit(mut value: limit_pb::LocalRateLimit) -> Result<LocalRateLimit> {
    let status = match take(&mut value.status).map_or(0, |status| status.code) {
        0 => http::StatusCode::TOO_MANY_REQUESTS,
        // Below 400 would not be a refusal.
        code => scalar::status(u32::try_from(code.max(400)).unwrap_or_default()).at("status.code")?,
    };
    let bucket = take(&mut value.token_bucket)
        .map(|bucket| token_bucket(bucket).at("token_bucket"))
        .transpose()?;
    use mesh_proto::envoy::extensions::common::ratelimit::v3::XRateLimitHeadersRfcVersion as Version;
    let tell = match Version::try_from(take(&mut value.enable_x_ratelimit_headers)) {
        Ok(version) => version != Version::Off,
        Err(_) => return refuse("is not known").at("enable_x_ratelimit_headers"),
    };
    let limit = LocalRateLimit {
        stat_prefix: take(&mut value.stat_prefix).into(),
        status,
        tell,
        retry_after: take(&mut value.enable_retry_after_header),
        bucket,
        enabled: scalar::opt_runtime_fraction(
            take(&mut value.filter_enabled),
            Fraction::NEVER,
            "filter_enabled",
        )?,
        enforced: scalar::opt_runtime_fraction(
            take(&mut value.filter_enforced),
            Fraction::NEVER,
            "filter_enforced",
        )?,
        unenforced: mutation::mutations(
            take(&mut value.request_headers_to_add_when_not_enforced),
            "request_headers_to_add_when_not_enforced",
            Vec::new(),
            "",
        )?
        .into(),
        response: mutation::mutations(
            take(&mut value.response_headers_to_add),
            "response_headers_to_add",
            Vec::new(),
            "",
        )?
        .into(),
        resource_exhausted: take(&mut value.rate_limited_as_resource_exhausted),
    };
    // Both are about descriptors, which are refused below.
    value.always_consume_default_token_bucket = None;
    value.stage = 0;
    done(&value)?;
    Ok(limit)
}

fn token_bucket(mut value: mesh_proto::envoy::r#type::v3::TokenBucket) -> Result<Bucket> {
    let interval =
        duration(&required(take(&mut value.fill_interval), "fill_interval")?).at("fill_interval")?;
    let bucket = TokenBucket {
        max: value.max_tokens,
        per_fill: number(&mut value.tokens_per_fill).unwrap_or(1),
        interval,
    };
    if bucket.max == 0 || bucket.per_fill == 0 || interval.is_zero() {
        return refuse("tokens and interval must be above 0");
    }
    Ok(Bucket::new(bucket))
}

type Both = (Arc<[Mutation]>, Arc<[Mutation]>);

fn mutations(value: Option<mutation_pb::Mutations>) -> Result<Both> {
    let mut value = value.unwrap_or_default();
    let request = mutation::listed(take(&mut value.request_mutations), "request_mutations")?;
    let response = mutation::listed(take(&mut value.response_mutations), "response_mutations")?;
    done(&value)?;
    Ok((request.into(), response.into()))
}
