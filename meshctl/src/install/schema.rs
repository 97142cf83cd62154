//! Values held against a chart's `values.schema.json`: the words of JSON Schema (draft 7) that our schemas use, which a
//! test keeps true. An error names the value as people write it in `--set`, and what would do. Pure.

use std::fmt::Write;

use regex::Regex;
use serde_json::Value;

/// Everything that is wrong, one line each.
pub fn check(schema: &Value, values: &Value, path: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    Check { root: schema }.value(schema, values, path, &mut wrong);
    wrong
}

struct Check<'a> {
    root: &'a Value,
}

impl Check<'_> {
    fn value(&self, schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str() {
            let target = name
                .strip_prefix('#')
                .and_then(|pointer| self.root.pointer(pointer));
            match target {
                Some(target) => self.value(target, value, path, wrong),
                None => wrong.push(format!("the schema has no {name}")),
            }
            return;
        }
        let place = if path.is_empty() { "the values" } else { path };
        if let Some(reason) = kind(&schema["type"], value).or_else(|| one_of(&schema["enum"], value)) {
            wrong.push(format!("{place}: {reason}"));
            return;
        }
        match value {
            Value::String(text) => {
                wrong.extend(plain_text(schema, text).map(|reason| format!("{place}: {reason}")))
            }
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(0.0);
                wrong.extend(bounds(schema, number).map(|reason| format!("{place}: {reason}")));
            }
            Value::Array(items) => {
                if schema["uniqueItems"] == true
                    && let Some(twice) = (1..items.len()).find(|at| items[..*at].contains(&items[*at]))
                {
                    wrong.push(format!("{path}[{twice}]: {} is there twice", items[twice]));
                }
                for (index, item) in items.iter().enumerate().filter(|_| schema["items"].is_object()) {
                    self.value(&schema["items"], item, &format!("{path}[{index}]"), wrong);
                }
            }
            Value::Object(_) => self.fields(schema, value, path, wrong),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn fields(&self, schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
        let below = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if value.get(name).is_none() {
                wrong.push(format!("{}: missing", below(name)));
            }
        }
        for (name, field) in value.as_object().into_iter().flatten() {
            let path = below(name);
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(schema), _) => self.value(schema, field, &path, wrong),
                (None, Value::Bool(false)) => {
                    let known = schema["properties"].as_object().into_iter().flatten();
                    let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
                    wrong.push(format!(
                        "{path}: there is no such value; there are: {}",
                        known.join(", ")
                    ));
                }
                (None, others @ Value::Object(_)) => self.value(others, field, &path, wrong),
                (None, _) => {}
            }
        }
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn kind(wanted: &Value, value: &Value) -> Option<String> {
    let wanted: Vec<&str> = match wanted {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let is = name_of(value);
    let fits = wanted.contains(&is) || (is == "integer" && wanted.contains(&"number"));
    (!fits).then(|| format!("{value} is {is}, wanted is {}", wanted.join(" or ")))
}

fn one_of(wanted: &Value, value: &Value) -> Option<String> {
    let wanted = wanted.as_array()?;
    if wanted.contains(value) {
        return None;
    }
    let mut text = format!("{value} is none of");
    for (index, one) in wanted.iter().enumerate() {
        let _ = write!(text, "{} {one}", if index == 0 { "" } else { "," });
    }
    Some(text)
}

fn plain_text(schema: &Value, text: &str) -> Option<String> {
    if let Some(longest) = schema["maxLength"].as_u64()
        && text.chars().count() as u64 > longest
    {
        return Some(format!("{text:?} has more than {longest} characters"));
    }
    let pattern = schema["pattern"].as_str()?;
    match Regex::new(pattern) {
        Ok(regex) if regex.is_match(text) => None,
        Ok(_) => Some(match schema["description"].as_str() {
            Some(what) => format!("{text:?} is not {what}"),
            None => format!("{text:?} does not look like {pattern}"),
        }),
        Err(error) => Some(format!("the schema's pattern {pattern} is wrong: {error}")),
    }
}

fn bounds(schema: &Value, number: f64) -> Option<String> {
    let least = schema["minimum"].as_f64().filter(|least| number < *least);
    let most = schema["maximum"].as_f64().filter(|most| number > *most);
    least
        .map(|least| format!("{number} is below {least}"))
        .or_else(|| most.map(|most| format!("{number} is above {most}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::install::chart::{BASE, CONTROL, GATEWAY};

    #[test]
    fn what_fits_and_what_does_not() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["n"],
            "definitions": {"name": {"type": "string", "pattern": "^[a-z]*$", "maxLength": 3}},
            "properties": {
                "n": {"type": "integer", "minimum": 1, "maximum": 9},
                "f": {"type": ["number", "string"]},
                "e": {"enum": ["a", "b"]},
                "l": {"type": "array", "items": {"$ref": "#/definitions/name"}},
                "m": {"type": "object", "additionalProperties": {"type": "boolean"}},
                "o": {"type": "object"},
                "u": {"type": "array", "uniqueItems": true},
                "q": {"type": "string", "pattern": "^[0-9]+$", "description": "a number of digits"}
            }
        });
        let told = |values: Value| check(&schema, &values, "");
        assert_eq!(
            told(json!({"n": 1, "f": 1, "e": "b", "l": ["abc"], "m": {"x": true}, "o": {"y": 1}})),
            [""; 0]
        );
        for (values, expect) in [
            (json!({}), "n: missing"),
            (json!({"n": 0}), "n: 0 is below 1"),
            (json!({"n": 10}), "n: 10 is above 9"),
            (json!({"n": "1"}), "n: \"1\" is string, wanted is integer"),
            (
                json!({"n": 1, "f": true}),
                "f: true is boolean, wanted is number or string",
            ),
            (json!({"n": 1, "e": "c"}), "e: \"c\" is none of \"a\", \"b\""),
            (
                json!({"n": 1, "l": ["a", "abcd"]}),
                "l[1]: \"abcd\" has more than 3 characters",
            ),
            (
                json!({"n": 1, "l": ["A"]}),
                "l[0]: \"A\" does not look like ^[a-z]*$",
            ),
            (
                json!({"n": 1, "m": {"x": 1}}),
                "m.x: 1 is integer, wanted is boolean",
            ),
            (json!({"n": 1, "u": [1, 2, 1]}), "u[2]: 1 is there twice"),
            (
                json!({"n": 1, "q": "lots"}),
                "q: \"lots\" is not a number of digits",
            ),
            (
                json!({"n": 1, "x": 1}),
                "x: there is no such value; there are: e, f, l, m, n, o, q, u",
            ),
        ] {
            assert_eq!(told(values.clone()), [expect], "{values}");
        }
    }

    /// A word that is not understood would be a rule that holds in Helm alone.
    #[test]
    fn our_schemas_use_only_words_that_are_understood() {
        fn walk(schema: &Value, is_names: bool) {
            for (word, below) in schema.as_object().into_iter().flatten() {
                let known = [
                    "$schema",
                    "$ref",
                    "title",
                    "type",
                    "enum",
                    "definitions",
                    "properties",
                    "additionalProperties",
                    "required",
                    "items",
                    "minimum",
                    "maximum",
                    "pattern",
                    "maxLength",
                    "description",
                    "uniqueItems",
                ];
                assert!(is_names || known.contains(&word.as_str()), "{word}");
                walk(
                    below,
                    !is_names && ["definitions", "properties"].contains(&word.as_str()),
                );
            }
        }
        for chart in [&BASE, &CONTROL, &GATEWAY] {
            let schema: Value = serde_json::from_str(chart.schema.1).unwrap();
            walk(&schema, false);
            let values: Value = serde_saphyr::from_str(chart.values.1).unwrap();
            assert_eq!(check(&schema, &values, ""), [""; 0], "{}", chart.name);
        }
    }
}
