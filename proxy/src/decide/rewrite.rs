//! What does the upstream see as path and authority, and where does a redirect lead?

use http::HeaderValue;
use regex::bytes::Captures;

use super::facts::{Facts, split_port};
use crate::config::{
    action::{
        Choice, Forward, HostRewrite, PathRewrite, Redirect, RedirectPath, Substitution, SubstitutionPiece,
    },
    matcher::PathMatch,
};

/// The new path with its query, if the route rewrites it. `matched` is the route's own path rule.
pub fn path(forward: &Forward, matched: &PathMatch, path: &str, query: Option<&str>) -> Option<String> {
    let path = match &forward.path_rewrite {
        PathRewrite::None => return None,
        PathRewrite::Prefix(new) => replace_prefix(matched, path, new),
        PathRewrite::Regex(substitution) => substitute(substitution, path),
    };
    Some(with_query(path, query))
}

fn with_query(mut path: String, query: Option<&str>) -> String {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    path
}

/// What the rule matched is replaced; an exact rule or a regular expression matched all of it.
fn replace_prefix(matched: &PathMatch, path: &str, new: &str) -> String {
    let rest = match matched {
        PathMatch::Prefix { value, .. } | PathMatch::Segments { value, .. } => {
            path.get(value.len()..).unwrap_or("")
        }
        PathMatch::Any => path.get(1..).unwrap_or(""),
        PathMatch::Exact { .. } | PathMatch::Regex(_) | PathMatch::Connect => "",
    };
    [new, rest].concat()
}

fn substitute(substitution: &Substitution, text: &str) -> String {
    let replaced = substitution
        .pattern
        .replace_all(text.as_bytes(), |captures: &Captures<'_>| {
            let mut out = Vec::new();
            for piece in &substitution.pieces {
                match piece {
                    SubstitutionPiece::Text(text) => out.extend_from_slice(text.as_bytes()),
                    SubstitutionPiece::Group(n) => {
                        out.extend_from_slice(captures.get(*n).map_or(&b""[..], |group| group.as_bytes()));
                    }
                }
            }
            out
        });
    // The pattern is Unicode and so are the pieces: what comes out is a string again.
    String::from_utf8_lossy(&replaced).into_owned()
}

/// What the upstream gets as authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Keep,
    Set(HeaderValue),
    /// The host name of the endpoint that is picked.
    Endpoint,
}

/// The upstream's authority; the chosen cluster's own rewrite goes before the route's.
pub fn host(forward: &Forward, choice: Option<&Choice>, facts: &Facts<'_>) -> Host {
    if let Some(value) = choice.and_then(|choice| choice.host_rewrite.as_ref()) {
        return Host::Set(value.clone());
    }
    match &forward.host_rewrite {
        HostRewrite::None => Host::Keep,
        HostRewrite::Literal(value) => Host::Set(value.clone()),
        HostRewrite::Endpoint => Host::Endpoint,
        HostRewrite::Header(name) => facts
            .headers
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
            .map_or(Host::Keep, Host::Set),
        HostRewrite::PathRegex(substitution) => {
            HeaderValue::try_from(substitute(substitution, facts.path)).map_or(Host::Keep, Host::Set)
        }
    }
}

/// The `location` of a redirect.
pub fn location(redirect: &Redirect, matched: &PathMatch, facts: &Facts<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(facts.scheme);
    let (old_host, old_port) = split_port(facts.authority);
    let mut out = format!("{scheme}://{}", redirect.host.as_deref().unwrap_or(old_host));
    match (redirect.port, old_port) {
        (Some(port), _) => out.push_str(&format!(":{port}")),
        // The old scheme's own port means nothing under a new scheme.
        (None, Some("80")) if redirect.host.is_none() && redirect.scheme.as_deref() == Some("https") => {}
        (None, Some("443")) if redirect.host.is_none() && redirect.scheme.as_deref() == Some("http") => {}
        (None, Some(port)) if redirect.host.is_none() => out.push_str(&format!(":{port}")),
        (None, _) => {}
    }
    let query = facts.query.filter(|_| !redirect.strip_query);
    let target = match &redirect.path {
        RedirectPath::Keep => with_query(facts.path.to_owned(), query),
        // A new path that brings a query keeps its own.
        RedirectPath::Full(path) if path.contains('?') => path.to_string(),
        RedirectPath::Full(path) => with_query(path.to_string(), query),
        RedirectPath::Prefix(new) => with_query(replace_prefix(matched, facts.path, new), query),
        RedirectPath::Regex(substitution) => with_query(substitute(substitution, facts.path), query),
    };
    out + &target
}

/// The same request under https.
pub fn tls_location(facts: &Facts<'_>) -> String {
    let (host, port) = split_port(facts.authority);
    let authority = if port == Some("80") { host } else { facts.authority };
    with_query(format!("https://{authority}{}", facts.path), facts.query)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::{
        config::{action::Action, read::testing::route_config},
        decide::{Routed, route, testing::with_facts},
    };

    /// Asks a route (as YAML) with a target; gives the new path or the location.
    fn check(route_yaml: &str, target: &str, expect: &str) {
        let config = route_config(&format!(
            "{{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{route_yaml}]}}]}}"
        ));
        let headers = HeaderMap::new();
        let got = with_facts("GET", "a.com:80", target, &headers, |facts| {
            let Routed::Found(decision) = route(&config, facts, 0) else {
                return "no route".to_owned();
            };
            let route = decision.route(&config);
            match &route.action {
                Action::Forward(forward) => {
                    path(forward, &route.matches.path, facts.path, facts.query).unwrap_or_default()
                }
                Action::Redirect(redirect) => location(redirect, &route.matches.path, facts),
                Action::Direct(_) => String::new(),
            }
        });
        assert_eq!(got, expect, "{route_yaml} {target}");
    }

    #[test]
    fn paths() {
        let prefix = "{match: {prefix: /v1/}, route: {cluster: c, prefix_rewrite: /}}";
        check(prefix, "/v1/books?x=1", "/books?x=1");
        let exact = "{match: {path: /old}, route: {cluster: c, prefix_rewrite: /new}}";
        check(exact, "/old?y", "/new?y");
        let segments = "{match: {path_separated_prefix: /a}, route: {cluster: c, prefix_rewrite: /b}}";
        check(segments, "/a/x", "/b/x");
        check(segments, "/a", "/b");
        let regex = r#"{match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: "^/service/([^/]+)(/.*)$"}, substitution: "\\2/instance/\\1"}}}"#;
        check(regex, "/service/foo/v1/api?q=1", "/v1/api/instance/foo?q=1");
        check(regex, "/other", "/other");
        check("{match: {prefix: /}, route: {cluster: c}}", "/x", "");
    }

    #[test]
    fn redirects() {
        check(
            "{match: {prefix: /}, redirect: {https_redirect: true}}",
            "/a?b",
            "https://a.com/a?b",
        );
        check(
            "{match: {prefix: /}, redirect: {host_redirect: b.org}}",
            "/a?b",
            "http://b.org/a?b",
        );
        check(
            "{match: {prefix: /}, redirect: {port_redirect: 8443, https_redirect: true}}",
            "/",
            "https://a.com:8443/",
        );
        check(
            "{match: {prefix: /}, redirect: {path_redirect: /z, strip_query: true}}",
            "/a?b",
            "http://a.com:80/z",
        );
        check(
            "{match: {prefix: /}, redirect: {path_redirect: '/z?n=1'}}",
            "/a?b",
            "http://a.com:80/z?n=1",
        );
        check(
            "{match: {prefix: /a/}, redirect: {prefix_rewrite: /b/}}",
            "/a/x?q",
            "http://a.com:80/b/x?q",
        );
    }
}
