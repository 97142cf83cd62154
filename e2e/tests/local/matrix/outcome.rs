//! Outcomes as they can be compared: without what is different each time, and without the names of the planes.

use mesh_e2e::client::ask::Outcome;
use regex::Regex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Answers: headers whose values are of the moment. That they are there is compared.
const MOMENT: [&str; 3] = ["date", "x-envoy-upstream-service-time", "x-pod"];
/// The same of requests, as the application saw them.
const OF_A_REQUEST: [&str; 9] = [
    "x-request-id",
    "user-agent",
    "traceparent",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "authorization",
    "x-envoy-external-address",
];

/// How a body is framed is between two neighbours (RFC 9112 §6); and its length depends on the length of names.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];
/// Envoy's tracer sends it, empty.
const EMPTY: &str = "tracestate";

pub struct Normal {
    address: Regex,
    plane: Regex,
    port: Regex,
    hash: Regex,
    key: Regex,
}

impl Normal {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            address: Regex::new(r"\b\d+\.\d+\.\d+\.\d+(:\d+)?\b")?,
            plane: Regex::new(r"(client|server|gateway|fragile|outbound_)([-/])(ours|envoy)")?,
            port: Regex::new(r"\b(800|900|710|844)[12]\b")?,
            hash: Regex::new(r"Hash=[0-9a-f]+")?,
            key: Regex::new(r"key=[a-z0-9-]+")?,
        })
    }

    pub fn text(&self, text: &str) -> String {
        let text = self.address.replace_all(text, "ADDRESS");
        let text = self.plane.replace_all(&text, "$1$2PLANE");
        let text = self.port.replace_all(&text, "${1}N");
        let text = self.key.replace_all(&text, "key=KEY");
        self.hash.replace_all(&text, "Hash=HASH").into_owned()
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(all) => all.iter().map(|one| self.value(one)).collect(),
            Value::Object(all) => all
                .iter()
                .map(|(key, one)| (key.clone(), self.value(one)))
                .collect::<Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    /// What the client got.
    pub fn answer(&self, outcome: &Outcome) -> Value {
        let headers: Map<String, Value> = outcome
            .headers
            .iter()
            .map(|(name, values)| (name.clone(), at_any_moment(name, &MOMENT, json!(values))))
            .filter(|(name, _)| !FRAMING.contains(&name.as_str()))
            .collect();
        let mut body = outcome.body.clone();
        if outcome.status >= 500 && body.is_string() {
            // Our proxy says which object is the reason; Envoy does not.
            body = "why".into();
        }
        if let Value::Object(told) = &mut body {
            told.remove("pod");
            if let Some(Value::Object(headers)) = told.get_mut("headers") {
                headers.retain(|name, _| !FRAMING.contains(&name.as_str()) && name != EMPTY);
                for (name, value) in headers.iter_mut() {
                    *value = at_any_moment(name, &OF_A_REQUEST, value.clone());
                }
            }
        }
        self.value(&json!({
            "status": outcome.status,
            "headers": headers,
            "body": body,
            "error": outcome.error.is_some(),
        }))
    }

    /// What a hop wrote about it.
    pub fn told(&self, told: &Value) -> Value {
        self.value(told)
    }
}

fn at_any_moment(name: &str, names: &[&str], value: Value) -> Value {
    if names.contains(&name) {
        "any".into()
    } else {
        value
    }
}

/// Paths and values of everything in it.
fn flat(value: &Value, path: &str, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(all) => all
            .iter()
            .for_each(|(key, one)| flat(one, &format!("{path}/{key}"), out)),
        Value::Array(all) => all
            .iter()
            .enumerate()
            .for_each(|(place, one)| flat(one, &format!("{path}/{place}"), out)),
        other => {
            out.insert(path.to_owned(), other.to_string());
        }
    }
}

/// What is different, one line each.
pub fn differences(reference: &Value, got: &Value) -> Vec<String> {
    let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
    flat(reference, "", &mut left);
    flat(got, "", &mut right);
    let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let shown =
        |map: &BTreeMap<String, String>, key: &String| map.get(key).cloned().unwrap_or("nothing".into());
    keys.into_iter()
        .filter(|key| left.get(*key) != right.get(*key))
        .map(|key| format!("{key}: {} instead of {}", shown(&right, key), shown(&left, key)))
        .collect()
}
