//! HTTP routes of a VirtualService.

use super::{RETRY_CONDITIONS, destination, fault, gateways, weights};
use crate::{
    finding::Report,
    kube::networking::{Cors, Headers, HttpDestination, HttpMatch, HttpRoute, Redirect, Retry, StringMatch},
    validate::field,
};

pub(super) fn http_route(route: &HttpRoute, at: &str, report: &mut Report) {
    for (i, matched) in route.matches.iter().enumerate() {
        http_match(matched, &format!("{at}.match[{i}]"), report);
    }
    http_action(route, at, report);
    destinations(&route.route, &format!("{at}.route"), report);
    let rewritable = route.rewrite.as_ref();
    if let Some(rewrite) = rewritable {
        if route.redirect.is_some() || route.direct_response.is_some() {
            report.error(
                format!("{at}.rewrite"),
                "a redirect or direct response is not sent on, so there is nothing to rewrite",
            );
        }
        field::at_most_one(
            &[
                ("uri", rewrite.uri.is_some()),
                ("uriRegexRewrite", rewrite.uri_regex_rewrite.is_some()),
            ],
            &format!("{at}.rewrite"),
            report,
        );
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            field::regex(
                &regex.pattern,
                &format!("{at}.rewrite.uriRegexRewrite.match"),
                report,
            );
        }
        if rewrite.uri.is_none() && rewrite.authority.is_none() && rewrite.uri_regex_rewrite.is_none() {
            report.error(
                format!("{at}.rewrite"),
                "must say uri, uriRegexRewrite or authority",
            );
        }
    }
    if let Some(retries) = &route.retries {
        retry(retries, &format!("{at}.retries"), report);
    }
    // Zero is allowed: no timeout.
    if let Some(fault) = &route.fault {
        fault::faults(fault, &format!("{at}.fault"), report);
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
        report.error(
            at,
            "says what to match but not what to do: needs route, redirect, directResponse or delegate",
        );
    }
    if (route.redirect.is_some() || route.direct_response.is_some()) && route.fault.is_some() {
        report.error(
            format!("{at}.fault"),
            "a redirect or direct response is not sent on, so there is nothing to delay or abort",
        );
    }
    if let Some(delegate) = &route.delegate {
        if delegate.name.is_empty() {
            report.error(
                format!("{at}.delegate.name"),
                "must be the name of a VirtualService without hosts",
            );
        }
        if !delegate.namespace.is_empty() && !field::namespace_name(&delegate.namespace) {
            report.error(
                format!("{at}.delegate.namespace"),
                format!("{:?} is not a namespace", delegate.namespace),
            );
        }
    }
    if let Some(redirect) = &route.redirect {
        check_redirect(redirect, &format!("{at}.redirect"), report);
    }
    if let Some(response) = &route.direct_response {
        if !(200..=599).contains(&response.status) {
            report.error(
                format!("{at}.directResponse.status"),
                format!("{} is not a status from 200 to 599", response.status),
            );
        }
        if let Some(body) = &response.body {
            let path = format!("{at}.directResponse.body");
            field::at_most_one(
                &[("string", body.string.is_some()), ("bytes", body.bytes.is_some())],
                &path,
                report,
            );
            let size = body
                .string
                .as_ref()
                .or(body.bytes.as_ref())
                .map_or(0, String::len);
            if size > 1 << 20 {
                report.error(path, format!("{size} bytes; a direct response may have 1 MiB"));
            } else if size > 100 << 10 {
                report.warn(
                    path,
                    format!("{size} bytes are sent to every proxy as configuration"),
                );
            }
        }
    }
}

fn check_redirect(redirect: &Redirect, at: &str, report: &mut Report) {
    if let Some(port) = redirect.port {
        field::port(port, &format!("{at}.port"), report);
    }
    field::at_most_one(
        &[
            ("port", redirect.port.is_some()),
            ("derivePort", redirect.derive_port.is_some()),
        ],
        at,
        report,
    );
    field::at_most_one(
        &[
            ("uri", redirect.uri.is_some()),
            ("prefixRewrite", redirect.prefix_rewrite.is_some()),
        ],
        at,
        report,
    );
    let empty = redirect.uri.is_none()
        && redirect.prefix_rewrite.is_none()
        && redirect.authority.is_none()
        && redirect.port.is_none()
        && redirect.derive_port.is_none()
        && redirect.scheme.is_none();
    if empty {
        report.error(
            at,
            "must say uri, authority, port or scheme; else it leads to itself",
        );
    }
    if redirect
        .scheme
        .as_deref()
        .is_some_and(|scheme| !matches!(scheme, "http" | "https"))
    {
        report.error(format!("{at}.scheme"), "must be http or https");
    }
    if redirect
        .redirect_code
        .is_some_and(|code| !matches!(code, 301 | 302 | 303 | 307 | 308))
    {
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
    for (group, headers) in [
        ("headers", &matched.headers),
        ("withoutHeaders", &matched.without_headers),
    ] {
        for (name, text) in headers {
            let path = format!("{at}.{group}.{name}");
            if name.starts_with("@request.auth.claims") {
                report.refuse_unsupported(&path, "routing by claims of tokens is not supported yet");
            } else {
                field::header_name(name, &path, true, report);
            }
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
        report.warn(
            format!("{at}.ignoreUriCase"),
            "has an effect only with an exact or prefix uri",
        );
    }
    field::labels(&matched.source_labels, &format!("{at}.sourceLabels"), report);
    gateways(&matched.gateways, &format!("{at}.gateways"), report);
}

/// `presence`: an empty match means that the value is there.
fn string_match(text: &StringMatch, at: &str, presence: bool, report: &mut Report) {
    let (exact, prefix, regex) = (text.exact.is_some(), text.prefix.is_some(), text.regex.is_some());
    field::at_most_one(
        &[("exact", exact), ("prefix", prefix), ("regex", regex)],
        at,
        report,
    );
    if !exact && !prefix && !regex && !presence {
        report.error(at, "must say exact, prefix or regex");
    }
    if text.prefix.as_deref() == Some("") {
        report.error(
            format!("{at}.prefix"),
            "an empty prefix matches everything; leave the field out instead",
        );
    }
    if let Some(regex) = &text.regex {
        field::regex(regex, &format!("{at}.regex"), report);
    }
}

fn destinations(list: &[HttpDestination], at: &str, report: &mut Report) {
    for (i, entry) in list.iter().enumerate() {
        destination(&entry.destination, &format!("{at}[{i}].destination"), report);
        header_changes(entry.headers.as_ref(), &format!("{at}[{i}].headers"), report);
    }
    weights(
        &list.iter().map(|entry| entry.weight).collect::<Vec<_>>(),
        at,
        report,
    );
}

fn retry(retry: &Retry, at: &str, report: &mut Report) {
    if !(0..=100).contains(&retry.attempts) {
        report.error(
            format!("{at}.attempts"),
            format!("{} is not a number of attempts from 0 to 100", retry.attempts),
        );
    }
    if retry.attempts == 0 && (retry.per_try_timeout.is_some() || !retry.retry_on.is_empty()) {
        report.error(
            format!("{at}.attempts"),
            "0 attempts switch retries off; perTryTimeout and retryOn then mean nothing",
        );
    }
    // Zero means: as the route's timeout.
    if retry.per_try_timeout.is_some_and(|span| !span.0.is_zero()) {
        field::positive(retry.per_try_timeout, &format!("{at}.perTryTimeout"), report);
    }
    field::positive(retry.backoff, &format!("{at}.backoff"), report);
    for condition in retry
        .retry_on
        .split(',')
        .map(str::trim)
        .filter(|condition| !condition.is_empty())
    {
        let status = condition
            .parse::<u16>()
            .is_ok_and(|status| (100..600).contains(&status));
        if !status && !RETRY_CONDITIONS.contains(&condition) {
            report.error(
                format!("{at}.retryOn"),
                format!(
                    "{condition:?} is neither a status nor one of {}",
                    RETRY_CONDITIONS.join(", ")
                ),
            );
        }
    }
}

fn cors_policy(cors: &Cors, at: &str, report: &mut Report) {
    for (i, origin) in cors.allow_origins.iter().enumerate() {
        string_match(origin, &format!("{at}.allowOrigins[{i}]"), false, report);
    }
    for (i, method) in cors.allow_methods.iter().enumerate() {
        field::header_name(method, &format!("{at}.allowMethods[{i}]"), false, report);
    }
    for (name, list) in [
        ("allowHeaders", &cors.allow_headers),
        ("exposeHeaders", &cors.expose_headers),
    ] {
        for (i, header) in list.iter().enumerate() {
            field::header_name(header, &format!("{at}.{name}[{i}]"), false, report);
        }
    }
    if cors.max_age.is_some_and(|age| age.0.subsec_nanos() != 0) {
        report.error(format!("{at}.maxAge"), "must be whole seconds");
    }
}

fn mirrors(route: &HttpRoute, at: &str, report: &mut Report) {
    field::at_most_one(
        &[
            ("mirror", route.mirror.is_some()),
            ("mirrors", !route.mirrors.is_empty()),
        ],
        at,
        report,
    );
    if let Some(mirror) = &route.mirror {
        destination(mirror, &format!("{at}.mirror"), report);
    }
    for (i, mirror) in route.mirrors.iter().enumerate() {
        destination(
            &mirror.destination,
            &format!("{at}.mirrors[{i}].destination"),
            report,
        );
    }
    if route.mirror_percent.is_some_and(|percent| percent > 100) {
        report.error(format!("{at}.mirrorPercent"), "must be from 0 to 100");
    }
}

fn header_changes(headers: Option<&Headers>, at: &str, report: &mut Report) {
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
