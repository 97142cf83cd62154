//! Envoy's JSON and YAML, both ways: a bootstrap file becomes the protobuf message it stands for, and a message becomes
//! the JSON that `config_dump` shows, with `Any`s opened.
//!
//! The mapping is protobuf's own (<https://protobuf.dev/programming-guides/json/>), by reflection over the descriptors
//! that the `envoy-types` package ships. Those are large, so nothing of them stays in memory: each call makes a
//! [`Types`] of only the files that its messages need ([`files`]), and drops it.
//!
//! An error names the field by its path, such as `static_resources.listeners[0].adress`. Duplicate keys, unknown fields
//! and values of the wrong type are errors; that is what users of Envoy expect of `--mode validate`.

pub mod files;
mod locate;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use prost::{Message, Name};
use prost_reflect::{DeserializeOptions, DynamicMessage, ReflectMessage, SerializeOptions, Value as Field};
use serde_json::Value;

pub use files::Types;

use crate::pb::google::protobuf::Any;

/// Why a text is not the message it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{why}", .path, if .path.is_empty() { "" } else { ": " })]
pub struct JsonError {
    /// Such as `static_resources.clusters[2].load_assignment`; empty for the whole.
    pub path: String,
    pub why: String,
}

impl JsonError {
    fn new(path: impl Into<String>, why: impl ToString) -> Self {
        Self {
            path: path.into(),
            why: why.to_string(),
        }
    }
}

/// YAML (or JSON, which is YAML) as a JSON value. The error has line and column. As in YAML 1.2, only `true` and
/// `false` are booleans: a cluster may be called `no`.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    // JSON of that size parses much faster as what it is.
    if text.trim_start().starts_with('{')
        && let Ok(json) = serde_json::from_str(text)
    {
        return Ok(json);
    }
    // Large configurations are usual; depth and aliases stay bounded.
    let mut budget = serde_saphyr::Budget::default();
    budget.max_events = 20_000_000;
    budget.max_nodes = 10_000_000;
    let options = serde_saphyr::options! { strict_booleans: true, budget: Some(budget) };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| JsonError::new("", error))
}

/// A message from its JSON.
pub fn from_value<M: Message + Name + Default>(json: &Value) -> Result<M, JsonError> {
    let mut roots = BTreeSet::from([M::full_name()]);
    named_types(json, &mut roots);
    let types = Types::of(roots.iter().map(String::as_str)).map_err(|error| JsonError::new("", error))?;
    let message = dynamic(&types, &M::full_name(), json)?;
    M::decode(message.encode_to_vec().as_slice()).map_err(|error| JsonError::new("", error))
}

/// A message from YAML or JSON text.
pub fn from_text<M: Message + Name + Default>(text: &str) -> Result<M, JsonError> {
    from_value(&parse(text)?)
}

fn dynamic(types: &Types, name: &str, json: &Value) -> Result<DynamicMessage, JsonError> {
    let Some(descriptor) = types.message(name) else {
        return Err(JsonError::new("", format!("{name} is not a type of Envoy's API")));
    };
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), json, &options).map_err(|error| {
        locate::locate(types, &descriptor, json).unwrap_or_else(|| JsonError::new("", error))
    })
}

/// The types that `@type`s name, at any depth.
fn named_types(json: &Value, into: &mut BTreeSet<String>) {
    match json {
        Value::Object(map) => {
            if let Some(Value::String(url)) = map.get("@type") {
                into.insert(type_name(url).to_owned());
            }
            map.values().for_each(|value| named_types(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| named_types(value, into)),
        _ => {}
    }
}

/// `type.googleapis.com/a.b.C` to `a.b.C`
pub fn type_name(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

/// A message as JSON with the API's own field names.
pub fn to_value<M: Message + Name>(message: &M) -> Result<Value, JsonError> {
    any_to_value(&Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    })
    .map(|mut json| {
        if let Value::Object(map) = &mut json {
            map.remove("@type");
        }
        json
    })
}

/// An `Any` as JSON with its `@type`.
pub fn any_to_value(any: &Any) -> Result<Value, JsonError> {
    Writer::default().any(any)
}

/// Writes messages as JSON; what it learned of the types is kept for the next one, as long as it lives.
#[derive(Default)]
pub struct Writer {
    types: Types,
}

impl Writer {
    /// An `Any` as JSON with its `@type`. A type that is not of Envoy's API is shown as its name and size.
    pub fn any(&mut self, any: &Any) -> Result<Value, JsonError> {
        let error = |why: String| JsonError::new("", why);
        let Some(mut message) = self.open(&any.type_url, &any.value)? else {
            return Ok(closed(&any.type_url, any.value.len()));
        };
        self.learn(&mut message)?;
        // Types may have been added since: read it again with all of them.
        let Some(mut message) = self.open(&any.type_url, &any.value)? else {
            return Ok(closed(&any.type_url, any.value.len()));
        };
        close_unknown(&self.types, &mut message).map_err(|e| error(e.to_string()))?;
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false);
        let mut json = message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|e| error(e.to_string()))?;
        if let Value::Object(map) = &mut json {
            let mut typed = serde_json::Map::with_capacity(map.len() + 1);
            typed.insert("@type".to_owned(), any.type_url.clone().into());
            typed.append(map);
            return Ok(Value::Object(typed));
        }
        Ok(json)
    }

    fn open(&mut self, url: &str, bytes: &[u8]) -> Result<Option<DynamicMessage>, JsonError> {
        let name = type_name(url);
        self.types
            .add([name])
            .map_err(|error| JsonError::new("", error))?;
        let Some(descriptor) = self.types.message(name) else {
            return Ok(None);
        };
        DynamicMessage::decode(descriptor, bytes)
            .map(Some)
            .map_err(|error| JsonError::new("", error))
    }

    /// Adds the types of every `Any` inside, at any depth.
    fn learn(&mut self, message: &mut DynamicMessage) -> Result<(), JsonError> {
        let mut inside = Vec::new();
        each_any(message, &mut |url, bytes| inside.push((url, bytes)));
        for (url, bytes) in inside {
            if let Some(mut message) = self.open(&url, &bytes)? {
                self.learn(&mut message)?;
            }
        }
        Ok(())
    }
}

fn closed(url: &str, bytes: usize) -> Value {
    serde_json::json!({"@type": url, "bytes": bytes})
}

/// Calls `found` with type URL and bytes of the outermost `Any`s inside.
fn each_any(message: &DynamicMessage, found: &mut dyn FnMut(String, Vec<u8>)) {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        let (url, bytes) = any_parts(message);
        return found(url, bytes);
    }
    for (_, value) in message.fields() {
        each_message(value, &mut |message| each_any(message, found));
    }
}

fn any_parts(message: &DynamicMessage) -> (String, Vec<u8>) {
    let url = message
        .get_field_by_number(1)
        .and_then(|value| value.as_str().map(str::to_owned));
    let bytes = message
        .get_field_by_number(2)
        .and_then(|value| value.as_bytes().map(|bytes| bytes.to_vec()));
    (url.unwrap_or_default(), bytes.unwrap_or_default())
}

fn each_message(value: &Field, call: &mut dyn FnMut(&DynamicMessage)) {
    match value {
        Field::Message(message) => call(message),
        Field::List(list) => list.iter().for_each(|value| each_message(value, call)),
        Field::Map(map) => map.values().for_each(|value| each_message(value, call)),
        _ => {}
    }
}

/// An `Any` of an unknown type cannot be written as JSON: a `Struct` that tells of it takes its place.
fn close_unknown(types: &Types, message: &mut DynamicMessage) -> Result<(), prost::DecodeError> {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        let (url, bytes) = any_parts(message);
        let bytes = match types.message(type_name(&url)) {
            Some(descriptor) => {
                let mut inner = DynamicMessage::decode(descriptor, bytes.as_slice())?;
                close_unknown(types, &mut inner)?;
                inner.encode_to_vec()
            }
            None => {
                let told = crate::node::to_proto(serde_json::json!({"type_url": url, "bytes": bytes.len()}));
                let crate::pb::google::protobuf::value::Kind::StructValue(told) = told
                    .kind
                    .unwrap_or(crate::pb::google::protobuf::value::Kind::NullValue(0))
                else {
                    return Ok(());
                };
                message.set_field_by_number(
                    1,
                    Field::String("type.googleapis.com/google.protobuf.Struct".into()),
                );
                told.encode_to_vec()
            }
        };
        message.set_field_by_number(2, Field::Bytes(bytes.into()));
        return Ok(());
    }
    for (_, value) in message.fields_mut() {
        close_value(types, value)?;
    }
    Ok(())
}

fn close_value(types: &Types, value: &mut Field) -> Result<(), prost::DecodeError> {
    match value {
        Field::Message(message) => close_unknown(types, message),
        Field::List(list) => list.iter_mut().try_for_each(|value| close_value(types, value)),
        Field::Map(map) => map.values_mut().try_for_each(|value| close_value(types, value)),
        _ => Ok(()),
    }
}

/// The name of a field by its number, for messages about a field that is set but not understood.
pub fn field_name(message: &str, number: u32) -> Option<String> {
    let types = Types::of([message]).ok()?;
    Some(types.message(message)?.get_field(number)?.name().to_owned())
}
