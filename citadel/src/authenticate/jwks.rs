//! The public keys of the platform's token issuer: a JWKS file (RFC 7517), read again when it changes.
//! Bounds: 1 MiB, [`MAX_KEYS`] keys, one look at the file's state for each token.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet},
};

/// Keys in one file.
pub const MAX_KEYS: usize = 64;
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("{path:?}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path:?}: {reason}")]
    Form { path: PathBuf, reason: String },
}

/// One key that tokens may be signed with.
#[derive(Clone)]
pub struct Key {
    pub kid: Option<String>,
    pub algorithms: Vec<Algorithm>,
    pub key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish()
    }
}

/// The file and what was in it.
#[derive(Debug)]
pub struct JwksFile {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Arc<[Key]>)>>,
}

/// Changes when the file does: replaced (inode) or written (time, length).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
    bytes: u64,
}

impl JwksFile {
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: Mutex::default(),
        }
    }

    /// The keys as the file has them now. When a change makes it unreadable, the keys read before stay good.
    pub fn keys(&self) -> Result<Arc<[Key]>, JwksError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = match (stamp(&self.path), &*read) {
            (Ok(stamp), Some((known, keys))) if stamp == *known => return Ok(keys.clone()),
            (Ok(stamp), _) => self.load().map(|keys| (stamp, keys)),
            (Err(source), _) => Err(JwksError::File {
                path: self.path.clone(),
                source,
            }),
        };
        match (fresh, &*read) {
            (Ok((stamp, keys)), _) => {
                tracing::info!(path = ?self.path, keys = keys.len(), "keys of the token issuer read");
                *read = Some((stamp, keys.clone()));
                Ok(keys)
            }
            (Err(error), Some((_, keys))) => {
                tracing::warn!(%error, "keys of the token issuer cannot be read again; the ones read before stay");
                Ok(keys.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn load(&self) -> Result<Arc<[Key]>, JwksError> {
        let file = |source| JwksError::File {
            path: self.path.clone(),
            source,
        };
        let form = |reason: String| JwksError::Form {
            path: self.path.clone(),
            reason,
        };
        let length = fs::metadata(&self.path).map_err(file)?.len();
        if length > MAX_BYTES {
            return Err(form(format!("{length} bytes, the limit is {MAX_BYTES}")));
        }
        parse(&fs::read(&self.path).map_err(file)?).map_err(form)
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok(Stamp {
        inode: metadata.ino(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
        bytes: metadata.len(),
    })
}

/// The usable keys of a JWKS text: asymmetric ones. Others are skipped, as RFC 7517 §5 asks for.
pub fn parse(text: &[u8]) -> Result<Arc<[Key]>, String> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|error| format!("not a JWKS: {error}"))?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("{} keys, the limit is {MAX_KEYS}", set.keys.len()));
    }
    let keys: Vec<Key> = set.keys.iter().filter_map(key).collect();
    if keys.is_empty() {
        return Err("no usable key: expected EC P-256 or P-384, Ed25519 or RSA".into());
    }
    Ok(keys.into())
}

fn key(jwk: &Jwk) -> Option<Key> {
    // A key is for the algorithms of its kind and no other: RFC 8725 §3.1.
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
        ],
        _ => return None,
    };
    let named = jwk.common.key_algorithm.as_ref().map(ToString::to_string);
    let allowed = |algorithm: &Algorithm| {
        named
            .as_ref()
            .is_none_or(|name| *name == format!("{algorithm:?}"))
    };
    let algorithms: Vec<Algorithm> = possible.iter().copied().filter(allowed).collect();
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (!algorithms.is_empty()).then(|| Key {
        kid: jwk.common.key_id.clone(),
        algorithms,
        key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"a","alg":"ES256","use":"sig",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    #[test]
    fn usable_keys() {
        let keys =
            parse(format!(r#"{{"keys":[{EC}, {{"kty":"oct","k":"c2VjcmV0","kid":"b"}}]}}"#).as_bytes())
                .unwrap();
        assert_eq!(keys.len(), 1, "a symmetric key is no public key");
        assert_eq!(
            (keys[0].kid.as_deref(), &keys[0].algorithms[..]),
            (Some("a"), &[Algorithm::ES256][..])
        );
        for text in [
            "",
            "{}",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let odd = EC.replace("ES256", "RS256");
        assert!(
            parse(format!(r#"{{"keys":[{odd}]}}"#).as_bytes()).is_err(),
            "an EC key is not for RS256"
        );
    }

    #[test]
    fn follows_the_file_and_keeps_what_was_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        let file = JwksFile::new(&path);
        assert!(file.keys().unwrap_err().to_string().contains("jwks.json"));
        fs::write(&path, format!(r#"{{"keys":[{EC}]}}"#)).unwrap();
        assert_eq!(file.keys().unwrap().len(), 1);
        let two = EC.replace("\"a\"", "\"b\"");
        fs::write(&path, format!(r#"{{"keys":[{EC},{two}]}}"#)).unwrap();
        assert_eq!(file.keys().unwrap().len(), 2);
        fs::write(&path, "broken").unwrap();
        assert_eq!(file.keys().unwrap().len(), 2);
        fs::remove_file(&path).unwrap();
        assert_eq!(file.keys().unwrap().len(), 2);
    }
}
