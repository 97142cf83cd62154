//! RequestAuthentication alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{Object, security::RequestAuthentication},
};

impl Validate for RequestAuthentication {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if let Some(selector) = &self.selector {
            field::labels(&selector.match_labels, "spec.selector.matchLabels", report);
        }
        field::one_target(
            self.selector.is_some(),
            self.target_ref.as_ref(),
            &self.target_refs,
            report,
        );
        for (i, rule) in self.jwt_rules.iter().enumerate() {
            let at = format!("spec.jwtRules[{i}]");
            if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
                report.error(format!("{at}.issuer"), "must be given, or jwksUri");
            }
            field::positive(rule.timeout, &format!("{at}.timeout"), report);
            for (j, output) in rule.output_claim_to_headers.iter().enumerate() {
                let at = format!("{at}.outputClaimToHeaders[{j}]");
                field::header_name(&output.header, &format!("{at}.header"), false, report);
                if output.claim.is_empty() {
                    report.error(format!("{at}.claim"), "must be given");
                }
            }
            field::at_most_one(
                &[
                    ("jwks", !rule.jwks.is_empty()),
                    ("jwksUri", !rule.jwks_uri.is_empty()),
                ],
                &at,
                report,
            );
            if !rule.jwks.is_empty()
                && let Err(why) = key_set(&rule.jwks)
            {
                report.error(
                    format!("{at}.jwks"),
                    format!("is not a JWK set (RFC 7517): {why}"),
                );
            }
            let uri = &rule.jwks_uri;
            if !uri.is_empty() && !uri.starts_with("https://") && !uri.starts_with("http://") {
                report.error(
                    format!("{at}.jwksUri"),
                    format!("{uri:?} is not an http or https URL"),
                );
            }
            for (j, header) in rule.from_headers.iter().enumerate() {
                field::header_name(
                    &header.name,
                    &format!("{at}.fromHeaders[{j}].name"),
                    false,
                    report,
                );
            }
        }
    }
}

/// Says what is missing for a set of keys; keys of an unknown kind fall away later.
fn key_set(text: &str) -> Result<(), String> {
    let set: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match set["keys"].is_array() {
        true => Ok(()),
        false => Err("it has no list `keys`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn policies() {
        expect(
            Kind::RequestAuthentication,
            "jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}, {issuer: b, jwks: '{\"keys\": [{\"kty\": \"RSA\"}]}'}]",
            &[],
        );
        for jwks in ["{", "{}", "[]", "{\"keys\": 1}"] {
            expect(
                Kind::RequestAuthentication,
                &format!("jwtRules: [{{issuer: a, jwks: '{jwks}'}}]"),
                &["Error spec.jwtRules[0].jwks"],
            );
        }
        expect(
            Kind::RequestAuthentication,
            "jwtRules: [{jwksUri: ftp://x}]",
            &["Error spec.jwtRules[0].jwksUri"],
        );
        expect(
            Kind::RequestAuthentication,
            "jwtRules: [{jwks: '{\"keys\": []}', timeout: 0s, outputClaimToHeaders: [{header: 'a b'}]}]",
            &[
                "Error spec.jwtRules[0].issuer",
                "Error spec.jwtRules[0].timeout",
                "Error spec.jwtRules[0].outputClaimToHeaders[0].header",
                "Error spec.jwtRules[0].outputClaimToHeaders[0].claim",
                "Warning spec.jwtRules[0].timeout",
            ],
        );
        expect(
            Kind::RequestAuthentication,
            "selector: {matchLabels: {a: b}}\ntargetRef: {kind: Service, name: a, namespace: b}",
            &[
                "Error spec",
                "Error spec.targetRef.namespace",
                "Error spec.targetRef",
            ],
        );
    }
}
