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
        if self.target_ref.is_some() || !self.target_refs.is_empty() {
            report.refuse_unsupported("spec.targetRefs", "not supported; use selector");
        }
        if !self.jwt_rules.is_empty() {
            report.unsupported(
                "spec.jwtRules",
                "tokens are not verified by this version of the mesh: no request gets a request principal, so ALLOW \
                 rules that ask for one match nothing, and requests with invalid tokens are not refused",
            );
        }
        for (i, rule) in self.jwt_rules.iter().enumerate() {
            let at = format!("spec.jwtRules[{i}]");
            if rule.issuer.is_empty() {
                report.error(format!("{at}.issuer"), "must be given");
            }
            field::at_most_one(
                &[
                    ("jwks", !rule.jwks.is_empty()),
                    ("jwksUri", !rule.jwks_uri.is_empty()),
                ],
                &at,
                report,
            );
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

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn policies() {
        expect(
            Kind::RequestAuthentication,
            "jwtRules: [{issuer: a, jwks: '{}'}]",
            &["Warning spec.jwtRules"],
        );
        expect(
            Kind::RequestAuthentication,
            "jwtRules: [{jwksUri: ftp://x}]",
            &[
                "Warning spec.jwtRules",
                "Error spec.jwtRules[0].issuer",
                "Error spec.jwtRules[0].jwksUri",
            ],
        );
    }
}
