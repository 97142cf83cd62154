//! The filter that verifies tokens (`envoy.extensions.filters.http.jwt_authn.v3`). Keys are given with the
//! configuration: pilot fetches them, so a proxy asks no foreign server.

use std::{
    mem::take,
    sync::atomic::{AtomicU64, Ordering},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk},
};
use mesh_proto::envoy::extensions::filters::http::jwt_authn::v3::{
    self as pb, jwt_provider::JwksSourceSpecifier, jwt_requirement::RequiresType,
    per_route_config::RequirementSpecifier, requirement_rule::RequirementType,
};

use super::{At, Reject, Result, done, each, matcher, refuse, required, scalar, unsupported};
use crate::config::{
    jwt::{JwtAuthn, Key, Places, Provider, Requirement},
    matcher::RouteMatch,
    secret::Source,
};

/// Seconds that clocks may differ when the configuration does not say.
const CLOCK_SKEW: u32 = 60;
/// Keys of one provider.
const MAX_KEYS: usize = 100;
/// Bytes of a file with keys.
const MAX_BYTES: u64 = 1 << 20;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// What a route says about the filter.
pub enum PerRoute {
    Disabled,
    /// The requirement of this name.
    Named(Box<str>),
}

pub fn per_route(value: pb::PerRouteConfig) -> Result<PerRoute> {
    match required(value.requirement_specifier, "requirement_specifier")? {
        RequirementSpecifier::Disabled(true) => Ok(PerRoute::Disabled),
        RequirementSpecifier::Disabled(false) => refuse("must be true").at("disabled"),
        RequirementSpecifier::RequirementName(name) => Ok(PerRoute::Named(name.into())),
    }
}

pub fn filter(mut value: pb::JwtAuthentication) -> Result<JwtAuthn> {
    let mut listed: Vec<(String, pb::JwtProvider)> = take(&mut value.providers).into_iter().collect();
    listed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (mut names, mut providers) = (Vec::new(), Vec::new());
    for (name, one) in listed {
        providers.push(provider(one).at(&format!("providers[{name:?}]"))?);
        names.push(name);
    }
    let names = Names(&names);
    let mut named = Vec::new();
    let mut map: Vec<(String, pb::JwtRequirement)> = take(&mut value.requirement_map).into_iter().collect();
    map.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, one) in map {
        let at = format!("requirement_map[{name:?}]");
        named.push((name.into_boxed_str(), names.requirement(one).at(&at)?));
    }
    let rules = each(take(&mut value.rules), "rules", |one| names.rule(one, &named))?;
    let filter = JwtAuthn {
        providers,
        rules,
        named,
        bypass_preflight: take(&mut value.bypass_cors_preflight),
        strip_failure: take(&mut value.strip_failure_response),
    };
    // A name of statistics.
    value.stat_prefix.clear();
    done(&value)?;
    Ok(filter)
}

fn provider(mut value: pb::JwtProvider) -> Result<Provider> {
    let source = match take(&mut value.jwks_source_specifier) {
        Some(JwksSourceSpecifier::LocalJwks(source)) => source,
        Some(JwksSourceSpecifier::RemoteJwks(_)) => return unsupported("remote_jwks"),
        None => return refuse("is missing").at("local_jwks"),
    };
    let keys = scalar::data_source(source)
        .and_then(|source| text(&source))
        .and_then(|text| keys(&text))
        .at("local_jwks")?;
    let clock_skew = match take(&mut value.clock_skew_seconds) {
        0 => CLOCK_SKEW,
        seconds => seconds,
    };
    let claim_headers = each(take(&mut value.claim_to_headers), "claim_to_headers", |one| {
        let name = scalar::header_name(&one.header_name).at("header_name")?;
        let path: Vec<Box<str>> = if one.claim_path.is_empty() {
            one.claim_name.split('.').map(Into::into).collect()
        } else {
            one.claim_path
                .into_iter()
                .map(|segment| segment.key.into())
                .collect()
        };
        Ok((name, path.into_boxed_slice()))
    })?;
    let payload_header = match take(&mut value.forward_payload_header) {
        name if name.is_empty() => None,
        name => Some(scalar::header_name(&name).at("forward_payload_header")?),
    };
    let metadata_key = take(&mut value.payload_in_metadata);
    let normalize = take(&mut value.normalize_payload_in_metadata).unwrap_or_default();
    let read = Provider {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        issuer: take(&mut value.issuer).into(),
        audiences: take(&mut value.audiences).into_iter().map(Into::into).collect(),
        keys,
        require_expiration: take(&mut value.require_expiration),
        clock_skew: u64::from(clock_skew),
        places: places(&mut value)?,
        forward: take(&mut value.forward),
        payload_header,
        pad_payload: take(&mut value.pad_forward_payload_header),
        claim_headers,
        metadata_key: (!metadata_key.is_empty()).then(|| metadata_key.into()),
        space_delimited: normalize
            .space_delimited_claims
            .into_iter()
            .map(Into::into)
            .collect(),
    };
    // Workers always remember what they have verified; routes do not depend on claims.
    value.jwt_cache_config = None;
    value.clear_route_cache = false;
    done(&value)?;
    Ok(read)
}

/// Without any place: where RFC 6750 puts tokens.
fn places(value: &mut pb::JwtProvider) -> Result<Places> {
    let mut places = Places {
        headers: each(take(&mut value.from_headers), "from_headers", |one| {
            let name = scalar::header_name(&one.name).at("name")?;
            Ok((name, one.value_prefix.into_boxed_str()))
        })?,
        params: take(&mut value.from_params).into_iter().map(Into::into).collect(),
        cookies: take(&mut value.from_cookies)
            .into_iter()
            .map(Into::into)
            .collect(),
    };
    if places.headers.is_empty() && places.params.is_empty() && places.cookies.is_empty() {
        places
            .headers
            .push((http::header::AUTHORIZATION, "Bearer ".into()));
        places.params.push("access_token".into());
    }
    Ok(places)
}

fn text(source: &Source) -> Result<Vec<u8>> {
    match source {
        Source::Inline(bytes) => Ok(bytes.to_vec()),
        Source::File(path) => {
            let length = std::fs::metadata(path).map(|file| file.len());
            match length {
                Ok(length) if length > MAX_BYTES => {
                    refuse(format!("{length} bytes, the limit is {MAX_BYTES}"))
                }
                _ => std::fs::read(path).or_else(|error| refuse(format!("{}: {error}", path.display()))),
            }
        }
        Source::Environment(name) => match std::env::var(&**name) {
            Ok(text) => Ok(text.into_bytes()),
            Err(error) => refuse(format!("environment variable {name}: {error}")),
        },
    }
}

/// The usable keys of a JWKS. Keys of unknown kinds are skipped, as RFC 7517 §5 asks for; without any key no token can
/// be verified, which is what pilot says of an issuer whose keys it could not get.
fn keys(text: &[u8]) -> Result<Vec<Key>> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(text).or_else(|error| refuse(format!("is not a JWKS: {error}")))?;
    if set.keys.len() > MAX_KEYS {
        return refuse(format!("{} keys, the limit is {MAX_KEYS}", set.keys.len()));
    }
    let read = |value| serde_json::from_value::<Jwk>(value).ok();
    Ok(set
        .keys
        .into_iter()
        .filter_map(read)
        .filter_map(|jwk| key(&jwk))
        .collect())
}

fn key(jwk: &Jwk) -> Option<Key> {
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::OctetKey(_) => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        _ => return None,
    };
    let named = jwk.common.key_algorithm.as_ref().map(ToString::to_string);
    let allowed = |algorithm: &Algorithm| {
        named
            .as_ref()
            .is_none_or(|name| *name == format!("{algorithm:?}"))
    };
    let algorithms: Vec<Algorithm> = possible.iter().copied().filter(allowed).collect();
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (!algorithms.is_empty()).then(|| Key {
        kid: jwk.common.key_id.as_deref().map(Into::into),
        algorithms,
        key,
    })
}

/// Providers by name.
struct Names<'a>(&'a [String]);

impl Names<'_> {
    fn find(&self, name: &str) -> Result<usize> {
        match self.0.iter().position(|known| known == name) {
            Some(place) => Ok(place),
            None => refuse(format!("there is no provider {name:?}")),
        }
    }

    fn rule(
        &self,
        mut value: pb::RequirementRule,
        named: &[(Box<str>, Requirement)],
    ) -> Result<(RouteMatch, Requirement)> {
        let matched = match take(&mut value.r#match) {
            Some(rule) => matcher::route(rule).at("match")?,
            None => return refuse("is missing").at("match"),
        };
        let requirement = match take(&mut value.requirement_type) {
            None => Requirement::Nothing,
            Some(RequirementType::Requires(one)) => self.requirement(one).at("requires")?,
            Some(RequirementType::RequirementName(name)) => {
                match named.iter().find(|(known, _)| **known == *name) {
                    Some((_, requirement)) => requirement.clone(),
                    None => {
                        let why = format!("there is no requirement {name:?} in requirement_map");
                        return Err(Reject::new("requirement_name", why));
                    }
                }
            }
        };
        Ok((matched, requirement))
    }

    fn requirement(&self, value: pb::JwtRequirement) -> Result<Requirement> {
        Ok(match value.requires_type {
            None => Requirement::Nothing,
            Some(RequiresType::ProviderName(name)) => {
                Requirement::Provider(self.find(&name).at("provider_name")?, None)
            }
            Some(RequiresType::ProviderAndAudiences(one)) => {
                let place = self
                    .find(&one.provider_name)
                    .at("provider_and_audiences.provider_name")?;
                let audiences = one.audiences.into_iter().map(Into::into).collect();
                Requirement::Provider(place, Some(audiences))
            }
            Some(RequiresType::RequiresAny(list)) => self.any(list).at("requires_any")?,
            Some(RequiresType::RequiresAll(list)) => Requirement::AllOf(
                each(list.requirements, "requirements", |one| self.requirement(one)).at("requires_all")?,
            ),
            // Alone they look nowhere, so nothing is ever there.
            Some(RequiresType::AllowMissing(_) | RequiresType::AllowMissingOrFailed(_)) => {
                Requirement::Nothing
            }
            Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
                return unsupported("extract_only_without_validation");
            }
        })
    }

    /// What may be missing is looked for where the others of the group look, and asked last.
    fn any(&self, list: pb::JwtRequirementOrList) -> Result<Requirement> {
        let (mut one_of, mut missing, mut failed) = (Vec::new(), false, false);
        for (n, one) in list.requirements.into_iter().enumerate() {
            match one.requires_type {
                Some(RequiresType::AllowMissing(_)) => missing = true,
                Some(RequiresType::AllowMissingOrFailed(_)) => failed = true,
                _ => one_of.push(self.requirement(one).nth("requirements", n)?),
            }
        }
        let providers: Vec<usize> = one_of
            .iter()
            .filter_map(|one| match one {
                Requirement::Provider(place, _) => Some(*place),
                _ => None,
            })
            .collect();
        if failed {
            one_of.push(Requirement::MissingOrFailed(providers));
        } else if missing {
            one_of.push(Requirement::Missing(providers));
        }
        Ok(Requirement::AnyOf(one_of))
    }
}
