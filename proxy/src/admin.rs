//! Envoy's admin pages (<https://www.envoyproxy.io/docs/envoy/latest/operations/admin>), on loopback; and the public
//! ports for metrics and health. Pages only read: the store, the numbers, the identity cell. What changes something is a
//! POST and travels as a [`Command`] to the main task, or is a switch of the store or the logs.

mod certs;
mod clusters;
mod dump;
mod listeners;
pub mod merge;
pub mod probe;
mod server;
mod stats;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::RawQuery,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use mesh_proto::envoy::config::core::v3::Node;
use mesh_runtime::{
    drain::Drain,
    http::{Pages, serve_on},
    log::LogHandle,
    ready::Gates,
    tls::IdentityCell,
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc};

use merge::Application;
use probe::Probes;

use crate::{conn::track::Connections, observe::Stats, store::Store};

/// Commands that may wait.
const COMMANDS: usize = 8;

/// What a page may ask of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Drain and leave.
    Quit,
}

/// The way of commands from the pages to the main task.
pub fn commands() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(COMMANDS)
}

/// Waits for a signal or for [`Command::Quit`].
pub async fn wait_for_end(
    asked: &mut mpsc::Receiver<Command>,
    signal: impl Future<Output = io::Result<&'static str>>,
) {
    tokio::select! {
        signal = signal => match signal {
            Ok(name) => tracing::info!(signal = name, "leaving"),
            Err(error) => tracing::error!(%error, "cannot wait for signals; leaving"),
        },
        Some(Command::Quit) = asked.recv() => tracing::info!("asked to leave"),
    }
}

/// What the pages read.
#[derive(Clone)]
pub struct Admin {
    pub store: Store,
    pub stats: Stats,
    pub identity: IdentityCell,
    pub gates: Gates,
    pub log: LogHandle,
    pub commands: mpsc::Sender<Command>,
    pub connections: Connections,
    pub node: Option<Arc<Node>>,
}

/// Adds a page that answers from a clone of `admin` and the query.
macro_rules! page {
    ($pages:expr, $admin:expr, $method:ident, $path:literal, $help:literal, $answer:expr) => {{
        let admin = $admin.clone();
        $pages.$method($path, $help, move |RawQuery(query): RawQuery| {
            let admin = admin.clone();
            async move { $answer(&admin, Query(query.unwrap_or_default())).await }
        })
    }};
}

/// Serves all pages; the listener should be on loopback.
pub async fn serve(listener: TcpListener, admin: Admin, drain: Drain) {
    // Pages stay while connections drain: this is when people look.
    let _ = drain;
    serve_on(listener, pages(&admin), never()).await;
}

/// Serves metrics and health for everybody; with the application's metrics among them, if it has some, and its probes.
pub async fn serve_public(
    listener: TcpListener,
    admin: Admin,
    application: Option<Application>,
    probes: Probes,
    drain: Drain,
) {
    let _ = drain;
    let pages = public_pages(&admin, application.as_ref());
    let pages = probes.all().fold(pages, |pages, (path, probe)| {
        let probe = probe.clone();
        pages.get(path, "a probe of the application", move || {
            let probe = probe.clone();
            async move { probe.ask().await }
        })
    });
    serve_on(listener, pages, never()).await;
}

/// A drain that never comes: the process ends under these pages.
fn never() -> Drain {
    mesh_runtime::drain::channel().1
}

fn pages(admin: &Admin) -> Pages {
    let pages = Pages::new();
    let pages = page!(
        pages,
        admin,
        get,
        "/ready",
        "LIVE with 200, else the state with 503",
        server::ready
    );
    let pages = page!(
        pages,
        admin,
        get,
        "/server_info",
        "version, state, uptime, node",
        server::info
    );
    let pages = page!(
        pages,
        admin,
        get,
        "/config_dump",
        "the configuration; ?resource=, ?name_regex=, ?include_eds",
        dump::page
    );
    let pages = page!(
        pages,
        admin,
        get,
        "/init_dump",
        "what is not ready yet, and what it waits for",
        dump::waiting
    );
    let pages = page!(
        pages,
        admin,
        get,
        "/clusters",
        "clusters and their endpoints; ?format=json",
        clusters::page
    );
    let pages = page!(
        pages,
        admin,
        get,
        "/listeners",
        "addresses of the listeners; ?format=json",
        listeners::page
    );
    let pages = page!(
        pages,
        admin,
        get,
        "/connections",
        "open connections, by listener and cluster and one by one; ?limit=, ?format=json",
        listeners::connections
    );
    let pages = page!(pages, admin, get, "/certs", "certificates in use", certs::page);
    let pages = page!(
        pages,
        admin,
        get,
        "/stats",
        "numbers; ?filter=, ?usedonly, ?format=json|prometheus",
        stats::page
    );
    let pages = page!(
        pages,
        admin,
        get,
        "/stats/prometheus",
        "numbers for Prometheus",
        stats::prometheus
    );
    let pages = page!(
        pages,
        admin,
        get,
        "/memory",
        "memory of the process",
        server::memory
    );
    let pages = page!(
        pages,
        admin,
        get_local,
        "/logging",
        "the log level",
        server::level
    );
    let pages = page!(
        pages,
        admin,
        post_local,
        "/logging",
        "change the log level; ?level=debug or ?mesh_proxy=debug",
        server::set_level
    );
    let pages = page!(
        pages,
        admin,
        post_local,
        "/drain_listeners",
        "close the listeners; ?inboundonly",
        server::drain_listeners
    );
    page!(
        pages,
        admin,
        post_local,
        "/quitquitquit",
        "drain and leave",
        server::quit
    )
}

fn public_pages(admin: &Admin, application: Option<&Application>) -> Pages {
    let pages = ["/stats/prometheus", "/metrics"]
        .into_iter()
        .fold(Pages::new(), |pages, path| {
            let (admin, application) = (admin.clone(), application.cloned());
            pages.get(
                path,
                "numbers for Prometheus",
                move |RawQuery(query): RawQuery, headers: HeaderMap| async move {
                    let query = Query(query.unwrap_or_default());
                    stats::merged(&admin, application.as_ref(), &query, &headers).await
                },
            )
        });
    let pages = page!(
        pages,
        admin,
        get,
        "/healthz/ready",
        "200 when ready",
        server::healthy
    );
    page!(
        pages,
        admin,
        post_local,
        "/quitquitquit",
        "drain and leave",
        server::quit
    )
}

/// The query part of a URL.
pub(crate) struct Query(String);

impl Query {
    /// The value of a parameter, with escapes resolved; `?usedonly` has the empty value.
    fn get(&self, name: &str) -> Option<String> {
        self.pairs().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.0.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(key), unescape(value))
        })
    }

    fn wants_json(&self) -> bool {
        self.get("format").as_deref() == Some("json")
    }
}

/// Percent-escapes and `+` (<https://url.spec.whatwg.org/#application/x-www-form-urlencoded>).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digit = |index: usize| tail.get(index).and_then(|b| char::from(*b).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
                continue;
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(*byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// JSON as Envoy prints it: indented by one space.
fn json(value: &Value) -> Response {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => {
            bytes.push(b'\n');
            ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
        }
        // A JSON value always serializes; should it not, its compact form will do.
        Err(_) => Json(value.clone()).into_response(),
    }
}

fn bad_request(text: impl std::fmt::Display) -> Response {
    (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response()
}

/// Seconds as Envoy's JSON writes durations.
fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

#[cfg(test)]
mod tests;
