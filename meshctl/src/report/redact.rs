//! What must not leave the mesh, blanked. Rather too much than too little: a report without a value is still a report.

use std::sync::LazyLock;

use mesh_proto::names::container;
use regex::Regex;
use serde_json::Value;

pub const BLANK: &str = "<redacted>";

/// Fields whose value is a secret wherever they stand, in lower case.
const FIELDS: [&str; 16] = [
    "private_key",
    "privatekey",
    "inline_key",
    "password",
    "passwd",
    "secret_key",
    "session_ticket_keys",
    "generic_secret",
    "client_secret",
    "token",
    "access_token",
    "refresh_token",
    "authorization",
    "cookie",
    "api_key",
    "hmac",
];

/// Names of headers and settings whose value is a secret.
fn is_telling(name: &str) -> bool {
    let lower = name.to_ascii_lowercase().replace('-', "_");
    let words = [
        "authorization",
        "cookie",
        "api_key",
        "apikey",
        "password",
        "passwd",
        "secret",
        "token",
        "credential",
    ];
    words.iter().any(|word| lower.contains(word))
}

/// ConfigMaps of the mesh itself; others are the applications'.
const OWN_MAPS: [&str; 3] = ["istio", "istio-sidecar-injector", "istio-ca-root-cert"];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object of the API: no Secret's content, no environment and no telling arguments of applications.
pub fn object(object: &mut Value) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let own_map = OWN_MAPS
        .iter()
        .any(|own| name == *own || name.strip_prefix(own).is_some_and(|rest| rest.starts_with('-')));
    if kind == "Secret" || (kind == "ConfigMap" && !own_map) {
        for field in ["data", "stringData", "binaryData"] {
            if let Some(entries) = object.get_mut(field).and_then(Value::as_object_mut) {
                entries.values_mut().for_each(blank);
            }
        }
    }
    if let Some(annotations) = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    containers(object);
}

/// Containers of pods and of pod templates, however deep they stand.
fn containers(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for group in ["containers", "initContainers", "ephemeralContainers"] {
                for one in fields
                    .get_mut(group)
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                {
                    if one["name"] != container::PROXY && one["name"] != container::INIT {
                        application(one);
                    }
                }
            }
            fields.values_mut().for_each(containers);
        }
        Value::Array(items) => items.iter_mut().for_each(containers),
        _ => {}
    }
}

fn application(container: &mut Value) {
    for variable in container
        .get_mut("env")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(value) = variable.get_mut("value") {
            blank(value);
        }
    }
    for field in ["args", "command"] {
        for word in container
            .get_mut(field)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if word.as_str().is_some_and(is_telling) {
                blank(word);
            }
        }
    }
}

/// Any JSON: fields, and name-value pairs, that are secrets by their name.
pub fn value(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // `{key: Authorization, value: …}`, as headers are written in Envoy's API.
            let telling = ["key", "name"]
                .iter()
                .any(|field| fields.get(*field).and_then(Value::as_str).is_some_and(is_telling));
            if telling && let Some(value) = fields.get_mut("value") {
                blank(value);
            }
            for (name, inner) in fields.iter_mut() {
                let lower = name.to_ascii_lowercase().replace('-', "_");
                let secret = FIELDS.contains(&lower.as_str()) || lower.ends_with("api_key");
                if secret {
                    blank(inner);
                } else {
                    self::value(inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(self::value),
        _ => {}
    }
}

/// Numbers, switches and absent values tell nothing.
fn blank(value: &mut Value) {
    match value {
        Value::String(text) if !text.is_empty() => *value = BLANK.into(),
        Value::Object(fields) => fields.values_mut().for_each(blank),
        Value::Array(items) => items.iter_mut().for_each(blank),
        _ => {}
    }
}

struct Rule {
    pattern: &'static str,
    with: &'static str,
}

const RULES: [Rule; 4] = [
    // Keys, whether lines end in a newline or in the two characters that stand for one in JSON.
    Rule {
        pattern: r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
        with: BLANK,
    },
    // Tokens (RFC 7519).
    Rule {
        pattern: r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*",
        with: BLANK,
    },
    // The user part of a URL.
    Rule {
        pattern: r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@:]+:[^\s/@]+@",
        with: "${1}<redacted>@",
    },
    // `name: value`, `name=value`, `"name": "value"`; a scheme before the value (`Bearer x`) belongs to it. Names of
    // things that are not secrets themselves (`secretName`) do not end in these words.
    Rule {
        pattern: r#"(?i)((?:authorization|cookie|set-cookie|x-api-key|api[_-]?key|password|passwd|client[_-]?secret|access[_-]?token|refresh[_-]?token)["']?\s*[:=]\s*)(?:"(?:[^"\\]|\\.)*"|'[^']*'|(?:(?:bearer|basic)\s+)?[^\s,;}\]]+)"#,
        with: "${1}<redacted>",
    },
];

/// Any text: what looks like a key, a token or a password.
pub fn text(text: &str) -> String {
    static COMPILED: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
        let compiled = RULES
            .iter()
            .filter_map(|rule| Some((Regex::new(rule.pattern).ok()?, rule.with)));
        compiled.collect()
    });
    COMPILED.iter().fold(text.to_owned(), |text, (pattern, with)| {
        pattern.replace_all(&text, *with).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_be_read() {
        for rule in RULES {
            assert!(Regex::new(rule.pattern).is_ok(), "{}", rule.pattern);
        }
    }

    #[test]
    fn texts() {
        for (before, after) in [
            ("Authorization: Bearer abc", "Authorization: <redacted>"),
            (
                r#"{"password":"a b","port":1}"#,
                r#"{"password":<redacted>,"port":1}"#,
            ),
            ("redis://me:pw@host:1/x", "redis://<redacted>@host:1/x"),
            ("secretName: web-tls", "secretName: web-tls"),
            (
                "/var/run/secrets/tokens/istio-token",
                "/var/run/secrets/tokens/istio-token",
            ),
            ("grants a cookie to", "grants a cookie to"),
            ("x -----BEGIN EC PRIVATE KEY-----\\nabc", "x <redacted>"),
        ] {
            assert_eq!(text(before), after);
        }
    }
}
