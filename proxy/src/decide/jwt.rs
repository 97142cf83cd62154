//! Does a request have the tokens that it needs? Pure: verifying one token is passed in, so that the caller can
//! remember what was verified. Which tokens were accepted comes out; what becomes of them is the filter's business.
//!
//! A requirement is met as Envoy's filter meets it: of several any or all, a token where its provider looks; "may be
//! missing" looks where the others of its group look, and takes a token there only if it is good.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, Method, header};

use super::{facts::Facts, matching};
use crate::config::jwt::{JwtAuthn, Provider, Requirement};

pub mod token;

pub use token::{Status, Token};

/// The name of the filter, under which its findings are kept.
pub const METADATA: &str = "envoy.filters.http.jwt_authn";

/// Claims that rules may look at.
#[derive(Clone, Debug)]
pub struct Kept {
    pub key: Arc<str>,
    pub token: Arc<Token>,
}

/// Where a token stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Header(HeaderName),
    Param(Box<str>),
    Cookie,
}

/// A token that a request was let in with.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub provider: usize,
    pub token: Arc<Token>,
    pub place: Place,
}

/// Verifies one token: the provider, the audiences that count, the token's text.
pub type Verify<'v> = dyn FnMut(&Provider, &[Box<str>], &str) -> Result<Arc<Token>, Status> + 'v;

/// What the filter asks of this request. `random` decides fractions.
pub fn requirement<'a>(filter: &'a JwtAuthn, facts: &Facts<'_>, random: u64) -> &'a Requirement {
    filter
        .rules
        .iter()
        .find(|(rule, _)| matching::route(rule, facts, random))
        .map_or(&Requirement::Nothing, |(_, requirement)| requirement)
}

/// Browsers ask before they send credentials (<https://fetch.spec.whatwg.org/#cors-preflight-request>).
pub fn is_preflight(facts: &Facts<'_>) -> bool {
    let has = |name| facts.headers.get(name).is_some_and(|value| !value.is_empty());
    *facts.method == Method::OPTIONS && has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Meets a requirement, or says why not.
pub fn decide(
    filter: &JwtAuthn,
    requirement: &Requirement,
    facts: &Facts<'_>,
    verify: &mut Verify<'_>,
) -> Result<Vec<Accepted>, Status> {
    match requirement {
        Requirement::Nothing => Ok(Vec::new()),
        Requirement::Provider(place, audiences) => {
            let provider = &filter.providers[*place];
            let audiences = audiences.as_ref().unwrap_or(&provider.audiences);
            let found = tokens(provider, facts);
            if found.is_empty() {
                return Err(Status::Missing);
            }
            let accept = |(place_of, text): (Place, Cow<'_, str>)| {
                Ok(Accepted {
                    provider: *place,
                    token: verify(provider, audiences, &text)?,
                    place: place_of,
                })
            };
            found.into_iter().map(accept).collect()
        }
        Requirement::AnyOf(list) => any_of(filter, list, facts, verify),
        Requirement::AllOf(list) => {
            let mut all = Vec::new();
            for one in list {
                all.append(&mut decide(filter, one, facts, verify)?);
            }
            Ok(all)
        }
        Requirement::Missing(places) => by_issuer(filter, places, facts, verify).into_iter().collect(),
        Requirement::MissingOrFailed(places) => Ok(by_issuer(filter, places, facts, verify)
            .into_iter()
            .flatten()
            .collect()),
    }
}

fn any_of(
    filter: &JwtAuthn,
    list: &[Requirement],
    facts: &Facts<'_>,
    verify: &mut Verify<'_>,
) -> Result<Vec<Accepted>, Status> {
    let mut worst = None;
    for one in list {
        match decide(filter, one, facts, verify) {
            Ok(accepted) => return Ok(accepted),
            // What says most about a token that is there is what the caller is told.
            Err(status) if worst.is_none_or(|worst| telling(status) > telling(worst)) => worst = Some(status),
            Err(_) => {}
        }
    }
    worst.map_or(Ok(Vec::new()), Err)
}

fn telling(status: Status) -> u8 {
    match status {
        Status::Missing => 0,
        Status::UnknownIssuer => 1,
        _ => 2,
    }
}

/// Every token where these providers look, verified by whichever provider is its issuer's.
fn by_issuer(
    filter: &JwtAuthn,
    places: &[usize],
    facts: &Facts<'_>,
    verify: &mut Verify<'_>,
) -> Vec<Result<Accepted, Status>> {
    let mut seen: Vec<(Place, Cow<'_, str>)> = Vec::new();
    for provider in places.iter().map(|place| &filter.providers[*place]) {
        for found in tokens(provider, facts) {
            if !seen.iter().any(|known| known.1 == found.1) {
                seen.push(found);
            }
        }
    }
    let verify_one = |(place, text): (Place, Cow<'_, str>)| {
        let issuer = token::issuer(&text);
        let fits =
            |provider: &Provider| provider.issuer.is_empty() || issuer.as_deref() == Some(&*provider.issuer);
        let Some(own) = filter.providers.iter().position(fits) else {
            // Say what is wrong with one that cannot be read.
            let readable = issuer.is_some();
            let provider = filter.providers.first().filter(|_| !readable);
            let status = provider.map(|provider| verify(provider, &provider.audiences, &text));
            return Err(status.and_then(Result::err).unwrap_or(Status::UnknownIssuer));
        };
        let provider = &filter.providers[own];
        Ok(Accepted {
            provider: own,
            token: verify(provider, &provider.audiences, &text)?,
            place,
        })
    };
    seen.into_iter().map(verify_one).collect()
}

/// The tokens where this provider looks.
fn tokens<'f>(provider: &Provider, facts: &Facts<'f>) -> Vec<(Place, Cow<'f, str>)> {
    let mut found = Vec::new();
    for (name, prefix) in &provider.places.headers {
        for value in facts.headers.get_all(name) {
            let text = value.to_str().ok().and_then(|text| after(text, prefix));
            found.extend(text.map(|text| (Place::Header(name.clone()), Cow::Borrowed(text))));
        }
    }
    for name in &provider.places.params {
        if let Some(value) = matching::query_value(facts.query, name).filter(|value| !value.is_empty()) {
            found.push((Place::Param(name.clone()), Cow::Borrowed(value)));
        }
    }
    for name in &provider.places.cookies {
        if let Some(value) = matching::cookie(facts, name).filter(|value| !value.is_empty()) {
            found.push((Place::Cookie, Cow::Borrowed(value)));
        }
    }
    found
}

/// The token behind a prefix, up to the first character that no token has.
fn after<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let rest = &text[text.find(prefix)? + prefix.len()..];
    let start = rest.find(of_token)?;
    let rest = &rest[start..];
    let end = rest.find(|c| !of_token(c)).unwrap_or(rest.len());
    Some(&rest[..end])
}

fn of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=')
}

#[cfg(test)]
mod tests;
