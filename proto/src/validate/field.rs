//! Checks of single fields that many kinds have. Each takes the field's path and adds to a report.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{finding, finding::Report, kube::reference::TargetRef, scalar::Span};

/// A DNS name, possibly with a wildcard as its first label.
pub fn host(text: &str, path: &str, wildcard: bool, report: &mut Report) {
    if let Some(problem) = host_problem(text, wildcard) {
        report.error(path, format!("{text:?} is not a host name: {problem}"));
    }
}

/// As `host`, where an address will do too.
pub fn host_or_address(text: &str, path: &str, report: &mut Report) {
    if text.parse::<IpAddr>().is_err() {
        host(text, path, true, report);
    }
}

fn host_problem(text: &str, wildcard: bool) -> Option<&'static str> {
    let name = match text.strip_prefix('*') {
        Some(_) if !wildcard => return Some("a wildcard is not possible here"),
        Some("") => return None,
        Some(rest) => match rest.strip_prefix('.') {
            Some(name) => name,
            None => return Some("a wildcard must be a whole label, as in *.example.com"),
        },
        None => text,
    };
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > 253 {
        return Some("it has more than 253 characters");
    }
    if name.contains('*') {
        return Some("a wildcard can only be the first label");
    }
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels = name.strip_suffix('.').unwrap_or(name);
    (!labels.split('.').all(good))
        .then_some("labels have 1 to 63 of letters, digits, '-' and '_', and dots between them")
}

/// 1 to 65535.
pub fn port(number: u32, path: &str, report: &mut Report) {
    if number == 0 || number > 65_535 {
        report.error(path, format!("{number} is not a port (1 to 65535)"));
    }
}

/// As Kubernetes names ports.
pub fn port_name(name: &str, path: &str, report: &mut Report) {
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !good {
        report.error(
            path,
            format!("{name:?} is not a port's name: up to 63 letters, digits and '-', with a letter or digit at both ends"),
        );
    }
}

/// RE2 syntax.
pub fn regex(text: &str, path: &str, report: &mut Report) {
    if text.len() > 1024 {
        report.error(
            path,
            format!(
                "the regular expression has {} characters; 1024 are allowed",
                text.len()
            ),
        );
    } else if let Err(error) = regex::Regex::new(text) {
        // The error's last line says what is wrong, the others draw it.
        let problem = error.to_string();
        let problem = problem.lines().last().unwrap_or_default().trim().to_owned();
        report.add(
            // Istio warns here and refuses elsewhere; we refuse.
            finding::Code {
                level: finding::Level::Error,
                ..finding::INVALID_REGEXP
            },
            path,
            format!("{text:?} is not a regular expression (RE2 syntax): {problem}"),
        );
    }
}

/// At least a millisecond, as Envoy counts.
pub fn positive(span: Option<Span>, path: &str, report: &mut Report) {
    if span.is_some_and(|span| span.0 < Duration::from_millis(1)) {
        report.error(path, "must be at least 1ms");
    }
}

/// A field's name in HTTP (RFC 9110 §5.1: a token). Pseudo-headers only where `pseudo` allows.
pub fn header_name(text: &str, path: &str, pseudo: bool, report: &mut Report) {
    let name = if pseudo {
        text.strip_prefix(':').unwrap_or(text)
    } else {
        text
    };
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        report.error(path, format!("{text:?} is not a header's name"));
    }
}

/// Labels of a selector.
pub fn labels(labels: &BTreeMap<String, String>, path: &str, report: &mut Report) {
    for (key, value) in labels {
        let name = key.rsplit_once('/').map_or(key.as_str(), |(_, name)| name);
        let good = |text: &str| {
            text.len() <= 63
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && text.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric())
                && text.bytes().last().is_none_or(|b| b.is_ascii_alphanumeric())
        };
        if name.is_empty() || !good(name) {
            report.error(
                format!("{path}.{key}"),
                format!("{key:?} is not a label's name; wildcards are not possible"),
            );
        }
        if !good(value) {
            report.error(
                format!("{path}.{key}"),
                format!("{value:?} is not a label's value; wildcards are not possible"),
            );
        }
    }
}

/// `.`, `*`, `~` or namespaces.
pub fn export_to(list: &[String], path: &str, report: &mut Report) {
    for (i, namespace) in list.iter().enumerate() {
        let known = matches!(namespace.as_str(), "." | "*" | "~");
        if !known && !namespace_name(namespace) {
            report.error(
                format!("{path}[{i}]"),
                format!("{namespace:?} is not a namespace; write a name, '.' (this namespace) or '*' (all)"),
            );
        }
        if list.len() > 1 && matches!(namespace.as_str(), "*" | "~") {
            report.error(format!("{path}[{i}]"), format!("{namespace:?} must stand alone"));
        }
    }
}

/// RFC 1123 label.
pub fn namespace_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// An address or a range of addresses.
pub fn address_range(text: &str, path: &str, report: &mut Report) {
    if parse_range(text).is_none() {
        report.error(
            path,
            format!("{text:?} is neither an address nor a range such as 10.0.0.0/8"),
        );
    }
}

/// `10.0.0.0/8`, or one address.
pub fn parse_range(text: &str) -> Option<ipnet::IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(ipnet::IpNet::from))
}

/// Field and value if both are said: at most one of a group may be.
pub fn at_most_one(fields: &[(&str, bool)], path: &str, report: &mut Report) {
    let said: Vec<&str> = fields
        .iter()
        .filter(|(_, said)| *said)
        .map(|(name, _)| *name)
        .collect();
    if said.len() > 1 {
        report.error(path, format!("only one of {} can be set", said.join(", ")));
    }
}

/// What a policy holds for: a selector or references, and references that can be followed.
pub fn one_target(selector: bool, one: Option<&TargetRef>, several: &[TargetRef], report: &mut Report) {
    at_most_one(
        &[
            ("selector", selector),
            ("targetRef", one.is_some()),
            ("targetRefs", !several.is_empty()),
        ],
        "spec",
        report,
    );
    if let Some(target) = one {
        target_ref(target, "spec.targetRef", report);
    }
    for (i, target) in several.iter().enumerate() {
        target_ref(target, &format!("spec.targetRefs[{i}]"), report);
    }
}

fn target_ref(target: &TargetRef, at: &str, report: &mut Report) {
    if target.name.is_empty() {
        report.error(format!("{at}.name"), "must be given");
    }
    if !target.namespace.is_empty() {
        report.error(
            format!("{at}.namespace"),
            "must be left out; objects of other namespaces cannot be referred to",
        );
    }
    let known = matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
            | ("networking.istio.io", "ServiceEntry")
            | ("" | "core", "Service")
    );
    if !known {
        report.error(
            at,
            format!(
                "{:?} of {:?} cannot be referred to; possible are Gateway and GatewayClass of gateway.networking.k8s.io, \
                 ServiceEntry of networking.istio.io, and Service",
                target.kind, target.group
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "a",
            "a.b",
            "*",
            "*.a",
            "a_b.c",
            "reviews.default.svc.cluster.local.",
            "xn--nxasmq6b",
        ] {
            assert_eq!(host_problem(good, true), None, "{good}");
        }
        for bad in [
            "", "*a", "a.*", "*.*.a", "-a", "a-.b", "a..b", "a/b", "a b", "a:80",
        ] {
            assert!(host_problem(bad, true).is_some(), "{bad}");
        }
        assert!(host_problem("*.a", false).is_some());
    }

    #[test]
    fn ranges() {
        assert_eq!(
            parse_range("10.0.0.1").map(|range| range.to_string()),
            Some("10.0.0.1/32".into())
        );
        assert_eq!(
            parse_range("fd00::/8").map(|range| range.to_string()),
            Some("fd00::/8".into())
        );
        assert_eq!(parse_range("10.0.0"), None);
    }
}
