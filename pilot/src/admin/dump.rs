//! `/debug/config_dump`: every resource of one proxy, as JSON in Envoy's field names, with its version and whether the
//! proxy accepted it. Private keys are left out.

use axum::{http::StatusCode, response::Response};
use mesh_proto::{
    envoy_json,
    xds::{Encoded, Type, server::Standing},
};
use serde_json::{Value, json};

use super::{Wanted, answer, refuse};
use crate::push::Hub;

pub fn page(hub: &Hub, wanted: &Wanted) -> Response {
    let Some(name) = &wanted.proxy else {
        return refuse(StatusCode::BAD_REQUEST, "say ?proxyID=pod.namespace");
    };
    let Some(proxy) = hub.proxy(name) else {
        let known: Vec<String> = hub.proxies().iter().map(|proxy| proxy.name()).collect();
        return refuse(
            StatusCode::NOT_FOUND,
            format!("no proxy {name:?} is connected; there are: {}", known.join(", ")),
        );
    };
    let (catalog, sequence) = hub.catalog(&proxy.class());
    let mut types = serde_json::Map::new();
    for kind in Type::ALL {
        let resources: Vec<Value> = catalog[kind.index()]
            .iter()
            .map(|resource| {
                let standing = proxy.with_session(|session| {
                    let versions = session.subscription(kind).versions();
                    let mut own = versions.filter(|(name, ..)| **name == resource.name);
                    own.next().map(|(_, version, standing)| (version, standing))
                });
                let state = match standing {
                    None => "NOT SENT",
                    Some((version, _)) if version != resource.version => "STALE",
                    Some((_, Standing::Sent)) => "SENT",
                    Some((_, Standing::Accepted)) => "ACCEPTED",
                    Some((_, Standing::Rejected)) => "REJECTED",
                };
                json!({
                    "name": &*resource.name,
                    "version": resource.version.to_string(),
                    "state": state,
                    "resource": body(resource),
                })
            })
            .collect();
        types.insert(kind.short().to_owned(), resources.into());
    }
    answer(&json!({ "proxy": name, "nodeID": proxy.id.to_string(), "snapshot": sequence, "types": types }))
}

fn body(resource: &Encoded) -> Value {
    if resource.kind == Type::NameTable {
        return name_table(resource);
    }
    match envoy_json::any_to_value(&resource.any()) {
        Ok(mut value) => {
            if resource.kind == Type::Secret {
                redact(&mut value);
            }
            value
        }
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn name_table(resource: &Encoded) -> Value {
    use prost::Message;
    match mesh_proto::nds::NameTable::decode(resource.body.clone()) {
        Ok(table) => {
            let names = table
                .table
                .into_iter()
                .map(|(name, info)| (name, json!(info.ips)));
            names.collect::<serde_json::Map<_, _>>().into()
        }
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// Takes every private key out.
fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "private_key" || key == "privateKey" {
                    *value = json!("[redacted]");
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        _ => {}
    }
}
