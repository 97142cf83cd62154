//! The platform of the bench: an issuer of service-account tokens, whose public key citadel reads.

use std::{fs, path::Path, time::UNIX_EPOCH};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::json;

/// As Kubernetes names itself, and as citadel expects it.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const KEY: &str = "bench";
const LIFE: u64 = 3600;

pub struct Issuer {
    key: EncodingKey,
}

impl Issuer {
    /// Makes a key and writes its public half as a JSON Web Key Set.
    pub fn new(keys: &Path) -> anyhow::Result<Self> {
        let pair = KeyPair::generate()?;
        let [4, point @ ..] = pair.der_bytes() else {
            anyhow::bail!("the key is not on P-256")
        };
        let (x, y) = point.split_at_checked(32).context("the key is not on P-256")?;
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY, "x": encode(x), "y": encode(y),
        });
        fs::write(keys, json!({ "keys": [key] }).to_string())
            .with_context(|| format!("cannot write {}", keys.display()))?;
        Ok(Self {
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
        })
    }

    /// A token for citadel.
    pub fn token(&self, namespace: &str, account: &str) -> anyhow::Result<String> {
        let now = UNIX_EPOCH.elapsed()?.as_secs();
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "aud": [mesh_proto::names::TOKEN_AUDIENCE],
            "iat": now, "nbf": now, "exp": now + LIFE,
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": format!("{account}-0"), "uid": account},
                "serviceaccount": {"name": account, "uid": account},
            },
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY.to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).context("a token cannot be signed")
    }
}
