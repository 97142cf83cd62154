//! Key sets (RFC 7517) as proxies take them. Pure. A stock Envoy refuses a whole listener for one key set that has no
//! key it can use, so nothing goes out that was not looked at: keys of unknown kinds fall away, and where none is left,
//! a key stands in that nobody has.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// Keys of one issuer.
pub const MAX_KEYS: usize = 100;

/// For an issuer whose keys are not known: no token is signed by it. A point of P-256 whose x is the SHA-256 of
/// `no key of this issuer is known 0` and whose y is even: how it was made leaves no room for a private key.
pub const NOBODYS: &str = "{\"keys\":[{\"crv\":\"P-256\",\"kid\":\"no-key-known\",\"kty\":\"EC\",\
    \"x\":\"R-nigdk1CMcJxK61n3j5vdz-aAkKqFEKZla2S__qaPQ\",\"y\":\"dYg8-jHwmt7oudmgAIkERAfMJ2iZ8zqgBWX_CQCuOdI\"}]}";

/// The usable keys of a key set, and nothing else of the text.
pub fn usable(text: &[u8]) -> Result<Arc<str>, String> {
    let mut value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let Some(Value::Array(keys)) = value.get_mut("keys").map(Value::take) else {
        return Err("not a key set: it has no list \"keys\"".into());
    };
    if keys.len() > MAX_KEYS {
        return Err(format!("{} keys, at most {MAX_KEYS} are taken", keys.len()));
    }
    let keys: Vec<Value> = keys.into_iter().filter(is_usable).collect();
    if keys.is_empty() {
        return Err("no usable key: RSA of 1024 bits or more, EC on P-256 or P-384, Ed25519".into());
    }
    Ok(serde_json::json!({"keys": keys}).to_string().into())
}

fn is_usable(key: &Value) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
    let usable = || match (text("kty")?, text("crv")) {
        ("RSA", _) => Some(is_rsa(&bytes("n")?, &bytes("e")?)),
        ("EC", Some(curve)) => {
            let point = [vec![4], bytes("x")?, bytes("y")?].concat();
            Some(match curve {
                "P-256" => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok(),
                "P-384" => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).is_ok(),
                _ => false,
            })
        }
        ("OKP", Some("Ed25519")) => Some(ParsedPublicKey::new(&ED25519, bytes("x")?).is_ok()),
        ("oct", _) => Some(!bytes("k")?.is_empty()),
        _ => None,
    };
    usable().unwrap_or(false)
}

/// A modulus of a usual size, an odd exponent.
fn is_rsa(modulus: &[u8], exponent: &[u8]) -> bool {
    let length = modulus.iter().skip_while(|byte| **byte == 0).count();
    let exponent: Vec<&u8> = exponent.iter().skip_while(|byte| **byte == 0).collect();
    let odd = exponent.last().is_some_and(|byte| **byte & 1 == 1);
    (128..=2048).contains(&length) && odd && exponent.len() <= 4 && exponent != [&1]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.3.
    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    #[test]
    fn only_usable_keys_go_on() {
        let rsa = format!(
            r#"{{"kty":"RSA","n":"{}","e":"AQAB","kid":"r"}}"#,
            "t".repeat(344)
        );
        let off = EC.replace("f83O", "f83P");
        let text = format!(
            r#"{{"secret": 1, "keys": [{EC}, {rsa}, {off}, {{"kty":"new"}}, {{"kty":"RSA","n":"AQAB","e":"AQAB"}}, 7]}}"#
        );
        let keys: Value = serde_json::from_str(&usable(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(keys.as_object().unwrap().len(), 1);
        let kinds: Vec<&str> = keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["kty"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["EC", "RSA"]);
        let many = format!("{{\"keys\": [{}]}}", [EC; MAX_KEYS + 1].join(","));
        for (text, expect) in [
            ("<html>", "not JSON"),
            ("{}", "no list"),
            (r#"{"keys": []}"#, "no usable key"),
            (r#"{"keys": [{"kty": "EC"}]}"#, "no usable key"),
            (many.as_str(), "101 keys"),
        ] {
            let error = usable(text.as_bytes()).unwrap_err();
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn nobodys_key_is_a_key() {
        assert_eq!(&*usable(NOBODYS.as_bytes()).unwrap(), NOBODYS);
        let x = URL_SAFE_NO_PAD
            .decode("R-nigdk1CMcJxK61n3j5vdz-aAkKqFEKZla2S__qaPQ")
            .unwrap();
        let text = b"no key of this issuer is known 0";
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
        assert_eq!(digest.as_ref(), x, "made as it says");
    }
}
