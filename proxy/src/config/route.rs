//! Route configurations: virtual hosts by domain, and the routes of each in order.
//! See <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/route/v3/route_components.proto>.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderName, HeaderValue};

use super::{
    action::Action,
    filter::PerFilter,
    log::Format,
    matcher::RouteMatch,
    scalar::{Fraction, Object},
};

#[derive(Clone, Debug, Default)]
pub struct RouteConfig {
    pub name: Arc<str>,
    pub vhosts: Vec<VirtualHost>,
    pub domains: Domains,
    /// Match domains against the authority without its port.
    pub ignore_port: bool,
    /// Names of the clusters that must exist before this is used (`validate_clusters`).
    pub validate_clusters: bool,
}

/// Domain to virtual host. Keys are lower-case; values index `RouteConfig::vhosts`.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    pub exact: HashMap<Box<str>, u32>,
    /// `*.example.com` as `.example.com`, grouped by length, longest first.
    pub suffix: Vec<(usize, HashMap<Box<str>, u32>)>,
    /// `www.*` as `www.`, grouped by length, longest first.
    pub prefix: Vec<(usize, HashMap<Box<str>, u32>)>,
    pub any: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct VirtualHost {
    pub name: Arc<str>,
    pub domains: Vec<Box<str>>,
    pub routes: Vec<Route>,
    pub require_tls: RequireTls,
    /// Tell the upstream the number of the attempt (`x-envoy-attempt-count`).
    pub request_attempt_count: bool,
    pub response_attempt_count: bool,
    pub object: Option<Arc<Object>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RequireTls {
    #[default]
    None,
    ExternalOnly,
    All,
}

#[derive(Clone, Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub matches: RouteMatch,
    pub action: Action,
    /// The user's object this route came from.
    pub object: Option<Arc<Object>>,
    /// The span's name, if given.
    pub operation: Option<Arc<str>>,
    /// Sampling of this route, if it differs.
    pub tracing: Option<RouteTracing>,
    /// Of the route, the virtual host and the configuration, merged in the order they apply. The chosen weighted
    /// cluster's own come before them (after them for the reverse order); `decide` puts them together.
    pub mutations: Arc<Mutations>,
    /// Overrides of filters, by the filter's name: the most specific level that has one.
    pub per_filter: PerFilter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTracing {
    pub client: Option<Fraction>,
    pub random: Option<Fraction>,
    pub overall: Option<Fraction>,
}

/// Header changes.
#[derive(Clone, Debug, Default)]
pub struct Mutations {
    pub request: Vec<Mutation>,
    pub response: Vec<Mutation>,
}

impl Mutations {
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

#[derive(Clone, Debug)]
pub enum Mutation {
    Remove(HeaderName),
    Set {
        field: MutationField,
        value: Value,
        action: Append,
        keep_empty: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MutationField {
    Header(HeaderName),
    /// `:authority` or `host`
    Authority,
    /// `:path`
    Path,
    /// `:method`
    Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Append {
    AppendOrAdd,
    AddIfAbsent,
    OverwriteOrAdd,
    OverwriteIfExists,
}

/// A header's new value: fixed, or with command operators as in access logs.
#[derive(Clone, Debug)]
pub enum Value {
    Fixed(HeaderValue),
    Format(Arc<Format>),
}
