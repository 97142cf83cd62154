//! The vocabulary of constraints: what a type says about its fields beyond their form, as Kubernetes' API server checks
//! it at `kubectl apply`. Types name these in their `#[schemars(…)]` attributes.
//!
//! Two means are used. CEL rules ([`cel`] and those built on it) carry a message of their own, but the API server adds up
//! what they may cost in the worst case and refuses definitions above a budget. [`one_of`], [`any_of`] and [`both`] are plain
//! schema and cost nothing; they are used deep inside of lists that have no bound, and where the budget is used up.

use schemars::Schema;
use serde_json::{Value, json};

/// Of the array of CEL rules of an object or a value.
pub const RULES: &str = "x-kubernetes-validations";

/// What holds, and what is told when it does not.
pub fn cel(rule: impl Into<String>, message: impl Into<String>) -> Value {
    json!({"rule": rule.into(), "message": message.into()})
}

/// At most one of these fields is there.
pub fn at_most_one(fields: &[&str]) -> Value {
    let rule = match fields {
        [one, other] => format!("!(has(self.{one}) && has(self.{other}))"),
        fields => format!("{} <= 1", count(fields)),
    };
    cel(rule, format!("only one of {} can be set", list(fields)))
}

/// At least one of these fields is there.
pub fn at_least_one(fields: &[&str]) -> Value {
    let said: Vec<String> = fields.iter().map(|field| format!("has(self.{field})")).collect();
    cel(
        said.join(" || "),
        format!("at least one of {} must be set", list(fields)),
    )
}

/// One of these fields is there, and no other.
pub fn just_one(fields: &[&str]) -> Value {
    cel(
        format!("{} == 1", count(fields)),
        format!("exactly one of {} must be set", list(fields)),
    )
}

/// `field` is there only together with `other`.
pub fn needs(field: &str, other: &str) -> Value {
    cel(
        format!("!has(self.{field}) || has(self.{other})"),
        format!("{field} needs {other}"),
    )
}

fn count(fields: &[&str]) -> String {
    let said: Vec<String> = fields
        .iter()
        .map(|field| format!("(has(self.{field}) ? 1 : 0)"))
        .collect();
    said.join(" + ")
}

fn list(fields: &[&str]) -> String {
    match fields {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// As [`at_most_one`], for the keyword `oneOf`.
pub fn one_of(fields: &[&str]) -> Value {
    let required: Vec<Value> = fields.iter().map(|field| json!({"required": [field]})).collect();
    let mut choices = vec![json!({"not": {"anyOf": required}})];
    choices.extend(required);
    Value::Array(choices)
}

/// As [`at_least_one`], for the keyword `anyOf`.
pub fn any_of(fields: &[&str]) -> Value {
    fields.iter().map(|field| json!({"required": [field]})).collect()
}

/// As [`at_most_one`] of two, for the keyword `not`.
pub fn both(one: &str, other: &str) -> Value {
    json!({"required": [one, other]})
}

/// A duration of a millisecond or more; in its absence a duration may be zero.
pub fn positive(schema: &mut Schema) {
    schema.remove("pattern");
    let rule = cel(
        "duration(self) >= duration('1ms')",
        "must be a duration of at least 1ms, such as 250ms, 5s or 1m30s",
    );
    schema.insert(RULES.to_owned(), json!([rule]));
}

/// 1 to 65535.
pub fn port(schema: &mut Schema) {
    within(schema, 1, 65_535);
}

/// As [`port`], where 0 stands for "not said".
pub fn port_or_none(schema: &mut Schema) {
    within(schema, 0, 65_535);
}

/// Both ends included.
fn within(schema: &mut Schema, least: u32, most: u32) {
    schema.insert("minimum".to_owned(), json!(least));
    schema.insert("maximum".to_owned(), json!(most));
}

/// Labels that select: short, and without wildcards.
pub fn selecting_labels(schema: &mut Schema) {
    let object = schema.ensure_object();
    object.insert("maxProperties".to_owned(), json!(4096));
    object.insert(
        RULES.to_owned(),
        json!([
            cel(
                "self.all(key, !key.contains('*'))",
                "a label's name cannot have wildcards"
            ),
            cel("self.all(key, key.size() != 0)", "a label's name cannot be empty"),
        ]),
    );
    object.insert(
        "additionalProperties".to_owned(),
        json!({
            "type": "string",
            "maxLength": 63,
            RULES: [cel("!self.contains('*')", "a label's value cannot have wildcards")],
        }),
    );
}

/// No more properties than these.
pub fn at_most_256_properties(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), json!(256));
}

/// Names of ports and their numbers.
pub fn named_ports(schema: &mut Schema) {
    let object = schema.ensure_object();
    object.insert("maxProperties".to_owned(), json!(128));
    object.insert(
        RULES.to_owned(),
        json!([cel(
            "self.all(key, size(key) < 63 && key.matches('^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$'))",
            "a port's name has up to 62 letters, digits and '-', with a letter or digit at both ends",
        )]),
    );
    object.insert(
        "additionalProperties".to_owned(),
        json!({"type": "integer", "minimum": 1, "maximum": 65_535}),
    );
}

/// Elements of the list are not empty.
pub fn no_empty_elements(schema: &mut Schema) {
    if let Some(items) = schema
        .ensure_object()
        .get_mut("items")
        .and_then(Value::as_object_mut)
    {
        items.insert("minLength".to_owned(), json!(1));
    }
}

/// The old name of a field, which Istio's schema knows beside the current one.
pub fn also_named(schema: &mut Schema, name: &str, old: &str) {
    let properties = schema
        .ensure_object()
        .get_mut("properties")
        .and_then(Value::as_object_mut);
    if let Some(properties) = properties
        && let Some(property) = properties.get(name).cloned()
    {
        properties.insert(old.to_owned(), property);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_sentences() {
        let check = |rule: Value, expression: &str, message: &str| {
            assert_eq!(rule, json!({"rule": expression, "message": message}));
        };
        check(
            at_most_one(&["a", "b"]),
            "!(has(self.a) && has(self.b))",
            "only one of a or b can be set",
        );
        check(
            at_most_one(&["a", "b", "c"]),
            "(has(self.a) ? 1 : 0) + (has(self.b) ? 1 : 0) + (has(self.c) ? 1 : 0) <= 1",
            "only one of a, b or c can be set",
        );
        check(
            at_least_one(&["a", "b", "c"]),
            "has(self.a) || has(self.b) || has(self.c)",
            "at least one of a, b or c must be set",
        );
        check(needs("a", "b"), "!has(self.a) || has(self.b)", "a needs b");
    }

    #[test]
    fn choices() {
        assert_eq!(
            one_of(&["a", "b"]),
            json!([
                {"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
                {"required": ["a"]},
                {"required": ["b"]}
            ])
        );
    }
}
