//! VirtualService → routes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mesh_proto::{
    kube::{Object, networking as api},
    validate::{GRPC_STATUSES, field::parse_range},
};

use super::{DOMAIN, port, visibility};
use crate::model::{
    GatewayRef, Host, Key, MeshConfig, Origin, Percent, StringMatch, ValueMatch, VirtualService,
    route::{
        Abort, AbortStatus, Cors, Delay, Destination, DirectResponse, Fault, HeaderChanges, HeaderOperations,
        HttpAction, HttpDestination, HttpMatch, HttpRoute, Mirror, Redirect, RedirectPort, RegexRewrite,
        Retries, Rewrite, TcpMatch, TcpRoute, TlsMatch, TlsRoute, WeightedDestination,
    },
};

pub fn convert(object: &Object<api::VirtualService>, origin: Origin, mesh: &MeshConfig) -> VirtualService {
    let spec = &object.spec;
    let namespace = origin.namespace.clone();
    let mut hosts: Vec<Host> = Vec::new();
    for host in &spec.hosts {
        let host = Host::resolve(host, &namespace, DOMAIN);
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let mut gateways = gateways(&spec.gateways, &namespace);
    if gateways.is_empty() && !hosts.is_empty() {
        gateways.push(GatewayRef::Mesh);
    }
    VirtualService {
        hosts,
        gateways,
        visibility: visibility(
            &spec.export_to,
            &namespace,
            &mesh.default_virtual_service_export_to,
        ),
        http: spec
            .http
            .iter()
            .map(|route| http_route(route, &namespace))
            .collect(),
        tls: spec
            .tls
            .iter()
            .map(|route| tls_route(route, &namespace))
            .collect(),
        tcp: spec
            .tcp
            .iter()
            .map(|route| tcp_route(route, &namespace))
            .collect(),
        origin,
    }
}

/// `mesh`, a name of the same namespace, `namespace/name` or `./name`.
fn gateways(names: &[String], own: &str) -> Vec<GatewayRef> {
    let reference = |text: &String| match text.split_once('/') {
        None if text == "mesh" => GatewayRef::Mesh,
        None => GatewayRef::Gateway(Key::new(own, text)),
        Some((".", name)) => GatewayRef::Gateway(Key::new(own, name)),
        Some((namespace, name)) => GatewayRef::Gateway(Key::new(namespace, name)),
    };
    names.iter().map(reference).collect()
}

fn http_route(route: &api::HttpRoute, namespace: &str) -> HttpRoute {
    HttpRoute {
        name: route.name.clone(),
        delegate: None,
        matches: route
            .matches
            .iter()
            .map(|matched| http_match(matched, namespace))
            .collect(),
        action: action(route, namespace),
        timeout: route.timeout.map(|span| span.0),
        retries: route.retries.as_ref().map(retries),
        fault: route.fault.as_ref().map(fault),
        mirrors: mirrors(route, namespace),
        cors: route.cors_policy.as_ref().map(cors),
        headers: headers(route.headers.as_ref()),
    }
}

fn action(route: &api::HttpRoute, namespace: &str) -> HttpAction {
    if let Some(redirect_to) = &route.redirect {
        return HttpAction::Redirect(redirect(redirect_to));
    }
    if let Some(response) = &route.direct_response {
        let body = response
            .body
            .as_ref()
            .and_then(|body| match (&body.string, &body.bytes) {
                (Some(text), _) => Some(text.clone().into_bytes()),
                (None, Some(bytes)) => STANDARD.decode(bytes).ok(),
                (None, None) => None,
            });
        return HttpAction::Respond(DirectResponse {
            status: port(response.status),
            body,
        });
    }
    let rewrite = route.rewrite.as_ref().map(|rewrite| Rewrite {
        uri: rewrite.uri.clone(),
        authority: rewrite.authority.clone(),
        uri_regex: rewrite.uri_regex_rewrite.as_ref().map(|regex| RegexRewrite {
            pattern: regex.pattern.clone(),
            replacement: regex.rewrite.clone(),
        }),
    });
    if let Some(delegate) = &route.delegate {
        let place = some_text(&delegate.namespace).unwrap_or_else(|| namespace.to_owned());
        return HttpAction::Delegate {
            to: Key::new(place, &delegate.name),
            rewrite,
        };
    }
    let destinations = route.route.iter().map(|entry| HttpDestination {
        destination: destination(&entry.destination, namespace),
        weight: entry.weight,
        headers: headers(entry.headers.as_ref()),
    });
    HttpAction::Forward {
        destinations: destinations.collect(),
        rewrite,
    }
}

fn redirect(redirect: &api::Redirect) -> Redirect {
    // Istio's form for keeping what follows the matched prefix.
    let prefix = redirect
        .uri
        .as_deref()
        .and_then(|uri| uri.strip_prefix("%PREFIX()%"));
    Redirect {
        uri: if prefix.is_some() {
            None
        } else {
            redirect.uri.clone().filter(|uri| !uri.is_empty())
        },
        uri_prefix: prefix.map(str::to_owned).or_else(|| {
            redirect
                .prefix_rewrite
                .clone()
                .filter(|prefix| !prefix.is_empty())
        }),
        authority: redirect
            .authority
            .clone()
            .filter(|authority| !authority.is_empty()),
        port: match (redirect.port, redirect.derive_port) {
            (Some(number), _) => Some(RedirectPort::Number(port(number))),
            (None, Some(api::RedirectPort::FromProtocolDefault)) => Some(RedirectPort::FromProtocol),
            (None, Some(api::RedirectPort::FromRequestPort)) => Some(RedirectPort::FromRequest),
            (None, None) => None,
        },
        scheme: redirect.scheme.clone().filter(|scheme| !scheme.is_empty()),
        status: redirect.redirect_code.map_or(301, port),
    }
}

fn http_match(matched: &api::HttpMatch, namespace: &str) -> HttpMatch {
    let values = |map: &std::collections::BTreeMap<String, api::StringMatch>, lower: bool| {
        map.iter()
            .map(|(name, text)| {
                let name = if lower {
                    name.to_ascii_lowercase()
                } else {
                    name.clone()
                };
                (
                    name,
                    string_match(text).map_or(ValueMatch::Present, ValueMatch::Matches),
                )
            })
            .collect()
    };
    HttpMatch {
        name: matched.name.clone(),
        stat_prefix: matched.stat_prefix.clone(),
        uri: matched.uri.as_ref().and_then(string_match),
        ignore_uri_case: matched.ignore_uri_case,
        scheme: matched.scheme.as_ref().and_then(string_match),
        method: matched.method.as_ref().and_then(string_match),
        authority: matched.authority.as_ref().and_then(string_match),
        headers: values(&matched.headers, true),
        without_headers: values(&matched.without_headers, true),
        query: values(&matched.query_params, false),
        port: matched.port.map(port),
        source_labels: matched.source_labels.clone(),
        source_namespace: some_text(&matched.source_namespace),
        gateways: gateways(&matched.gateways, namespace),
    }
}

fn string_match(text: &api::StringMatch) -> Option<StringMatch> {
    match text {
        api::StringMatch {
            exact: Some(exact), ..
        } => Some(StringMatch::Exact(exact.clone())),
        api::StringMatch {
            prefix: Some(prefix), ..
        } => Some(StringMatch::Prefix(prefix.clone())),
        api::StringMatch {
            regex: Some(regex), ..
        } => Some(StringMatch::Regex(regex.clone())),
        _ => None,
    }
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn destination(destination: &api::Destination, namespace: &str) -> Destination {
    Destination {
        host: Host::resolve(&destination.host, namespace, DOMAIN),
        subset: some_text(&destination.subset),
        port: destination.port.as_ref().map(|selector| port(selector.number)),
    }
}

fn retries(retry: &api::Retry) -> Retries {
    let words: Vec<&str> = retry
        .retry_on
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    let statuses: Vec<u16> = words.iter().filter_map(|word| word.parse().ok()).collect();
    Retries {
        attempts: u32::try_from(retry.attempts).unwrap_or_default(),
        per_try_timeout: retry
            .per_try_timeout
            .map(|span| span.0)
            .filter(|span| !span.is_zero()),
        backoff: retry.backoff.map(|span| span.0),
        on: words
            .iter()
            .filter(|word| word.parse::<u16>().is_err())
            .map(|word| (*word).to_owned())
            .collect(),
        statuses,
        retry_remote_localities: retry.retry_remote_localities.unwrap_or_default(),
        ignore_previous_hosts: retry.retry_ignore_previous_hosts.unwrap_or(true),
    }
}

/// A missing percentage means all.
fn percentage(value: Option<&api::PercentValue>, whole: Option<u32>) -> Percent {
    match (value, whole) {
        (Some(percent), _) => percent.value,
        (None, Some(whole)) => Percent::new(f64::from(whole)).unwrap_or(Percent::ALL),
        (None, None) => Percent::ALL,
    }
}

fn fault(fault: &api::Fault) -> Fault {
    let delay = fault.delay.as_ref().and_then(|delay| {
        let percent = percentage(delay.percentage.as_ref(), delay.percent);
        Some(Delay {
            duration: delay.fixed_delay?.0,
            percent,
        })
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let grpc = || {
            let name = abort.grpc_status.as_deref()?;
            let number = GRPC_STATUSES.iter().position(|status| *status == name)?;
            u32::try_from(number).ok().map(AbortStatus::Grpc)
        };
        let status = abort
            .http_status
            .map(|status| AbortStatus::Http(port(status)))
            .or_else(grpc)?;
        Some(Abort {
            status,
            percent: percentage(abort.percentage.as_ref(), None),
        })
    });
    Fault { delay, abort }
}

fn mirrors(route: &api::HttpRoute, namespace: &str) -> Vec<Mirror> {
    let single = route.mirror.iter().map(|mirror| Mirror {
        destination: destination(mirror, namespace),
        percent: percentage(route.mirror_percentage.as_ref(), route.mirror_percent),
    });
    let several = route.mirrors.iter().map(|mirror| Mirror {
        destination: destination(&mirror.destination, namespace),
        percent: percentage(mirror.percentage.as_ref(), None),
    });
    single.chain(several).collect()
}

fn cors(cors: &api::Cors) -> Cors {
    let deprecated = cors.allow_origin.iter().map(|origin| match origin.as_str() {
        "*" => StringMatch::Regex(".*".to_owned()),
        origin => StringMatch::Exact(origin.to_owned()),
    });
    Cors {
        origins: cors
            .allow_origins
            .iter()
            .filter_map(string_match)
            .chain(deprecated)
            .collect(),
        methods: cors.allow_methods.clone(),
        headers: cors.allow_headers.clone(),
        expose: cors.expose_headers.clone(),
        max_age: cors.max_age.map(|span| span.0),
        credentials: cors.allow_credentials,
        forward_unmatched: cors.unmatched_preflights != Some(api::UnmatchedPreflights::Ignore),
    }
}

fn headers(headers: Option<&api::Headers>) -> HeaderChanges {
    let operations = |operations: Option<&api::HeaderOperations>| {
        operations.map_or_else(HeaderOperations::default, |operations| HeaderOperations {
            set: operations.set.clone(),
            add: operations.add.clone(),
            remove: operations.remove.clone(),
        })
    };
    HeaderChanges {
        request: operations(headers.and_then(|headers| headers.request.as_ref())),
        response: operations(headers.and_then(|headers| headers.response.as_ref())),
    }
}

fn weighted(list: &[api::WeightedDestination], namespace: &str) -> Vec<WeightedDestination> {
    list.iter()
        .map(|entry| WeightedDestination {
            destination: destination(&entry.destination, namespace),
            weight: entry.weight,
        })
        .collect()
}

fn subnets(list: &[String]) -> Vec<ipnet::IpNet> {
    list.iter().filter_map(|subnet| parse_range(subnet)).collect()
}

fn tls_route(route: &api::TlsRoute, namespace: &str) -> TlsRoute {
    let matched = |matched: &api::TlsMatch| TlsMatch {
        sni_hosts: matched.sni_hosts.iter().map(|host| Host::new(host)).collect(),
        destination_subnets: subnets(&matched.destination_subnets),
        port: matched.port.map(port),
        source_labels: matched.source_labels.clone(),
        source_namespace: some_text(&matched.source_namespace),
        gateways: gateways(&matched.gateways, namespace),
    };
    TlsRoute {
        matches: route.matches.iter().map(matched).collect(),
        destinations: weighted(&route.route, namespace),
    }
}

fn tcp_route(route: &api::TcpRoute, namespace: &str) -> TcpRoute {
    let matched = |matched: &api::TcpMatch| TcpMatch {
        destination_subnets: subnets(&matched.destination_subnets),
        port: matched.port.map(port),
        source_labels: matched.source_labels.clone(),
        source_namespace: some_text(&matched.source_namespace),
        gateways: gateways(&matched.gateways, namespace),
    };
    TcpRoute {
        matches: route.matches.iter().map(matched).collect(),
        destinations: weighted(&route.route, namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::testing::of_spec,
        model::{Item, Kind},
    };
    use std::{sync::Arc, time::Duration};

    fn service(spec: &str) -> Arc<VirtualService> {
        match of_spec(Kind::VirtualService, spec) {
            Item::VirtualService(service) => service,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_resolved() {
        let service = service(
            "hosts: [reviews, reviews.ns.svc.cluster.local, example.com]\ngateways: [gw, ./a, b/c, mesh]\n\
             http: [{route: [{destination: {host: reviews, subset: v1, port: {number: 9080}}}], mirror: {host: ratings}}]",
        );
        let hosts: Vec<&str> = service.hosts.iter().map(Host::as_str).collect();
        assert_eq!(hosts, ["reviews.ns.svc.cluster.local", "example.com"]);
        let gateways: Vec<String> = service.gateways.iter().map(GatewayRef::to_string).collect();
        assert_eq!(gateways, ["ns/gw", "ns/a", "b/c", "mesh"]);
        let destinations: Vec<(&str, Option<&str>, Option<u16>)> = service
            .destinations()
            .map(|to| (to.host.as_str(), to.subset.as_deref(), to.port))
            .collect();
        assert_eq!(
            destinations,
            [
                ("reviews.ns.svc.cluster.local", Some("v1"), Some(9080)),
                ("ratings.ns.svc.cluster.local", None, None),
            ]
        );
    }

    #[test]
    fn bookinfos_lessons() {
        let service = service(
            "hosts: [ratings]\nhttp:\n\
             - match: [{headers: {End-User: {exact: jason}}}]\n\
             \x20 fault: {delay: {percentage: {value: 100.0}, fixedDelay: 7s}, abort: {httpStatus: 500, percentage: {value: 0.5}}}\n\
             \x20 route: [{destination: {host: ratings, subset: v1}}]\n\
             - timeout: 0.5s\n\
             \x20 retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'connect-failure, 503'}\n\
             \x20 route: [{destination: {host: ratings, subset: v1}, weight: 80}, {destination: {host: ratings, subset: v2}, weight: 20}]\n",
        );
        assert_eq!(service.gateways, [GatewayRef::Mesh]);
        let [first, second] = &service.http[..] else {
            panic!()
        };
        let header = first.matches[0].headers.get("end-user");
        assert_eq!(
            header,
            Some(&ValueMatch::Matches(StringMatch::Exact("jason".into())))
        );
        let fault = first.fault.clone().unwrap();
        assert_eq!(fault.delay.unwrap().duration, Duration::from_secs(7));
        assert_eq!(fault.abort.unwrap().percent.per_million(), 5_000);
        assert_eq!(second.timeout, Some(Duration::from_millis(500)));
        let retries = second.retries.clone().unwrap();
        assert_eq!(
            (retries.on, retries.statuses),
            (vec!["connect-failure".to_owned()], vec![503])
        );
        let HttpAction::Forward { destinations, .. } = &second.action else {
            panic!()
        };
        assert_eq!(
            destinations.iter().map(|to| to.weight).collect::<Vec<_>>(),
            [80, 20]
        );
    }

    #[test]
    fn redirects_and_responses() {
        let service = service(
            "hosts: [a]\nhttp:\n\
             - {match: [{uri: {prefix: /x}}], redirect: {uri: '%PREFIX()%/y', redirectCode: 308, derivePort: FROM_REQUEST_PORT}}\n\
             - {directResponse: {status: 503, body: {bytes: aGk=}}}\n",
        );
        let HttpAction::Redirect(redirect) = &service.http[0].action else {
            panic!()
        };
        assert_eq!(
            (
                redirect.uri_prefix.as_deref(),
                redirect.uri.as_deref(),
                redirect.status
            ),
            (Some("/y"), None, 308)
        );
        assert_eq!(redirect.port, Some(RedirectPort::FromRequest));
        let expect = HttpAction::Respond(DirectResponse {
            status: 503,
            body: Some(b"hi".to_vec()),
        });
        assert_eq!(service.http[1].action, expect);
    }
}
