//! A mesh with Bookinfo in it as its visitors see it: pages through the ingress gateway, load on it, and what is applied while
//! they look. It is the same on one machine and on Kubernetes, and so are the lessons and the tests that need no more.

use crate::{
    client::load::{self, Report, Settings},
    process::last,
};
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};

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

pub trait Site {
    /// Where on this machine the gateway answers.
    fn gateway(&self) -> SocketAddr;

    fn runtime(&self) -> &Runtime;

    /// Applies a file of the repository, and waits until every proxy has acknowledged each object as it now is.
    fn apply_file_acked(&self, file: &str) -> anyhow::Result<()>;

    /// Takes away what a file of the repository has, and waits until every proxy has forgotten it.
    fn delete_file(&self, file: &str) -> anyhow::Result<()>;

    /// Waits until every pod is ready.
    fn wait_ready(&self) -> anyhow::Result<()>;

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway())
    }

    fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Page> {
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
    fn page(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Page> {
        let mut request = Request::get(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::default())?)
    }

    /// Signs in on the page, as a browser does, and returns the cookie.
    fn sign_in(&self, user: &str) -> anyhow::Result<String> {
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
    fn load(&self, path: &str, change: impl FnOnce(&mut Settings)) -> anyhow::Result<Report> {
        let mut settings = Settings::new(&self.url(path))?;
        change(&mut settings);
        self.runtime()
            .block_on(load::run(&settings, std::future::pending()))
    }

    /// The same, going on while the test does something.
    fn load_in_background(
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
    fn finish(&self, load: RunningLoad) -> anyhow::Result<Report> {
        let _ = load.stop.send(());
        self.runtime().block_on(load.handle).context("the load died")?
    }
}
