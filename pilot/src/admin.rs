//! Pilot's debug pages: what it knows, what it made of it, and what every proxy has. Only for loopback peers.

use std::sync::Arc;

use axum::{
    Json,
    extract::Query,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use mesh_runtime::http::Pages;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{ingest::kube::Board, push::Hub};

pub mod acked;
mod dump;
mod sync;

pub fn pages(pages: Pages, hub: Arc<Hub>) -> Pages {
    macro_rules! page {
        ($pages:expr, $path:literal, $help:literal, $f:expr) => {{
            let hub = hub.clone();
            $pages.get_local($path, $help, move |query: Query<Wanted>| {
                let answer = $f(&hub, &query.0);
                async move { answer }
            })
        }};
    }
    let pages = page!(
        pages,
        "/debug/syncz",
        "per proxy and type: sent, acknowledged, refused and why",
        sync::page
    );
    let pages = page!(
        pages,
        "/debug/acked",
        "?object=virtualservice/default/reviews: do all proxies have it?",
        acked::page
    );
    let pages = page!(
        pages,
        "/debug/config_dump",
        "?proxyID=pod.namespace: everything that one proxy gets",
        dump::page
    );
    let pages = page!(
        pages,
        "/debug/configz",
        "all objects, as they were last applied",
        objects
    );
    let pages = page!(pages, "/debug/registryz", "all services", services);
    let pages = page!(
        pages,
        "/debug/endpointz",
        "all endpoints, by service and port",
        endpoints
    );
    page!(pages, "/debug/findings", "what is wrong with objects", findings)
}

/// How the watches of Kubernetes are doing.
pub fn sources(pages: Pages, board: Board) -> Pages {
    pages.get_local(
        "/debug/sources",
        "per kind: which version is watched, how many objects, what is wrong",
        move || {
            let answer = answer(&board.entries());
            async move { answer }
        },
    )
}

/// What the pages may be asked.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Wanted {
    /// `kind/namespace/name`
    object: Option<String>,
    /// `pod.namespace`
    #[serde(rename = "proxyID")]
    proxy: Option<String>,
}

fn answer(value: &impl Serialize) -> Response {
    Json(serde_json::to_value(value).unwrap_or(Value::Null)).into_response()
}

fn refuse(status: StatusCode, text: impl Into<String>) -> Response {
    (status, format!("{}\n", text.into())).into_response()
}

fn findings(hub: &Hub, _: &Wanted) -> Response {
    answer(&&*hub.findings())
}

fn objects(hub: &Hub, _: &Wanted) -> Response {
    let all: Vec<Value> = hub.with_store(|store| {
        // A key of a gateway has no business on a page.
        let shown = store
            .manifests()
            .filter(|manifest| manifest.kind != mesh_proto::kube::Kind::Secret);
        shown
            .map(|manifest| {
                let current = store.is_current(manifest.kind, &manifest.key);
                json!({ "source": manifest.source, "inEffect": current, "object": manifest.value })
            })
            .collect()
    });
    answer(&all)
}

fn services(hub: &Hub, _: &Wanted) -> Response {
    let snapshot = hub.snapshot();
    let all: Vec<Value> = snapshot
        .services
        .hosts()
        .flat_map(|(_, services)| services)
        .map(|service| {
            let ports: Vec<Value> = service
                .ports
                .iter()
                .map(|port| json!({ "number": port.number, "name": port.name, "protocol": port.protocol.as_str() }))
                .collect();
            json!({
                "host": service.host.as_str(),
                "namespace": service.namespace,
                "object": service.origin.to_string(),
                "resolution": format!("{:?}", service.resolution),
                "location": format!("{:?}", service.location),
                "addresses": service.addresses,
                "autoAddress": service.auto_address,
                "ports": ports,
            })
        })
        .collect();
    answer(&all)
}

fn endpoints(hub: &Hub, _: &Wanted) -> Response {
    let snapshot = hub.snapshot();
    let all: Vec<Value> = snapshot
        .endpoints
        .all()
        .map(|(service, port, endpoints)| {
            let endpoints: Vec<Value> = endpoints
                .iter()
                .map(|endpoint| {
                    json!({
                        "address": endpoint.address.to_string(),
                        "port": endpoint.port,
                        "health": format!("{:?}", endpoint.health),
                        "workload": endpoint.workload.as_ref().map(ToString::to_string),
                        "labels": *endpoint.labels,
                        "identity": endpoint.identity,
                        "meshTls": endpoint.mesh_tls,
                    })
                })
                .collect();
            json!({
                "service": service.host.as_str(), "namespace": service.namespace, "port": port, "endpoints": endpoints,
            })
        })
        .collect();
    answer(&all)
}

#[cfg(test)]
#[path = "admin/tests.rs"]
mod tests;
