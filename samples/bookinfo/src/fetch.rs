//! Asking another service: one GET with a deadline over a pool of kept connections. The answer is JSON of bounded size;
//! everything else is an error that says in a few words what happened.

use anyhow::Context;
use http::{HeaderMap, Request, StatusCode, header::ACCEPT};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value;
use std::time::Duration;

/// No service of Bookinfo answers more than this.
const ANSWER_LIMIT: usize = 1024 * 1024;

#[derive(Clone)]
pub struct Upstream {
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// Why a question got no usable answer.
#[derive(Debug)]
pub enum Failure {
    /// The service (or a proxy on the way) answered, but not with 200; with the beginning of what it said.
    Status(StatusCode, String),
    /// Nothing came within the time allowed.
    Timeout(Duration),
    /// No connection, or not HTTP, or not JSON.
    Broken(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status, said) if said.is_empty() => write!(out, "it answered {status}"),
            Self::Status(status, said) => write!(out, "it answered {status}: {said}"),
            Self::Timeout(after) => write!(out, "no answer within {} s", after.as_secs_f32()),
            Self::Broken(why) => write!(out, "{why}"),
        }
    }
}

impl Upstream {
    /// `base` is like `http://reviews:9080`.
    pub fn new(base: String) -> anyhow::Result<Self> {
        base.parse::<http::Uri>()
            .with_context(|| format!("{base} is no address of a service"))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(16)
            .build_http();
        Ok(Self { base, client })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// GETs `path` with `headers`, all within `timeout`.
    pub async fn get(&self, path: &str, headers: &HeaderMap, timeout: Duration) -> Result<Value, Failure> {
        tokio::time::timeout(timeout, self.exchange(path, headers))
            .await
            .unwrap_or(Err(Failure::Timeout(timeout)))
    }

    async fn exchange(&self, path: &str, headers: &HeaderMap) -> Result<Value, Failure> {
        let mut request = Request::get(format!("{}{path}", self.base))
            .body(Empty::new())
            .map_err(|error| Failure::Broken(format!("the request cannot be formed: {error}")))?;
        *request.headers_mut() = headers.clone();
        request
            .headers_mut()
            .insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| Failure::Broken(format!("no connection: {}", chain(&error))))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| Failure::Broken(format!("the answer broke off: {error}")))?
            .to_bytes();
        if status != StatusCode::OK {
            return Err(Failure::Status(status, beginning(&body)));
        }
        serde_json::from_slice(&body)
            .map_err(|error| Failure::Broken(format!("the answer is no JSON: {error}")))
    }
}

/// The first words of an answer, on one line.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(1000)]);
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(200)
        .collect()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_answer_is_one_short_line() {
        assert_eq!(beginning(b"RBAC:\n  access denied\r\n"), "RBAC: access denied");
        assert_eq!(beginning(&[b'x'; 5000]).len(), 200);
    }

    #[tokio::test]
    async fn nobody_listening_is_said_with_the_cause() {
        let upstream = Upstream::new("http://127.0.0.1:1".into()).unwrap();
        let failure = upstream
            .get("/", &HeaderMap::new(), Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(
            failure.to_string().to_lowercase().contains("refused"),
            "{failure}"
        );
    }
}
