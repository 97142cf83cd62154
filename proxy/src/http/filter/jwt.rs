//! Tokens of requests: finds and verifies them (`decide::jwt`), keeps their claims for the rules that come after, passes
//! claims on in headers, takes tokens off that the upstream shall not see. A refusal is 401 (403 for an audience that is
//! not allowed) with the words and the challenge that Envoy's users know.
//!
//! Bounds: each worker remembers [`KEPT`] verified tokens of at most [`KEPT_BYTES`] each, in two generations; what is
//! wrong is never remembered. A token's times are looked at with each request.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header, uri::PathAndQuery};
use serde_json::Value;

use super::Filtered;
use crate::{
    config::jwt::{JwtAuthn, Provider, Requirement},
    decide::{
        self,
        jwt::{Accepted, Kept, Place, Status, Token, token},
        reply::Failure,
    },
    http::{answer, exchange::Exchange, head::Head},
};

/// Verified tokens that one worker remembers, in each of two generations.
pub const KEPT: usize = 256;
/// Longer ones are verified each time.
pub const KEPT_BYTES: usize = 4096;
/// Longest place in the challenge.
const REALM: usize = 256;

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What this worker has verified: by provider and text. When the young generation is full, the old one is forgotten.
#[derive(Default)]
struct Known {
    young: HashMap<u64, HashMap<Box<str>, Arc<Token>>>,
    old: HashMap<u64, HashMap<Box<str>, Arc<Token>>>,
    count: usize,
}

impl Known {
    fn get(&mut self, provider: u64, text: &str) -> Option<Arc<Token>> {
        let of = |generation: &HashMap<u64, HashMap<Box<str>, Arc<Token>>>| {
            generation.get(&provider)?.get(text).cloned()
        };
        if let Some(token) = of(&self.young) {
            return Some(token);
        }
        let token = of(&self.old)?;
        self.put(provider, text, token.clone());
        Some(token)
    }

    fn put(&mut self, provider: u64, text: &str, token: Arc<Token>) {
        if text.len() > KEPT_BYTES {
            return;
        }
        if self.count >= KEPT {
            self.old = std::mem::take(&mut self.young);
            self.count = 0;
        }
        let fresh = self
            .young
            .entry(provider)
            .or_default()
            .insert(text.into(), token)
            .is_none();
        self.count += usize::from(fresh);
    }
}

/// Verifies, or remembers.
fn verify(provider: &Provider, audiences: &[Box<str>], text: &str, now: f64) -> Result<Arc<Token>, Status> {
    let known = KNOWN.with_borrow_mut(|known| known.get(provider.id, text));
    if let Some(token) = known {
        token::check(&token, provider, audiences, now)?;
        return Ok(token);
    }
    let token = Arc::new(token::verify(text, provider, audiences, now)?);
    KNOWN.with_borrow_mut(|known| known.put(provider.id, text, token.clone()));
    Ok(token)
}

/// What a route says instead of the filter's rules.
pub enum Asked<'a> {
    Rules,
    Named(&'a str),
}

/// Runs the filter.
pub fn run(exchange: &Rc<Exchange>, head: &mut Head, filter: &JwtAuthn, asked: &Asked<'_>) -> Filtered {
    let stats = &exchange.plan.stats;
    let result = {
        let conn = exchange.http.conn.connection();
        let facts = head.facts(&conn);
        let requirement = match asked {
            _ if filter.bypass_preflight && decide::jwt::is_preflight(&facts) => &Requirement::Nothing,
            Asked::Rules => decide::jwt::requirement(filter, &facts, exchange.http.conn.worker.random()),
            Asked::Named(name) => match filter.named.iter().find(|(known, _)| **known == **name) {
                Some((_, requirement)) => requirement,
                None => {
                    stats.jwt_authn_denied.inc();
                    let why =
                        format!("the route asks for the tokens {name:?}, which the filter does not know");
                    return refused(exchange, &Failure::Internal { why }, None);
                }
            },
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let mut verify =
            |provider: &Provider, audiences: &[Box<str>], text: &str| verify(provider, audiences, text, now);
        decide::jwt::decide(filter, requirement, &facts, &mut verify)
    };
    clean(&mut head.headers, filter);
    match result {
        Ok(accepted) => {
            stats.jwt_authn_allowed.inc();
            for one in &accepted {
                accept(head, &filter.providers[one.provider], one);
            }
            Filtered::Continue(None)
        }
        Err(status) => {
            stats.jwt_authn_denied.inc();
            let challenge = (!filter.strip_failure).then(|| challenge(head, status));
            let bare = filter.strip_failure;
            refused(exchange, &Failure::Unauthorized { status, bare }, challenge)
        }
    }
}

fn refused(exchange: &Rc<Exchange>, failure: &Failure, challenge: Option<String>) -> Filtered {
    let mut response = answer::failure(exchange, failure);
    if let Some(value) = challenge.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    Filtered::Answer(Box::new(response))
}

/// RFC 6750 §3. The query is left out: it may hold a token.
fn challenge(head: &Head, status: Status) -> String {
    let path = head.original.as_ref().unwrap_or(&head.target).path();
    let place: String = format!("{}://{}{path}", head.scheme, head.authority)
        .chars()
        .filter(|c| !matches!(c, '"' | '\\'))
        .take(REALM)
        .collect();
    let error = if status == Status::Missing {
        ""
    } else {
        ", error=\"invalid_token\""
    };
    format!("Bearer realm=\"{place}\"{error}")
}

/// Headers that only this filter may set.
fn clean(headers: &mut HeaderMap, filter: &JwtAuthn) {
    for provider in &filter.providers {
        if let Some(name) = &provider.payload_header {
            headers.remove(name);
        }
        for (name, _) in &provider.claim_headers {
            headers.remove(name);
        }
    }
}

fn accept(head: &mut Head, provider: &Provider, one: &Accepted) {
    if !provider.forward {
        match &one.place {
            Place::Header(name) => drop(head.headers.remove(name)),
            Place::Param(name) => without_param(head, name),
            Place::Cookie => {}
        }
    }
    let token = &one.token;
    if let Some(name) = &provider.payload_header {
        let mut payload = String::from(&*token.payload);
        while provider.pad_payload && payload.len() % 4 != 0 {
            payload.push('=');
        }
        set(&mut head.headers, name, &payload);
    }
    for (name, path) in &provider.claim_headers {
        let claim = path
            .iter()
            .try_fold(&token.claims, |value, part| value.get(&**part));
        if let Some(text) = claim.and_then(claim_text) {
            set(&mut head.headers, name, &text);
        }
    }
    if let Some(key) = &provider.metadata_key {
        head.tokens.push(Kept {
            key: key.clone(),
            token: token.clone(),
        });
    }
}

/// Plain values as they are, others as JSON in base64.
fn claim_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => Some(STANDARD.encode(value.to_string())),
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    match HeaderValue::from_str(text) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => tracing::debug!(%name, "a claim that no header can hold is not passed on"),
    }
}

fn without_param(head: &mut Head, name: &str) {
    let Some(query) = head.target.query() else { return };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| pair.split('=').next() != Some(name))
        .collect();
    let path = head.target.path();
    let target = if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    };
    if let Ok(target) = PathAndQuery::try_from(target) {
        head.target = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> Arc<Token> {
        let payload =
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"{name}\"}}"));
        Arc::new(Token::for_test(serde_json::json!({"sub": name}), &payload))
    }

    #[test]
    fn few_tokens_are_remembered_and_used_ones_longest() {
        let mut known = Known::default();
        known.put(1, "used", token("used"));
        for number in 0..4 * KEPT {
            known.put(1, &number.to_string(), token("x"));
            assert!(known.get(1, "used").is_some(), "{number}");
        }
        assert_eq!(known.get(1, "0"), None);
        assert_eq!(known.get(2, "used"), None, "another provider proves for itself");
        let all: usize = [&known.young, &known.old]
            .iter()
            .flat_map(|generation| generation.values().map(HashMap::len))
            .sum();
        assert!(all <= 2 * KEPT);
        let long = "x".repeat(KEPT_BYTES + 1);
        known.put(1, &long, token("long"));
        assert_eq!(known.get(1, &long), None);
    }

    #[test]
    fn claims_as_texts() {
        for (value, expect) in [
            (serde_json::json!("a"), Some("a")),
            (serde_json::json!(7), Some("7")),
            (serde_json::json!(true), Some("true")),
            (serde_json::json!(["a"]), Some("WyJhIl0=")),
            (serde_json::json!(null), None),
        ] {
            assert_eq!(claim_text(&value).as_deref(), expect, "{value}");
        }
    }

    const JWT: &str = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    const SECRET: &[u8] = b"a secret of these tests, long enough for HS256";

    fn signed(claims: &Value) -> String {
        use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
        encode(
            &Header::new(Algorithm::HS256),
            claims,
            &EncodingKey::from_secret(SECRET),
        )
        .unwrap()
    }

    /// A token may be missing; `/admin` is for the group `admin`.
    fn filters() -> String {
        let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(SECRET);
        let keys = serde_json::json!({"keys": [{"kty": "oct", "k": secret}]});
        let of_claim = "{metadata: {filter: envoy.filters.http.jwt_authn, path: [{key: payload}, {key: groups}], \
            value: {list_match: {one_of: {string_match: {exact: admin}}}}}}";
        format!(
            "{{name: jwt, typed_config: {{'@type': {JWT}, bypass_cors_preflight: true, providers: {{a: {{issuer: me, \
             local_jwks: {{inline_string: '{keys}'}}, payload_in_metadata: payload, forward_payload_header: x-payload, \
             from_headers: [{{name: authorization, value_prefix: 'Bearer '}}], from_params: [token], \
             claim_to_headers: [{{header_name: x-sub, claim_name: sub}}]}}}}, rules: [{{match: {{prefix: /}}, requires: \
             {{requires_any: {{requirements: [{{provider_name: a}}, {{allow_missing: {{}}}}]}}}}}}]}}}}, \
             {{name: rbac, typed_config: {{'@type': {RBAC}, rules: {{action: ALLOW, policies: {{\
             open: {{permissions: [{{not_rule: {{url_path: {{path: {{prefix: /admin}}}}}}}}], principals: [{{any: true}}]}}, \
             admin: {{permissions: [{{any: true}}], principals: [{of_claim}]}}}}}}}}}},"
        )
    }

    #[tokio::test]
    async fn tokens_open_doors_and_stay_inside() {
        use crate::testing::{Proxy, Server};
        let mut server = Server::start().await;
        let route = "{match: {prefix: /}, route: {cluster: a}}";
        let proxy = Proxy::http(&filters(), route, &[("a", server.address)]).await;
        let groups = serde_json::json!({"iss": "me", "sub": "jane", "groups": ["admin"]});
        let good = format!("authorization: Bearer {}\r\n", signed(&groups));
        let plain = format!(
            "authorization: Bearer {}\r\n",
            signed(&serde_json::json!({"iss": "me"}))
        );
        let late = format!(
            "authorization: Bearer {}\r\n",
            signed(&serde_json::json!({"iss": "me", "exp": 1}))
        );
        for (target, headers, expect) in [
            ("/", "", "200"),
            ("/admin", "", "403"),
            ("/admin", plain.as_str(), "403"),
            ("/admin", good.as_str(), "200"),
            ("/admin", good.as_str(), "200"),
            ("/", late.as_str(), "401"),
            ("/", "authorization: Bearer abc\r\n", "401"),
        ] {
            let answer = proxy.get(target, headers).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {expect}")),
                "{target} {headers}: {answer}"
            );
        }
        let refused = proxy.get("/secret?token=x", &late).await;
        assert!(refused.ends_with("Jwt is expired"), "{refused}");
        let challenge = refused
            .lines()
            .find(|line| line.starts_with("www-authenticate"))
            .unwrap();
        assert!(
            challenge.ends_with("/secret\", error=\"invalid_token\""),
            "{challenge}"
        );
        assert!(
            challenge.starts_with("www-authenticate: Bearer realm=\"http://"),
            "{challenge}"
        );
        assert_eq!(proxy.number("http.in.jwt_authn.denied"), 3);

        let mut last = server.next().await;
        for _ in 0..2 {
            last = server.next().await;
        }
        assert_eq!(last.headers()["x-sub"], "jane");
        assert!(last.headers().contains_key("x-payload"));
        assert!(
            !last.headers().contains_key("authorization"),
            "it is not forwarded"
        );
        // What only the filter may say is taken off, and a token in the query too.
        let target = format!("/a?x=1&token={}&y=2", signed(&groups));
        proxy.get(&target, "x-sub: admin\r\nx-payload: forged\r\n").await;
        let seen = server.next().await;
        assert_eq!(seen.uri().to_string(), "/a?x=1&y=2");
        assert_eq!(seen.headers()["x-sub"], "jane");
        proxy.get("/", "x-sub: admin\r\n").await;
        assert!(!server.next().await.headers().contains_key("x-sub"));
    }
}
