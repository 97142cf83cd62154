//! Tokens (JWT, RFC 7519) that requests carry: who may issue them, where they stand in a request, which of them a request
//! needs, what becomes of their claims. The keys are parsed here once.

use std::{fmt, sync::Arc};

use http::HeaderName;
use jsonwebtoken::{Algorithm, DecodingKey};

use super::matcher::RouteMatch;

#[derive(Clone, Debug)]
pub struct JwtAuthn {
    pub providers: Vec<Provider>,
    /// The first that matches counts; without one, the request goes on.
    pub rules: Vec<(RouteMatch, Requirement)>,
    /// For routes that name one.
    pub named: Vec<(Box<str>, Requirement)>,
    pub bypass_preflight: bool,
    /// Refusals have no body and no challenge.
    pub strip_failure: bool,
}

/// Tokens of one issuer.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Unique in this process: what was verified by it is remembered under this number.
    pub id: u64,
    /// Empty: any.
    pub issuer: Box<str>,
    /// Empty: any.
    pub audiences: Vec<Box<str>>,
    pub keys: Vec<Key>,
    pub require_expiration: bool,
    /// Seconds that clocks may differ.
    pub clock_skew: u64,
    pub places: Places,
    /// The upstream gets the token too.
    pub forward: bool,
    /// Gets the claims in base64.
    pub payload_header: Option<HeaderName>,
    /// With `=` at the end.
    pub pad_payload: bool,
    /// Gets one claim.
    pub claim_headers: Vec<(HeaderName, Box<[Box<str>]>)>,
    /// The claims are kept under this name, for rules that look at them.
    pub metadata_key: Option<Arc<str>>,
    /// Claims that are lists with spaces between.
    pub space_delimited: Vec<Box<str>>,
}

/// Where tokens stand.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The header, and what stands before the token.
    pub headers: Vec<(HeaderName, Box<str>)>,
    pub params: Vec<Box<str>>,
    pub cookies: Vec<Box<str>>,
}

/// A public key, or a shared secret.
#[derive(Clone)]
pub struct Key {
    pub kid: Option<Box<str>>,
    /// A key is for the algorithms of its kind and no other (RFC 8725 §3.1).
    pub algorithms: Vec<Algorithm>,
    pub key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key: it may be a secret.
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// What a request needs. Providers are places in [`JwtAuthn::providers`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    Nothing,
    /// A token of this provider; if there are audiences, they stand in for the provider's.
    Provider(usize, Option<Vec<Box<str>>>),
    AnyOf(Vec<Requirement>),
    AllOf(Vec<Requirement>),
    /// No token where these providers look; one that is there must be good.
    Missing(Vec<usize>),
    /// Any token, or none; what is good is kept.
    MissingOrFailed(Vec<usize>),
}
