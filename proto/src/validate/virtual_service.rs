//! VirtualService alone.

use super::{Validate, field, virtual_service_order};
use crate::{
    finding::Report,
    kube::{
        Object,
        networking::{
            Cors, Delay, Destination, Fault, HttpDestination, HttpMatch, HttpRoute, Redirect, Retry, StringMatch,
            TcpRoute, TlsRoute, VirtualService, WeightedDestination,
        },
    },
};

/// Names of gRPC's status codes, in the order of their numbers.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What `retryOn` may name besides status codes: Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
pub const RETRY_CONDITIONS: [&str; 17] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "unknown",
];

impl Validate for VirtualService {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        let for_mesh = self.gateways.is_empty() || self.gateways.iter().any(|gateway| gateway == "mesh");
        if self.hosts.is_empty() {
            report.refuse_unsupported(
                "spec.hosts",
                "a VirtualService needs at least one host; one without hosts is a delegate's target, and delegation is \
                 not supported by this mesh yet",
            );
        }
        for (i, host) in self.hosts.iter().enumerate() {
            let path = format!("spec.hosts[{i}]");
            field::host_or_address(host, &path, report);
            if host == "*" && for_mesh {
                report.error(&path, "'*' is possible only with gateways, not for the mesh's own traffic");
            }
            if self.hosts[..i].contains(host) {
                report.error(path, format!("{host:?} is there twice"));
            }
        }
        gateways(&self.gateways, "spec.gateways", report);
        if self.http.is_empty() && self.tls.is_empty() && self.tcp.is_empty() {
            report.error("spec", "there must be a route under http, tls or tcp");
        }
        field::export_to(&self.export_to, "spec.exportTo", report);
        for (i, route) in self.http.iter().enumerate() {
            http_route(route, &format!("spec.http[{i}]"), report);
        }
        for (i, route) in self.tls.iter().enumerate() {
            tls_route(route, &self.hosts, &format!("spec.tls[{i}]"), report);
        }
        for (i, route) in self.tcp.iter().enumerate() {
            tcp_route(route, &format!("spec.tcp[{i}]"), report);
        }
        virtual_service_order::check(self, report);
    }
}

fn gateways(list: &[String], path: &str, report: &mut Report) {
    for (i, gateway) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = match gateway.split_once('/') {
            Some((namespace, name)) if namespace == "." || field::namespace_name(namespace) => name,
            Some(_) => {
                report.error(path, format!("{gateway:?} must be a name, namespace/name or mesh"));
                continue;
            }
            None => gateway,
        };
        field::host(name, &path, false, report);
    }
}

fn http_route(route: &HttpRoute, at: &str, report: &mut Report) {
    for (i, matched) in route.matches.iter().enumerate() {
        http_match(matched, &format!("{at}.match[{i}]"), report);
    }
    http_action(route, at, report);
    destinations(&route.route, &format!("{at}.route"), report);
    let rewritable = route.rewrite.as_ref();
    if let Some(rewrite) = rewritable {
        if route.redirect.is_some() || route.direct_response.is_some() {
            report.error(format!("{at}.rewrite"), "a redirect or direct response is not sent on, so there is nothing to rewrite");
        }
        field::at_most_one(
            &[("uri", rewrite.uri.is_some()), ("uriRegexRewrite", rewrite.uri_regex_rewrite.is_some())],
            &format!("{at}.rewrite"),
            report,
        );
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            field::regex(&regex.pattern, &format!("{at}.rewrite.uriRegexRewrite.match"), report);
        }
        if rewrite.uri.is_none() && rewrite.authority.is_none() && rewrite.uri_regex_rewrite.is_none() {
            report.error(format!("{at}.rewrite"), "must say uri, uriRegexRewrite or authority");
        }
    }
    if let Some(retries) = &route.retries {
        retry(retries, &format!("{at}.retries"), report);
    }
    // Zero is allowed: no timeout.
    if let Some(fault) = &route.fault {
        faults(fault, &format!("{at}.fault"), report);
    }
    if let Some(cors) = &route.cors_policy {
        cors_policy(cors, &format!("{at}.corsPolicy"), report);
    }
    mirrors(route, at, report);
    header_changes(route.headers.as_ref(), &format!("{at}.headers"), report);
}

fn http_action(route: &HttpRoute, at: &str, report: &mut Report) {
    let actions = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
    ];
    field::at_most_one(&actions, at, report);
    if !actions.iter().any(|(_, said)| *said) {
        report.error(at, "says what to match but not what to do: needs route, redirect or directResponse");
    }
    if route.delegate.is_some() {
        report.refuse_unsupported(
            format!("{at}.delegate"),
            "delegation to another VirtualService is not supported by this mesh yet; write the routes here",
        );
    }
    if let Some(redirect) = &route.redirect {
        check_redirect(redirect, &format!("{at}.redirect"), report);
    }
    if let Some(response) = &route.direct_response {
        if !(200..=599).contains(&response.status) {
            report.error(format!("{at}.directResponse.status"), format!("{} is not a status from 200 to 599", response.status));
        }
        if let Some(body) = &response.body {
            let path = format!("{at}.directResponse.body");
            field::at_most_one(&[("string", body.string.is_some()), ("bytes", body.bytes.is_some())], &path, report);
            let size = body.string.as_ref().or(body.bytes.as_ref()).map_or(0, String::len);
            if size > 1 << 20 {
                report.error(path, format!("{size} bytes; a direct response may have 1 MiB"));
            } else if size > 100 << 10 {
                report.warn(path, format!("{size} bytes are sent to every proxy as configuration"));
            }
        }
    }
}

fn check_redirect(redirect: &Redirect, at: &str, report: &mut Report) {
    if let Some(port) = redirect.port {
        field::port(port, &format!("{at}.port"), report);
    }
    field::at_most_one(
        &[("port", redirect.port.is_some()), ("derivePort", redirect.derive_port.is_some())],
        at,
        report,
    );
    let empty = redirect.uri.is_none()
        && redirect.authority.is_none()
        && redirect.port.is_none()
        && redirect.derive_port.is_none()
        && redirect.scheme.is_none();
    if empty {
        report.error(at, "must say uri, authority, port or scheme; else it leads to itself");
    }
    if redirect.scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        report.error(format!("{at}.scheme"), "must be http or https");
    }
    if redirect.redirect_code.is_some_and(|code| !matches!(code, 301 | 302 | 303 | 307 | 308)) {
        report.error(format!("{at}.redirectCode"), "must be 301, 302, 303, 307 or 308");
    }
}

fn http_match(matched: &HttpMatch, at: &str, report: &mut Report) {
    let texts = [
        ("uri", &matched.uri),
        ("scheme", &matched.scheme),
        ("method", &matched.method),
        ("authority", &matched.authority),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            string_match(text, &format!("{at}.{name}"), false, report);
        }
    }
    for (group, headers) in [("headers", &matched.headers), ("withoutHeaders", &matched.without_headers)] {
        for (name, text) in headers {
            let path = format!("{at}.{group}.{name}");
            field::header_name(name, &path, true, report);
            string_match(text, &path, true, report);
        }
    }
    for (name, text) in &matched.query_params {
        let path = format!("{at}.queryParams.{name}");
        string_match(text, &path, true, report);
    }
    if let Some(port) = matched.port {
        field::port(port, &format!("{at}.port"), report);
    }
    if matched.ignore_uri_case && matched.uri.as_ref().is_none_or(|uri| uri.regex.is_some()) {
        report.warn(format!("{at}.ignoreUriCase"), "has an effect only with an exact or prefix uri");
    }
    if !matched.stat_prefix.is_empty() {
        report.unsupported(format!("{at}.statPrefix"), "statistics by route are not kept; it has no effect");
    }
    field::labels(&matched.source_labels, &format!("{at}.sourceLabels"), report);
    gateways(&matched.gateways, &format!("{at}.gateways"), report);
}

/// `presence`: an empty match means that the value is there.
fn string_match(text: &StringMatch, at: &str, presence: bool, report: &mut Report) {
    let (exact, prefix, regex) = (text.exact.is_some(), text.prefix.is_some(), text.regex.is_some());
    field::at_most_one(&[("exact", exact), ("prefix", prefix), ("regex", regex)], at, report);
    if !exact && !prefix && !regex && !presence {
        report.error(at, "must say exact, prefix or regex");
    }
    if text.prefix.as_deref() == Some("") {
        report.error(format!("{at}.prefix"), "an empty prefix matches everything; leave the field out instead");
    }
    if let Some(regex) = &text.regex {
        field::regex(regex, &format!("{at}.regex"), report);
    }
}

fn destination(destination: &Destination, at: &str, report: &mut Report) {
    let path = format!("{at}.host");
    if destination.host.is_empty() {
        report.error(path, "a destination needs a host");
    } else if destination.host == "*" {
        report.error(path, "'*' is no destination");
    } else {
        field::host_or_address(&destination.host, &path, report);
    }
    if let Some(port) = &destination.port {
        field::port(port.number, &format!("{at}.port.number"), report);
    }
}

fn destinations(list: &[HttpDestination], at: &str, report: &mut Report) {
    for (i, entry) in list.iter().enumerate() {
        destination(&entry.destination, &format!("{at}[{i}].destination"), report);
        header_changes(entry.headers.as_ref(), &format!("{at}[{i}].headers"), report);
    }
    weights(&list.iter().map(|entry| entry.weight).collect::<Vec<_>>(), at, report);
}

fn weighted(list: &[WeightedDestination], at: &str, report: &mut Report) {
    if list.is_empty() {
        report.error(at, "a route needs at least one destination");
    }
    for (i, entry) in list.iter().enumerate() {
        destination(&entry.destination, &format!("{at}[{i}].destination"), report);
    }
    weights(&list.iter().map(|entry| entry.weight).collect::<Vec<_>>(), at, report);
}

fn weights(weights: &[u32], at: &str, report: &mut Report) {
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    if weights.len() > 1 && sum == 0 {
        report.error(at, "the weights of all destinations are 0; one must be greater");
    }
    if sum > u64::from(u32::MAX) {
        report.error(at, format!("the weights add up to {sum}, which is more than {}", u32::MAX));
    }
}

fn retry(retry: &Retry, at: &str, report: &mut Report) {
    if !(0..=100).contains(&retry.attempts) {
        report.error(format!("{at}.attempts"), format!("{} is not a number of attempts from 0 to 100", retry.attempts));
    }
    if retry.attempts == 0 && (retry.per_try_timeout.is_some() || !retry.retry_on.is_empty()) {
        report.error(format!("{at}.attempts"), "0 attempts switch retries off; perTryTimeout and retryOn then mean nothing");
    }
    // Zero means: as the route's timeout.
    if retry.per_try_timeout.is_some_and(|span| !span.0.is_zero()) {
        field::positive(retry.per_try_timeout, &format!("{at}.perTryTimeout"), report);
    }
    field::positive(retry.backoff, &format!("{at}.backoff"), report);
    for condition in retry.retry_on.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
        let status = condition.parse::<u16>().is_ok_and(|status| (100..600).contains(&status));
        if !status && !RETRY_CONDITIONS.contains(&condition) {
            report.error(
                format!("{at}.retryOn"),
                format!("{condition:?} is neither a status nor one of {}", RETRY_CONDITIONS.join(", ")),
            );
        }
    }
}

fn faults(fault: &Fault, at: &str, report: &mut Report) {
    if fault.delay.is_none() && fault.abort.is_none() {
        report.error(at, "must say delay or abort");
    }
    if let Some(delay) = &fault.delay {
        delays(delay, &format!("{at}.delay"), report);
    }
    if let Some(abort) = &fault.abort {
        let at = format!("{at}.abort");
        let said = [
            ("httpStatus", abort.http_status.is_some()),
            ("grpcStatus", abort.grpc_status.is_some()),
            ("http2Error", abort.http2_error.is_some()),
        ];
        field::at_most_one(&said, &at, report);
        if !said.iter().any(|(_, said)| *said) {
            report.error(&at, "must say httpStatus or grpcStatus");
        }
        if abort.http2_error.is_some() {
            report.refuse_unsupported(format!("{at}.http2Error"), "not supported; use httpStatus or grpcStatus");
        }
        if abort.http_status.is_some_and(|status| !(200..=599).contains(&status)) {
            report.error(format!("{at}.httpStatus"), "must be from 200 to 599");
        }
        if abort.grpc_status.as_deref().is_some_and(|name| !GRPC_STATUSES.contains(&name)) {
            report.error(format!("{at}.grpcStatus"), format!("must be one of {}", GRPC_STATUSES.join(", ")));
        }
    }
}

fn delays(delay: &Delay, at: &str, report: &mut Report) {
    if delay.exponential_delay.is_some() {
        report.refuse_unsupported(format!("{at}.exponentialDelay"), "not supported; use fixedDelay");
    } else if delay.fixed_delay.is_none() {
        report.error(at, "must say fixedDelay");
    }
    field::positive(delay.fixed_delay, &format!("{at}.fixedDelay"), report);
    if delay.percent.is_some_and(|percent| percent > 100) {
        report.error(format!("{at}.percent"), "must be from 0 to 100");
    }
}

fn cors_policy(cors: &Cors, at: &str, report: &mut Report) {
    for (i, origin) in cors.allow_origins.iter().enumerate() {
        string_match(origin, &format!("{at}.allowOrigins[{i}]"), false, report);
    }
    for (i, method) in cors.allow_methods.iter().enumerate() {
        field::header_name(method, &format!("{at}.allowMethods[{i}]"), false, report);
    }
    for (name, list) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (i, header) in list.iter().enumerate() {
            field::header_name(header, &format!("{at}.{name}[{i}]"), false, report);
        }
    }
    if cors.max_age.is_some_and(|age| age.0.subsec_nanos() != 0) {
        report.error(format!("{at}.maxAge"), "must be whole seconds");
    }
}

fn mirrors(route: &HttpRoute, at: &str, report: &mut Report) {
    field::at_most_one(&[("mirror", route.mirror.is_some()), ("mirrors", !route.mirrors.is_empty())], at, report);
    if let Some(mirror) = &route.mirror {
        destination(mirror, &format!("{at}.mirror"), report);
    }
    for (i, mirror) in route.mirrors.iter().enumerate() {
        destination(&mirror.destination, &format!("{at}.mirrors[{i}].destination"), report);
    }
    if route.mirror_percent.is_some_and(|percent| percent > 100) {
        report.error(format!("{at}.mirrorPercent"), "must be from 0 to 100");
    }
}

fn header_changes(headers: Option<&crate::kube::networking::Headers>, at: &str, report: &mut Report) {
    let Some(headers) = headers else { return };
    for (side, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(operations) = operations else { continue };
        for (verb, map) in [("set", &operations.set), ("add", &operations.add)] {
            for (name, value) in map {
                let path = format!("{at}.{side}.{verb}.{name}");
                // Envoy changes :authority, :path and :method by other means only.
                field::header_name(name, &path, name.eq_ignore_ascii_case(":authority"), report);
                if value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
                    report.error(path, "a header's value may not have control characters");
                }
            }
        }
        for (i, name) in operations.remove.iter().enumerate() {
            let path = format!("{at}.{side}.remove[{i}]");
            field::header_name(name, &path, false, report);
            if name.eq_ignore_ascii_case("host") {
                report.error(path, "Host cannot be removed");
            }
        }
    }
}

fn tls_route(route: &TlsRoute, hosts: &[String], at: &str, report: &mut Report) {
    if route.matches.is_empty() {
        report.error(format!("{at}.match"), "a TLS route needs a match with sniHosts");
    }
    for (i, matched) in route.matches.iter().enumerate() {
        let at = format!("{at}.match[{i}]");
        if matched.sni_hosts.is_empty() {
            report.error(format!("{at}.sniHosts"), "a TLS match needs at least one server name");
        }
        for (j, sni) in matched.sni_hosts.iter().enumerate() {
            let path = format!("{at}.sniHosts[{j}]");
            field::host(sni, &path, true, report);
            let within = hosts.iter().any(|host| covers(host, sni));
            if !within {
                report.error(path, format!("{sni:?} is not within the VirtualService's hosts"));
            }
        }
        if let Some(port) = matched.port {
            field::port(port, &format!("{at}.port"), report);
        }
        subnets(&matched.destination_subnets, &at, report);
        field::labels(&matched.source_labels, &format!("{at}.sourceLabels"), report);
        gateways(&matched.gateways, &format!("{at}.gateways"), report);
    }
    weighted(&route.route, &format!("{at}.route"), report);
}

/// Does a host of `hosts` (with or without wildcard) stand for this server name?
fn covers(host: &str, sni: &str) -> bool {
    let (host, sni) = (host.to_ascii_lowercase(), sni.to_ascii_lowercase());
    match host.strip_prefix('*') {
        // A short name is the service's; its full name is what clients send.
        None => host == sni || (!host.contains('.') && sni.starts_with(&format!("{host}."))),
        Some(suffix) => sni.ends_with(suffix),
    }
}

fn tcp_route(route: &TcpRoute, at: &str, report: &mut Report) {
    for (i, matched) in route.matches.iter().enumerate() {
        let at = format!("{at}.match[{i}]");
        if let Some(port) = matched.port {
            field::port(port, &format!("{at}.port"), report);
        }
        if !matched.source_subnet.is_empty() {
            report.unsupported(format!("{at}.sourceSubnet"), "it never had an effect");
        }
        subnets(&matched.destination_subnets, &at, report);
        field::labels(&matched.source_labels, &format!("{at}.sourceLabels"), report);
        gateways(&matched.gateways, &format!("{at}.gateways"), report);
    }
    weighted(&route.route, &format!("{at}.route"), report);
}

fn subnets(list: &[String], at: &str, report: &mut Report) {
    for (i, subnet) in list.iter().enumerate() {
        field::address_range(subnet, &format!("{at}.destinationSubnets[{i}]"), report);
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    fn check(spec: &str, found: &[&str]) {
        expect(Kind::VirtualService, spec, found);
    }

    /// One route under `http`.
    fn route(route: &str, found: &[&str]) {
        check(&format!("hosts: [a]\nhttp: [{route}]"), found);
    }

    const TO: &str = "route: [{destination: {host: a}}]";

    #[test]
    fn objects() {
        check(&format!("hosts: [a]\nhttp: [{{{TO}}}]"), &[]);
        check("hosts: [a]", &["Error spec"]);
        check(&format!("hosts: ['*']\nhttp: [{{{TO}}}]"), &["Error spec.hosts[0]"]);
        check(&format!("hosts: ['*']\ngateways: [ns/gw]\nhttp: [{{{TO}}}]"), &[]);
        check(&format!("hosts: [a, a]\nhttp: [{{{TO}}}]"), &["Error spec.hosts[1]"]);
        check(&format!("hosts: [a]\ngateways: [a/b/c]\nhttp: [{{{TO}}}]"), &["Error spec.gateways[0]"]);
        check(&format!("hosts: [a]\nexportTo: ['*', ns]\nhttp: [{{{TO}}}]"), &["Error spec.exportTo[0]"]);
        check(&format!("hosts: [a]\nhttps: []\nhttp: [{{{TO}}}]"), &["Error spec.https"]);
        check("hosts: a", &["Error spec.hosts"]);
    }

    #[test]
    fn routes() {
        route("{match: [{uri: {prefix: /a}}]}", &["Error spec.http[0]"]);
        route("{route: [{destination: {host: ''}}]}", &["Error spec.http[0].route[0].destination.host"]);
        route("{route: [{destination: {host: a, port: {number: 70000}}}]}", &[
            "Error spec.http[0].route[0].destination.port.number",
        ]);
        route("{route: [{destination: {host: a}}, {destination: {host: b}}]}", &["Error spec.http[0].route"]);
        route("{route: [{destination: {host: a}, weight: -1}]}", &["Error spec.http[0].route[0].weight"]);
        route(&format!("{{{TO}, redirect: {{uri: /a}}}}"), &["Error spec.http[0]"]);
        route("{redirect: {}}", &["Error spec.http[0].redirect"]);
        route("{redirect: {uri: /a, redirectCode: 200}}", &["Error spec.http[0].redirect.redirectCode"]);
        route("{directResponse: {status: 99}}", &["Error spec.http[0].directResponse.status"]);
        route("{delegate: {name: b}}", &["Error spec.http[0].delegate"]);
        route(&format!("{{{TO}, timeout: 5}}"), &["Error spec.http[0].timeout"]);
        route(&format!("{{{TO}, retries: {{attempts: 3, retryOn: 'connect-failure,503, 5xx'}}}}"), &[]);
        route(&format!("{{{TO}, retries: {{attempts: 3, retryOn: 'always'}}}}"), &["Error spec.http[0].retries.retryOn"]);
        route(&format!("{{{TO}, rewrite: {{}}}}"), &["Error spec.http[0].rewrite"]);
        route(&format!("{{{TO}, headers: {{request: {{set: {{'a b': c}}}}}}}}"), &[
            "Error spec.http[0].headers.request.set.a b",
        ]);
    }

    #[test]
    fn matches() {
        let matched = |text: &str, found: &[&str]| route(&format!("{{match: [{text}], {TO}}}"), found);
        matched("{uri: {prefix: /a}, headers: {x: {}}, queryParams: {q: {regex: 'a.*'}}}", &[]);
        matched("{uri: {}}", &["Error spec.http[0].match[0].uri"]);
        matched("{uri: {exact: /a, prefix: /b}}", &["Error spec.http[0].match[0].uri"]);
        matched("{uri: {regex: '('}}", &["Error spec.http[0].match[0].uri.regex"]);
        matched("{uri: {prfix: /a}}", &["Error spec.http[0].match[0].uri.prfix", "Error spec.http[0].match[0].uri"]);
        matched("{port: 0}", &["Error spec.http[0].match[0].port"]);
        matched("{headers: {'a b': {exact: c}}}", &["Error spec.http[0].match[0].headers.a b"]);
    }

    #[test]
    fn faults() {
        let fault = |text: &str, found: &[&str]| route(&format!("{{fault: {text}, {TO}}}"), found);
        fault("{delay: {fixedDelay: 7s, percentage: {value: 0.5}}}", &[]);
        fault("{abort: {httpStatus: 500, percentage: {value: 100}}}", &[]);
        fault("{}", &["Error spec.http[0].fault"]);
        fault("{delay: {percentage: {value: 100}}}", &["Error spec.http[0].fault.delay"]);
        fault("{delay: {fixedDelay: 7s, percentage: {value: 101}}}", &[
            "Error spec.http[0].fault.delay.percentage.value",
        ]);
        fault("{abort: {httpStatus: 500, grpcStatus: UNAVAILABLE}}", &["Error spec.http[0].fault.abort"]);
        fault("{abort: {grpcStatus: GONE}}", &["Error spec.http[0].fault.abort.grpcStatus"]);
    }

    #[test]
    fn tls_and_tcp() {
        check("hosts: [a.b]\ntls: [{match: [{sniHosts: [a.b], port: 443}], route: [{destination: {host: a.b}}]}]", &[]);
        check("hosts: [a.b]\ntls: [{match: [{sniHosts: [c.b]}], route: [{destination: {host: a.b}}]}]", &[
            "Error spec.tls[0].match[0].sniHosts[0]",
        ]);
        check("hosts: [a.b]\ntls: [{route: [{destination: {host: a.b}}]}]", &["Error spec.tls[0].match"]);
        check("hosts: [a]\ntcp: [{match: [{destinationSubnets: [x]}], route: []}]", &[
            "Error spec.tcp[0].match[0].destinationSubnets[0]",
            "Error spec.tcp[0].route",
        ]);
    }
}
