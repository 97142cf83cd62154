//! A caller by a token of Kubernetes: the API server itself says whose it is (TokenReview, authentication.k8s.io/v1), so
//! a token dies with its pod and its service account. A look into the token before gives clear refusals for what is
//! wrong anyhow and spares the API server the question; it never accepts anything.
//!
//! Bounds: tokens of [`MAX_BYTES`], answers of at most [`CALL`], [`MAX_KEPT`] accepted tokens remembered, for [`KEPT`]
//! and never beyond their end. Refusals are not remembered: a token may be good in a moment. Right: `create` on
//! `tokenreviews`.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use mesh_proto::identity::{SpiffeId, TrustDomain};
use mesh_runtime::apiserver;

use super::claims::{self, Claims};
use crate::{
    caller::{Caller, Proof},
    error::Refusal,
};

/// Longest token that is looked at.
const MAX_BYTES: usize = 16 * 1024;
/// How long one question may take.
const CALL: Duration = Duration::from_secs(5);
/// How long an accepted token is accepted again without a question: a proxy that tries again after a lost answer.
pub const KEPT: Duration = Duration::from_secs(10);
/// Accepted tokens remembered at once.
pub const MAX_KEPT: usize = 4096;
/// What the API server says about the pod that a token is bound to.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// The digest of a token: the token itself is not kept.
type Digest = [u8; 32];

/// Asks the API server about tokens.
pub struct Kube {
    api: Api<TokenReview>,
    audience: String,
    kept: Mutex<Kept>,
}

impl Kube {
    pub fn new(client: Client, audience: String) -> Self {
        Self {
            api: Api::all(client),
            audience,
            kept: Mutex::default(),
        }
    }

    pub async fn authenticate(
        &self,
        token: &str,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Caller, Refusal> {
        let end = look(token, &self.audience, now)?;
        let digest = digest(token);
        if let Some(caller) = self.kept().get(&digest, now) {
            return Ok(caller);
        }
        let status = self.review(token).await?;
        let caller = caller(&status, &self.audience, trust_domain)?;
        self.kept().put(digest, caller.clone(), end.min(now + KEPT), now);
        Ok(caller)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refusal> {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.clone()]),
                token: token.to_owned(),
            },
            status: None,
        };
        let post = PostParams::default();
        match tokio::time::timeout(CALL, self.api.create(&post, &review)).await {
            Ok(Ok(review)) => Ok(review.status.unwrap_or_default()),
            Ok(Err(error)) => Err(Refusal::Review(apiserver::explain(
                &error,
                "asking about the token (TokenReview)",
            ))),
            Err(_) => Err(Refusal::Review(format!(
                "the API server did not answer within {CALL:?}"
            ))),
        }
    }
}

/// What anybody can read in a token; says when it ends.
fn look(token: &str, audience: &str, now: SystemTime) -> Result<SystemTime, Refusal> {
    let refuse = |text: String| Refusal::Token(text);
    if token.len() > MAX_BYTES {
        return Err(refuse(format!("{} bytes, the limit is {MAX_BYTES}", token.len())));
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts[..] else {
        return Err(refuse("not a JWT: three parts with dots between them".into()));
    };
    let claims: Claims = URL_SAFE_NO_PAD
        .decode(payload)
        .map_err(|error| error.to_string())
        .and_then(|json| serde_json::from_slice(&json).map_err(|error| error.to_string()))
        .map_err(|error| refuse(format!("not a JWT: {error}")))?;
    claims::check_audience(&claims, audience)?;
    claims::check_time(&claims, now)
}

fn digest(token: &str) -> Digest {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    out.copy_from_slice(digest.as_ref());
    out
}

/// The caller that the API server names.
fn caller(status: &TokenReviewStatus, audience: &str, trust_domain: &TrustDomain) -> Result<Caller, Refusal> {
    let refuse = |text: String| Refusal::Token(text);
    if status.authenticated != Some(true) {
        let reason = status.error.as_deref().unwrap_or("no reason given");
        return Err(refuse(format!(
            "the API server does not accept it: {reason}; is its pod gone?"
        )));
    }
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|name| name == audience) {
        return Err(refuse(format!(
            "the API server accepts it for {audiences:?}, not for {audience:?}"
        )));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let Some((namespace, account)) = account else {
        return Err(refuse(format!("it is of {name:?}, not of a service account")));
    };
    let id = SpiffeId::new(trust_domain.clone(), namespace, account)
        .map_err(|error| refuse(format!("its service account makes no identity: {error}")))?;
    let pod = user
        .extra
        .and_then(|mut extra| extra.remove(POD))
        .and_then(|names| names.into_iter().next())
        .filter(|name| !name.is_empty());
    Ok(Caller {
        id,
        proof: Proof::Token { pod },
    })
}

/// Accepted tokens.
#[derive(Debug, Default)]
struct Kept(HashMap<Digest, (Caller, SystemTime)>);

impl Kept {
    fn get(&mut self, digest: &Digest, now: SystemTime) -> Option<Caller> {
        match self.0.get(digest) {
            Some((caller, end)) if now < *end => Some(caller.clone()),
            Some(_) => {
                self.0.remove(digest);
                None
            }
            None => None,
        }
    }

    fn put(&mut self, digest: Digest, caller: Caller, end: SystemTime, now: SystemTime) {
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|_, (_, end)| now < *end);
        }
        // Full of fresh ones: this one is asked about again.
        if self.0.len() < MAX_KEPT && now < end {
            self.0.insert(digest, (caller, end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: u64 = 1_800_000_000;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn what_is_wrong_anyhow_is_refused_before_the_question() {
        let good = json!({"aud": ["istio-ca"], "exp": NOW + 60});
        assert_eq!(
            look(&token(&good), "istio-ca", now()).unwrap(),
            now() + Duration::from_secs(60)
        );
        for (token, expect) in [
            (
                token(&json!({"aud": ["istio-ca"], "exp": NOW - 60})),
                "expired since 60 s",
            ),
            (
                token(&json!({"aud": ["api"], "exp": NOW + 60})),
                "audience is [\"api\"]",
            ),
            (token(&json!({"aud": "istio-ca"})), "\"exp\" is missing"),
            (token(&json!(7)), "not a JWT"),
            ("abc".into(), "not a JWT"),
            ("a.b.c.d".into(), "not a JWT"),
            ("a.!.c".into(), "not a JWT"),
            ("a".repeat(MAX_BYTES + 1), "the limit is"),
        ] {
            let refusal = look(&token, "istio-ca", now()).unwrap_err().to_string();
            assert!(refusal.contains(expect), "{refusal:?} lacks {expect:?}");
        }
    }

    #[test]
    fn the_api_servers_answer() {
        let answer = |change: fn(&mut Value)| {
            let mut status = json!({
                "authenticated": true, "audiences": ["istio-ca"],
                "user": {"username": "system:serviceaccount:default:reviews", "uid": "u",
                    "groups": ["system:serviceaccounts"],
                    "extra": {"authentication.kubernetes.io/pod-name": ["reviews-v1-0"]}},
            });
            change(&mut status);
            let status: TokenReviewStatus = serde_json::from_value(status).unwrap();
            caller(&status, "istio-ca", &TrustDomain::default())
        };
        let caller = answer(|_| ()).unwrap();
        assert_eq!(
            caller.id.to_string(),
            "spiffe://cluster.local/ns/default/sa/reviews"
        );
        let pod = Some("reviews-v1-0".to_owned());
        assert_eq!(caller.proof, Proof::Token { pod });
        let unbound = answer(|s| s["user"]["extra"] = json!({})).unwrap();
        assert_eq!(unbound.proof, Proof::Token { pod: None });
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 6] = [
            (
                |s| *s = json!({"error": "token has been invalidated"}),
                "token has been invalidated",
            ),
            (|s| s["authenticated"] = json!(false), "does not accept it"),
            (
                |s| s["audiences"] = json!(["https://kubernetes"]),
                "not for \"istio-ca\"",
            ),
            (|s| s["audiences"] = json!(null), "not for \"istio-ca\""),
            (
                |s| s["user"]["username"] = json!("admin"),
                "not of a service account",
            ),
            (
                |s| s["user"]["username"] = json!("system:serviceaccount:a:b/c"),
                "makes no identity",
            ),
        ];
        for (change, expect) in cases {
            let refusal = answer(change).unwrap_err().to_string();
            assert!(refusal.contains(expect), "{refusal:?} lacks {expect:?}");
        }
    }

    #[test]
    fn accepted_tokens_are_remembered_shortly_and_few() {
        let caller = Caller {
            id: "spiffe://cluster.local/ns/default/sa/a".parse().unwrap(),
            proof: Proof::Token { pod: None },
        };
        let (mut kept, now, one) = (Kept::default(), now(), digest("one"));
        kept.put(one, caller.clone(), now + KEPT, now);
        assert_eq!(kept.get(&one, now), Some(caller.clone()));
        assert_eq!(kept.get(&one, now + KEPT), None);
        assert!(kept.0.is_empty(), "what is over is forgotten");
        kept.put(one, caller.clone(), now, now);
        assert_eq!(kept.get(&one, now), None, "a token that ends now is not kept");
        for number in 0..MAX_KEPT + 10 {
            kept.put(digest(&number.to_string()), caller.clone(), now + KEPT, now);
        }
        assert_eq!(kept.0.len(), MAX_KEPT);
        let later = now + KEPT;
        kept.put(one, caller, later + KEPT, later);
        assert_eq!(kept.0.len(), 1);
    }
}
