//! The admin server of a daemon: HTTP/1.1, a table of pages, one page `/help` that lists them. A page may be for
//! loopback peers only; others get 403. Bounds: [`MAX_CONNECTIONS`] at once, 10 s for a request's head, 1 MiB of body.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::routing::MethodFilter;
use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, DefaultBodyLimit, Query, Request},
    handler::Handler,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, on},
};
use http::{StatusCode, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower_service::Service;

use crate::{drain::Drain, log::LogHandle, metrics, ready::Gates};

/// Connections served at once; more wait in the kernel's backlog.
pub const MAX_CONNECTIONS: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 1 << 20;
/// What a drain leaves to connections that are being answered.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Who may see a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Anyone,
    /// Only peers on a loopback address, that is: inside the same pod.
    Loopback,
}

/// The pages of one server.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    router: Router,
    table: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    method: &'static str,
    path: String,
    access: Access,
    help: &'static str,
}

impl Pages {
    pub fn new() -> Self {
        Self::default()
    }

    /// A page for everyone. `handler` is any axum handler: a closure holds its own state.
    pub fn get<H: Handler<T, ()>, T: 'static>(self, path: &str, help: &'static str, handler: H) -> Self {
        self.page("GET", path, Access::Anyone, help, handler)
    }

    /// A page for loopback peers.
    pub fn get_local<H: Handler<T, ()>, T: 'static>(
        self,
        path: &str,
        help: &'static str,
        handler: H,
    ) -> Self {
        self.page("GET", path, Access::Loopback, help, handler)
    }

    /// A page for loopback peers that changes something.
    pub fn post_local<H: Handler<T, ()>, T: 'static>(
        self,
        path: &str,
        help: &'static str,
        handler: H,
    ) -> Self {
        self.page("POST", path, Access::Loopback, help, handler)
    }

    /// One page: `method` is GET or POST. Two pages of one method and path are a mistake in the program and panic.
    pub fn page<H, T>(
        mut self,
        method: &'static str,
        path: &str,
        access: Access,
        help: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, ()>,
        T: 'static,
    {
        let filter = if method == "POST" {
            MethodFilter::POST
        } else {
            MethodFilter::GET
        };
        let mut route: MethodRouter = on(filter, handler);
        if access == Access::Loopback {
            route = route.route_layer(from_fn(loopback_only));
        }
        self.router = self.router.route(path, route);
        self.table.push(Entry {
            method,
            path: path.to_owned(),
            access,
            help,
        });
        self
    }

    /// The pages that every daemon has: `/ready`, `/metrics`, `/version` for everyone, `/logging` for loopback peers.
    pub fn standard(self, registry: &metrics::Registry, gates: &Gates, log: &LogHandle) -> Self {
        let (registry, gates, shown, changed) = (registry.clone(), gates.clone(), log.clone(), log.clone());
        self.get(
            "/ready",
            "200 when ready, else 503 and what is waited for",
            move || {
                let waiting = gates.waiting();
                async move { ready(&waiting) }
            },
        )
        .get("/metrics", "metrics of this process, for Prometheus", move || {
            let text = registry.encode();
            async move { ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text) }
        })
        .get("/version", "version of this binary", || async {
            Json(crate::build::info())
        })
        .get_local("/logging", "current log level", move || {
            let text = format!("{}\n", shown.current());
            async move { text }
        })
        .post_local(
            "/logging",
            "?level=info,mesh_proxy=debug changes the log level",
            move |query| {
                let log = changed.clone();
                async move { set_level(&log, &query) }
            },
        )
    }

    /// The router with `/help` (and `/` unless the daemon has one) added.
    pub fn into_router(self) -> Router {
        let help: Arc<str> = self.help().into();
        let mut router = self.router;
        if !self.table.iter().any(|entry| entry.path == "/") {
            let help = help.clone();
            router = router.route(
                "/",
                on(MethodFilter::GET, move || async move { help.to_string() }),
            );
        }
        let lost = help.clone();
        router
            .route(
                "/help",
                on(MethodFilter::GET, move || async move { help.to_string() }),
            )
            .fallback(
                move || async move { (StatusCode::NOT_FOUND, format!("no such page; there are:\n{lost}")) },
            )
            .layer(DefaultBodyLimit::max(MAX_BODY))
    }

    fn help(&self) -> String {
        let width = self.table.iter().map(|entry| entry.path.len()).max().unwrap_or(0);
        let mut entries: Vec<&Entry> = self.table.iter().collect();
        entries.sort_by(|a, b| (&a.path, a.method).cmp(&(&b.path, b.method)));
        let mut text = String::new();
        for Entry {
            method,
            path,
            access,
            help,
        } in entries
        {
            let local = if *access == Access::Loopback {
                " (loopback only)"
            } else {
                ""
            };
            text.push_str(&format!("{method:4} {path:width$}  {help}{local}\n"));
        }
        text
    }
}

fn ready(waiting: &[&str]) -> Response {
    if waiting.is_empty() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for {}\n", waiting.join(", ")),
        )
            .into_response()
    }
}

#[derive(Deserialize)]
struct Level {
    level: Option<String>,
}

fn set_level(log: &LogHandle, Query(query): &Query<Level>) -> Response {
    let Some(level) = &query.level else {
        return (StatusCode::BAD_REQUEST, "say ?level=..., such as ?level=debug\n").into_response();
    };
    match log.set(level) {
        Ok(()) => format!("{level}\n").into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn loopback_only(request: Request, next: Next) -> Response {
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(peer)| peer.ip().to_canonical());
    match peer {
        Some(peer) if peer.is_loopback() => next.run(request).await,
        _ => (StatusCode::FORBIDDEN, "this page is only for loopback peers\n").into_response(),
    }
}

/// Binds and serves until the drain.
pub async fn serve(address: SocketAddr, pages: Pages, drain: Drain) -> io::Result<()> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("admin server cannot listen on {address}: {error}"),
        )
    })?;
    serve_on(listener, pages, drain).await;
    Ok(())
}

/// Serves until the drain, then waits shortly for answers under way.
pub async fn serve_on(listener: TcpListener, pages: Pages, drain: Drain) {
    let router = pages.into_router();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = drain.drained() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, drain) = (router.clone(), drain.clone());
                tokio::spawn(async move {
                    connection(stream, peer, router, drain).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors or a connection that is gone already: neither is a reason to stop.
                tracing::warn!(%error, "admin server could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN_TIME, slots.acquire_many(all))
        .await
        .is_err()
    {
        tracing::debug!("admin server closed connections that were still answering");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, drain: Drain) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|never| match never {}))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drain.drained() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "admin connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn get(router: &Router, path: &str, peer: &str) -> (StatusCode, String) {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
        let response = router.clone().call(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn pages() -> Router {
        Pages::new()
            .get("/open", "for all", || async { "open" })
            .get_local("/debug/thing", "for us", || async { "secret" })
            .into_router()
    }

    #[tokio::test]
    async fn loopback_pages_are_refused_to_others() {
        let router = pages();
        for (path, peer, status) in [
            ("/open", "10.1.2.3:1", 200),
            ("/debug/thing", "127.0.0.1:1", 200),
            ("/debug/thing", "[::1]:1", 200),
            ("/debug/thing", "[::ffff:127.0.0.1]:1", 200),
            ("/debug/thing", "10.1.2.3:1", 403),
            ("/debug/thing", "[fe80::1]:1", 403),
            ("/nothing", "127.0.0.1:1", 404),
        ] {
            assert_eq!(
                get(&router, path, peer).await.0.as_u16(),
                status,
                "{path} from {peer}"
            );
        }
    }

    #[tokio::test]
    async fn help_lists_every_page() {
        let (_, text) = get(&pages(), "/help", "10.0.0.1:1").await;
        assert_eq!(
            text,
            "GET  /debug/thing  for us (loopback only)\nGET  /open         for all\n"
        );
    }

    #[tokio::test]
    async fn serves_and_drains() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, drain) = crate::drain::channel();
        let server = tokio::spawn(serve_on(
            listener,
            Pages::new().get("/x", "x", || async { "y" }),
            drain,
        ));
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("/x")
            .header("host", "admin")
            .body(String::new())
            .unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        trigger.drain();
        tokio::time::timeout(Duration::from_secs(5), server)
            .await
            .unwrap()
            .unwrap();
    }
}
