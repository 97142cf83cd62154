//! `security.istio.io`: PeerAuthentication, RequestAuthentication, AuthorizationPolicy
//! (<https://istio.io/latest/docs/reference/config/security/>).

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::json;

use super::{Kind, Resource, reference::TargetRef, schema::rule};
use crate::scalar::Span;

mod authorization;

pub use authorization::*;

/// Labels of workloads. The security and telemetry APIs write `matchLabels` where the networking API writes `labels`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that the workloads have.
    #[schemars(transform = rule::selecting_labels)]
    pub match_labels: BTreeMap<String, String>,
}

/// Whether workloads demand mutual TLS of their clients.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule::cel(
    "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0)",
    "portLevelMtls needs a selector with matchLabels, since ports belong to workloads",
)]))]
pub struct PeerAuthentication {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub selector: Option<LabelSelector>,
    /// What holds for all ports.
    pub mtls: Option<MutualTls>,
    // Keys are ports; a key that is no port is told by `validate`.
    /// What holds for single ports of the workload.
    #[schemars(transform = ports)]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

impl Resource for PeerAuthentication {
    const KIND: Kind = Kind::PeerAuthentication;
}

fn ports(schema: &mut Schema) {
    schema.insert("minProperties".to_owned(), json!(1));
    let rules = json!([rule::cel(
        "self.all(port, port.matches('^[0-9]{1,5}$') && int(port) > 0 && int(port) <= 65535)",
        "keys must be ports from 1 to 65535",
    )]);
    schema.insert(rule::RULES.to_owned(), rules);
}

/// Whether mutual TLS is demanded.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// `STRICT`: demanded; `PERMISSIVE`: plain text is taken too; `DISABLE`: plain text only; `UNSET`: as the wider policy says.
    pub mode: MutualTlsMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

/// Which tokens (JWT) workloads accept: a request with an invalid one is refused, one without is not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule::at_most_one(&["selector", "targetRef", "targetRefs"])]))]
pub struct RequestAuthentication {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub selector: Option<LabelSelector>,
    /// A Gateway or service, in place of `selector`.
    pub target_ref: Option<TargetRef>,
    /// Gateways or services, in place of `selector`.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Who may issue tokens, and where they are found.
    #[schemars(length(max = 4096))]
    pub jwt_rules: Vec<JwtRule>,
}

impl Resource for RequestAuthentication {
    const KIND: Kind = Kind::RequestAuthentication;
}

/// Tokens of one issuer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = [rule::at_most_one(&["jwksUri", "jwks_uri", "jwks"])]),
    transform = jwks_uri_by_its_old_name
)]
pub struct JwtRule {
    /// Who issues them: the claim `iss`.
    #[schemars(length(min = 1))]
    pub issuer: String,
    /// For whom they are: one of these must be in the claim `aud`. None: any.
    #[schemars(inner(length(min = 1)))]
    pub audiences: Vec<String>,
    /// Where the issuer's public keys are found. None (and no `jwks`): by the issuer's OpenID configuration.
    #[serde(alias = "jwks_uri")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^/]"))]
    pub jwks_uri: String,
    /// The issuer's public keys themselves.
    pub jwks: String,
    /// Headers that carry the token. None (and no other place): `Authorization: Bearer …`.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that carry the token.
    #[schemars(inner(length(min = 1)))]
    pub from_params: Vec<String>,
    /// Cookies that carry the token.
    #[schemars(inner(length(min = 1)))]
    pub from_cookies: Vec<String>,
    /// A header for the workload that gets the token's claims in base64.
    pub output_payload_to_header: String,
    /// Headers for the workload that get single claims.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// The token itself is given to the workload too.
    pub forward_original_token: bool,
    /// How long fetching the keys may take. None: 5s.
    #[schemars(transform = rule::positive)]
    pub timeout: Option<Span>,
    /// Claims whose values are lists with spaces between, besides `scope` and `permission`.
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub space_delimited_claims: Vec<String>,
    /// Whether a request must have a token.
    pub presence: Option<TokenPresence>,
}

fn jwks_uri_by_its_old_name(schema: &mut Schema) {
    rule::also_named(schema, "jwksUri", "jwks_uri");
}

/// `OPTIONAL`: a request without a token is let through; `REQUIRED`: it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenPresence {
    Optional,
    Required,
}

/// A header that carries a token.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct JwtHeader {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What stands before the token, such as `Bearer ` with the space.
    pub prefix: String,
}

/// A claim and the header that gets it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["header", "claim"]))]
pub struct ClaimToHeader {
    /// The header's name.
    #[schemars(length(min = 1), regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub header: String,
    /// The claim's name; dots lead into objects.
    #[schemars(length(min = 1))]
    pub claim: String,
}
