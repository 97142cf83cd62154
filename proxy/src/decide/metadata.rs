//! Does what earlier filters have found out about a request match a rule? What there is: the claims of verified tokens.

use serde_json::Value;

use super::{facts::Facts, jwt, matching};
use crate::config::metadata::{MetadataMatch, ValueMatch};

pub fn matches(rule: &MetadataMatch, facts: &Facts<'_>) -> bool {
    value(&rule.value, found(rule, facts)) != rule.invert
}

fn found<'f>(rule: &MetadataMatch, facts: &Facts<'f>) -> Option<&'f Value> {
    if &*rule.filter != jwt::METADATA {
        return None;
    }
    let (key, rest) = rule.path.split_first()?;
    // Of two tokens under one name the later one counts.
    let kept = facts.tokens.iter().rev().find(|kept| *kept.key == **key)?;
    rest.iter()
        .try_fold(&kept.token.claims, |value, name| value.get(&**name))
}

fn value(rule: &ValueMatch, found: Option<&Value>) -> bool {
    match rule {
        ValueMatch::Present(want) => found.is_some() == *want,
        ValueMatch::Null => found.is_some_and(Value::is_null),
        ValueMatch::Number(want) => found
            .and_then(Value::as_f64)
            .is_some_and(|number| number == *want),
        ValueMatch::Numbers(range) => found
            .and_then(Value::as_f64)
            .is_some_and(|number| range.contains(&number)),
        ValueMatch::Text(rule) => found
            .and_then(Value::as_str)
            .is_some_and(|text| matching::string(rule, text.as_bytes())),
        ValueMatch::Bool(want) => found.and_then(Value::as_bool) == Some(*want),
        ValueMatch::OneOf(rule) => found
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|one| value(rule, Some(one)))),
        ValueMatch::AnyOf(rules) => rules.iter().any(|rule| value(rule, found)),
    }
}
