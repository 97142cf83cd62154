//! Cross-origin requests (<https://fetch.spec.whatwg.org/#http-cors-protocol>): which answer does a preflight get, and
//! which headers are added to an answer?

use http::{HeaderMap, HeaderValue, Method, header};

use super::{facts::Facts, matching};
use crate::config::filter::CorsPolicy;

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    /// Not a cross-origin request, or not one of this policy: go on, add nothing.
    Pass,
    /// Answer with 200 and these headers.
    Preflight(HeaderMap),
    /// Go on and add these headers to the answer.
    Add(HeaderMap),
}

/// The answer for this request; `random` decides a policy that is on for a share only.
pub fn cors(policy: &CorsPolicy, facts: &Facts<'_>, random: u64) -> Cors {
    let Some(origin) = facts
        .headers
        .get(header::ORIGIN)
        .filter(|_| policy.enabled.hit(random))
    else {
        return Cors::Pass;
    };
    let preflight =
        facts.method == Method::OPTIONS && facts.headers.contains_key("access-control-request-method");
    if !policy
        .origins
        .iter()
        .any(|rule| matching::string(rule, origin.as_bytes()))
    {
        return match preflight && !policy.forward_unmatched_preflights {
            true => Cors::Preflight(HeaderMap::new()),
            false => Cors::Pass,
        };
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    add(
        &mut headers,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        policy.expose_headers.as_ref(),
    );
    if !preflight {
        return Cors::Add(headers);
    }
    add(
        &mut headers,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        policy.allow_methods.as_ref(),
    );
    add(
        &mut headers,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        policy.allow_headers.as_ref(),
    );
    add(
        &mut headers,
        header::ACCESS_CONTROL_MAX_AGE,
        policy.max_age.as_ref(),
    );
    if policy.allow_private_network
        && facts
            .headers
            .contains_key("access-control-request-private-network")
    {
        headers.insert(
            "access-control-allow-private-network",
            HeaderValue::from_static("true"),
        );
    }
    Cors::Preflight(headers)
}

fn add(headers: &mut HeaderMap, name: header::HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{matcher::StringMatch, scalar::Fraction},
        decide::testing::with_facts,
    };

    #[test]
    fn preflights_and_requests() {
        let policy = CorsPolicy {
            origins: vec![StringMatch::Exact {
                value: b"https://a.com"[..].into(),
                ignore_case: false,
            }],
            allow_methods: Some(HeaderValue::from_static("GET,POST")),
            allow_headers: None,
            expose_headers: Some(HeaderValue::from_static("x-y")),
            max_age: Some(HeaderValue::from_static("60")),
            allow_credentials: true,
            allow_private_network: false,
            forward_unmatched_preflights: false,
            enabled: Fraction::ALWAYS,
        };
        let ask = |method: &str, origin: Option<&'static str>, preflight: bool| {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert("origin", HeaderValue::from_static(origin));
            }
            if preflight {
                headers.insert("access-control-request-method", HeaderValue::from_static("GET"));
            }
            with_facts(method, "x", "/", &headers, |facts| cors(&policy, facts, 0))
        };
        assert_eq!(ask("GET", None, false), Cors::Pass);
        assert_eq!(ask("GET", Some("https://b.com"), false), Cors::Pass);
        assert_eq!(
            ask("OPTIONS", Some("https://b.com"), true),
            Cors::Preflight(HeaderMap::new())
        );
        let Cors::Preflight(headers) = ask("OPTIONS", Some("https://a.com"), true) else {
            panic!()
        };
        assert_eq!(headers["access-control-allow-methods"], "GET,POST");
        assert!(headers.contains_key("access-control-max-age") && headers.len() == 5);
        let Cors::Add(headers) = ask("GET", Some("https://a.com"), false) else {
            panic!()
        };
        assert_eq!(headers["access-control-allow-origin"], "https://a.com");
        assert_eq!(headers["access-control-expose-headers"], "x-y");
    }
}
