//! The admission webhooks: Kubernetes asks before it stores a pod (`/inject`) or an object of the mesh's kinds
//! (`/validate`). HTTPS at 15017 with pilot's own certificate, which citadel issues also for the name of pilot's Service;
//! the API server believes it by the `caBundle` that [`cert`] keeps in step.
//!
//! | Module | |
//! | --- | --- |
//! | [`review`] | the question and the answer, as Kubernetes writes them |
//! | [`inject`] | pods |
//! | [`validate`] | objects of the mesh's kinds |
//! | [`values`] | what an installation decides for all pods, from its ConfigMap |
//! | [`cert`] | `caBundle` of the webhook configurations |
//!
//! Bounds: [`CONNECTIONS`] connections and [`PENDING`] handshakes at once, [`BODY`] bytes a question, [`HEAD`] for its
//! head and [`ANSWER`] for the rest.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use futures::StreamExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_runtime::{
    drain::Drain,
    grpc,
    tls::{self, ClientAuth, IdentityCell, PeerNames, TlsError},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tower_service::Service as _;

pub mod cert;
pub mod inject;
pub mod review;
pub mod validate;
pub mod values;

use review::Review;

/// Connections at once; an API server keeps a few.
const CONNECTIONS: usize = 256;
const PENDING: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEAD: Duration = Duration::from_secs(10);
/// Kubernetes waits 10 s by default, and never more than 30.
const ANSWER: Duration = Duration::from_secs(25);
/// An object has at most 3 MiB in a request to the API server, and an update brings the old one too.
const BODY: usize = 8 << 20;

/// The two questions.
pub fn router(injector: inject::Injector, validator: validate::Validator) -> Router {
    let injector = Arc::new(injector);
    let inject = move |body: Bytes| {
        let injector = injector.clone();
        async move {
            match Review::read(&body) {
                Ok(request) => Json(injector.answer(request).await).into_response(),
                Err(problem) => refuse(problem),
            }
        }
    };
    let validate = move |body: Bytes| {
        let answer = match Review::read(&body) {
            Ok(request) => Json(validator.answer(request)).into_response(),
            Err(problem) => refuse(problem),
        };
        async move { answer }
    };
    Router::new()
        .route("/inject", post(inject.clone()))
        // Istio's webhooks may tell cluster and network behind it.
        .route("/inject/{*about}", post(inject))
        .route("/validate", post(validate))
        .layer(DefaultBodyLimit::max(BODY))
}

fn refuse(problem: String) -> Response {
    tracing::warn!(%problem, "a question to the webhooks cannot be read");
    (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response()
}

/// Serves until the drain.
pub async fn serve(
    listener: TcpListener,
    cell: &IdentityCell,
    router: Router,
    drain: Drain,
) -> Result<(), TlsError> {
    let config = tls::server_config(cell, ClientAuth::None, PeerNames::Any, &["http/1.1"])?;
    let mut connections = grpc::incoming(listener, Arc::new(config), HANDSHAKE, PENDING);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await.ok();
        let accepted = tokio::select! {
            accepted = connections.next() => accepted,
            () = drain.drained() => return Ok(()),
        };
        match accepted {
            Some(Ok(stream)) => {
                let (router, drain) = (router.clone(), drain.clone());
                tokio::spawn(async move {
                    connection(TokioIo::new(stream), router, drain).await;
                    drop(slot);
                });
            }
            Some(Err(error)) => tracing::debug!(%error, "webhook connection failed"),
            None => return Ok(()),
        }
    }
}

async fn connection<I>(io: I, router: Router, drain: Drain)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut router = router.clone();
        async move {
            let answer = router.call(request.map(axum::body::Body::new));
            let late = (StatusCode::GATEWAY_TIMEOUT, "no answer in time\n");
            Ok::<_, Infallible>(match tokio::time::timeout(ANSWER, answer).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => late.into_response(),
            })
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drain.drained() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "webhook connection ended");
    }
}
