//! What happens to a request: forwarded, redirected, or answered here.

use mesh_proto::envoy::config::{
    core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
    route::v3::{
        DirectResponseAction, RedirectAction, RouteAction, WeightedCluster,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        route::Action,
        route_action::{
            ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy,
            hash_policy::{
                ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
            },
        },
        weighted_cluster::{self, ClusterWeight},
    },
};
use mesh_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::{Rule, Target, retry};
use crate::{
    generate::value::{duration, inline_bytes, regex, runtime_fraction, uint},
    model::{
        StringMatch,
        policy::HashKey,
        route::{HeaderOperations, HttpAction, HttpMatch, Redirect, RedirectPort, Retries, Rewrite},
    },
};

pub fn generate(rule: &Rule, wanted: Option<&HttpMatch>, retries: &Retries) -> Action {
    match &rule.route.action {
        HttpAction::Forward { rewrite, .. } => {
            Action::Route(forward(rule, rewrite.as_ref(), wanted, retries))
        }
        HttpAction::Redirect(redirect) => Action::Redirect(redirection(redirect)),
        // Replaced by the routes of the other VirtualService long before.
        HttpAction::Delegate { .. } => Action::DirectResponse(DirectResponseAction {
            status: 404,
            body: None,
            ..DirectResponseAction::default()
        }),
        HttpAction::Respond(response) => Action::DirectResponse(DirectResponseAction {
            status: u32::from(response.status),
            body: response.body.as_deref().map(inline_bytes),
            ..DirectResponseAction::default()
        }),
    }
}

fn forward(
    rule: &Rule,
    rewrite: Option<&Rewrite>,
    wanted: Option<&HttpMatch>,
    retries: &Retries,
) -> RouteAction {
    let mut action = RouteAction {
        cluster_specifier: Some(clusters(&rule.targets)),
        timeout: Some(duration(rule.route.timeout.unwrap_or_default())),
        retry_policy: retry::generate(rule.route.retries.as_ref(), retries),
        request_mirror_policies: rule
            .mirrors
            .iter()
            .map(|(cluster, percent)| RequestMirrorPolicy {
                cluster: cluster.clone(),
                runtime_fraction: Some(runtime_fraction(*percent)),
                ..RequestMirrorPolicy::default()
            })
            .collect(),
        hash_policy: rule.hash.iter().map(hash).collect(),
        ..RouteAction::default()
    };
    // Among several targets, a host set for one of them stands there.
    let host = host_of(&rule.route.headers.request).or(match rule.targets.as_slice() {
        [only] => host_of(&only.headers.request),
        _ => None,
    });
    let authority = rewrite.and_then(|rewrite| rewrite.authority.as_deref()).or(host);
    action.host_rewrite_specifier =
        authority.map(|name| HostRewriteSpecifier::HostRewriteLiteral(name.to_owned()));
    if let Some(rewrite) = rewrite {
        rewrite_path(&mut action, rewrite, wanted);
    }
    action
}

fn rewrite_path(action: &mut RouteAction, rewrite: &Rewrite, wanted: Option<&HttpMatch>) {
    if let Some(own) = &rewrite.uri_regex {
        action.regex_rewrite = Some(substitute(&own.pattern, &own.replacement));
    } else if let Some(uri) = &rewrite.uri {
        match wanted.and_then(|wanted| wanted.uri.as_ref()) {
            // "/api" to "/" must make "/v1" of "/api/v1", not "//v1".
            Some(StringMatch::Prefix(prefix)) if uri == "/" && !prefix.ends_with('/') => {
                let pattern = format!("^{}(/?)(.*)", escape(prefix));
                action.regex_rewrite = Some(substitute(&pattern, "/\\2"));
            }
            // A path matched by an expression, or by nothing, is replaced as a whole where "prefix" would add to it.
            Some(StringMatch::Regex(_)) => action.regex_rewrite = Some(substitute("^[^?]*", uri)),
            _ => uri.clone_into(&mut action.prefix_rewrite),
        }
    }
}

fn substitute(pattern: &str, replacement: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(regex(pattern)),
        substitution: replacement.to_owned(),
    }
}

/// A text as an RE2 expression for itself.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn clusters(targets: &[Target]) -> ClusterSpecifier {
    if let [only] = targets {
        return ClusterSpecifier::Cluster(only.cluster.clone());
    }
    // Envoy refuses a sum of nothing; then all count alike.
    let unweighted = targets.iter().all(|target| target.weight == 0);
    let counted = targets.iter().filter(|target| unweighted || target.weight > 0);
    let weights = counted.map(|target| {
        let (request, response) = (&target.headers.request, &target.headers.response);
        ClusterWeight {
            name: target.cluster.clone(),
            weight: Some(uint(target.weight.max(1))),
            request_headers_to_add: additions(request),
            request_headers_to_remove: removals(request),
            response_headers_to_add: additions(response),
            response_headers_to_remove: removals(response),
            host_rewrite_specifier: host_of(request).map(|host| {
                weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.to_owned())
            }),
            ..ClusterWeight::default()
        }
    });
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: weights.collect(),
        ..WeightedCluster::default()
    })
}

/// Envoy changes the host by its own field, not as a header.
fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

fn host_of(operations: &HeaderOperations) -> Option<&str> {
    let mut all = operations.set.iter().chain(&operations.add);
    all.find(|(name, _)| is_host(name))
        .map(|(_, value)| value.as_str())
}

pub fn additions(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let option = |name: &String, value: &String, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: name.clone(),
            value: value.clone(),
            ..HeaderValue::default()
        }),
        append_action: action.into(),
        // An empty value is what the user asked for.
        keep_empty_value: true,
        ..HeaderValueOption::default()
    };
    let set = operations
        .set
        .iter()
        .map(|(n, v)| (n, option(n, v, HeaderAppendAction::OverwriteIfExistsOrAdd)));
    let add = operations
        .add
        .iter()
        .map(|(n, v)| (n, option(n, v, HeaderAppendAction::AppendIfExistsOrAdd)));
    set.chain(add)
        .filter(|(name, _)| !is_host(name))
        .map(|(_, option)| option)
        .collect()
}

pub fn removals(operations: &HeaderOperations) -> Vec<String> {
    operations
        .remove
        .iter()
        .filter(|name| !is_host(name))
        .cloned()
        .collect()
}

fn hash(key: &HashKey) -> HashPolicy {
    let specifier = match key {
        HashKey::Header(name) => PolicySpecifier::Header(Header {
            header_name: name.clone(),
            ..Header::default()
        }),
        HashKey::Cookie {
            name,
            path,
            ttl,
            attributes,
        } => PolicySpecifier::Cookie(Cookie {
            name: name.clone(),
            path: path.clone(),
            ttl: ttl.map(duration),
            attributes: attributes
                .iter()
                .map(|(name, value)| CookieAttribute {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
        }),
        HashKey::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashKey::Query(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() }),
    };
    HashPolicy {
        terminal: false,
        policy_specifier: Some(specifier),
    }
}

fn redirection(redirect: &Redirect) -> RedirectAction {
    let path = match (&redirect.uri, &redirect.uri_prefix) {
        (Some(path), _) => Some(PathRewriteSpecifier::PathRedirect(path.clone())),
        (None, Some(prefix)) => Some(PathRewriteSpecifier::PrefixRewrite(prefix.clone())),
        (None, None) => None,
    };
    let code = match redirect.status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let port = match redirect.port {
        Some(RedirectPort::Number(port)) => u32::from(port),
        Some(RedirectPort::FromProtocol) => match redirect.scheme.as_deref() {
            Some("https") => 443,
            _ => 80,
        },
        Some(RedirectPort::FromRequest) | None => 0,
    };
    RedirectAction {
        host_redirect: redirect.authority.clone().unwrap_or_default(),
        port_redirect: port,
        response_code: code.into(),
        scheme_rewrite_specifier: redirect
            .scheme
            .clone()
            .map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    }
}
