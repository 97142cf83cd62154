//! From the types of the resource API to the schemas that Kubernetes keeps them by: structural OpenAPI v3, as the API
//! server demands it of a CustomResourceDefinition (every type said once, no references, no `null` among the types).
//!
//! `schemars` derives JSON Schema from the types; [`of`] puts it into that form. Constraints that a Rust type cannot
//! express stand in the types' attributes, in the vocabulary of [`rule`].

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub mod number;
pub mod rule;

/// A free object, as protobuf's `Struct`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Struct(pub Map<String, Value>);

impl JsonSchema for Struct {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Struct".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}

/// The structural schema of a type.
pub fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms = Vec::new();
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    schema
}

/// Keywords that mean nothing to the API server, or another thing than to JSON Schema. (Defaults would be written into
/// users' objects.)
const DROPPED: [&str; 6] = [
    "$schema",
    "title",
    "default",
    "examples",
    "deprecated",
    "writeOnly",
];

fn structural(schema: &mut Value) {
    let Value::Object(object) = schema else {
        *schema = json!({"x-kubernetes-preserve-unknown-fields": true});
        return;
    };
    for keyword in DROPPED {
        object.remove(keyword);
    }
    without_null(object);
    named_values(object);
    nullable(object);
    integers(object);
    one_line(object);
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = object.get_mut(nested) {
            structural(nested);
        }
    }
}

/// `anyOf: [X, null]` is how an optional X is derived if X has choices in it; what a field says goes before what its type
/// says.
fn without_null(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get("anyOf") else {
        return;
    };
    let is_null = |choice: &Value| choice.get("type") == Some(&json!("null"));
    let mut others = choices.iter().filter(|choice| !is_null(choice));
    let (Some(Value::Object(inner)), None) = (others.next(), others.next()) else {
        return;
    };
    let inner = inner.clone();
    object.remove("anyOf");
    for (keyword, value) in inner {
        object.entry(keyword).or_insert(value);
    }
}

/// The values of an enum are derived one by one where they have descriptions.
fn named_values(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get("oneOf") else {
        return;
    };
    let values = |choice: &Value| match (choice.get("const"), choice.get("enum")) {
        (Some(value), _) => Some(vec![value.clone()]),
        (None, Some(Value::Array(values))) => Some(values.clone()),
        _ => None,
    };
    let Some(values) = choices.iter().map(values).collect::<Option<Vec<_>>>() else {
        return;
    };
    object.remove("oneOf");
    object.insert("type".to_owned(), json!("string"));
    object.insert("enum".to_owned(), values.concat().into());
}

/// A number or a boolean that can be absent can be `null` too, as protobuf's wrappers can.
fn nullable(object: &mut Map<String, Value>) {
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let Some(Value::Array(types)) = object.get("type") else {
        return;
    };
    let Some(kind) = types.iter().find(|kind| **kind != json!("null")).cloned() else {
        return;
    };
    if matches!(kind.as_str(), Some("integer" | "number" | "boolean")) {
        object.insert("nullable".to_owned(), json!(true));
    }
    object.insert("type".to_owned(), kind);
}

/// The API server knows `int32` and `int64`; unsigned numbers are said by their range.
fn integers(object: &mut Map<String, Value>) {
    let format = object
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if format.starts_with("uint") || format == "int64" {
        object.remove("format");
    }
    let largest = match format.as_str() {
        "uint16" => json!(u16::MAX),
        "uint32" => json!(u32::MAX),
        _ => return,
    };
    object.entry("maximum").or_insert(largest);
}

/// A description is a sentence or two, wherever its lines were broken in the source.
fn one_line(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}

/// Every field of a schema that has no fields of its own, by its path: `http[].match[].uri.exact`, `labels.*`.
pub fn leaves(schema: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    walk(schema, String::new(), &mut found);
    found
}

fn walk<'a>(schema: &'a Value, path: String, found: &mut Vec<(String, &'a Value)>) {
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, property) in properties {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            walk(property, path, found);
        }
    } else if let Some(items) = schema.get("items").filter(|items| has_fields(items)) {
        walk(items, format!("{path}[]"), found);
    } else if let Some(values) = schema
        .get("additionalProperties")
        .filter(|values| has_fields(values))
    {
        walk(values, format!("{path}.*"), found);
    } else {
        found.push((path, schema));
    }
}

fn has_fields(schema: &Value) -> bool {
    schema.get("properties").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// What an object is.
    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Sample {
        /// A number
        /// of things.
        count: Option<u32>,
        mode: Option<Mode>,
        #[schemars(extend("x-kubernetes-validations" = [rule::cel("b", "b")]))]
        inner: Option<Inner>,
        labels: BTreeMap<String, String>,
        free: Option<Struct>,
        inners: BTreeMap<String, Inner>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    #[allow(dead_code, reason = "only its schema is looked at")]
    enum Mode {
        /// The first.
        FirstOne,
        Second,
    }

    #[derive(Deserialize, JsonSchema, Default)]
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = [rule::cel("a", "a")]))]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Inner {
        on: Option<bool>,
    }

    #[test]
    fn the_form_that_kubernetes_takes() {
        let inner = json!({"type": "boolean", "nullable": true});
        let rule = |text: &str| json!({"rule": text, "message": text});
        let expect = json!({
            "type": "object",
            "description": "What an object is.",
            "properties": {
                "count": {
                    "description": "A number of things.", "type": "integer", "nullable": true,
                    "minimum": 0, "maximum": u32::MAX,
                },
                "mode": {"type": "string", "enum": ["SECOND", "FIRST_ONE"]},
                "inner": {"type": "object", "properties": {"on": inner}, rule::RULES: [rule("b")]},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "inners": {"type": "object", "additionalProperties": {
                    "type": "object", "properties": {"on": inner}, rule::RULES: [rule("a")],
                }},
            },
        });
        let schema = of::<Sample>();
        assert_eq!(schema, expect, "{schema:#}");
        let leaves: Vec<String> = leaves(&schema).into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            leaves,
            ["count", "free", "inner.on", "inners.*.on", "labels", "mode"]
        );
    }
}
