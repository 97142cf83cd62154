//! Delegation: where a VirtualService delegates, the HTTP routes of another one, which has no hosts, stand in the place of
//! its route. Each of these takes what both routes describe, and what it says nothing about (rewrite, timeout, retries,
//! faults, mirrors, CORS, headers) it has from the route that delegates. A route whose conditions cannot be met together
//! with those of the delegating route is left out; so is a route that delegates to nothing. `analyze` tells of both.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{
    Key, StringMatch, Table, ValueMatch, VirtualService,
    route::{HeaderChanges, HttpAction, HttpMatch, HttpRoute},
};

/// All VirtualServices with hosts, with what they delegate to in its place.
pub fn merged(all: &Table<VirtualService>) -> Vec<Arc<VirtualService>> {
    let with_hosts = all.values().filter(|own| !own.hosts.is_empty());
    with_hosts.map(|own| one(own, all)).collect()
}

fn one(own: &Arc<VirtualService>, all: &Table<VirtualService>) -> Arc<VirtualService> {
    let delegates = |route: &HttpRoute| matches!(route.action, HttpAction::Delegate { .. });
    if !own.http.iter().any(delegates) {
        return own.clone();
    }
    let mut http = Vec::new();
    for route in &own.http {
        match &route.action {
            HttpAction::Delegate { to, .. } => {
                if let Ok(other) = find(own, to, all) {
                    http.extend(other.http.iter().filter_map(|inner| join(route, inner, other)));
                }
            }
            _ => http.push(route.clone()),
        }
    }
    Arc::new(VirtualService {
        http,
        ..VirtualService::clone(own)
    })
}

/// What is delegated to, or why that cannot be.
pub fn find<'a>(
    own: &VirtualService,
    to: &Key,
    all: &'a Table<VirtualService>,
) -> Result<&'a Arc<VirtualService>, String> {
    let Some(other) = all.get(to) else {
        return Err(format!("there is no VirtualService {to}"));
    };
    if !other.hosts.is_empty() {
        return Err(format!(
            "VirtualService {to} has hosts; only one without hosts can be delegated to"
        ));
    }
    let from = &own.origin.namespace;
    if !other.visibility.allows(&other.origin.namespace, from) {
        return Err(format!(
            "VirtualService {to} is not exported to namespace {from}: see its exportTo"
        ));
    }
    Ok(other)
}

/// A route of `other`, as it counts below the route that delegates. `None`: never.
pub fn join(outer: &HttpRoute, inner: &HttpRoute, other: &VirtualService) -> Option<HttpRoute> {
    let HttpAction::Delegate { rewrite, .. } = &outer.action else {
        return None;
    };
    let mut route = inner.clone();
    match &mut route.action {
        HttpAction::Delegate { .. } => return None,
        HttpAction::Forward { rewrite: own, .. } => *own = own.take().or_else(|| rewrite.clone()),
        HttpAction::Redirect(_) | HttpAction::Respond(_) => {}
    }
    route.matches = conditions(&outer.matches, &inner.matches)?;
    route.name = names(&outer.name, &inner.name);
    route.delegate = Some(other.origin.clone());
    route.timeout = inner.timeout.or(outer.timeout);
    route.retries = route.retries.or_else(|| outer.retries.clone());
    route.fault = route.fault.or_else(|| outer.fault.clone());
    route.cors = route.cors.or_else(|| outer.cors.clone());
    if route.mirrors.is_empty() {
        route.mirrors.clone_from(&outer.mirrors);
    }
    if route.headers == HeaderChanges::default() {
        route.headers.clone_from(&outer.headers);
    }
    Some(route)
}

fn names(outer: &str, inner: &str) -> String {
    match (outer, inner) {
        ("", one) | (one, "") => one.to_owned(),
        (outer, inner) => format!("{outer}-{inner}"),
    }
}

/// Every condition of the inner route must fit one of the outer route's; empty means anything.
fn conditions(outer: &[HttpMatch], inner: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if outer.is_empty() || inner.is_empty() {
        return Some([outer, inner].concat());
    }
    let mut all = Vec::new();
    for own in inner {
        let before = all.len();
        all.extend(outer.iter().filter_map(|wide| both(wide, own)));
        if all.len() == before {
            return None;
        }
    }
    Some(all)
}

/// What fits both; `None`: nothing does.
fn both(outer: &HttpMatch, inner: &HttpMatch) -> Option<HttpMatch> {
    if outer.uri.is_some() && inner.uri.is_some() && outer.ignore_uri_case != inner.ignore_uri_case {
        return None;
    }
    Some(HttpMatch {
        name: names(&outer.name, &inner.name),
        stat_prefix: if inner.stat_prefix.is_empty() {
            outer.stat_prefix.clone()
        } else {
            inner.stat_prefix.clone()
        },
        uri: text(outer.uri.as_ref(), inner.uri.as_ref())?,
        ignore_uri_case: outer.ignore_uri_case || inner.ignore_uri_case,
        scheme: text(outer.scheme.as_ref(), inner.scheme.as_ref())?,
        method: text(outer.method.as_ref(), inner.method.as_ref())?,
        authority: text(outer.authority.as_ref(), inner.authority.as_ref())?,
        headers: each(&outer.headers, &inner.headers, value)?,
        without_headers: each(&outer.without_headers, &inner.without_headers, same)?,
        query: each(&outer.query, &inner.query, value)?,
        port: one_of(outer.port, inner.port)?,
        source_labels: each(&outer.source_labels, &inner.source_labels, same)?,
        source_namespace: one_of(outer.source_namespace.clone(), inner.source_namespace.clone())?,
        gateways: match (outer.gateways.as_slice(), inner.gateways.as_slice()) {
            (all, []) | ([], all) => all.to_vec(),
            (outer, inner) if inner.iter().all(|own| outer.contains(own)) => inner.to_vec(),
            _ => return None,
        },
    })
}

/// The inner condition, if the outer one covers it for certain.
fn text(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    let (Some(wide), Some(narrow)) = (outer, inner) else {
        return Some(inner.or(outer).cloned());
    };
    let covers = match (wide, narrow) {
        (StringMatch::Prefix(prefix), StringMatch::Exact(own) | StringMatch::Prefix(own)) => {
            own.starts_with(prefix.as_str())
        }
        _ => wide == narrow,
    };
    covers.then(|| Some(narrow.clone()))
}

fn value(outer: &ValueMatch, inner: &ValueMatch) -> Option<ValueMatch> {
    match (outer, inner) {
        (ValueMatch::Present, other) | (other, ValueMatch::Present) => Some(other.clone()),
        (ValueMatch::Matches(wide), ValueMatch::Matches(narrow)) => {
            text(Some(wide), Some(narrow))?.map(ValueMatch::Matches)
        }
    }
}

fn same<T: PartialEq + Clone>(outer: &T, inner: &T) -> Option<T> {
    (outer == inner).then(|| inner.clone())
}

fn one_of<T: PartialEq>(outer: Option<T>, inner: Option<T>) -> Option<Option<T>> {
    match (outer, inner) {
        (Some(outer), Some(inner)) => (outer == inner).then_some(Some(inner)),
        (outer, inner) => Some(inner.or(outer)),
    }
}

/// Both maps together; where both have a key, what fits both values.
fn each<T: Clone>(
    outer: &BTreeMap<String, T>,
    inner: &BTreeMap<String, T>,
    both: impl Fn(&T, &T) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let mut all = outer.clone();
    for (name, own) in inner {
        let value = match outer.get(name) {
            Some(wide) => both(wide, own)?,
            None => own.clone(),
        };
        all.insert(name.clone(), value);
    }
    Some(all)
}

#[cfg(test)]
#[path = "delegate/tests.rs"]
mod tests;
