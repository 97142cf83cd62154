//! The platform's issuer of service-account tokens: what the API server is on Kubernetes. An ES256 key is made at the
//! first start and kept in `D/pki`; its public half lies beside it as `jwks.json`, which citadel reads. Tokens are bound:
//! they name the pod and the account with their uids, have one audience and end.

use std::path::Path;

use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::json;

use super::store::write_atomically;

/// As Kubernetes names itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub struct Issuer {
    key: EncodingKey,
    key_id: String,
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound<'a> {
    pub namespace: &'a str,
    pub account: &'a str,
    pub account_uid: &'a str,
    pub pod: &'a str,
    pub pod_uid: &'a str,
}

impl Issuer {
    /// The issuer of a folder; its key is made when there is none.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("issuer.key");
        let pair = match std::fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_pem(&pem).with_context(|| {
                format!("{} is no key; remove it, a new one will be made", path.display())
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("no key can be made")?;
                write_atomically(&path, pair.serialize_pem().as_bytes(), 0o600)
                    .with_context(|| format!("{} cannot be written", path.display()))?;
                pair
            }
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let (jwks, key_id) = jwks(pair.der_bytes())?;
        let path = folder.join("jwks.json");
        write_atomically(&path, jwks.as_bytes(), 0o644)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())
            .context("the issuer's key is not usable")?;
        Ok(Self { key, key_id })
    }

    /// A token for one audience, good from `now` (seconds since 1970) for `seconds`.
    pub fn token(&self, bound: &Bound, audience: &str, now: i64, seconds: i64) -> anyhow::Result<String> {
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{}:{}", bound.namespace, bound.account),
            "aud": [audience],
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "kubernetes.io": {
                "namespace": bound.namespace,
                "pod": {"name": bound.pod, "uid": bound.pod_uid},
                "serviceaccount": {"name": bound.account, "uid": bound.account_uid},
            },
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &claims, &self.key).context("a token cannot be signed")
    }
}

/// The public half as a JSON Web Key Set (RFC 7517), and the key's name. `point` is the uncompressed curve point.
fn jwks(point: &[u8]) -> anyhow::Result<(String, String)> {
    let [4, coordinates @ ..] = point else {
        anyhow::bail!("the issuer's key is not on P-256")
    };
    let (x, y) = coordinates
        .split_at_checked(32)
        .context("the issuer's key is not on P-256")?;
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let key_id = encode(x.get(..12).unwrap_or(x));
    let key = json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key_id, "x": encode(x), "y": encode(y),
    });
    Ok((json!({"keys": [key]}).to_string(), key_id))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
    use serde_json::Value;

    use super::*;

    #[test]
    fn tokens_check_against_the_published_key() {
        let folder = std::env::temp_dir().join(format!("gossamer-issuer-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let bound = Bound {
            namespace: "default",
            account: "reviews",
            account_uid: "1",
            pod: "reviews-x",
            pod_uid: "2",
        };
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        Issuer::open(&folder).unwrap();
        // A second start has the same key.
        let token = Issuer::open(&folder)
            .unwrap()
            .token(&bound, "istio-ca", now, 3600)
            .unwrap();
        let set: JwkSet =
            serde_json::from_str(&std::fs::read_to_string(folder.join("jwks.json")).unwrap()).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&["istio-ca"]);
        rules.set_issuer(&[ISSUER]);
        let claims = jsonwebtoken::decode::<Value>(&token, &key, &rules)
            .unwrap()
            .claims;
        assert_eq!(claims["sub"], "system:serviceaccount:default:reviews");
        assert_eq!(claims["kubernetes.io"]["pod"]["uid"], "2");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
