//! AuthorizationPolicy as Envoy's RBAC filters: first one that denies, then one that allows.
//!
//! On a connection without HTTP, what only HTTP has is judged on the safe side: a rule that allows does not match, and a rule
//! that denies forgets that condition (so it denies more).

use std::{collections::HashMap, sync::Arc};

use mesh_proto::{
    envoy::{
        config::rbac::v3::{Permission, Policy, Principal, Rbac, permission, principal, rbac::Action},
        extensions::filters::{http::rbac::v3::Rbac as HttpRbac, network::rbac::v3::Rbac as NetworkRbac},
    },
    pb::google::protobuf::Any,
};

use crate::{
    generate::value::any,
    model::{
        AuthorizationPolicy, PolicyAction,
        authz::{Rule, Values},
    },
};

mod claims;
mod permit;
mod source;

pub const HTTP: &str = "envoy.filters.http.rbac";
pub const NETWORK: &str = "envoy.filters.network.rbac";

/// What a connection carries, as far as rules can look into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    Http,
    Tcp,
}

/// The filters of one chain, in order.
pub fn http(policies: &[Arc<AuthorizationPolicy>]) -> Vec<Any> {
    let filter = |rules| {
        any(&HttpRbac {
            rules: Some(rules),
            ..HttpRbac::default()
        })
    };
    both(policies, Layer::Http).into_iter().map(filter).collect()
}

pub fn network(policies: &[Arc<AuthorizationPolicy>]) -> Vec<Any> {
    let filter = |rules| {
        any(&NetworkRbac {
            rules: Some(rules),
            stat_prefix: "tcp.".to_owned(),
            ..NetworkRbac::default()
        })
    };
    both(policies, Layer::Tcp).into_iter().map(filter).collect()
}

fn both(policies: &[Arc<AuthorizationPolicy>], layer: Layer) -> Vec<Rbac> {
    [
        (PolicyAction::Deny, Action::Deny),
        (PolicyAction::Allow, Action::Allow),
    ]
    .into_iter()
    .filter_map(|(wanted, action)| {
        let concerned: Vec<_> = policies.iter().filter(|policy| policy.action == wanted).collect();
        // Without any policy that allows, everything is allowed; with one, only what it allows.
        (!concerned.is_empty()).then(|| rules(&concerned, action, layer))
    })
    .collect()
}

fn rules(policies: &[&Arc<AuthorizationPolicy>], action: Action, layer: Layer) -> Rbac {
    let mut named = HashMap::new();
    for policy in policies {
        for (index, rule) in policy.rules.iter().enumerate() {
            if layer == Layer::Tcp && action == Action::Allow && rule.needs_http() {
                continue;
            }
            let origin = &policy.origin;
            let name = format!("ns[{}]-policy[{}]-rule[{index}]", origin.namespace, origin.name);
            named.insert(name, generate(rule, layer));
        }
    }
    Rbac {
        action: action.into(),
        policies: named,
        ..Rbac::default()
    }
}

fn generate(rule: &Rule, layer: Layer) -> Policy {
    let mut permissions: Vec<Permission> = rule
        .to
        .iter()
        .map(|operation| permit::operation(operation, layer))
        .collect();
    if permissions.is_empty() {
        permissions.push(permit::anything());
    }
    let mut principals: Vec<Principal> = rule
        .from
        .iter()
        .map(|source| source::source(source, layer))
        .collect();
    if principals.is_empty() {
        principals.push(source::anybody());
    }
    let (mut where_to, mut where_from) = (Vec::new(), Vec::new());
    for condition in &rule.when {
        if layer == Layer::Tcp && condition.attribute.needs_http() {
            continue;
        }
        match permit::condition(condition) {
            Some(permission) => where_to.push(permission),
            None => where_from.push(source::condition(condition)),
        }
    }
    if !where_to.is_empty() {
        permissions = permissions
            .into_iter()
            .map(|permission| {
                permit::all(
                    std::iter::once(permission)
                        .chain(where_to.iter().cloned())
                        .collect(),
                )
            })
            .collect();
    }
    if !where_from.is_empty() {
        principals = principals
            .into_iter()
            .map(|principal| {
                source::all(
                    std::iter::once(principal)
                        .chain(where_from.iter().cloned())
                        .collect(),
                )
            })
            .collect();
    }
    Policy {
        permissions,
        principals,
        ..Policy::default()
    }
}

/// One of `any` must hold and none of `none` may: as parts of a conjunction.
fn parts<T, P>(
    values: &Values<T>,
    one: impl Fn(&T) -> P,
    or: impl Fn(Vec<P>) -> P,
    not: impl Fn(P) -> P,
) -> impl Iterator<Item = P> {
    let any = (!values.any.is_empty()).then(|| or(values.any.iter().map(&one).collect()));
    let none = (!values.none.is_empty()).then(|| not(or(values.none.iter().map(&one).collect())));
    any.into_iter().chain(none)
}

fn permission(rule: permission::Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn principal(identifier: principal::Identifier) -> Principal {
    Principal {
        identifier: Some(identifier),
    }
}

#[cfg(test)]
#[path = "rbac/tests.rs"]
mod tests;
