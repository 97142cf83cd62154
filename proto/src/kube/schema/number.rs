//! Numbers of 64 bits, which protobuf's JSON mapping writes as texts, because JavaScript cannot hold them.

use serde::{Deserialize, Deserializer, de};

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

/// `1024` or `"1024"`.
pub fn optional_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<Written>::deserialize(deserializer) {
        Ok(None) => Ok(None),
        Ok(Some(Written::Number(number))) => Ok(Some(number)),
        Ok(Some(Written::Text(text))) => text
            .parse()
            .map(Some)
            .map_err(|_| de::Error::custom(format!("{text:?} is not a number from 0 to {}", u64::MAX))),
        Err(_) => Err(de::Error::custom(format!(
            "must be a number from 0 to {}",
            u64::MAX
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn numbers_and_texts() {
        let check = |value: Value, expect: Option<Option<u64>>| {
            assert_eq!(optional_u64(value.clone()).ok(), expect, "{value}");
        };
        check(json!(7), Some(Some(7)));
        check(json!("18446744073709551615"), Some(Some(u64::MAX)));
        check(json!(null), Some(None));
        check(json!(-1), None);
        check(json!("7s"), None);
    }
}
