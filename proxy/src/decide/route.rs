//! Which route takes a request? The virtual host by the authority (exact, then `*.suffix` longest first, then `prefix.*`
//! longest first, then `*`), then the first of its routes that matches, then one of its weighted clusters.
//!
//! A [`Decision`] is three indices into the route configuration: it is copied freely, holds no reference count, and
//! every later question about it is answered from the configuration it was made with.

use std::borrow::Cow;

use super::{
    facts::{Facts, split_port},
    matching,
};
use crate::config::{
    action::{Action, Choice, Clusters, Forward},
    filter::FilterOverride,
    route::{Domains, Mutation, RequireTls, Route, RouteConfig, VirtualHost},
};

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    Found(Decision),
    /// The virtual host wants TLS: redirect to https.
    TlsRequired,
    /// No virtual host, or no route in it.
    NotFound,
}

/// Which virtual host, which of its routes, which of its weighted clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    vhost: u32,
    route: u32,
    choice: u32,
}

impl Decision {
    pub fn vhost<'a>(&self, config: &'a RouteConfig) -> &'a VirtualHost {
        &config.vhosts[self.vhost as usize]
    }

    pub fn route<'a>(&self, config: &'a RouteConfig) -> &'a Route {
        &self.vhost(config).routes[self.route as usize]
    }

    /// Position of virtual host and route, as a key for tables that hang on it.
    pub fn position(&self) -> (u32, u32, u32) {
        (self.vhost, self.route, self.choice)
    }

    pub fn forward<'a>(&self, config: &'a RouteConfig) -> Option<&'a Forward> {
        match &self.route(config).action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    /// The chosen one of the weighted clusters.
    pub fn choice<'a>(&self, config: &'a RouteConfig) -> Option<&'a Choice> {
        match &self.forward(config)?.clusters {
            Clusters::Weighted(weighted) => weighted.choices.get(self.choice as usize),
            _ => None,
        }
    }

    /// The cluster's name; nothing if the route does not forward, or the header that names it is missing.
    pub fn cluster<'a>(&self, config: &'a RouteConfig, headers: &'a http::HeaderMap) -> Option<&'a str> {
        match &self.forward(config)?.clusters {
            Clusters::Single(name) => Some(name),
            Clusters::Weighted(weighted) => weighted
                .choices
                .get(self.choice as usize)
                .map(|choice| &*choice.cluster),
            Clusters::Header(name) => headers.get(name)?.to_str().ok().filter(|name| !name.is_empty()),
        }
    }

    /// How this route overrides the filter of this name: the chosen cluster first, then what route, virtual host and
    /// configuration say.
    pub fn per_filter<'a>(&self, config: &'a RouteConfig, filter: &str) -> Option<&'a FilterOverride> {
        self.choice(config)
            .and_then(|choice| choice.per_filter.get(filter))
            .or_else(|| self.route(config).per_filter.get(filter))
    }

    /// Header changes of the request, in the order they apply.
    pub fn request_mutations<'a>(&self, config: &'a RouteConfig) -> impl Iterator<Item = &'a Mutation> {
        let own = self
            .choice(config)
            .map_or(&[][..], |choice| &choice.mutations.request);
        own.iter().chain(&self.route(config).mutations.request)
    }

    /// Header changes of the response, in the order they apply.
    pub fn response_mutations<'a>(&self, config: &'a RouteConfig) -> impl Iterator<Item = &'a Mutation> {
        let own = self
            .choice(config)
            .map_or(&[][..], |choice| &choice.mutations.response);
        own.iter().chain(&self.route(config).mutations.response)
    }
}

/// The route for this request. One random number decides fractions and weights.
pub fn route(config: &RouteConfig, facts: &Facts<'_>, random: u64) -> Routed {
    let Some(vhost) = virtual_host(config, facts.authority) else {
        return Routed::NotFound;
    };
    let host = &config.vhosts[vhost as usize];
    if tls_missing(host.require_tls, facts) {
        return Routed::TlsRequired;
    }
    // A fraction and the weights behind it must not depend on each other.
    let fraction = random.rotate_left(32);
    let found = host
        .routes
        .iter()
        .position(|route| matching::route(&route.matches, facts, fraction));
    let Some(at) = found else { return Routed::NotFound };
    let choice = match &host.routes[at].action {
        Action::Forward(forward) => choose(&forward.clusters, facts, random),
        _ => 0,
    };
    Routed::Found(Decision {
        vhost,
        route: at as u32,
        choice,
    })
}

fn tls_missing(require: RequireTls, facts: &Facts<'_>) -> bool {
    match require {
        RequireTls::None => false,
        RequireTls::All => facts.scheme != "https",
        RequireTls::ExternalOnly => {
            let internal = facts
                .headers
                .get("x-envoy-internal")
                .is_some_and(|said| said == "true");
            facts.scheme != "https" && !internal
        }
    }
}

/// The index of the virtual host for an authority.
pub fn virtual_host(config: &RouteConfig, authority: &str) -> Option<u32> {
    let domains = &config.domains;
    // The catch-all alone is common (a sidecar's inbound route): no look at the authority then.
    if domains.exact.is_empty() && domains.suffix.is_empty() && domains.prefix.is_empty() {
        return domains.any;
    }
    let host = if config.ignore_port {
        split_port(authority).0
    } else {
        authority
    };
    let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    domain(domains, &host)
}

fn domain(domains: &Domains, host: &str) -> Option<u32> {
    if let Some(found) = domains.exact.get(host) {
        return Some(*found);
    }
    for (len, table) in &domains.suffix {
        // The star stands for at least one character.
        if host.len() > *len
            && let Some(found) = host.get(host.len() - len..).and_then(|tail| table.get(tail))
        {
            return Some(*found);
        }
    }
    for (len, table) in &domains.prefix {
        if host.len() > *len
            && let Some(found) = host.get(..*len).and_then(|head| table.get(head))
        {
            return Some(*found);
        }
    }
    domains.any
}

fn choose(clusters: &Clusters, facts: &Facts<'_>, random: u64) -> u32 {
    let Clusters::Weighted(weighted) = clusters else {
        return 0;
    };
    let given = weighted
        .random_header
        .as_ref()
        .and_then(|name| facts.headers.get(name)?.to_str().ok()?.parse().ok());
    let mut at = given.unwrap_or(random) % weighted.total;
    for (n, choice) in weighted.choices.iter().enumerate() {
        let weight = u64::from(choice.weight);
        if at < weight {
            return n as u32;
        }
        at -= weight;
    }
    // The weights sum up to the total, so the loop has returned.
    0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;

    use super::*;
    use crate::{config::read::testing::route_config, decide::testing::with_facts};

    fn vhost_of(config: &RouteConfig, authority: &str) -> Option<Arc<str>> {
        virtual_host(config, authority).map(|at| config.vhosts[at as usize].name.clone())
    }

    #[test]
    fn virtual_hosts_by_domain() {
        let config = route_config(
            r#"
            name: r
            virtual_hosts:
            - {name: exact, domains: [a.example.com, "B.example.com:8080"]}
            - {name: suffix, domains: ["*.example.com"]}
            - {name: longer, domains: ["*.x.example.com", "*-y.example.com"]}
            - {name: prefix, domains: ["a.*"]}
            - {name: any, domains: ["*"]}
            "#,
        );
        for (authority, expect) in [
            ("a.example.com", "exact"),
            ("A.Example.COM", "exact"),
            ("b.example.com:8080", "exact"),
            ("b.example.com", "suffix"),
            ("c.x.example.com", "longer"),
            ("z-y.example.com", "longer"),
            (".example.com", "any"),
            ("a.org", "prefix"),
            ("org", "any"),
            ("", "any"),
        ] {
            assert_eq!(
                vhost_of(&config, authority).as_deref(),
                Some(expect),
                "{authority}"
            );
        }
    }

    #[test]
    fn ports_are_ignored_if_asked() {
        let config = route_config(
            "{name: r, ignore_port_in_host_matching: true, virtual_hosts: [{name: v, domains: [a.com]}]}",
        );
        assert!(virtual_host(&config, "a.com:81").is_some() && virtual_host(&config, "b.com:81").is_none());
    }

    #[test]
    fn weights_are_kept_exactly() {
        let config = route_config(
            r#"
            name: r
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route:
                  weighted_clusters: {clusters: [{name: a, weight: 80}, {name: b, weight: 0}, {name: c, weight: 20}]}
            "#,
        );
        let headers = HeaderMap::new();
        let mut seen = std::collections::BTreeMap::<String, u32>::new();
        for random in 0..1000 {
            let routed = with_facts("GET", "x", "/", &headers, |facts| route(&config, facts, random));
            let Routed::Found(decision) = routed else {
                panic!("no route")
            };
            *seen
                .entry(decision.cluster(&config, &headers).unwrap().to_owned())
                .or_default() += 1;
        }
        assert_eq!(seen, [("a".to_owned(), 800), ("c".to_owned(), 200)].into());
    }

    #[test]
    fn the_first_match_wins_and_tls_may_be_required() {
        let config = route_config(
            r#"
            name: r
            virtual_hosts:
            - name: v
              domains: [a.com]
              routes:
              - {name: user, match: {prefix: /, headers: [{name: end-user, string_match: {exact: jason}}]}, route: {cluster: v2}}
              - {name: rest, match: {prefix: /api}, route: {cluster: v1}}
            - {name: secure, domains: [s.com], require_tls: ALL}
            "#,
        );
        let mut headers = HeaderMap::new();
        let name = |headers: &HeaderMap, authority: &str, path: &str| {
            with_facts("GET", authority, path, headers, |facts| {
                match route(&config, facts, 0) {
                    Routed::Found(decision) => decision.route(&config).name.to_string(),
                    other => format!("{other:?}"),
                }
            })
        };
        assert_eq!(name(&headers, "a.com", "/api/x"), "rest");
        assert_eq!(name(&headers, "a.com", "/x"), "NotFound");
        assert_eq!(name(&headers, "b.com", "/api"), "NotFound");
        assert_eq!(name(&headers, "s.com", "/"), "TlsRequired");
        headers.insert("end-user", http::HeaderValue::from_static("jason"));
        assert_eq!(name(&headers, "a.com", "/x"), "user");
    }
}
