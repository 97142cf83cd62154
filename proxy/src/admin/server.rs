//! Pages about the process: state, version, memory, logs; and those that end something.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use mesh_proto::envoy_json;
use mesh_runtime::build;
use serde_json::{Value, json};

use super::{Admin, Command, Query, bad_request, seconds};

/// Envoy's words: LIVE, DRAINING, INITIALIZING.
fn state(admin: &Admin) -> &'static str {
    if admin.store.is_closed() {
        "DRAINING"
    } else if admin.gates.ready() {
        "LIVE"
    } else {
        "INITIALIZING"
    }
}

pub async fn ready(admin: &Admin, _: Query) -> Response {
    match state(admin) {
        "LIVE" => "LIVE\n".into_response(),
        other => {
            let waiting = admin.gates.waiting();
            let text = if waiting.is_empty() {
                String::new()
            } else {
                format!("waiting for {}\n", waiting.join(", "))
            };
            (StatusCode::SERVICE_UNAVAILABLE, format!("{other}\n{text}")).into_response()
        }
    }
}

/// For kubelets and load balancers.
pub async fn healthy(admin: &Admin, query: Query) -> Response {
    ready(admin, query).await
}

pub async fn info(admin: &Admin, _: Query) -> Response {
    let uptime = seconds(admin.stats.uptime());
    let node = admin
        .node
        .as_deref()
        .and_then(|node| envoy_json::to_value(node).ok())
        .unwrap_or(Value::Null);
    super::json(&json!({
        "version": format!("gossamer/{}", build::VERSION),
        "state": state(admin),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {
            "service_node": admin.node.as_ref().map(|node| node.id.clone()).unwrap_or_default(),
            "service_cluster": admin.node.as_ref().map(|node| node.cluster.clone()).unwrap_or_default(),
            "log_level": admin.log.current(),
        },
        "node": node,
        "waiting_for": admin.gates.waiting(),
    }))
}

/// Resident memory stands for Envoy's `allocated`: the allocator is not asked.
pub async fn memory(_: &Admin, _: Query) -> Response {
    let resident = super::stats::resident_bytes();
    super::json(&json!({"allocated": resident.to_string(), "heap_size": resident.to_string()}))
}

pub async fn level(admin: &Admin, _: Query) -> Response {
    format!("active loggers:\n  mesh-proxy: {}\n", admin.log.current()).into_response()
}

/// `?level=debug` for everything, `?mesh_proxy::xds=debug` for a part, `?paths=a:debug,b:info` for several.
pub async fn set_level(admin: &Admin, query: Query) -> Response {
    let mut directives = Vec::new();
    for (key, value) in query.pairs() {
        match key.as_str() {
            "level" => directives.insert(0, value),
            "paths" => directives.extend(value.split(',').map(|path| path.replacen(':', "=", 1))),
            part => directives.push(format!("{part}={value}")),
        }
    }
    if directives.is_empty() {
        return level(admin, query).await;
    }
    if query.get("level").is_none() {
        directives.insert(0, admin.log.current());
    }
    match admin.log.set(&directives.join(",")) {
        Ok(()) => level(admin, query).await,
        Err(error) => bad_request(error),
    }
}

pub async fn drain_listeners(admin: &Admin, query: Query) -> Response {
    let inbound_only = query.get("inboundonly").is_some();
    let closed = admin.store.close_listeners(inbound_only);
    tracing::info!(closed, inbound_only, "listeners closed by the admin page");
    "OK\n".into_response()
}

pub async fn quit(admin: &Admin, _: Query) -> Response {
    match admin.commands.try_send(Command::Quit) {
        Ok(()) => "OK\n".into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "already leaving\n").into_response(),
    }
}
