//! What the four services share as servers: `/health`, one log line per request, and an orderly end.
//!
//! After SIGTERM the program first goes on answering for a moment, with `Connection: close`, because whoever sends requests
//! learns of the end later than the program itself; then it stops accepting, finishes what is in flight, and leaves after at
//! most [`LAST_REQUESTS`].

use crate::settings::Common;
use anyhow::Context;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use http::{HeaderValue, header};
use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::{info, warn};

/// How long requests in flight may take after the last connection was accepted.
const LAST_REQUESTS: Duration = Duration::from_secs(15);
/// No request to Bookinfo has a larger body.
const BODY_LIMIT: usize = 64 * 1024;

/// Serves `pages` until SIGTERM or SIGINT.
pub async fn run(name: &'static str, common: &Common, pages: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(common.listen)
        .await
        .with_context(|| format!("{name} cannot listen on {}", common.listen))?;
    let leaving = Arc::new(AtomicBool::new(false));
    let app = pages
        .route(
            "/health",
            get(async move || axum::Json(serde_json::json!({ "status": format!("{name} is healthy") }))),
        )
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(leaving.clone(), observe));
    info!(service = name, version = ?common.version, listen = %common.listen, "serving");

    let (stopped, stop) = oneshot::channel::<()>();
    let delay = Duration::from_secs(common.shutdown_delay_seconds);
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        info!(service = name, "asked to leave: answering for {delay:?} more");
        leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(delay).await;
        // The receiver is gone only when the server already is.
        let _ = stopped.send(());
    });
    tokio::select! {
        result = server.into_future() => result.context("the server failed")?,
        () = async { let _ = stop.await; tokio::time::sleep(LAST_REQUESTS).await } => {
            warn!(service = name, "left with requests still in flight after {LAST_REQUESTS:?}");
        }
    }
    info!(service = name, "left");
    Ok(())
}

/// One line per request, and `Connection: close` on the answers while leaving.
async fn observe(State(leaving): State<Arc<AtomicBool>>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let line = format!("{} {}", request.method(), request.uri().path());
    let user = request
        .headers()
        .get("end-user")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("-")
        .to_owned();
    let health = request.uri().path() == "/health";
    let mut response = next.run(request).await;
    if leaving.load(Ordering::Relaxed) {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if !health {
        info!(%user, status = response.status().as_u16(), ms = begin.elapsed().as_millis() as u64, "{line}");
    }
    response
}
