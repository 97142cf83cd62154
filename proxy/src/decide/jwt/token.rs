//! One token: its text, and what it says once its signature is proven (RFC 7515, RFC 7519). Pure; keys and time are
//! passed in. The order of the checks, and the words of refusals, are those that Envoy's users know.

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::Value;

use crate::config::jwt::Provider;

/// Longest token that is looked at; a header may not be longer either.
pub const MAX_BYTES: usize = 64 << 10;

/// Padding is not asked for, and not minded.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Missing,
    Form,
    HeaderBase64,
    HeaderJson,
    Algorithm,
    PayloadBase64,
    PayloadJson,
    UnknownIssuer,
    NotYetValid,
    Expired,
    NoExpiration,
    Audience,
    Verification,
    NoKey,
    NoKeys,
}

impl Status {
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::Form => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            Self::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::Algorithm => "Jwt header [alg] is not supported",
            Self::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::NoExpiration => "Jwt has no expiration",
            Self::Audience => "Audiences in Jwt are not allowed",
            Self::Verification => "Jwt verification fails",
            Self::NoKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::NoKeys => "Jwks remote fetch is failed",
        }
    }
}

/// A token whose signature is proven. Its times are not: they are looked at with each request.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// As the issuer wrote them, with lists made of claims that are lists.
    pub claims: Value,
    /// As it came: base64 without padding.
    pub payload: Box<str>,
    audiences: Vec<Box<str>>,
    not_before: Option<f64>,
    expires: Option<f64>,
}

impl Token {
    /// One whose signature nobody has proven.
    #[cfg(test)]
    pub fn for_test(claims: Value, payload: &str) -> Self {
        Self {
            claims,
            payload: payload.into(),
            audiences: Vec::new(),
            not_before: None,
            expires: None,
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: Option<String>,
    kid: Option<String>,
}

/// What the text says, before anything is proven.
struct Said<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Value,
    payload: &'a str,
    signed: &'a str,
    signature: &'a str,
}

fn read(text: &str) -> Result<Said<'_>, Status> {
    let mut parts = text.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Status::Form);
    };
    if text.len() > MAX_BYTES || header.is_empty() || payload.is_empty() {
        return Err(Status::Form);
    }
    let bytes = BASE64.decode(header).map_err(|_| Status::HeaderBase64)?;
    let head: Header = serde_json::from_slice(&bytes).map_err(|_| Status::HeaderJson)?;
    let algorithm = head
        .alg
        .and_then(|name| name.parse::<Algorithm>().ok())
        .ok_or(Status::Algorithm)?;
    let bytes = BASE64.decode(payload).map_err(|_| Status::PayloadBase64)?;
    let claims: Value = serde_json::from_slice(&bytes).map_err(|_| Status::PayloadJson)?;
    if !claims.is_object() {
        return Err(Status::PayloadJson);
    }
    Ok(Said {
        algorithm,
        kid: head.kid.filter(|kid| !kid.is_empty()),
        claims,
        payload,
        signed: &text[..header.len() + 1 + payload.len()],
        signature,
    })
}

/// The issuer that a token claims; none if it cannot be read.
pub fn issuer(text: &str) -> Option<String> {
    let said = read(text).ok()?;
    said.claims.get("iss")?.as_str().map(str::to_owned)
}

/// Verifies a token of this provider. `now` is in seconds of Unix time.
pub fn verify(text: &str, provider: &Provider, audiences: &[Box<str>], now: f64) -> Result<Token, Status> {
    let said = read(text)?;
    let issuer = said.claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    if !provider.issuer.is_empty() && issuer != &*provider.issuer {
        return Err(Status::UnknownIssuer);
    }
    let mut token = Token {
        audiences: listed(said.claims.get("aud"))?,
        not_before: time(&said.claims, "nbf")?,
        expires: time(&said.claims, "exp")?,
        payload: said.payload.trim_end_matches('=').into(),
        claims: Value::Null,
    };
    check(&token, provider, audiences, now)?;
    signature(&said, provider)?;
    token.claims = said.claims;
    split(&mut token.claims, &provider.space_delimited);
    Ok(token)
}

/// What may change between two requests with the same token, or differ between two rules.
pub fn check(token: &Token, provider: &Provider, audiences: &[Box<str>], now: f64) -> Result<(), Status> {
    let skew = provider.clock_skew as f64;
    if token.not_before.is_some_and(|start| start > now + skew) {
        return Err(Status::NotYetValid);
    }
    match token.expires {
        Some(end) if now > end + skew => return Err(Status::Expired),
        None if provider.require_expiration => return Err(Status::NoExpiration),
        _ => {}
    }
    let allowed = |name: &str| {
        audiences
            .iter()
            .any(|allowed| audience(allowed) == audience(name))
    };
    if audiences.is_empty() || token.audiences.iter().any(|name| allowed(name)) {
        Ok(())
    } else {
        Err(Status::Audience)
    }
}

/// `https://service/` and `service` are the same audience.
fn audience(name: &str) -> &str {
    let name = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"))
        .unwrap_or(name);
    name.strip_suffix('/').unwrap_or(name)
}

/// One text, or several.
fn listed(claim: Option<&Value>) -> Result<Vec<Box<str>>, Status> {
    let text = |value: &Value| value.as_str().map(Into::into).ok_or(Status::PayloadJson);
    match claim {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

fn time(claims: &Value, name: &str) -> Result<Option<f64>, Status> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value
            .as_f64()
            .filter(|time| *time >= 0.0)
            .map(Some)
            .ok_or(Status::PayloadJson),
    }
}

fn signature(said: &Said<'_>, provider: &Provider) -> Result<(), Status> {
    if provider.keys.is_empty() {
        return Err(Status::NoKeys);
    }
    let mut status = Status::NoKey;
    for key in &provider.keys {
        let other = |kid: &String| key.kid.as_deref().is_some_and(|own| own != kid);
        if said.kid.as_ref().is_some_and(other) || !key.algorithms.contains(&said.algorithm) {
            continue;
        }
        let signature = said.signature.trim_end_matches('=');
        let proven =
            jsonwebtoken::crypto::verify(signature, said.signed.as_bytes(), &key.key, said.algorithm);
        if proven.unwrap_or(false) {
            return Ok(());
        }
        status = Status::Verification;
    }
    Err(status)
}

/// `"a b"` becomes `["a", "b"]`.
fn split(claims: &mut Value, names: &[Box<str>]) {
    for name in names {
        if let Some(Value::String(text)) = claims.get(&**name) {
            let list: Vec<Value> = text
                .split(' ')
                .filter(|part| !part.is_empty())
                .map(Value::from)
                .collect();
            if let Some(claim) = claims.get_mut(&**name) {
                *claim = list.into();
            }
        }
    }
}
