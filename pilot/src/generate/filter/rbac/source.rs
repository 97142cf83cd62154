//! Who asks: proven identities, addresses, headers.

use mesh_proto::envoy::{
    config::rbac::v3::{
        Principal,
        principal::{Authenticated, Identifier, Set},
    },
    r#type::matcher::v3::StringMatcher,
};

use super::{Layer, claims, parts, permit, principal};
use crate::{
    generate::value::{cidr, exact, prefix, safe_regex, suffix},
    model::{
        authz::{Attribute, Condition, Source},
        matching::Pattern,
    },
};

const SCHEME: &str = "spiffe://";

pub fn anybody() -> Principal {
    principal(Identifier::Any(true))
}

pub fn all(ids: Vec<Principal>) -> Principal {
    match <[Principal; 1]>::try_from(ids) {
        Ok([only]) => only,
        Err(ids) => principal(Identifier::AndIds(Set { ids })),
    }
}

pub fn one_of(ids: Vec<Principal>) -> Principal {
    principal(Identifier::OrIds(Set { ids }))
}

fn not(id: Principal) -> Principal {
    principal(Identifier::NotId(Box::new(id)))
}

/// Matches nobody: what is not known cannot be proven.
pub fn nobody() -> Principal {
    not(anybody())
}

pub fn source(source: &Source, layer: Layer) -> Principal {
    let mut ids: Vec<Principal> = Vec::new();
    ids.extend(parts(&source.principals, identity, one_of, not));
    ids.extend(parts(&source.namespaces, namespace, one_of, not));
    ids.extend(parts(
        &source.service_accounts,
        |(ns, name)| account(ns, name),
        one_of,
        not,
    ));
    ids.extend(parts(
        &source.ip_blocks,
        |range| principal(Identifier::DirectRemoteIp(cidr(range))),
        one_of,
        not,
    ));
    if layer == Layer::Http {
        let remote = |range: &ipnet::IpNet| principal(Identifier::RemoteIp(cidr(range)));
        ids.extend(parts(&source.remote_ip_blocks, remote, one_of, not));
        ids.extend(parts(
            &source.request_principals,
            claims::request_principal,
            one_of,
            not,
        ));
    }
    if ids.is_empty() { anybody() } else { all(ids) }
}

/// A condition about the source or the request's headers.
pub fn condition(condition: &Condition) -> Principal {
    let ids = match &condition.attribute {
        Attribute::RequestHeader(name) => parts(
            &condition.values,
            |text: &String| {
                principal(Identifier::Header(permit::header_matcher(
                    name,
                    &Pattern::new(text),
                    false,
                )))
            },
            one_of,
            not,
        )
        .collect(),
        Attribute::RequestClaim(path) => {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let one = |text: &String| claims::claim(&path, &Pattern::new(text));
            parts(&condition.values, one, one_of, not).collect::<Vec<_>>()
        }
        attribute => {
            let one: fn(&String) -> Principal = match attribute {
                Attribute::SourceIp => |text| range(text, Identifier::DirectRemoteIp),
                Attribute::RemoteIp => |text| range(text, Identifier::RemoteIp),
                Attribute::SourceNamespace => |text| namespace(&Pattern::new(text)),
                Attribute::SourcePrincipal => |text| identity(&Pattern::new(text)),
                Attribute::SourceServiceAccount => |text| match text.split_once('/') {
                    Some((ns, name)) => account(ns, name),
                    None => nobody(),
                },
                Attribute::RequestPrincipal => |text| claims::request_principal(&Pattern::new(text)),
                Attribute::RequestAudiences => |text| claims::claim(&["aud"], &Pattern::new(text)),
                Attribute::RequestPresenter => |text| claims::claim(&["azp"], &Pattern::new(text)),
                _ => |_| nobody(),
            };
            parts(&condition.values, one, one_of, not).collect::<Vec<_>>()
        }
    };
    if ids.is_empty() { anybody() } else { all(ids) }
}

fn range(
    text: &str,
    identifier: fn(mesh_proto::envoy::config::core::v3::CidrRange) -> Identifier,
) -> Principal {
    let network = text
        .parse::<ipnet::IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into));
    match network {
        Ok(network) => principal(identifier(cidr(&network))),
        Err(_) => nobody(),
    }
}

fn authenticated(name: StringMatcher) -> Principal {
    principal(Identifier::Authenticated(Authenticated {
        principal_name: Some(name),
    }))
}

fn identity(pattern: &Pattern) -> Principal {
    authenticated(match pattern {
        // Any identity, but a proven one.
        Pattern::Present => safe_regex(".+"),
        Pattern::Exact(text) | Pattern::Template(text) => exact(&format!("{SCHEME}{text}")),
        Pattern::Prefix(text) => prefix(&format!("{SCHEME}{text}")),
        Pattern::Suffix(text) => suffix(text),
    })
}

fn namespace(pattern: &Pattern) -> Principal {
    let name = match pattern {
        Pattern::Present => "[^/]+".to_owned(),
        Pattern::Exact(text) | Pattern::Template(text) => escape(text),
        Pattern::Prefix(text) => format!("{}[^/]*", escape(text)),
        Pattern::Suffix(text) => format!("[^/]*{}", escape(text)),
    };
    authenticated(safe_regex(&format!("{SCHEME}[^/]+/ns/{name}/.+")))
}

fn account(namespace: &str, name: &str) -> Principal {
    authenticated(safe_regex(&format!(
        "{SCHEME}[^/]+/ns/{}/sa/{}",
        escape(namespace),
        escape(name)
    )))
}

/// A name as an RE2 expression for itself: letters, digits, `-`, `_` and `.` are all that names have.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if !(c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
