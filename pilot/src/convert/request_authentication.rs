//! RequestAuthentication.

use mesh_proto::{
    finding::{self, Finding, Level},
    kube::{Manifest, Object, security as api},
};

use super::peer_authentication::selector;
use crate::jwks::keys;
use crate::model::{JwtRule, Origin, RequestAuthentication, authn::KeySource};

pub fn convert(object: &Object<api::RequestAuthentication>, origin: Origin) -> RequestAuthentication {
    RequestAuthentication {
        selector: selector(object.spec.selector.as_ref()),
        rules: object.spec.jwt_rules.iter().map(rule).collect(),
        origin,
    }
}

/// Key sets in the object that nobody can use. The object counts nevertheless: its tokens are refused.
pub fn unusable(object: &Object<api::RequestAuthentication>, manifest: &Manifest) -> Vec<Finding> {
    let rules = object.spec.jwt_rules.iter().enumerate();
    let inline = rules.filter(|(_, rule)| !rule.jwks.is_empty());
    inline
        .filter_map(|(index, rule)| Some((index, keys::usable(rule.jwks.as_bytes()).err()?)))
        .map(|(index, reason)| {
            let path = format!("spec.jwtRules[{index}].jwks");
            let text = format!("{reason}; every token of this issuer is refused until it is repaired");
            Finding::new(
                finding::SCHEMA_VALIDATION_ERROR,
                manifest.object_ref(),
                path,
                text,
            )
            .level(Level::Warning)
            .at(manifest.source.clone())
        })
        .collect()
}

fn rule(rule: &api::JwtRule) -> JwtRule {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    JwtRule {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        keys: match (some(&rule.jwks), some(&rule.jwks_uri)) {
            (Some(keys), _) => KeySource::Inline(keys),
            (None, Some(uri)) => KeySource::Uri(uri),
            (None, None) => KeySource::Issuer(rule.issuer.clone()),
        },
        from_headers: rule
            .from_headers
            .iter()
            .map(|header| (header.name.clone(), header.prefix.clone()))
            .collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward_original_token: rule.forward_original_token,
        output_payload_to_header: some(&rule.output_payload_to_header),
        output_claims: rule
            .output_claim_to_headers
            .iter()
            .map(|one| (one.header.clone(), one.claim.clone()))
            .collect(),
        space_delimited: rule.space_delimited_claims.clone(),
        required: rule.presence == Some(api::TokenPresence::Required),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::{
            Meaning,
            testing::{converted, of_spec},
        },
        model::{Item, Kind},
    };

    #[test]
    fn where_keys_are() {
        let spec = "jwtRules:\n- {issuer: a, jwks: '{\"keys\": []}'}\n- {issuer: b, jwksUri: 'https://b/keys'}\n\
                    - {issuer: 'https://c'}\n";
        let Item::RequestAuthentication(policy) = of_spec(Kind::RequestAuthentication, spec) else {
            panic!("{spec}");
        };
        let keys: Vec<&KeySource> = policy.rules.iter().map(|rule| &rule.keys).collect();
        assert_eq!(
            keys,
            [
                &KeySource::Inline("{\"keys\": []}".into()),
                &KeySource::Uri("https://b/keys".into()),
                &KeySource::Issuer("https://c".into()),
            ]
        );
        assert!(!policy.rules[0].required && policy.rules[0].output_claims.is_empty());
    }

    #[test]
    fn a_key_set_that_nobody_can_use_is_told() {
        let found = converted(
            Kind::RequestAuthentication,
            "jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}, {issuer: b, jwksUri: 'https://b'}]",
        );
        assert!(matches!(found.meaning, Meaning::Item(_)), "{:?}", found.findings);
        let told = |finding: &&Finding| finding.path == "spec.jwtRules[0].jwks";
        let finding = found.findings.iter().find(told).unwrap();
        assert!(
            finding.text.contains("no usable key") && !finding.is_error(),
            "{finding}"
        );
    }
}
