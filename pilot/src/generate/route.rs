//! RDS: one table of virtual hosts. `sidecar` and `gateway` make inputs from what a proxy sees; the rest turns an input
//! into Envoy's form: `rule` one rule into routes, `matching` conditions, `action` what happens, `retry` when to try again.

use mesh_proto::envoy::config::route::v3::{
    self as envoy, RouteConfiguration, route::Action, virtual_host::TlsRequirementType,
};

use super::{
    destination::Unknown,
    value::{boolean, duration},
};
use crate::model::{
    Origin, Percent,
    policy::HashKey,
    route::{HeaderChanges, HttpMatch, HttpRoute, Retries},
};

pub mod action;
pub mod gateway;
pub mod matching;
pub mod retry;
pub mod rule;
pub mod sidecar;

/// Everything that one route table is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    pub name: String,
    pub hosts: Vec<VirtualHost>,
    /// What happens to requests for other hosts.
    pub rest: Rest,
    /// Where a rule says nothing about retries.
    pub retries: Retries,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rest {
    /// 404.
    NotFound,
    /// To this cluster: mostly the one that leads to where the client wanted to go.
    To(String),
    /// 502.
    Block,
}

impl From<Unknown> for Rest {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Block => Self::Block,
            other => Self::To(other.cluster().to_owned()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHost {
    pub name: String,
    /// No domain is in two virtual hosts of one table.
    pub domains: Vec<String>,
    pub rules: Vec<Rule>,
    /// Plain requests are sent to https.
    pub require_tls: bool,
}

/// One rule of a VirtualService, or the rule of a service without one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `None`: nobody wrote it, it is the default.
    pub origin: Option<Origin>,
    /// What was written; the conditions that count for this proxy are in `matches`, resolved names in `targets`.
    pub route: HttpRoute,
    /// One of them must match; empty matches everything.
    pub matches: Vec<HttpMatch>,
    pub targets: Vec<Target>,
    pub mirrors: Vec<(String, Percent)>,
    pub hash: Vec<HashKey>,
    /// The name of the operation in traces.
    pub operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub cluster: String,
    pub weight: u32,
    pub headers: HeaderChanges,
}

pub fn generate(input: &Input) -> RouteConfiguration {
    let mut virtual_hosts: Vec<envoy::VirtualHost> = input
        .hosts
        .iter()
        .map(|host| virtual_host(host, &input.retries))
        .collect();
    virtual_hosts.extend(rest(input));
    RouteConfiguration {
        name: input.name.clone(),
        virtual_hosts,
        // A route may come before its cluster; until then it answers 503 instead of being refused.
        validate_clusters: Some(boolean(false)),
        max_direct_response_body_size_bytes: Some(super::value::uint(1 << 20)),
        ..RouteConfiguration::default()
    }
}

fn virtual_host(host: &VirtualHost, retries: &Retries) -> envoy::VirtualHost {
    let require = if host.require_tls {
        TlsRequirementType::All
    } else {
        TlsRequirementType::None
    };
    envoy::VirtualHost {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes: host
            .rules
            .iter()
            .flat_map(|rule| rule::routes(rule, retries))
            .collect(),
        require_tls: require.into(),
        include_request_attempt_count: true,
        ..envoy::VirtualHost::default()
    }
}

/// The virtual host of all other names, unless a written one already takes them.
fn rest(input: &Input) -> Option<envoy::VirtualHost> {
    if input
        .hosts
        .iter()
        .any(|host| host.domains.iter().any(|domain| domain == "*"))
    {
        return None;
    }
    let everything = |name: &str, action| envoy::Route {
        name: name.to_owned(),
        r#match: Some(matching::everything()),
        action: Some(action),
        ..envoy::Route::default()
    };
    let (name, routes) = match &input.rest {
        Rest::NotFound => ("not_found", Vec::new()),
        Rest::To(cluster) => {
            let to = envoy::RouteAction {
                timeout: Some(duration(std::time::Duration::ZERO)),
                cluster_specifier: Some(envoy::route_action::ClusterSpecifier::Cluster(cluster.clone())),
                ..envoy::RouteAction::default()
            };
            ("allow_any", vec![everything("allow_any", Action::Route(to))])
        }
        Rest::Block => {
            let answer = envoy::DirectResponseAction {
                status: 502,
                ..envoy::DirectResponseAction::default()
            };
            (
                "block_all",
                vec![everything("block_all", Action::DirectResponse(answer))],
            )
        }
    };
    Some(envoy::VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes,
        include_request_attempt_count: true,
        ..envoy::VirtualHost::default()
    })
}

#[cfg(test)]
#[path = "route/tests.rs"]
mod tests;
