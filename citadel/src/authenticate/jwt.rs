//! A caller by the platform's token: a JWT whose signature is checked against the issuer's keys here, and whose claims
//! are checked in `claims`.

use std::{sync::Arc, time::SystemTime};

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use mesh_proto::identity::TrustDomain;

use super::{
    claims::{self, Claims, Expected},
    jwks::{JwksFile, Key},
};
use crate::{caller::Caller, error::Refusal};

/// Longest token that is looked at.
const MAX_BYTES: usize = 16 * 1024;

/// Checks tokens of one issuer.
#[derive(Debug)]
pub struct Jwt {
    keys: JwksFile,
    expected: Expected,
}

impl Jwt {
    pub fn new(keys: JwksFile, expected: Expected) -> Self {
        Self { keys, expected }
    }

    /// Whether tokens could be checked at all, for readiness.
    pub fn check(&self) -> Result<(), Refusal> {
        self.keys().map(drop)
    }

    pub fn authenticate(
        &self,
        token: &str,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Caller, Refusal> {
        let claims = proven(token, &self.keys()?)?;
        claims::caller(&claims, &self.expected, trust_domain, now)
    }

    fn keys(&self) -> Result<Arc<[Key]>, Refusal> {
        self.keys.keys().map_err(|error| Refusal::Keys(error.to_string()))
    }
}

/// The claims of a token whose signature is by one of these keys.
fn proven(token: &str, keys: &[Key]) -> Result<Claims, Refusal> {
    let refuse = |text: String| Refusal::Token(text);
    if token.len() > MAX_BYTES {
        return Err(refuse(format!("{} bytes, the limit is {MAX_BYTES}", token.len())));
    }
    let header = decode_header(token).map_err(|error| refuse(format!("not a JWT: {error}")))?;
    let key = match (&header.kid, keys) {
        (Some(kid), _) => keys
            .iter()
            .find(|key| key.kid.as_ref() == Some(kid))
            .ok_or_else(|| {
                let known: Vec<&str> = keys.iter().filter_map(|key| key.kid.as_deref()).collect();
                refuse(format!(
                    "signed by unknown key {kid:?}; the issuer's keys are {known:?}"
                ))
            })?,
        (None, [only]) => only,
        (None, _) => {
            return Err(refuse(
                "its header names no key, and the issuer has several".into(),
            ));
        }
    };
    if !key.algorithms.contains(&header.alg) {
        let text = format!(
            "algorithm {:?} is not that of key {:?}: {:?}",
            header.alg, key.kid, key.algorithms
        );
        return Err(refuse(text));
    }
    verify(token, &key.key, header.alg)
}

fn verify(token: &str, key: &DecodingKey, algorithm: jsonwebtoken::Algorithm) -> Result<Claims, Refusal> {
    let mut validation = Validation::new(algorithm);
    // Only the signature here; `claims` does the rest, by a clock that is passed in.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    decode::<Claims>(token, key, &validation)
        .map(|data| data.claims)
        .map_err(|error| {
            Refusal::Token(match error.kind() {
                ErrorKind::InvalidSignature => "its signature is wrong".into(),
                _ => format!("not a JWT of the platform: {error}"),
            })
        })
}
