//! The browser's side: requests to the gateway's port on this machine, and load on it.

use super::Mesh;
use crate::{
    client::load::{self, Report, Settings},
    process::last,
};
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::time::{Duration, Instant};
use tokio::{sync::oneshot, task::JoinHandle};

/// What came back.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    pub took: Duration,
}

impl Page {
    /// Status and body for a message: of a page of Bookinfo, what lies between its head and its end.
    pub fn shown(&self) -> String {
        let body = self
            .body
            .split_once("<main>")
            .map_or(self.body.as_str(), |(_, body)| body);
        format!("{}: {}", self.status, last(body, 2500))
    }
}

/// Load that runs until it is told to end.
pub struct RunningLoad {
    stop: oneshot::Sender<()>,
    handle: JoinHandle<anyhow::Result<Report>>,
}

impl Mesh {
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.gateway_port)
    }

    pub fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Page> {
        let line = format!("{} {}", request.method(), request.uri());
        let begin = Instant::now();
        let exchange = async {
            let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
            let (head, body) = client.request(request).await?.into_parts();
            let body = Limited::new(body, 16 << 20)
                .collect()
                .await
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            anyhow::Ok(Page {
                status: head.status,
                headers: head.headers,
                body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                took: begin.elapsed(),
            })
        };
        self.runtime()
            .block_on(async { tokio::time::timeout(Duration::from_secs(30), exchange).await })
            .with_context(|| format!("{line}: no answer within 30 s"))?
            .with_context(|| line.clone())
    }

    /// GETs a path through the gateway.
    pub fn page(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Page> {
        let mut request = Request::get(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::default())?)
    }

    /// Signs in on the page, as a browser does, and returns the cookie.
    pub fn sign_in(&self, user: &str) -> anyhow::Result<String> {
        let request = Request::post(self.url("/login"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(format!("username={user}")))?;
        let page = self.send(request)?;
        ensure!(
            page.status == StatusCode::SEE_OTHER,
            "signing in was answered {}: {}",
            page.status,
            page.body
        );
        let cookie = page
            .headers
            .get(header::SET_COOKIE)
            .context("signing in set no cookie")?
            .to_str()?;
        Ok(cookie.split(';').next().unwrap_or_default().to_owned())
    }

    /// Load on a path of the gateway; `change` sets how.
    pub fn load(&self, path: &str, change: impl FnOnce(&mut Settings)) -> anyhow::Result<Report> {
        let mut settings = Settings::new(&self.url(path))?;
        change(&mut settings);
        self.runtime()
            .block_on(load::run(&settings, std::future::pending()))
    }

    /// The same, going on while the test does something.
    pub fn load_in_background(
        &self,
        path: &str,
        change: impl FnOnce(&mut Settings),
    ) -> anyhow::Result<RunningLoad> {
        let mut settings = Settings::new(&self.url(path))?;
        settings.seconds = 300;
        change(&mut settings);
        let (stop, stopped) = oneshot::channel();
        let handle = self
            .runtime()
            .spawn(async move { load::run(&settings, async { drop(stopped.await) }).await });
        Ok(RunningLoad { stop, handle })
    }

    /// Ends the load and says what came of it.
    pub fn finish(&self, load: RunningLoad) -> anyhow::Result<Report> {
        let _ = load.stop.send(());
        self.runtime().block_on(load.handle).context("the load died")?
    }
}
