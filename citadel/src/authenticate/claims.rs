//! What a token of the platform must say, once its signature is proven: issuer, audience, time, and the service account
//! that it is bound to (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>). Pure.

use std::time::{Duration, SystemTime};

use mesh_proto::identity::{SpiffeId, TrustDomain};
use serde::Deserialize;

use crate::{
    caller::{Caller, Proof},
    error::Refusal,
};

/// How far the issuer's clock may be ahead of ours.
const LEEWAY: Duration = Duration::from_secs(10);

/// The claims that are looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Audience,
    pub exp: Option<f64>,
    pub nbf: Option<f64>,
    pub iat: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    pub bound: Option<Bound>,
}

/// RFC 7519 §4.1.3: one name or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audience {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// What the token is bound to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Bound {
    pub namespace: String,
    pub serviceaccount: Named,
    pub pod: Option<Named>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: String,
    pub uid: String,
}

/// What every token must name.
#[derive(Clone, Debug)]
pub struct Expected {
    pub issuer: String,
    pub audience: String,
}

/// The caller that proven claims name.
pub fn caller(
    claims: &Claims,
    expected: &Expected,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Caller, Refusal> {
    let refuse = |text: String| Refusal::Token(text);
    if claims.iss != expected.issuer {
        return Err(refuse(format!(
            "issuer is {:?}, expected {:?}",
            claims.iss, expected.issuer
        )));
    }
    check_audience(claims, &expected.audience)?;
    check_time(claims, now)?;
    let Some(bound) = &claims.bound else {
        return Err(refuse(
            "it is bound to no service account: claim \"kubernetes.io\" is missing".into(),
        ));
    };
    let (namespace, account) = (&bound.namespace, &bound.serviceaccount.name);
    let subject = format!("system:serviceaccount:{namespace}:{account}");
    if claims.sub != subject {
        return Err(refuse(format!(
            "subject is {:?}, but it is bound to {subject:?}",
            claims.sub
        )));
    }
    let id = SpiffeId::new(trust_domain.clone(), namespace, account)
        .map_err(|error| refuse(format!("its service account makes no identity: {error}")))?;
    let pod = bound
        .pod
        .as_ref()
        .map(|pod| pod.name.clone())
        .filter(|name| !name.is_empty());
    Ok(Caller {
        id,
        proof: Proof::Token { pod },
    })
}

pub fn check_audience(claims: &Claims, expected: &str) -> Result<(), Refusal> {
    let names = claims.aud.names();
    if names.iter().any(|name| name == expected) {
        return Ok(());
    }
    Err(Refusal::Token(format!(
        "audience is {names:?}, expected {expected:?}"
    )))
}

/// Whether the token is good now; says when it ends.
pub fn check_time(claims: &Claims, now: SystemTime) -> Result<SystemTime, Refusal> {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let end = claims
        .exp
        .ok_or_else(|| Refusal::Token("it has no end: claim \"exp\" is missing".into()))?;
    if now >= end {
        return Err(Refusal::Token(format!(
            "expired since {:.0} s; the platform must renew the token file",
            now - end
        )));
    }
    for (name, start) in [("nbf", claims.nbf), ("iat", claims.iat)] {
        let Some(start) = start else { continue };
        if start > now + LEEWAY.as_secs_f64() {
            let text = format!(
                "not valid for another {:.0} s (claim {name:?}); compare the clocks",
                start - now
            );
            return Err(Refusal::Token(text));
        }
    }
    // Far beyond any token's life, and far from what a clock can hold.
    let end = Duration::try_from_secs_f64(end.min(1e11)).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: u64 = 1_800_000_000;

    fn token(change: impl FnOnce(&mut Value)) -> Result<Caller, Refusal> {
        let mut claims = json!({
            "iss": "https://issuer", "sub": "system:serviceaccount:default:reviews", "aud": ["other", "istio-ca"],
            "exp": NOW + 600, "iat": NOW, "nbf": NOW,
            "kubernetes.io": {"namespace": "default", "pod": {"name": "reviews-v1-0", "uid": "1"},
                "serviceaccount": {"name": "reviews", "uid": "2"}},
        });
        change(&mut claims);
        let expected = Expected {
            issuer: "https://issuer".into(),
            audience: "istio-ca".into(),
        };
        let claims: Claims = serde_json::from_value(claims).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        caller(&claims, &expected, &TrustDomain::default(), now)
    }

    #[test]
    fn good_tokens() {
        let caller = token(|_| ()).unwrap();
        assert_eq!(
            caller.id.to_string(),
            "spiffe://cluster.local/ns/default/sa/reviews"
        );
        assert_eq!(
            caller.proof,
            Proof::Token {
                pod: Some("reviews-v1-0".into())
            }
        );
        assert!(token(|t| t["aud"] = json!("istio-ca")).is_ok());
        assert!(
            token(|t| t["nbf"] = json!(NOW + 5)).is_ok(),
            "clocks may differ a little"
        );
        let caller = token(|t| drop(t["kubernetes.io"].as_object_mut().unwrap().remove("pod"))).unwrap();
        assert_eq!(caller.proof, Proof::Token { pod: None });
    }

    #[test]
    fn refusals() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 13] = [
            (
                |t| t["iss"] = json!("https://evil"),
                "issuer is \"https://evil\", expected \"https://issuer\"",
            ),
            (
                |t| t["aud"] = json!(["vault"]),
                "audience is [\"vault\"], expected \"istio-ca\"",
            ),
            (|t| t["aud"] = json!([]), "audience is []"),
            (
                |t| drop(t.as_object_mut().unwrap().remove("aud")),
                "audience is []",
            ),
            (|t| t["exp"] = json!(NOW - 30), "expired since 30 s"),
            (|t| t["exp"] = json!(NOW), "expired since 0 s"),
            (|t| t["exp"] = json!(null), "\"exp\" is missing"),
            (
                |t| t["nbf"] = json!(NOW + 60),
                "not valid for another 60 s (claim \"nbf\")",
            ),
            (|t| t["iat"] = json!(NOW + 60), "(claim \"iat\")"),
            (
                |t| t["sub"] = json!("system:serviceaccount:default:admin"),
                "but it is bound to",
            ),
            (
                |t| t["kubernetes.io"] = json!(null),
                "bound to no service account",
            ),
            (
                |t| t["kubernetes.io"]["namespace"] = json!("kube-system"),
                "but it is bound to",
            ),
            (
                |t| {
                    t["sub"] = json!("system:serviceaccount:a/b:reviews");
                    t["kubernetes.io"]["namespace"] = json!("a/b");
                },
                "makes no identity",
            ),
        ];
        for (change, expect) in cases {
            let refusal = token(change).unwrap_err().to_string();
            assert!(refusal.contains(expect), "{refusal:?} lacks {expect:?}");
        }
    }
}
