//! What may be done: ports, hosts, methods, paths.

use mesh_proto::envoy::{
    config::{
        rbac::v3::{
            Permission,
            permission::{Rule, Set},
        },
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher},
};

use super::{Layer, parts, permission};
use crate::{
    generate::value::{cidr, exact, prefix, safe_regex, suffix},
    model::{
        authz::{Attribute, Condition, Operation},
        matching::Pattern,
    },
};

pub fn anything() -> Permission {
    permission(Rule::Any(true))
}

pub fn all(rules: Vec<Permission>) -> Permission {
    match <[Permission; 1]>::try_from(rules) {
        Ok([only]) => only,
        Err(rules) => permission(Rule::AndRules(Set { rules })),
    }
}

fn one_of(rules: Vec<Permission>) -> Permission {
    permission(Rule::OrRules(Set { rules }))
}

fn not(rule: Permission) -> Permission {
    permission(Rule::NotRule(Box::new(rule)))
}

pub fn operation(operation: &Operation, layer: Layer) -> Permission {
    let port = |port: &u16| permission(Rule::DestinationPort(u32::from(*port)));
    let mut rules: Vec<Permission> = parts(&operation.ports, port, one_of, not).collect();
    if layer == Layer::Http {
        rules.extend(parts(
            &operation.hosts,
            |host| header(":authority", host, true),
            one_of,
            not,
        ));
        rules.extend(parts(
            &operation.methods,
            |method| header(":method", method, false),
            one_of,
            not,
        ));
        rules.extend(parts(&operation.paths, path, one_of, not));
    }
    if rules.is_empty() { anything() } else { all(rules) }
}

/// A condition about the destination; `None` when it is about something else.
pub fn condition(condition: &Condition) -> Option<Permission> {
    let one: fn(&String) -> Permission = match condition.attribute {
        Attribute::DestinationIp => |text| match text.parse::<ipnet::IpNet>() {
            Ok(network) => permission(Rule::DestinationIp(cidr(&network))),
            Err(_) => match text.parse::<std::net::IpAddr>() {
                Ok(address) => permission(Rule::DestinationIp(cidr(&address.into()))),
                Err(_) => never(),
            },
        },
        Attribute::DestinationPort => |text| match text.parse::<u16>() {
            Ok(port) => permission(Rule::DestinationPort(u32::from(port))),
            Err(_) => never(),
        },
        Attribute::Sni => |text| match matcher(&Pattern::new(text)) {
            Some(matcher) => permission(Rule::RequestedServerName(matcher)),
            None => never(),
        },
        _ => return None,
    };
    Some(all(parts(&condition.values, one, one_of, not).collect()))
}

/// What cannot be read matches nothing.
fn never() -> Permission {
    not(anything())
}

fn header(name: &str, pattern: &Pattern, ignore_case: bool) -> Permission {
    permission(Rule::Header(header_matcher(name, pattern, ignore_case)))
}

pub fn header_matcher(name: &str, pattern: &Pattern, ignore_case: bool) -> HeaderMatcher {
    let specifier = match matcher(pattern) {
        Some(text) => HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, ..text }),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

/// `None`: any text will do.
pub fn matcher(pattern: &Pattern) -> Option<StringMatcher> {
    match pattern {
        Pattern::Present => None,
        Pattern::Exact(text) | Pattern::Template(text) => Some(exact(text)),
        Pattern::Prefix(text) => Some(prefix(text)),
        Pattern::Suffix(text) => Some(suffix(text)),
    }
}

fn path(pattern: &Pattern) -> Permission {
    let text = match pattern {
        Pattern::Template(template) => Some(safe_regex(&template_regex(template))),
        pattern => matcher(pattern),
    };
    match text {
        None => anything(),
        Some(text) => permission(Rule::UrlPath(PathMatcher {
            rule: Some(path_matcher::Rule::Path(text)),
        })),
    }
}

/// `/a/{*}/b/{**}` as an expression: one segment, or any number of them. Envoy has an extension for such templates, which
/// many clients of xDS do not know; the expression says the same.
fn template_regex(template: &str) -> String {
    let mut regex = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("{**}") {
            regex.push_str(".*");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{*}") {
            regex.push_str("[^/]+");
            rest = after;
        } else {
            if !(c.is_ascii_alphanumeric() || "/-_~%".contains(c)) {
                regex.push('\\');
            }
            regex.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    regex
}
