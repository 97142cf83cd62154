//! The local rate limit: a token bucket that all workers of this proxy share. A request without a token is refused with
//! 429 (or what the configuration says), flag `RL`, `x-envoy-ratelimited`, and for gRPC with its status; the numbers are
//! Envoy's (`<stat prefix>.http_local_rate_limit.*`).

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use crate::{
    config::{bucket::Left, filter::LocalRateLimit},
    decide::{headers::apply, reply::Failure},
    http::{answer, body::ResponseBody, exchange::Exchange, head::Head},
    observe::{
        Shard,
        stats::{Counter, Local},
    },
};

const X_ENVOY_RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Limits of one connection manager whose cells a worker keeps at hand.
const KEPT: usize = 64;

/// The numbers of one limit on one worker.
pub struct Cells {
    enabled: Local<Counter>,
    ok: Local<Counter>,
    rate_limited: Local<Counter>,
    enforced: Local<Counter>,
}

impl Cells {
    fn new(prefix: &str, shard: &Shard) -> Self {
        let counter = |name: &str| shard.counter(&format!("{prefix}.http_local_rate_limit.{name}"));
        Self {
            enabled: counter("enabled"),
            ok: counter("ok"),
            rate_limited: counter("rate_limited"),
            enforced: counter("enforced"),
        }
    }
}

/// The cells of the limits that a worker has met on one connection manager, by stat prefix.
#[derive(Default)]
pub struct Known(std::cell::RefCell<Vec<(Arc<str>, Rc<Cells>)>>);

impl Known {
    fn get(&self, prefix: &Arc<str>, shard: &Shard) -> Rc<Cells> {
        let mut known = self.0.borrow_mut();
        if let Some((_, cells)) = known.iter().find(|(name, _)| name == prefix) {
            return cells.clone();
        }
        // Routes with limits of their own come and go; their counters stay in the registry.
        if known.len() >= KEPT {
            known.clear();
        }
        let cells = Rc::new(Cells::new(prefix, shard));
        known.push((prefix.clone(), cells.clone()));
        cells
    }
}

/// What becomes of the request.
pub enum Limited {
    /// It goes on; these headers, if any, go onto its answer.
    Pass(Option<HeaderMap>),
    Refused(Box<Response<ResponseBody>>),
}

/// Takes a token for the request.
pub fn check(exchange: &Rc<Exchange>, head: &mut Head, limit: &LocalRateLimit) -> Limited {
    let worker = &exchange.http.conn.worker;
    if !limit.enabled.hit(worker.random()) {
        return Limited::Pass(None);
    }
    let cells = exchange.plan.limits.get(&limit.stat_prefix, &worker.stats);
    cells.enabled.inc();
    let Some(bucket) = &limit.bucket else {
        cells.ok.inc();
        return Limited::Pass(None);
    };
    let left = bucket.take(Instant::now());
    let told = limit.tell.then(|| tell(bucket.settings().max, left));
    if left.taken {
        cells.ok.inc();
        return Limited::Pass(told);
    }
    cells.rate_limited.inc();
    let format = |format: &_| answer::format_value(exchange, format);
    if !limit.enforced.hit(worker.random()) {
        apply(limit.unenforced.iter(), &mut head.headers, format, |_, _| {});
        return Limited::Pass(told);
    }
    cells.enforced.inc();
    let failure = Failure::RateLimited {
        status: limit.status,
        resource_exhausted: limit.resource_exhausted,
    };
    let mut response = answer::failure(exchange, &failure);
    let headers = response.headers_mut();
    if !exchange.plan.hcm.router.suppress_envoy_headers {
        headers.insert(X_ENVOY_RATELIMITED, HeaderValue::from_static("true"));
    }
    headers.extend(told.into_iter().flatten());
    if limit.retry_after {
        headers.insert(header::RETRY_AFTER, seconds(left.next_in).max(1).into());
    }
    apply(limit.response.iter(), headers, format, |_, _| {});
    Limited::Refused(Box::new(response))
}

/// What is left, in the headers of the IETF's third draft.
fn tell(max: u32, left: Left) -> HeaderMap {
    HeaderMap::from_iter([
        (X_RATELIMIT_LIMIT, max.into()),
        (X_RATELIMIT_REMAINING, left.tokens.into()),
        (X_RATELIMIT_RESET, seconds(left.full_in).into()),
    ])
}

/// Whole seconds, not too few.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
