//! HTTP load, bounded in count or time, with a count of what came back. Requests have an optional fixed rate; every answer is
//! counted by status and by a label (a header, or a value in the JSON of the body) with the time when the first and the last
//! request of each began, so that one can say "after that moment, not one request more went there".
//!
//! Bounds: [`MAX_REQUESTS`], [`MAX_SECONDS`], and [`MAX_NAMES`] different labels or errors; the next are counted as `other`.

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::io::AsyncReadExt;

const MAX_REQUESTS: u64 = 10_000_000;
const MAX_SECONDS: u64 = 600;
const MAX_NAMES: usize = 200;
const MAX_BODY: usize = 32 * 1024 * 1024;
/// So many bad answers are kept as examples.
const SAMPLES: usize = 5;

#[derive(Args, Clone, Debug)]
pub struct Settings {
    #[arg(long)]
    pub url: Uri,
    #[arg(long, default_value_t = MAX_REQUESTS)]
    pub requests: u64,
    /// End after so many seconds at the latest.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    #[arg(long, default_value_t = 8)]
    pub concurrency: usize,
    /// Requests per second, all together; as fast as possible without.
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long, default_value = "GET")]
    pub method: Method,
    /// NAME:VALUE, may be repeated.
    #[arg(long)]
    pub header: Vec<String>,
    /// Bytes of body to send.
    #[arg(long, default_value_t = 0)]
    pub body_bytes: usize,
    /// HTTP/2 without TLS instead of HTTP/1.1.
    #[arg(long)]
    pub h2c: bool,
    #[arg(long, default_value_t = 15_000)]
    pub timeout_ms: u64,
    /// Count answers by this header.
    #[arg(long)]
    pub label_header: Option<String>,
    /// Count answers by this value of their JSON, such as /podname.
    #[arg(long)]
    pub label_json: Option<String>,
    /// An answer with this text in its body is a failure, whatever its status.
    #[arg(long)]
    pub lacks: Option<String>,
    /// End when standard input does.
    #[arg(long)]
    pub until_stdin_ends: bool,
}

impl Settings {
    pub fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            url: url.parse().with_context(|| format!("{url:?} is no URL"))?,
            requests: MAX_REQUESTS,
            seconds: 60,
            concurrency: 8,
            rate: None,
            method: Method::GET,
            header: Vec::new(),
            body_bytes: 0,
            h2c: false,
            timeout_ms: 15_000,
            label_header: None,
            label_json: None,
            lacks: None,
            until_stdin_ends: false,
        })
    }
}

/// How often one label came, and when (milliseconds since 1970) the first and the last request that got it began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Label {
    pub count: u64,
    pub first_ms: f64,
    pub last_ms: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub requests: u64,
    /// Answered with a status below 400.
    pub ok: u64,
    pub by_status: BTreeMap<u16, u64>,
    /// Requests without an answer, by reason.
    pub errors: BTreeMap<String, u64>,
    pub labels: BTreeMap<String, Label>,
    /// The first few answers that were not ok, with their beginnings.
    pub samples: Vec<String>,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub seconds: f64,
}

impl Report {
    pub fn failed(&self) -> u64 {
        self.requests - self.ok
    }

    /// The labels that begin with `prefix`, as one.
    pub fn labelled(&self, prefix: &str) -> Label {
        let mut sum = Label {
            first_ms: f64::INFINITY,
            ..Label::default()
        };
        for (_, label) in self.labels.iter().filter(|(name, _)| name.starts_with(prefix)) {
            sum.count += label.count;
            sum.first_ms = sum.first_ms.min(label.first_ms);
            sum.last_ms = sum.last_ms.max(label.last_ms);
        }
        sum
    }

    pub fn ensure_all_ok(&self) -> anyhow::Result<()> {
        ensure!(
            self.failed() == 0 && self.requests > 0,
            "{} of {} requests failed: by status {:?}, errors {:?}, for example: {}",
            self.failed(),
            self.requests,
            self.by_status,
            self.errors,
            self.samples.join(" | ")
        );
        Ok(())
    }
}

pub fn now_ms() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
        * 1000.0
}

/// Resolves when the load is to end early.
pub fn stop_when(settings: &Settings) -> impl Future<Output = ()> + Send + 'static {
    let stdin = settings.until_stdin_ends;
    async move {
        if stdin {
            let mut input = tokio::io::stdin();
            let mut buffer = [0; 256];
            while matches!(input.read(&mut buffer).await, Ok(n) if n > 0) {}
        } else {
            std::future::pending::<()>().await;
        }
    }
}

struct Shared {
    settings: Settings,
    headers: HeaderMap,
    client: Client<HttpConnector, Full<Bytes>>,
    body: Bytes,
    next: AtomicU64,
    begin: Instant,
    end: Instant,
    stopped: tokio::sync::watch::Receiver<bool>,
}

pub async fn run(settings: &Settings, stop: impl Future<Output = ()>) -> anyhow::Result<Report> {
    ensure!(
        settings.requests <= MAX_REQUESTS,
        "at most {MAX_REQUESTS} requests"
    );
    ensure!(settings.seconds <= MAX_SECONDS, "at most {MAX_SECONDS} seconds");
    let mut headers = HeaderMap::new();
    for header in &settings.header {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("{header:?} is not NAME:VALUE"))?;
        headers.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value.trim())?);
    }
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(settings.concurrency)
        .http2_only(settings.h2c)
        .build(connector);
    let (stopper, stopped) = tokio::sync::watch::channel(false);
    let begin = Instant::now();
    let shared = Arc::new(Shared {
        settings: settings.clone(),
        headers,
        client,
        body: Bytes::from(vec![b'x'; settings.body_bytes]),
        next: AtomicU64::new(0),
        begin,
        end: begin + Duration::from_secs(settings.seconds),
        stopped,
    });
    let workers: Vec<_> = (0..settings.concurrency.max(1))
        .map(|_| tokio::spawn(worker(shared.clone())))
        .collect();
    let gather = async {
        let mut all = Tally::default();
        for worker in workers {
            all.add(worker.await.context("a worker of the load died")?);
        }
        anyhow::Ok(all)
    };
    tokio::pin!(gather, stop);
    let all = tokio::select! {
        all = &mut gather => all?,
        () = &mut stop => {
            // Nobody listens any more only when all have ended.
            let _ = stopper.send(true);
            gather.await?
        }
    };
    Ok(all.report(begin.elapsed()))
}

async fn worker(shared: Arc<Shared>) -> Tally {
    let mut tally = Tally::default();
    loop {
        let ticket = shared.next.fetch_add(1, Ordering::Relaxed);
        if ticket >= shared.settings.requests || *shared.stopped.borrow() {
            return tally;
        }
        if let Some(rate) = shared.settings.rate.filter(|rate| *rate > 0.0) {
            let at = shared.begin + Duration::from_secs_f64(ticket as f64 / rate);
            let mut stopped = shared.stopped.clone();
            tokio::select! {
                () = tokio::time::sleep_until(at.min(shared.end).into()) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return tally,
            }
        }
        if Instant::now() >= shared.end {
            return tally;
        }
        let begun = (now_ms(), Instant::now());
        let timeout = Duration::from_millis(shared.settings.timeout_ms);
        let outcome = match tokio::time::timeout(timeout, exchange(&shared)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("no answer within {timeout:?}")),
        };
        tally.count(begun.0, begun.1.elapsed(), outcome);
    }
}

struct Answer {
    status: u16,
    label: Option<String>,
    beginning: String,
}

async fn exchange(shared: &Shared) -> anyhow::Result<Answer> {
    let settings = &shared.settings;
    let mut request = Request::new(Full::new(shared.body.clone()));
    *request.method_mut() = settings.method.clone();
    *request.uri_mut() = settings.url.clone();
    *request.headers_mut() = shared.headers.clone();
    let (head, body) = shared.client.request(request).await?.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("reading the body: {error}"))?;
    let body = body.to_bytes();
    if let Some(text) = &settings.lacks {
        let found = String::from_utf8_lossy(&body).contains(text.as_str());
        ensure!(!found, "{}, and the body has {text:?}", head.status);
    }
    let text = |value: Option<&HeaderValue>| {
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let label = match (&settings.label_header, &settings.label_json) {
        (Some(name), _) => text(head.headers.get(name)),
        (None, Some(pointer)) => serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|value| {
                value
                    .pointer(pointer)
                    .map(|value| value.as_str().map_or(value.to_string(), str::to_owned))
            }),
        (None, None) => None,
    };
    let beginning = if head.status.as_u16() < 400 {
        String::new()
    } else {
        format!(
            "{} {:?} {}",
            head.status,
            head.headers,
            String::from_utf8_lossy(&body[..body.len().min(300)])
        )
    };
    Ok(Answer {
        status: head.status.as_u16(),
        label,
        beginning,
    })
}

#[derive(Default)]
struct Tally {
    report: Report,
    micros: Vec<u32>,
}

/// The entry of `name`, or of `other` when there are too many names.
fn entry<V: Default>(map: &mut BTreeMap<String, V>, name: String) -> &mut V {
    let name = if map.len() < MAX_NAMES || map.contains_key(&name) {
        name
    } else {
        "other".to_owned()
    };
    map.entry(name).or_default()
}

impl Tally {
    fn count(&mut self, begun_ms: f64, took: Duration, outcome: Result<Answer, String>) {
        self.report.requests += 1;
        self.micros
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let sample = match outcome {
            Ok(answer) => {
                *self.report.by_status.entry(answer.status).or_default() += 1;
                if let Some(name) = answer.label {
                    let label = entry(&mut self.report.labels, name);
                    if label.count == 0 {
                        label.first_ms = begun_ms;
                    }
                    label.count += 1;
                    label.last_ms = begun_ms;
                }
                if answer.status < 400 {
                    self.report.ok += 1;
                    return;
                }
                answer.beginning
            }
            Err(error) => {
                *entry(&mut self.report.errors, error.clone()) += 1;
                error
            }
        };
        if self.report.samples.len() < SAMPLES {
            self.report.samples.push(sample);
        }
    }

    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        let (all, other) = (&mut self.report, other.report);
        all.requests += other.requests;
        all.ok += other.ok;
        for (status, n) in other.by_status {
            *all.by_status.entry(status).or_default() += n;
        }
        for (error, n) in other.errors {
            *entry(&mut all.errors, error) += n;
        }
        for (name, label) in other.labels {
            let sum = entry(&mut all.labels, name);
            if sum.count == 0 {
                *sum = label;
            } else {
                sum.count += label.count;
                sum.first_ms = sum.first_ms.min(label.first_ms);
                sum.last_ms = sum.last_ms.max(label.last_ms);
            }
        }
        all.samples.extend(other.samples);
        all.samples.truncate(SAMPLES);
    }

    fn report(mut self, took: Duration) -> Report {
        self.micros.sort_unstable();
        let quantile = |q: f64| {
            let index = (self.micros.len().saturating_sub(1) as f64 * q).round() as usize;
            f64::from(self.micros.get(index).copied().unwrap_or_default()) / 1000.0
        };
        self.report.p50_ms = quantile(0.5);
        self.report.p99_ms = quantile(0.99);
        self.report.max_ms = quantile(1.0);
        self.report.seconds = took.as_secs_f64();
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, label: &str) -> Result<Answer, String> {
        Ok(Answer {
            status,
            label: Some(label.to_owned()),
            beginning: "b".into(),
        })
    }

    #[test]
    fn counts_add_up() {
        let (mut a, mut b) = (Tally::default(), Tally::default());
        a.count(10.0, Duration::from_millis(1), answer(200, "reviews-v1-x"));
        a.count(30.0, Duration::from_millis(3), answer(503, "reviews-v2-y"));
        b.count(20.0, Duration::from_millis(2), answer(200, "reviews-v1-z"));
        b.count(40.0, Duration::from_millis(9), Err("refused".into()));
        a.add(b);
        let report = a.report(Duration::from_secs(1));
        assert_eq!((report.requests, report.ok, report.failed()), (4, 2, 2));
        let v1 = report.labelled("reviews-v1");
        assert_eq!((v1.count, v1.first_ms, v1.last_ms), (2, 10.0, 20.0));
        assert_eq!(report.errors["refused"], 1);
        assert!((report.max_ms - 9.0).abs() < 0.01);
        assert!(report.ensure_all_ok().is_err());
    }

    #[test]
    fn too_many_names_are_one() {
        let mut tally = Tally::default();
        for i in 0..MAX_NAMES + 10 {
            tally.count(0.0, Duration::ZERO, answer(200, &i.to_string()));
        }
        assert_eq!(tally.report.labels.len(), MAX_NAMES + 1);
        assert_eq!(tally.report.labels["other"].count, 10);
    }
}
