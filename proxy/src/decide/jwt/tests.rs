use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::{config::read, decide::testing::with_facts};

const NOW: f64 = 1_800_000_000.0;
const SECRET: &[u8] = b"a secret of these tests, long enough for HS256";

/// A key set with one shared secret.
fn jwks(kid: &str) -> String {
    let key = json!({"kty": "oct", "kid": kid, "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    json!({"keys": [key]}).to_string()
}

pub fn signed(claims: &Value) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("k".into());
    encode(&header, claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn good(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({"iss": "a", "sub": "me", "aud": ["one", "https://two/"], "exp": NOW + 60.0,
        "scope": "read write"});
    change(&mut claims);
    signed(&claims)
}

fn filter(more: &str, requires: &str) -> JwtAuthn {
    let keys = jwks("k");
    let yaml = format!(
        "providers:\n  a: {{issuer: a, local_jwks: {{inline_string: '{keys}'}}, payload_in_metadata: payload, \
         normalize_payload_in_metadata: {{space_delimited_claims: [scope]}}{more}}}\n  \
         b: {{issuer: b, local_jwks: {{inline_string: '{keys}'}}, from_headers: [{{name: x-b}}]}}\n  \
         none: {{issuer: none, local_jwks: {{inline_string: '{{\"keys\":[]}}'}}}}\n\
         rules: [{{match: {{prefix: /open}}}}, {{match: {{prefix: /}}, requires: {requires}}}]\n"
    );
    read::testing::jwt(&yaml)
}

fn ask(filter: &JwtAuthn, target: &str, headers: &[(&'static str, &str)]) -> Result<Vec<Accepted>, Status> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    with_facts("GET", "host", target, &map, |facts| {
        let mut verify = |provider: &Provider, audiences: &[Box<str>], text: &str| {
            token::verify(text, provider, audiences, NOW).map(Arc::new)
        };
        decide(filter, requirement(filter, facts, 0), facts, &mut verify)
    })
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn a_token_that_is_needed() {
    let filter = filter("", "{provider_name: a}");
    let check = |token: &str| ask(&filter, "/", &[("authorization", &bearer(token))]).map(|all| all.len());
    assert_eq!(check(&good(|_| ())), Ok(1));
    assert_eq!(ask(&filter, "/", &[]).unwrap_err(), Status::Missing);
    assert!(ask(&filter, "/open", &[]).unwrap().is_empty());
    assert_eq!(
        ask(&filter, &format!("/?x=1&access_token={}", good(|_| ())), &[])
            .unwrap()
            .len(),
        1
    );
    for (token, expect) in [
        (good(|c| c["iss"] = json!("x")), Status::UnknownIssuer),
        (good(|c| c["exp"] = json!(NOW - 61.0)), Status::Expired),
        (good(|c| c["nbf"] = json!(NOW + 61.0)), Status::NotYetValid),
        (good(|c| c["exp"] = json!("soon")), Status::PayloadJson),
        (good(|_| ()) + "x", Status::Verification),
        ("a.b".into(), Status::Form),
        ("e30.e30.x".into(), Status::Algorithm),
        ("e.e30.x".into(), Status::HeaderBase64),
        ("e30x.e30.x".into(), Status::HeaderJson),
    ] {
        assert_eq!(check(&token), Err(expect), "{token}");
    }
    // The clocks may differ by a minute.
    assert_eq!(check(&good(|c| c["exp"] = json!(NOW - 59.0))), Ok(1));
    let accepted = ask(&filter, "/", &[("authorization", &bearer(&good(|_| ())))]).unwrap();
    assert_eq!(accepted[0].token.claims["scope"], json!(["read", "write"]));
    assert_eq!(accepted[0].place, Place::Header(header::AUTHORIZATION));
}

#[test]
fn audiences() {
    for (own, asked, expect) in [
        ("", "{provider_name: a}", Ok(1)),
        (", audiences: [two]", "{provider_name: a}", Ok(1)),
        (", audiences: ['http://one/']", "{provider_name: a}", Ok(1)),
        (
            ", audiences: [three]",
            "{provider_name: a}",
            Err(Status::Audience),
        ),
        (
            ", audiences: [three]",
            "{provider_and_audiences: {provider_name: a, audiences: [one]}}",
            Ok(1),
        ),
    ] {
        let filter = filter(own, asked);
        let result = ask(&filter, "/", &[("authorization", &bearer(&good(|_| ())))]);
        assert_eq!(result.map(|all| all.len()), expect, "{own} {asked}");
    }
}

/// As pilot writes it for one RequestAuthentication with two issuers.
#[test]
fn a_token_may_be_missing_but_not_bad() {
    let one = "{requires_any: {requirements: [{provider_name: a}, {allow_missing: {}}]}}";
    let two = "{requires_any: {requirements: [{provider_name: a}, {provider_name: b}, {requires_all: {requirements: [\
        {requires_any: {requirements: [{provider_name: a}, {allow_missing: {}}]}}, \
        {requires_any: {requirements: [{provider_name: b}, {allow_missing: {}}]}}]}}]}}";
    let (of_a, of_b) = (bearer(&good(|_| ())), signed(&json!({"iss": "b"})));
    let stranger = bearer(&good(|c| c["iss"] = json!("stranger")));
    let late = bearer(&good(|c| c["exp"] = json!(1)));
    for requires in [one, two] {
        let filter = filter("", requires);
        let check = |headers: &[(&'static str, &str)]| ask(&filter, "/", headers).map(|all| all.len());
        assert_eq!(check(&[]), Ok(0), "{requires}");
        assert_eq!(check(&[("authorization", &of_a)]), Ok(1));
        assert_eq!(check(&[("authorization", &late)]), Err(Status::Expired));
        assert_eq!(check(&[("authorization", &stranger)]), Err(Status::UnknownIssuer));
        assert_eq!(
            check(&[("authorization", "Basic YTpi")]),
            Ok(0),
            "no token at all"
        );
        assert_eq!(check(&[("authorization", "Bearer nonsense")]), Err(Status::Form));
    }
    let filter = filter("", two);
    let check = |headers: &[(&'static str, &str)]| ask(&filter, "/", headers).map(|all| all[0].provider);
    assert_eq!(check(&[("x-b", &of_b)]), Ok(1));
    assert_eq!(check(&[("authorization", &late), ("x-b", &of_b)]), Ok(1));
}

#[test]
fn failed_ones_may_be_allowed_and_keys_may_be_missing() {
    let lenient = filter(
        "",
        "{requires_any: {requirements: [{provider_name: a}, {allow_missing_or_failed: {}}]}}",
    );
    assert!(
        ask(&lenient, "/", &[("authorization", "Bearer x.y.z")])
            .unwrap()
            .is_empty()
    );
    let none = filter("", "{provider_name: none}");
    let token = bearer(&good(|c| c["iss"] = json!("none")));
    assert_eq!(
        ask(&none, "/", &[("authorization", &token)]).unwrap_err(),
        Status::NoKeys
    );
}

#[test]
fn places() {
    let filter = filter(
        ", from_headers: [{name: x-token, value_prefix: 'jwt '}], from_params: [t], from_cookies: [c]",
        "{provider_name: a}",
    );
    let token = good(|_| ());
    let cookie = format!("z=1; c={token}");
    for (target, headers) in [
        ("/", vec![("x-token", format!("jwt {token}, more"))]),
        ("/", vec![("cookie", cookie)]),
    ] {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(ask(&filter, target, &headers).unwrap().len(), 1);
    }
    assert_eq!(ask(&filter, &format!("/?t={token}"), &[]).unwrap().len(), 1);
    assert_eq!(
        ask(&filter, "/", &[("authorization", &bearer(&token))]).unwrap_err(),
        Status::Missing
    );
}

#[test]
fn keys_of_other_kinds_and_names_do_not_prove() {
    // RFC 7515, appendix A.3: a key on P-256; the token is signed with a secret, whose bytes could be the key's.
    let ec = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]});
    for keys in [ec.to_string(), jwks("other")] {
        let yaml = format!(
            "providers: {{a: {{local_jwks: {{inline_string: '{keys}'}}}}}}\n\
             rules: [{{match: {{prefix: /}}, requires: {{provider_name: a}}}}]\n"
        );
        let filter = read::testing::jwt(&yaml);
        let result = ask(&filter, "/", &[("authorization", &bearer(&good(|_| ())))]);
        assert_eq!(result.unwrap_err(), Status::NoKey);
    }
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"),
        URL_SAFE_NO_PAD.encode("{\"iss\":\"a\"}")
    );
    let filter = filter("", "{provider_name: a}");
    assert_eq!(
        ask(&filter, "/", &[("authorization", &bearer(&unsigned))]).unwrap_err(),
        Status::Algorithm
    );
}

#[test]
fn what_the_configuration_may_not_say() {
    let provider = "local_jwks: {inline_string: '{\"keys\":[]}'}";
    for (yaml, path) in [
        ("providers: {a: {}}".to_owned(), "providers[\"a\"].local_jwks"),
        (
            "providers: {a: {local_jwks: {inline_string: x}}}".to_owned(),
            "providers[\"a\"].local_jwks",
        ),
        (
            "providers: {a: {remote_jwks: {}}}".to_owned(),
            "providers[\"a\"].remote_jwks",
        ),
        (
            format!("providers: {{a: {{{provider}, max_lifetime: 3s}}}}"),
            "providers[\"a\"].max_lifetime",
        ),
        (
            "rules: [{match: {prefix: /}, requires: {provider_name: x}}]".to_owned(),
            "rules[0].requires.provider_name",
        ),
        (
            "rules: [{match: {prefix: /}, requirement_name: x}]".to_owned(),
            "rules[0].requirement_name",
        ),
        ("filter_state_rules: {name: x}".to_owned(), "filter_state_rules"),
    ] {
        assert_eq!(read::testing::jwt_refused(&yaml).path, path, "{yaml}");
    }
}

#[test]
fn claims_in_rules() {
    let filter = filter("", "{provider_name: a}");
    let token = good(|c| {
        c["groups"] = json!(["x", "admin"]);
        c["realm"] = json!({"role": "boss", "level": 3});
    });
    let accepted = ask(&filter, "/", &[("authorization", &bearer(&token))]).unwrap();
    let kept = [Kept {
        key: "payload".into(),
        token: accepted[0].token.clone(),
    }];
    let rule = |path: &str, value: &str, more: &str| {
        let path: Vec<String> = path.split('/').map(|key| format!("{{key: {key}}}")).collect();
        let yaml = format!(
            "filter: {METADATA}\npath: [{}]\nvalue: {value}{more}\n",
            path.join(", ")
        );
        read::testing::metadata(&yaml)
    };
    let exact = |text: &str| format!("{{string_match: {{exact: {text}}}}}");
    let of = |rule: &crate::config::metadata::MetadataMatch, kept: &[Kept]| {
        with_facts("GET", "host", "/", &HeaderMap::new(), |facts| {
            let facts = Facts {
                tokens: kept,
                ..*facts
            };
            crate::decide::metadata::matches(rule, &facts)
        })
    };
    let either = |text: &str| {
        format!(
            "{{or_match: {{value_matchers: [{}, {{list_match: {{one_of: {}}}}}]}}}}",
            exact(text),
            exact(text)
        )
    };
    for (path, value, expect) in [
        ("payload/sub", exact("me"), true),
        ("payload/sub", exact("you"), false),
        ("payload/realm/role", exact("boss"), true),
        ("payload/realm/level", "{double_match: {exact: 3}}".into(), true),
        ("payload/groups", exact("admin"), false),
        ("payload/groups", either("admin"), true),
        ("payload/groups", either("other"), false),
        ("payload/scope", either("write"), true),
        ("payload/none", "{present_match: true}".into(), false),
        ("payload/none", "{present_match: false}".into(), true),
        ("other/sub", exact("me"), false),
    ] {
        assert_eq!(of(&rule(path, &value, ""), &kept), expect, "{path} {value}");
        assert_eq!(of(&rule(path, &value, "\ninvert: true"), &kept), !expect);
    }
    assert!(
        !of(&rule("payload/sub", &exact("me"), ""), &[]),
        "without a token"
    );
}
