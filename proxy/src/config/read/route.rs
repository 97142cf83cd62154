//! Route configurations.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{collections::HashMap, mem::take, sync::Arc};

use mesh_proto::{
    envoy::config::route::v3 as pb,
    pb::google::protobuf::{Any, BoolValue, UInt32Value},
};

use super::{
    At, Result, action, boolean, done, each, filter, matcher, mutation, refuse, required, required_text,
    scalar, unsupported,
};
use crate::config::{
    Reject,
    action::{Action, Mirror, Retry},
    filter::{FilterOverride, PerFilter},
    route::{Domains, Mutation, Mutations, RequireTls, Route, RouteConfig, RouteTracing, VirtualHost},
};

/// What a level hands down to the levels inside it.
#[derive(Clone, Default)]
struct Level {
    mutations: Arc<Mutations>,
    per_filter: Vec<(Arc<str>, FilterOverride)>,
    retry: Option<Arc<Retry>>,
    mirrors: Vec<Mirror>,
    /// Outer changes apply first.
    outer_first: bool,
    max_body: usize,
}

pub fn route_config(mut value: pb::RouteConfiguration) -> Result<RouteConfig> {
    let top = Level {
        mutations: Arc::new(Mutations {
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
        }),
        per_filter: per_filter(take(&mut value.typed_per_filter_config), &[])?,
        retry: None,
        mirrors: each(
            take(&mut value.request_mirror_policies),
            "request_mirror_policies",
            action::mirror,
        )?,
        // So that the most specific change has the last word.
        outer_first: take(&mut value.most_specific_header_mutations_wins),
        max_body: take(&mut value.max_direct_response_body_size_bytes)
            .map_or(4096, |bytes: UInt32Value| bytes.value) as usize,
    };
    let mut config = RouteConfig {
        name: take(&mut value.name).into(),
        ignore_port: take(&mut value.ignore_port_in_host_matching),
        validate_clusters: take(&mut value.validate_clusters).is_some_and(|value: BoolValue| value.value),
        ..RouteConfig::default()
    };
    config.vhosts = each(take(&mut value.virtual_hosts), "virtual_hosts", |host| {
        virtual_host(host, &top)
    })?;
    config.domains = domains(&config.vhosts)?;
    value.metadata = None;
    done(&value)?;
    Ok(config)
}

/// The index from domains to virtual hosts. A domain stands in one virtual host only.
fn domains(vhosts: &[VirtualHost]) -> Result<Domains> {
    let mut domains = Domains::default();
    let mut suffix: HashMap<usize, HashMap<Box<str>, u32>> = HashMap::new();
    let mut prefix: HashMap<usize, HashMap<Box<str>, u32>> = HashMap::new();
    for (at, vhost) in vhosts.iter().enumerate() {
        for (n, domain) in vhost.domains.iter().enumerate() {
            let at32 = at as u32;
            let before = if **domain == *"*" {
                domains.any.replace(at32)
            } else if let Some(tail) = domain.strip_prefix('*') {
                suffix.entry(tail.len()).or_default().insert(tail.into(), at32)
            } else if let Some(head) = domain.strip_suffix('*') {
                prefix.entry(head.len()).or_default().insert(head.into(), at32)
            } else {
                domains.exact.insert(domain.clone(), at32)
            };
            if let Some(before) = before {
                let why = format!(
                    "{domain:?} is also a domain of virtual host {:?}",
                    vhosts[before as usize].name
                );
                return Err(Reject::new(format!("virtual_hosts[{at}].domains[{n}]"), why));
            }
        }
    }
    let longest_first = |map: HashMap<usize, HashMap<Box<str>, u32>>| {
        let mut list: Vec<_> = map.into_iter().collect();
        list.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
        list
    };
    domains.suffix = longest_first(suffix);
    domains.prefix = longest_first(prefix);
    Ok(domains)
}

fn virtual_host(mut value: pb::VirtualHost, outer: &Level) -> Result<VirtualHost> {
    let own = Mutations {
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
    };
    let mirrors = each(
        take(&mut value.request_mirror_policies),
        "request_mirror_policies",
        action::mirror,
    )?;
    let level = Level {
        mutations: merged(own, outer),
        per_filter: per_filter(take(&mut value.typed_per_filter_config), &outer.per_filter)?,
        retry: take(&mut value.retry_policy)
            .map(|policy| super::retry::retry(policy).map(Arc::new).at("retry_policy"))
            .transpose()?,
        mirrors: if mirrors.is_empty() {
            outer.mirrors.clone()
        } else {
            mirrors
        },
        outer_first: outer.outer_first,
        max_body: outer.max_body,
    };
    let domains = take(&mut value.domains);
    if domains.is_empty() {
        return refuse("is missing").at("domains");
    }
    let require_tls = match pb::virtual_host::TlsRequirementType::try_from(take(&mut value.require_tls)) {
        Ok(pb::virtual_host::TlsRequirementType::None) => RequireTls::None,
        Ok(pb::virtual_host::TlsRequirementType::ExternalOnly) => RequireTls::ExternalOnly,
        Ok(pb::virtual_host::TlsRequirementType::All) => RequireTls::All,
        Err(_) => return refuse("is not known").at("require_tls"),
    };
    let host = VirtualHost {
        name: required_text(&mut value.name, "name")?.into(),
        domains: each(domains, "domains", |domain| self::domain(&domain))?,
        routes: each(take(&mut value.routes), "routes", |route| {
            self::route(route, &level)
        })?,
        require_tls,
        request_attempt_count: take(&mut value.include_request_attempt_count),
        response_attempt_count: take(&mut value.include_attempt_count_in_response),
        object: scalar::object(take(&mut value.metadata).as_ref()),
    };
    // Virtual clusters are names of statistics.
    value.virtual_clusters.clear();
    drop_buffer_limits(
        &mut value.request_body_buffer_limit,
        &mut value.per_request_buffer_limit_bytes,
    );
    done(&value)?;
    Ok(host)
}

/// Bodies are kept for retries within the listener's buffer limit; a smaller one changes no answer.
fn drop_buffer_limits<A, B>(new: &mut Option<A>, old: &mut Option<B>) {
    *new = None;
    *old = None;
}

fn domain(domain: &str) -> Result<Box<str>> {
    let stars = domain.bytes().filter(|byte| *byte == b'*').count();
    if domain.is_empty() || stars > 1 || (stars == 1 && !domain.starts_with('*') && !domain.ends_with('*')) {
        return refuse(format!(
            "{domain:?} is not a domain; a * may only begin or end it"
        ));
    }
    Ok(domain.to_ascii_lowercase().into())
}

fn merged(own: Mutations, outer: &Level) -> Arc<Mutations> {
    if own.is_empty() {
        return outer.mutations.clone();
    }
    let join = |own: Vec<Mutation>, outer_list: &[Mutation]| {
        let (first, second) = if outer.outer_first {
            (outer_list.to_vec(), own)
        } else {
            (own, outer_list.to_vec())
        };
        [first, second].concat()
    };
    Arc::new(Mutations {
        request: join(own.request, &outer.mutations.request),
        response: join(own.response, &outer.mutations.response),
    })
}

/// The overrides of this level, and those of the outer ones that it does not replace.
fn per_filter(
    map: HashMap<String, Any>,
    outer: &[(Arc<str>, FilterOverride)],
) -> Result<Vec<(Arc<str>, FilterOverride)>> {
    let mut list = outer.to_vec();
    for (name, any) in map {
        let read = filter::filter_override(&name, &any).at(&format!("typed_per_filter_config[{name:?}]"))?;
        let Some(read) = read else { continue };
        list.retain(|(other, _)| **other != *name);
        list.push((name.into(), read));
    }
    Ok(list)
}

/// The overrides of one weighted cluster: only its own, as `decide` asks the route after it.
pub(super) fn own_per_filter(map: HashMap<String, Any>) -> Result<PerFilter> {
    per_filter(map, &[]).map(PerFilter)
}

fn route(mut value: pb::Route, outer: &Level) -> Result<Route> {
    let own = Mutations {
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
    };
    let matches = required(take(&mut value.r#match), "match")?;
    let action = match take(&mut value.action) {
        Some(pb::route::Action::Route(forward)) => {
            let mut forward = action::forward(forward).at("route")?;
            if forward.retry.is_none() {
                forward.retry = outer.retry.clone();
            }
            if forward.mirrors.is_empty() {
                forward.mirrors = outer.mirrors.clone();
            }
            Action::Forward(Box::new(forward))
        }
        Some(pb::route::Action::Redirect(redirect)) => {
            Action::Redirect(Box::new(action::redirect(redirect).at("redirect")?))
        }
        Some(pb::route::Action::DirectResponse(direct)) => {
            Action::Direct(action::direct(direct, outer.max_body).at("direct_response")?)
        }
        Some(pb::route::Action::FilterAction(_)) => return unsupported("filter_action"),
        Some(pb::route::Action::NonForwardingAction(_)) => return unsupported("non_forwarding_action"),
        None => return refuse("is missing").at("action"),
    };
    let route = Route {
        name: take(&mut value.name).into(),
        matches: matcher::route(matches).at("match")?,
        action,
        object: scalar::object(take(&mut value.metadata).as_ref()),
        operation: take(&mut value.decorator)
            .filter(|decorator| !decorator.operation.is_empty())
            .map(|decorator| decorator.operation.into()),
        tracing: take(&mut value.tracing).map(tracing).transpose().at("tracing")?,
        mutations: merged(own, outer),
        per_filter: PerFilter(per_filter(
            take(&mut value.typed_per_filter_config),
            &outer.per_filter,
        )?),
    };
    // Only the name of statistics.
    value.stat_prefix.clear();
    drop_buffer_limits(
        &mut value.request_body_buffer_limit,
        &mut value.per_request_buffer_limit_bytes,
    );
    done(&value)?;
    Ok(route)
}

fn tracing(mut value: pb::Tracing) -> Result<RouteTracing> {
    let read =
        |field: &mut Option<_>, name: &str| take(field).as_ref().map(scalar::fraction).transpose().at(name);
    let tracing = RouteTracing {
        client: read(&mut value.client_sampling, "client_sampling")?,
        random: read(&mut value.random_sampling, "random_sampling")?,
        overall: read(&mut value.overall_sampling, "overall_sampling")?,
    };
    done(&value)?;
    Ok(tracing)
}

/// Is an optional switch on?
pub(super) fn enabled(mut value: Option<BoolValue>) -> bool {
    boolean(&mut value, true)
}
