//! `/config_dump`: the configuration as it was received, in Envoy's JSON, with versions, times and refusals; private keys
//! are left out. `/init_dump`: what is not in force yet.

use std::time::SystemTime;

use axum::response::Response;
use bytes::Bytes;
use mesh_proto::{envoy_json, pb::google::protobuf::Any, xds::Type};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Admin, Query, bad_request};
use crate::store::{Failure, Ledger, Row, State};

const MAX_REGEX: usize = 1 << 20;
const REDACTED: &str = "[redacted]";

/// Which part of the dump is wanted.
struct Wish {
    /// `dynamic_active_clusters` and the like: only that list, its entries as the configs themselves.
    resource: Option<String>,
    name: Option<Regex>,
    eds: bool,
}

pub async fn page(admin: &Admin, query: Query) -> Response {
    let name = query
        .get("name_regex")
        .map(|text| RegexBuilder::new(&text).size_limit(MAX_REGEX).build())
        .transpose();
    let wish = match name {
        Ok(name) => Wish {
            resource: query.get("resource"),
            name,
            eds: query.get("include_eds").is_some(),
        },
        Err(error) => return bad_request(format!("name_regex: {error}")),
    };
    if query.get("mask").is_some() {
        return bad_request("mask is not supported: use resource= and name_regex=");
    }
    let ledger = admin.store.ledger(|ledger| ledger.clone());
    let mut configs = sections(&ledger, &wish);
    if let Some(list) = &wish.resource {
        let found = configs
            .iter_mut()
            .find_map(|section| section.get_mut(list.as_str()).map(Value::take));
        match found {
            Some(Value::Array(entries)) => configs = entries,
            _ => return bad_request(format!("there is no list {list:?} in the dump, or it is empty")),
        }
    }
    super::json(&json!({"configs": configs}))
}

fn sections(ledger: &Ledger, wish: &Wish) -> Vec<Value> {
    let mut writer = envoy_json::Writer::default();
    let mut configs = Vec::new();
    if let Some(bootstrap) = &ledger.bootstrap {
        let mut value = writer
            .any(bootstrap)
            .unwrap_or_else(|error| json!({"error": error.to_string()}));
        redact(&mut value);
        configs.push(json!({
            "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": value,
            "last_updated": ledger.bootstrap_read.map(time),
        }));
    }
    let mut kinds = vec![
        (Type::Cluster, "Clusters", "clusters", "cluster"),
        (Type::Listener, "Listeners", "listeners", "listener"),
        (Type::Route, "Routes", "route_configs", "route_config"),
        (Type::Secret, "Secrets", "secrets", "secret"),
    ];
    if wish.eds {
        kinds.insert(
            1,
            (Type::Endpoint, "Endpoints", "endpoint_configs", "endpoint_config"),
        );
    }
    for (kind, section, list, field) in kinds {
        configs.push(self::section(
            ledger,
            wish,
            &mut writer,
            kind,
            section,
            list,
            field,
        ));
    }
    configs
}

/// One section: static, active and warming resources in lists of their own.
fn section(
    ledger: &Ledger,
    wish: &Wish,
    writer: &mut envoy_json::Writer,
    kind: Type,
    section: &str,
    list: &str,
    field: &str,
) -> Value {
    let mut lists: Map<String, Value> = Map::new();
    for (name, row) in ledger.of(kind) {
        if wish.name.as_ref().is_some_and(|wanted| !wanted.is_match(name)) {
            continue;
        }
        let entry = entry(name, row, writer, kind, field);
        let place = match (kind, row.state) {
            (_, State::Static) => format!("static_{list}"),
            (Type::Listener, _) => format!("dynamic_{list}"),
            (Type::Route | Type::Endpoint, _) => format!("dynamic_{list}"),
            (_, State::Active) => format!("dynamic_active_{list}"),
            (_, State::Warming) => format!("dynamic_warming_{list}"),
        };
        if let Value::Array(entries) = lists.entry(place).or_insert_with(|| json!([])) {
            entries.push(entry);
        }
    }
    lists.insert(
        "@type".to_owned(),
        format!("type.googleapis.com/envoy.admin.v3.{section}ConfigDump").into(),
    );
    Value::Object(lists)
}

fn entry(name: &str, row: &Row, writer: &mut envoy_json::Writer, kind: Type, field: &str) -> Value {
    let mut state = Map::new();
    if row.is_taken() {
        if row.state != State::Static {
            state.insert("version_info".to_owned(), row.version.as_str().into());
        }
        state.insert(field.to_owned(), body(&row.body, writer, kind));
        state.insert("last_updated".to_owned(), time(row.updated).into());
    }
    let error = row.failure.as_ref().map(|failure| error(failure, writer, kind));
    // A dynamic listener's states are one level deeper, beside its name.
    if kind == Type::Listener && row.state != State::Static {
        let mut entry = Map::new();
        entry.insert("name".to_owned(), name.into());
        if !state.is_empty() {
            let place = if row.state == State::Active {
                "active_state"
            } else {
                "warming_state"
            };
            entry.insert(place.to_owned(), state.into());
        }
        entry.extend(error.map(|error| ("error_state".to_owned(), error)));
        return entry.into();
    }
    if kind == Type::Secret || !row.is_taken() {
        state.insert("name".to_owned(), name.into());
    }
    state.extend(error.map(|error| ("error_state".to_owned(), error)));
    state.into()
}

fn error(failure: &Failure, writer: &mut envoy_json::Writer, kind: Type) -> Value {
    json!({
        "failed_configuration": body(&failure.body, writer, kind),
        "last_update_attempt": time(failure.at),
        "details": failure.why,
        "version_info": failure.version,
    })
}

fn body(bytes: &Bytes, writer: &mut envoy_json::Writer, kind: Type) -> Value {
    let any = Any {
        type_url: kind.url().to_owned(),
        value: bytes.to_vec(),
    };
    let mut value = match writer.any(&any) {
        Ok(value) => value,
        Err(error) => json!({"@type": kind.url(), "error": error.to_string()}),
    };
    redact(&mut value);
    value
}

/// Hides what must not leave the process: keys and passwords, wherever they stand.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "private_key" | "password" | "session_ticket_keys" | "generic_secret" => hide(field),
                    _ => redact(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// A data source keeps its file's name; its content goes.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => fields
            .iter_mut()
            .filter(|(name, _)| *name != "filename")
            .for_each(|(_, field)| hide(field)),
        Value::Array(items) => items.iter_mut().for_each(hide),
        other => *other = REDACTED.into(),
    }
}

fn time(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// What was taken and is not in force.
pub async fn waiting(admin: &Admin, _: Query) -> Response {
    let unready: Vec<Value> = admin.store.ledger(|ledger| {
        let kinds = [Type::Cluster, Type::Route, Type::Listener];
        let rows = kinds.into_iter().flat_map(|kind| ledger.of(kind).map(move |(name, row)| (kind, name, row)));
        rows.filter(|(_, _, row)| row.state == State::Warming)
            .map(|(kind, name, row)| {
                json!({"type": kind.short(), "name": **name, "refused": row.failure.as_ref().map(|failure| failure.why.clone())})
            })
            .collect()
    });
    super::json(&json!({"unready_targets_dumps": unready, "waiting_for": admin.gates.waiting()}))
}
