//! The key of consistent hashing for a request: from a header, a cookie, a query parameter or the client's address.

use super::{facts::Facts, matching};
use crate::config::{
    action::{HashPolicy, HashSource},
    hash::xx64,
};

/// The key, and the cookie to give to a client that had none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    pub value: Option<u64>,
    /// A whole `set-cookie` value.
    pub set_cookie: Option<String>,
}

/// The key by these policies, in order; `random` makes new cookies.
pub fn hash(policies: &[HashPolicy], facts: &Facts<'_>, random: u64) -> Hashed {
    let mut out = Hashed::default();
    for policy in policies {
        if let Some(new) = one(&policy.source, facts, random, &mut out.set_cookie) {
            out.value = Some(out.value.map_or(new, |old| old.rotate_left(1) ^ new));
        }
        if policy.terminal && out.value.is_some() {
            break;
        }
    }
    out
}

fn one(source: &HashSource, facts: &Facts<'_>, random: u64, set_cookie: &mut Option<String>) -> Option<u64> {
    match source {
        HashSource::Header(name) => {
            let value = matching::field(&crate::config::matcher::Field::Header(name.clone()), facts)?;
            Some(xx64(&value))
        }
        HashSource::SourceIp => Some(address(facts.client)),
        HashSource::Query(name) => {
            matching::query_value(facts.query, name).map(|value| xx64(value.as_bytes()))
        }
        HashSource::Cookie { name, made } => {
            if let Some(value) = matching::cookie(facts, name) {
                return Some(xx64(value.as_bytes()));
            }
            let rest = made.as_ref()?;
            let value = format!("{random:016x}");
            *set_cookie = Some(format!("{name}=\"{value}\"{rest}"));
            Some(xx64(value.as_bytes()))
        }
    }
}

/// The key of a client's address, for connections too.
pub fn address(client: std::net::IpAddr) -> u64 {
    xx64(client.to_canonical().to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::decide::testing::with_facts;

    fn header(name: &'static str, terminal: bool) -> HashPolicy {
        HashPolicy {
            source: HashSource::Header(HeaderName::from_static(name)),
            terminal,
        }
    }

    #[test]
    fn policies_combine_until_a_terminal_one() {
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("b", HeaderValue::from_static("2"));
        with_facts("GET", "x", "/", &headers, |facts| {
            let value = |policies: &[HashPolicy]| hash(policies, facts, 0).value;
            assert_eq!(value(&[header("a", false)]), Some(xx64(b"1")));
            assert_eq!(value(&[header("a", true), header("b", false)]), Some(xx64(b"1")));
            assert_eq!(
                value(&[header("none", true), header("b", false)]),
                Some(xx64(b"2"))
            );
            let both = value(&[header("a", false), header("b", false)]);
            assert!(both.is_some() && both != Some(xx64(b"1")));
            assert_eq!(value(&[header("none", false)]), None);
        });
    }

    #[test]
    fn a_cookie_is_made_once_and_then_kept() {
        let source = HashSource::Cookie {
            name: "user".into(),
            made: Some("; Max-Age=60; Path=/; SameSite=Lax; HttpOnly".into()),
        };
        let policies = [HashPolicy {
            source,
            terminal: false,
        }];
        let first = with_facts("GET", "x", "/", &HeaderMap::new(), |facts| {
            hash(&policies, facts, 42)
        });
        let cookie = first.set_cookie.unwrap();
        assert_eq!(
            cookie,
            "user=\"000000000000002a\"; Max-Age=60; Path=/; SameSite=Lax; HttpOnly"
        );
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_static("user=\"000000000000002a\""));
        let again = with_facts("GET", "x", "/", &headers, |facts| hash(&policies, facts, 43));
        assert_eq!((again.value, again.set_cookie), (first.value, None));
    }
}
