//! Where in a JSON value is the field that does not fit? Only asked after the whole has been refused: each field is
//! tried alone, and the first one that fails is followed down.

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::{JsonError, Types, type_name};

/// The first field that fails, by path; nothing if each one alone is fine.
pub fn locate(types: &Types, message: &MessageDescriptor, json: &Value) -> Option<JsonError> {
    let Value::Object(map) = json else {
        return Some(JsonError::new(
            "",
            format!("should be an object of {}", message.full_name()),
        ));
    };
    if message.full_name() == "google.protobuf.Any" {
        return any(types, map);
    }
    map.iter().find_map(|(key, value)| {
        let Some(field) = message
            .get_field_by_name(key)
            .or_else(|| message.get_field_by_json_name(key))
        else {
            return Some(JsonError::new(
                key,
                format!("{} has no such field", message.full_name()),
            ));
        };
        let error = try_alone(message, key, value)?;
        Some(inside(types, &field, key, value).unwrap_or_else(|| JsonError::new(key, error)))
    })
}

fn try_alone(message: &MessageDescriptor, key: &str, value: &Value) -> Option<String> {
    let alone = Value::Object(Map::from_iter([(key.to_owned(), value.clone())]));
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(message.clone(), &alone, &options)
        .err()
        .map(|error| error.to_string())
}

/// The place inside a field's value.
fn inside(types: &Types, field: &FieldDescriptor, key: &str, value: &Value) -> Option<JsonError> {
    let Kind::Message(message) = field.kind() else {
        return None;
    };
    let under = |prefix: String, error: JsonError| {
        let dot = if error.path.is_empty() || error.path.starts_with('[') {
            ""
        } else {
            "."
        };
        JsonError::new(format!("{prefix}{dot}{}", error.path), error.why)
    };
    if field.is_map() {
        let Kind::Message(message) = message.map_entry_value_field().kind() else {
            return None;
        };
        let Value::Object(map) = value else { return None };
        return map.iter().find_map(|(entry, value)| {
            one(types, &message, value).map(|error| under(format!("{key}[{entry:?}]"), error))
        });
    }
    match value {
        Value::Array(list) if field.is_list() => list.iter().enumerate().find_map(|(n, value)| {
            one(types, &message, value).map(|error| under(format!("{key}[{n}]"), error))
        }),
        _ => one(types, &message, value).map(|error| under(key.to_owned(), error)),
    }
}

/// One message value: fine, or the place in it.
fn one(types: &Types, message: &MessageDescriptor, value: &Value) -> Option<JsonError> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let error = DynamicMessage::deserialize_with_options(message.clone(), value, &options).err()?;
    let leaf = message.full_name().starts_with("google.protobuf.") && !message.full_name().ends_with(".Any");
    let deeper = if leaf { None } else { locate(types, message, value) };
    Some(deeper.unwrap_or_else(|| JsonError::new("", error)))
}

fn any(types: &Types, map: &Map<String, Value>) -> Option<JsonError> {
    let Some(Value::String(url)) = map.get("@type") else {
        return Some(JsonError::new(
            "@type",
            "is missing: it names the type of this configuration",
        ));
    };
    let Some(message) = types.message(type_name(url)) else {
        return Some(JsonError::new(
            "@type",
            format!("{url} is not a type of Envoy's API"),
        ));
    };
    let rest: Map<String, Value> = map
        .iter()
        .filter(|(key, _)| *key != "@type")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    match rest
        .get("value")
        .filter(|_| message.full_name().starts_with("google.protobuf."))
    {
        Some(value) => one(types, &message, value),
        None => one(types, &message, &Value::Object(rest)),
    }
}
