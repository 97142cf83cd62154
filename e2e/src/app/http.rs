//! The HTTP side of the server: tells what it received, and does what the query asks.
//!
//! `?status=503` answers so; `delay_ms=100` waits first; `bytes=1000` answers that many bytes; `header=name:value` adds a header
//! to the answer (may be repeated); `fail_first=2&key=K` answers 503 the first two times that key `K` is seen. `/ws` is a WebSocket
//! that sends every message back. Requests of content type `application/grpc` go to the gRPC service.

use super::grpc;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

type Body = UnsyncBoxBody<Bytes, tonic::Status>;

/// Keys of `fail_first` that are remembered at most.
const MAX_KEYS: usize = 10_000;
/// The largest answer that `bytes=` may ask for.
const MAX_BYTES: usize = 16 * 1024 * 1024;

pub struct Echo {
    pub pod: String,
    pub version: String,
    failures: Mutex<HashMap<String, u64>>,
    leaving: AtomicBool,
    running: AtomicUsize,
}

impl Echo {
    pub fn new(pod: String, version: String) -> Self {
        let failures = Mutex::new(HashMap::new());
        Self {
            pod,
            version,
            failures,
            leaving: AtomicBool::new(false),
            running: AtomicUsize::new(0),
        }
    }

    /// From now on answers carry `Connection: close`.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Waits until no request runs any more, at most `patience`.
    pub async fn finished(&self, patience: Duration) {
        let end = tokio::time::Instant::now() + patience;
        while self.running.load(Ordering::Relaxed) > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Has `key` failed fewer than `times` times? Then it fails once more.
    fn fails(&self, key: &str, times: u64) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_KEYS {
            failures.clear();
        }
        let seen = failures.entry(key.to_owned()).or_default();
        *seen += 1;
        *seen <= times
    }
}

/// One connection of any HTTP version.
pub async fn serve(stream: TcpStream, echo: Arc<Echo>) -> anyhow::Result<()> {
    let _ = stream.set_nodelay(true);
    serve_on(stream, echo).await
}

/// The same, over TLS.
pub async fn serve_tls(stream: TcpStream, tls: TlsAcceptor, echo: Arc<Echo>) -> anyhow::Result<()> {
    let _ = stream.set_nodelay(true);
    serve_on(tls.accept(stream).await?, echo).await
}

async fn serve_on<S>(stream: S, echo: Arc<Echo>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let echo = echo.clone();
        async move {
            echo.running.fetch_add(1, Ordering::Relaxed);
            let response = answer(request, &echo).await;
            echo.running.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))
}

async fn answer(mut request: Request<Incoming>, echo: &Arc<Echo>) -> Response<Body> {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return grpc::answer(request, echo.pod.clone()).await;
    }
    if request.uri().path() == "/ws" {
        return websocket(&mut request);
    }
    let (head, body) = request.into_parts();
    let received = match body.collect().await {
        Ok(body) => body.to_bytes().len(),
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")),
    };
    let query = Query::parse(head.uri.query().unwrap_or_default());
    if let Some(wait) = query.delay {
        tokio::time::sleep(wait).await;
    }
    let mut status = query.status;
    if query
        .fail_first
        .as_ref()
        .is_some_and(|(key, times)| echo.fails(key, *times))
    {
        status = StatusCode::SERVICE_UNAVAILABLE;
    }
    let bytes = match query.bytes {
        Some(n) => Bytes::from(vec![b'x'; n.min(MAX_BYTES)]),
        None => Bytes::from(described(&head, received, echo).to_string()),
    };
    let mut response = Response::new(if head.method == Method::HEAD {
        full(Bytes::new())
    } else {
        full(bytes)
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [("x-pod", &echo.pod), ("x-version", &echo.version)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers.extend(query.headers);
    if echo.leaving.load(Ordering::Relaxed) && head.version < http::Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn described(head: &http::request::Parts, received: usize, echo: &Echo) -> serde_json::Value {
    let mut headers: HashMap<&str, Vec<String>> = HashMap::new();
    for (name, value) in &head.headers {
        headers
            .entry(name.as_str())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "authority": head.uri.authority().map(|a| a.as_str()),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body_bytes": received,
        "pod": echo.pod,
        "app_version": echo.version,
    })
}

fn full(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes).map_err(|never| match never {}))
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

/// RFC 6455: agree to the upgrade, then send back every message.
fn websocket(request: &mut Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get("sec-websocket-key") else {
        return text(
            StatusCode::UPGRADE_REQUIRED,
            "this is a WebSocket; ask for an upgrade".to_owned(),
        );
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close()
                || ((message.is_text() || message.is_binary()) && socket.send(message).await.is_err())
            {
                break;
            }
        }
        let _ = socket.close(None).await;
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert("sec-websocket-accept", accept);
    }
    response
}

/// What the query of a request asks for.
struct Query {
    status: StatusCode,
    delay: Option<Duration>,
    bytes: Option<usize>,
    headers: HeaderMap,
    fail_first: Option<(String, u64)>,
}

impl Query {
    fn parse(query: &str) -> Self {
        let mut out = Self {
            status: StatusCode::OK,
            delay: None,
            bytes: None,
            headers: HeaderMap::new(),
            fail_first: None,
        };
        let pairs: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let key = pairs
            .iter()
            .find(|(name, _)| *name == "key")
            .map_or("", |(_, key)| key);
        for (name, value) in &pairs {
            match *name {
                "status" => out.status = value.parse().unwrap_or(StatusCode::BAD_REQUEST),
                "delay_ms" => out.delay = value.parse().ok().map(Duration::from_millis),
                "bytes" => out.bytes = value.parse().ok(),
                "fail_first" => out.fail_first = value.parse().ok().map(|n| (key.to_owned(), n)),
                "header" => {
                    let Some((name, value)) = value.split_once(':') else {
                        continue;
                    };
                    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
                    {
                        out.headers.append(name, value);
                    }
                }
                _ => {}
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_to_do() {
        let query = Query::parse("status=418&delay_ms=5&bytes=10&header=x-a:b&fail_first=2&key=k");
        assert_eq!(query.status.as_u16(), 418);
        assert_eq!(query.delay, Some(Duration::from_millis(5)));
        assert_eq!(query.bytes, Some(10));
        assert_eq!(query.headers["x-a"], "b");
        assert_eq!(query.fail_first, Some(("k".to_owned(), 2)));
    }

    #[test]
    fn a_key_fails_so_often_and_no_more() {
        let echo = Echo::new("p".into(), "v1".into());
        let fails: Vec<bool> = (0..4).map(|_| echo.fails("a", 2)).collect();
        assert_eq!(fails, [true, true, false, false]);
        assert!(echo.fails("b", 1));
    }
}
