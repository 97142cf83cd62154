//! `/listeners` and `/connections`.

use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use super::{Admin, Query};
use crate::{conn::track::Note, observe::stats::Value};

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

/// Connections that are listed if nobody says otherwise.
const LISTED: usize = 1000;

/// What is open now: the gauges, then the connections one by one, the oldest first.
pub async fn connections(admin: &Admin, query: Query) -> Response {
    let most = match query.get("limit").map(|text| text.parse()).transpose() {
        Ok(limit) => limit.unwrap_or(LISTED),
        Err(error) => return super::bad_request(format!("limit: {error}")),
    };
    let (notes, more) = admin.connections.list(most);
    let mut counts = counts(admin);
    counts.sort();
    if query.wants_json() {
        let open: serde_json::Map<String, Json> = counts
            .into_iter()
            .map(|(object, open)| (object, open.into()))
            .collect();
        let list: Vec<Json> = notes.iter().map(describe).collect();
        return super::json(&json!({"open": open, "connections": list, "not_listed": more}));
    }
    let mut text: String = counts
        .iter()
        .map(|(object, open)| format!("{object}: {open}\n"))
        .collect();
    for note in &notes {
        text.push_str(&line(note));
    }
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text.into_response()
}

/// Open connections by object, from the gauges.
fn counts(admin: &Admin) -> Vec<(String, i64)> {
    let mut counts = Vec::new();
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
            counts.push((object.to_owned(), *open));
        }
    }
    counts
}

fn describe(note: &Note) -> Json {
    let facts = &note.facts;
    let tls = facts.tls.as_ref().map(|tls| {
        json!({
            "version": tls.version,
            "alpn": tls.alpn.as_deref(),
            "peer": tls.peer_uris.first().map(|uri| &**uri),
        })
    });
    json!({
        "id": facts.connection_id,
        "worker": note.worker,
        "listener": &*note.listener,
        "filter_chain": &*note.chain,
        "kind": note.kind,
        "remote": facts.remote.to_string(),
        "local": facts.local.to_string(),
        "server_name": facts.server_name.as_deref(),
        "tls": tls,
        "seconds": note.since.elapsed().as_secs(),
    })
}

fn line(note: &Note) -> String {
    let Note {
        facts,
        listener,
        chain,
        kind,
        ..
    } = note;
    let tls = match &facts.tls {
        None => "plaintext".to_owned(),
        Some(tls) => {
            let peer = tls.peer_uris.first().map_or("", |uri| uri);
            format!("{} {peer}", tls.version)
        }
    };
    let (id, seconds) = (facts.connection_id, note.since.elapsed().as_secs());
    format!(
        "{id} {kind} {} -> {} {listener} {chain} {} {seconds}s\n",
        facts.remote,
        facts.local,
        tls.trim_end()
    )
}
