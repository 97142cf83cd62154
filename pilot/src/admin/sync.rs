//! `/debug/syncz`: what every proxy was sent, and what it said to it.

use std::collections::BTreeMap;

use axum::response::Response;
use mesh_proto::xds::Type;
use serde::Serialize;

use super::{Wanted, answer};
use crate::{
    push::Hub,
    serve::proxy::{Proxy, millis},
};

/// One proxy.
#[derive(Debug, Serialize)]
struct Row {
    /// `reviews-v1-0.default`
    proxy: String,
    #[serde(rename = "nodeID")]
    node_id: String,
    metadata: mesh_proto::node::NodeMetadata,
    cluster_id: String,
    address: Option<String>,
    /// `delta` or `sotw`
    protocol: &'static str,
    /// The version of the proxy's program.
    version: String,
    /// Milliseconds since 1970.
    connected: u64,
    /// The snapshot that the proxy shall have.
    snapshot: u64,
    /// The proxy has answered for everything it asked for.
    settled: bool,
    types: BTreeMap<&'static str, TypeRow>,
}

#[derive(Debug, Serialize)]
struct TypeRow {
    /// `SYNCED`, `STALE` (sent, not answered), `NOT SENT`, `REJECTED`; absent types were not asked for.
    state: &'static str,
    /// Snapshots.
    sent: Option<u64>,
    acked: Option<u64>,
    resources: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    nack: Option<Nack>,
    /// Milliseconds since 1970.
    time: u64,
}

#[derive(Debug, Serialize)]
struct Nack {
    version: Option<u64>,
    error: String,
    /// Name and version.
    resources: BTreeMap<String, String>,
}

pub fn page(hub: &Hub, wanted: &Wanted) -> Response {
    let proxies = hub.proxies();
    let shown = proxies
        .iter()
        .filter(|proxy| wanted.proxy.as_ref().is_none_or(|name| *name == proxy.name()));
    let rows: Vec<Row> = shown.map(|proxy| row(proxy)).collect();
    answer(&rows)
}

fn row(proxy: &Proxy) -> Row {
    let types = proxy.with_session(|session| {
        let asked = Type::ALL
            .into_iter()
            .filter(|kind| session.subscription(*kind).asked());
        asked
            .map(|kind| {
                let (subscription, record) = (session.subscription(kind), session.record(kind));
                let nack = subscription.rejection().map(|rejection| Nack {
                    version: record.nacked,
                    error: rejection.error.clone(),
                    resources: rejection
                        .resources
                        .iter()
                        .map(|(name, version)| (name.to_string(), version.to_string()))
                        .collect(),
                });
                let state = match (&nack, record.sent) {
                    (Some(_), _) => "REJECTED",
                    (None, None) => "NOT SENT",
                    (None, Some(_)) if subscription.waiting() => "STALE",
                    (None, Some(_)) => "SYNCED",
                };
                let row = TypeRow {
                    state,
                    sent: record.sent,
                    acked: record.acked,
                    resources: subscription.versions().count(),
                    nack,
                    time: record.time,
                };
                (kind.short(), row)
            })
            .collect()
    });
    Row {
        proxy: proxy.name(),
        node_id: proxy.id.to_string(),
        cluster_id: proxy.metadata.cluster_id.clone(),
        address: proxy.address.map(|address| address.to_string()),
        protocol: if proxy.with_session(|session| session.is_sotw()) {
            "sotw"
        } else {
            "delta"
        },
        version: proxy.metadata.istio_version.clone(),
        connected: millis(proxy.connected),
        snapshot: proxy.with_session(|session| session.sequence()),
        settled: proxy.with_session(|session| session.is_settled()),
        types,
        metadata: proxy.metadata.clone(),
    }
}
