//! `/listeners` and `/connections`.

use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use super::{Admin, Query};
use crate::observe::stats::Value;

pub async fn page(admin: &Admin, query: Query) -> Response {
    let snapshot = admin.store.snapshot();
    let mut listeners: Vec<_> = snapshot
        .listeners
        .values()
        .filter(|listener| listener.bind)
        .collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    if query.wants_json() {
        let statuses: Vec<Json> = listeners
            .iter()
            .map(|listener| {
                let address = json!({"address": listener.address.ip().to_string(), "port_value": listener.address.port()});
                json!({"name": *listener.name, "local_address": {"socket_address": address}})
            })
            .collect();
        return super::json(&json!({"listener_statuses": statuses}));
    }
    let lines = listeners
        .iter()
        .map(|listener| format!("{}::{}\n", listener.name, listener.address));
    lines.collect::<String>().into_response()
}

/// What is open now, from the gauges.
pub async fn connections(admin: &Admin, _: Query) -> Response {
    let mut lines = Vec::new();
    for sample in admin.stats.collect() {
        let name = sample.text_name();
        let side = if name.starts_with("listener.") {
            name.strip_suffix(".downstream_cx_active")
        } else if name.starts_with("cluster.") {
            name.strip_suffix(".upstream_cx_active")
        } else {
            None
        };
        if let (Some(object), Value::Gauge(open)) = (side, &sample.value)
            && *open != 0
        {
            lines.push(format!("{object}: {open}\n"));
        }
    }
    lines.sort();
    lines.concat().into_response()
}
