//! The application's own metrics beside the proxy's, on the port that Prometheus is told (15020), so that mutual TLS and
//! redirection need not let a scraper through to the application. Where they are is what the pod's `prometheus.io/*`
//! annotations said before the injector pointed them at the proxy; it hands them on in `ISTIO_PROMETHEUS_ANNOTATIONS`.
//!
//! Bounds: one scrape of the application per scrape of the proxy, [`LIMIT`] in time (less, if the scraper says so), [`MOST`]
//! bytes. An application that does not answer costs its own metrics and is counted
//! (`istio_agent_scrape_failures_total`), never the proxy's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::http::HeaderMap;
use bytes::Bytes;
use http::{HeaderName, Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_proto::names;
use serde::Deserialize;
use tokio::net::TcpStream;

/// How long the application may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The most that it may say.
const MOST: usize = 32 << 20;
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// The annotations, as text, as they are in the pod.
#[derive(Deserialize)]
struct Annotations {
    #[serde(default)]
    scrape: String,
    #[serde(default)]
    port: String,
    #[serde(default)]
    path: String,
}

/// Where the application's metrics are.
#[derive(Clone, Debug)]
pub struct Application(Arc<Place>);

#[derive(Debug)]
struct Place {
    port: u16,
    path: String,
    scrapes: AtomicU64,
    failures: AtomicU64,
}

impl Application {
    /// From the annotations' JSON; `None` if they do not want it, or point at the proxy itself.
    pub fn from_annotations(text: &str) -> Result<Option<Self>, String> {
        let annotations: Annotations = serde_json::from_str(text)
            .map_err(|error| format!("is not JSON as the injector writes it: {error}"))?;
        let or = |text: &str, default: &str| match text {
            "" => default.to_owned(),
            text => text.to_owned(),
        };
        if annotations.scrape != "true" {
            return Ok(None);
        }
        let port = or(&annotations.port, "80");
        let port: u16 = port.parse().map_err(|_| format!("port {port:?} is not a port"))?;
        let path = or(&annotations.path, "/metrics");
        if http::uri::PathAndQuery::try_from(path.as_str()).is_err() || !path.starts_with('/') {
            return Err(format!("path {path:?} is not a path"));
        }
        let own = [names::port::METRICS, names::port::STATS, names::port::HEALTH];
        Ok((!own.contains(&port)).then(|| {
            Self(Arc::new(Place {
                port,
                path,
                scrapes: AtomicU64::new(0),
                failures: AtomicU64::new(0),
            }))
        }))
    }

    /// Appends the application's metrics, and how asking for them went, to the proxy's.
    pub async fn append(&self, page: &mut String, headers: &HeaderMap) {
        let said = headers
            .get(SCRAPE_TIMEOUT)
            .and_then(|value| value.to_str().ok()?.parse::<f64>().ok())
            .filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        // What the scraper waits for must leave time to answer it.
        let limit = said.map_or(LIMIT, |seconds| {
            LIMIT.min(Duration::from_secs_f64(seconds.min(60.0) * 0.8))
        });
        self.0.scrapes.fetch_add(1, Relaxed);
        let result = match tokio::time::timeout(limit, self.scrape(limit)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        };
        match result {
            Ok(text) => add(page, &text),
            Err(why) => {
                self.0.failures.fetch_add(1, Relaxed);
                tracing::debug!(port = self.0.port, path = %self.0.path, %why, "the application's metrics are missing");
            }
        }
        let (scrapes, failures) = (self.0.scrapes.load(Relaxed), self.0.failures.load(Relaxed));
        page.push_str(&format!(
            "# TYPE istio_agent_scrapes_total counter\nistio_agent_scrapes_total {scrapes}\n# TYPE \
             istio_agent_scrape_failures_total counter\nistio_agent_scrape_failures_total{{type=\"application\"}} \
             {failures}\n"
        ));
    }

    async fn scrape(&self, limit: Duration) -> Result<String, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let tcp = TcpStream::connect(("127.0.0.1", self.0.port))
            .await
            .map_err(|error| text(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp))
            .await
            .map_err(|error| text(&error))?;
        let connection = tokio::spawn(connection);
        let request = Request::get(self.0.path.as_str())
            .header(header::HOST, format!("localhost:{}", self.0.port))
            .header(header::ACCEPT, "text/plain;version=0.0.4")
            .header(SCRAPE_TIMEOUT, limit.as_secs_f64().to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|error| text(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| text(&error))?;
            if !response.status().is_success() {
                return Err(format!("it answered {}", response.status()));
            }
            let body = Limited::new(response.into_body(), MOST).collect().await;
            let bytes = body.map_err(|error| text(&error))?.to_bytes();
            String::from_utf8(bytes.into()).map_err(|error| text(&error))
        };
        let answer = answer.await;
        connection.abort();
        answer
    }
}

/// Appends a page of metrics. The end mark of OpenMetrics would hide what follows.
pub(crate) fn add(page: &mut String, text: &str) {
    for line in text.lines().filter(|line| *line != "# EOF") {
        page.push_str(line);
        page.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn application(port: u16) -> Application {
        let text = format!(r#"{{"scrape":"true","port":"{port}","path":"/own"}}"#);
        Application::from_annotations(&text).unwrap().unwrap()
    }

    #[test]
    fn annotations() {
        let read = Application::from_annotations;
        assert!(read(r#"{"scrape":"false","port":"9080"}"#).unwrap().is_none());
        assert!(
            read(r#"{"scrape":"true","port":"15020"}"#).unwrap().is_none(),
            "itself"
        );
        let place = read(r#"{"scrape":"true"}"#).unwrap().unwrap().0;
        assert_eq!((place.port, place.path.as_str()), (80, "/metrics"));
        for wrong in [
            "",
            "{",
            r#"{"scrape":"true","port":"x"}"#,
            r#"{"scrape":"true","path":"x"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn both_are_on_the_page() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let application = application(listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\nbooks_read 3\n# EOF",
                "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            ] {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let count = tcp.read(&mut request).await.unwrap();
                assert!(request[..count].starts_with(b"GET /own HTTP/1.1\r\n"));
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
            // The third one gets no answer at all.
            let _silent = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut page = "own 1\n".to_owned();
        application.append(&mut page, &HeaderMap::new()).await;
        assert!(
            page.starts_with("own 1\nbooks_read 3\n# TYPE istio_agent_scrapes_total"),
            "{page}"
        );
        let mut page = String::new();
        application.append(&mut page, &HeaderMap::new()).await;
        assert!(
            page.ends_with("failures_total{type=\"application\"} 1\n"),
            "{page}"
        );
        let hurry = HeaderMap::from_iter([(SCRAPE_TIMEOUT, "0.1".parse().unwrap())]);
        let mut page = String::new();
        application.append(&mut page, &hurry).await;
        assert!(
            page.ends_with("failures_total{type=\"application\"} 2\n"),
            "{page}"
        );
    }
}
