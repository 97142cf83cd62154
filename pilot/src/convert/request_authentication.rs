//! RequestAuthentication.

use mesh_proto::kube::{Object, security as api};

use super::peer_authentication::selector;
use crate::model::{JwtRule, Origin, RequestAuthentication};

pub fn convert(object: &Object<api::RequestAuthentication>, origin: Origin) -> RequestAuthentication {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let rule = |rule: &api::JwtRule| JwtRule {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        jwks_uri: some(&rule.jwks_uri),
        jwks: some(&rule.jwks),
        from_headers: rule
            .from_headers
            .iter()
            .map(|header| (header.name.clone(), header.prefix.clone()))
            .collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward_original_token: rule.forward_original_token,
        output_payload_to_header: some(&rule.output_payload_to_header),
    };
    RequestAuthentication {
        selector: selector(object.spec.selector.as_ref()),
        rules: object.spec.jwt_rules.iter().map(rule).collect(),
        origin,
    }
}
