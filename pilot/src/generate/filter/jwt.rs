//! RequestAuthentication as Envoy's filter that verifies tokens, in the shape that Istio gives it: one provider for each
//! rule; a token may be missing (unless a rule demands it), but one that is there must be good for its issuer. Claims are
//! kept under `payload`, where authorization rules look.

use mesh_proto::{
    envoy::{
        config::{
            core::v3::{DataSource, data_source::Specifier},
            route::v3::{RouteMatch, route_match::PathSpecifier},
        },
        extensions::filters::http::jwt_authn::v3::{
            JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement,
            JwtRequirementAndList, JwtRequirementOrList, RequirementRule,
            jwt_provider::{JwksSourceSpecifier, NormalizePayload},
            jwt_requirement::RequiresType,
            requirement_rule::RequirementType,
        },
    },
    pb::google::protobuf::Any,
};

use crate::{generate::value::any, jwks::keys::NOBODYS, snapshot::Issuer};

pub const NAME: &str = "envoy.filters.http.jwt_authn";
/// Where claims are kept.
pub const PAYLOAD: &str = "payload";
/// Claims that are lists with spaces between (RFC 8693 §4.2, and what issuers made of it).
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// The filter; none without issuers.
pub fn http(issuers: &[Issuer]) -> Option<Any> {
    if issuers.is_empty() {
        return None;
    }
    let name = |index: usize| format!("origins-{index}");
    let providers = issuers.iter().enumerate();
    let filter = JwtAuthentication {
        providers: providers
            .map(|(index, issuer)| (name(index), provider(issuer)))
            .collect(),
        rules: vec![RequirementRule {
            r#match: Some(RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
                ..RouteMatch::default()
            }),
            requirement_type: Some(RequirementType::Requires(requirement(issuers, name))),
        }],
        bypass_cors_preflight: true,
        ..JwtAuthentication::default()
    };
    Some(any(&filter))
}

/// A token of any of them will do. Without one, there must be none that is bad.
fn requirement(issuers: &[Issuer], name: impl Fn(usize) -> String) -> JwtRequirement {
    let by = |index: usize| of(RequiresType::ProviderName(name(index)));
    let or_none = |index: usize, issuer: &Issuer| {
        if issuer.rule.required {
            by(index)
        } else {
            any_of(vec![
                by(index),
                of(RequiresType::AllowMissing(Default::default())),
            ])
        }
    };
    let mut each: Vec<JwtRequirement> = issuers
        .iter()
        .enumerate()
        .map(|(index, issuer)| or_none(index, issuer))
        .collect();
    if each.len() == 1 {
        return each.remove(0);
    }
    let all = of(RequiresType::RequiresAll(JwtRequirementAndList {
        requirements: each,
    }));
    // Two issuers may look at the same place: a token of one is no failure of the other. Where tokens are demanded, each
    // demand counts.
    if issuers.iter().any(|issuer| issuer.rule.required) {
        return all;
    }
    let mut one_of: Vec<JwtRequirement> = (0..issuers.len()).map(by).collect();
    one_of.push(all);
    any_of(one_of)
}

fn of(kind: RequiresType) -> JwtRequirement {
    JwtRequirement {
        requires_type: Some(kind),
    }
}

fn any_of(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    of(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn provider(issuer: &Issuer) -> JwtProvider {
    let rule = &issuer.rule;
    let header = |(name, prefix): &(String, String)| JwtHeader {
        name: name.clone(),
        value_prefix: prefix.clone(),
    };
    let claim = |(header, claim): &(String, String)| JwtClaimToHeader {
        header_name: header.clone(),
        claim_name: claim.clone(),
        ..JwtClaimToHeader::default()
    };
    let keys = issuer.keys.as_deref().unwrap_or(NOBODYS).to_owned();
    let mut lists: Vec<String> = SPACE_DELIMITED.map(str::to_owned).to_vec();
    lists.extend(rule.space_delimited.iter().cloned());
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        from_headers: rule.from_headers.iter().map(header).collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward: rule.forward_original_token,
        forward_payload_header: rule.output_payload_to_header.clone().unwrap_or_default(),
        claim_to_headers: rule.output_claims.iter().map(claim).collect(),
        payload_in_metadata: PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload {
            space_delimited_claims: lists,
        }),
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(Specifier::InlineString(keys)),
            ..DataSource::default()
        })),
        ..JwtProvider::default()
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::envoy_json;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::snapshot;

    fn filter(rules: &str) -> Option<Value> {
        let object = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: a, namespace: default}}\nspec: {{jwtRules: {rules}}}\n"
        );
        let issuers = snapshot(&object)
            .tokens
            .of("istio-system", "default", &Default::default());
        http(&issuers).map(|config| envoy_json::any_to_value(&config).unwrap())
    }

    #[test]
    fn one_issuer() {
        assert_eq!(filter("[]"), None);
        let value = filter(
            "[{issuer: me, audiences: [x], jwks: '{\"keys\": [{\"kty\": \"oct\", \"k\": \"c2VjcmV0\"}, 7]}', fromHeaders: [{name: x-jwt, prefix: 'p '}], \
             outputPayloadToHeader: x-payload, forwardOriginalToken: true}]",
        )
        .unwrap();
        let provider = &value["providers"]["origins-0"];
        assert_eq!(provider["issuer"], "me");
        assert_eq!(provider["audiences"], json!(["x"]));
        assert_eq!(
            provider["local_jwks"]["inline_string"],
            "{\"keys\":[{\"k\":\"c2VjcmV0\",\"kty\":\"oct\"}]}"
        );
        assert_eq!(
            provider["from_headers"],
            json!([{"name": "x-jwt", "value_prefix": "p "}])
        );
        assert_eq!(provider["payload_in_metadata"], "payload");
        assert_eq!(
            (&provider["forward"], &provider["forward_payload_header"]),
            (&json!(true), &json!("x-payload"))
        );
        assert_eq!(
            value["rules"][0]["requires"]["requires_any"]["requirements"],
            json!([{"provider_name": "origins-0"}, {"allow_missing": {}}])
        );
        assert_eq!(value["bypass_cors_preflight"], true);
    }

    #[test]
    fn several_issuers_and_demanded_tokens() {
        let value =
            filter("[{issuer: b, jwks: '{\"keys\": []}'}, {issuer: a, jwksUri: 'https://a/keys'}]").unwrap();
        assert_eq!(
            value["providers"]["origins-0"]["issuer"], "a",
            "in the order of issuers"
        );
        assert_eq!(
            value["providers"]["origins-0"]["local_jwks"]["inline_string"], NOBODYS,
            "they were not fetched yet"
        );
        let either = |name: &str| json!({"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}});
        let all = json!({"requires_all": {"requirements": [either("origins-0"), either("origins-1")]}});
        assert_eq!(
            value["rules"][0]["requires"]["requires_any"]["requirements"],
            json!([{"provider_name": "origins-0"}, {"provider_name": "origins-1"}, all])
        );
        let value = filter("[{issuer: b, jwks: '{\"keys\": []}', presence: REQUIRED}]").unwrap();
        assert_eq!(
            value["rules"][0]["requires"],
            json!({"provider_name": "origins-0"})
        );
    }
}
