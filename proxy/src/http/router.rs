//! Forwards a request: picks an endpoint, takes a connection, sends, waits for the head of the answer; tries again where
//! the route's policy wants it and the request can be repeated. The plan of one attempt is made first, then carried out.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header, request, uri,
};
use hyper::{body::Incoming, client::conn::TrySendError, upgrade::OnUpgrade};

use super::{
    body::{RequestBody, ResponseBody},
    carry,
    dial::dial,
    exchange::{Exchange, Held, Tail},
    head::Head,
    upgrade,
};
use crate::{
    balance::outlier::Seen,
    cluster::{
        NoHost, Picked, Upstream,
        connect::{ConnectError, connect},
        pool::{Lease, Want},
    },
    config::{
        action::{Forward, Retry, RetryOn},
        cluster::Thresholds,
        flag::Flag,
        route::{MutationField, RouteConfig},
    },
    conn::{edge, tcp::count_failure},
    decide::{
        self,
        headers::apply,
        peer::Speak,
        reply::Failure,
        retry::{self as again, Outcome},
        rewrite::Host,
        route::Decision,
    },
    observe::record::{Upstream as UpstreamRecord, WireProtocol},
    tls::client::{Purpose, is_mesh},
};

/// Bytes of a request's body that are kept for a retry.
const REPLAY: usize = 64 * 1024;
const X_ENVOY_ATTEMPT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// How much of a body a policy may need again: nothing, where it only retries what was never sent.
pub fn replay_bytes(retry: &Retry) -> Option<usize> {
    let unsent = RetryOn::CONNECT_FAILURE
        .with(RetryOn::REFUSED_STREAM)
        .with(RetryOn::RESET_BEFORE_REQUEST)
        .with(RetryOn::HTTP3_POST_CONNECT_FAILURE);
    let needs_more = retry.on.0 & !unsent.0 != 0;
    (retry.retries > 0 && (needs_more || retry.on.has(RetryOn::REFUSED_STREAM))).then_some(REPLAY)
}

/// Counts a request as in flight at its cluster.
pub struct Flight(Rc<Upstream>);

impl Flight {
    fn new(upstream: &Rc<Upstream>) -> Self {
        upstream.requests.set(upstream.requests.get() + 1);
        upstream.stats.upstream_rq_active.inc();
        upstream.stats.upstream_rq_total.inc();
        Self(upstream.clone())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.stats.upstream_rq_active.dec();
    }
}

/// What is the same for all attempts of one request.
struct Plan<'a> {
    exchange: &'a Rc<Exchange>,
    upstream: Rc<Upstream>,
    forward: &'a Forward,
    method: http::Method,
    scheme: &'static str,
    authority: HeaderValue,
    authority_from_endpoint: bool,
    target: uri::PathAndQuery,
    headers: HeaderMap,
    extensions: http::Extensions,
    /// The downstream's protocol is HTTP/2 (carried HTTP/1.1 is not).
    http2: bool,
    http10: bool,
    /// The request asks to switch protocols.
    upgrade: bool,
    hash: Option<u64>,
    retry: Option<Arc<Retry>>,
    count_attempts: bool,
}

/// How one attempt ended.
enum Attempt {
    Answer(Box<(Response<Incoming>, Held)>),
    Failed { failure: Failure, outcome: Ended },
}

/// An outcome without borrowed parts.
#[derive(Clone, Copy)]
enum Ended {
    ConnectFailure,
    Refused,
    Reset {
        request_sent: bool,
    },
    PerTryTimeout,
    /// Nothing that another attempt would change.
    Final,
}

/// Forwards the request along its route.
pub async fn forward(
    exchange: &Rc<Exchange>,
    head: Head,
    forward: &Forward,
    config: &Rc<Arc<RouteConfig>>,
    decision: Decision,
    on_upgrade: Option<OnUpgrade>,
) -> Result<Response<ResponseBody>, Failure> {
    let Some(upstream) = exchange.cluster.borrow().clone() else {
        exchange.plan.stats.no_cluster.inc();
        let cluster = decision
            .cluster(config, &head.headers)
            .unwrap_or_default()
            .to_owned();
        return Err(Failure::NoCluster {
            cluster,
            status: forward.cluster_not_found,
        });
    };
    let upgrade = upgrade::asked(&head, exchange, forward)?;
    let mut plan = plan(exchange, upstream, head, forward, config, decision, upgrade);
    let started = Instant::now();
    let answer = match forward.timeout {
        None => plan.run().await?,
        Some(limit) => {
            let attempts = plan.run();
            tokio::pin!(attempts);
            loop {
                let due = remaining(exchange, started, limit);
                tokio::select! {
                    result = attempts.as_mut() => break result?,
                    () = tokio::time::sleep(due) => {}
                }
                if remaining(exchange, started, limit).is_zero() {
                    plan_timeout(exchange);
                    return Err(Failure::UpstreamTimeout);
                }
            }
        }
    };
    let (response, mut held) = *answer;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::switch(exchange, response, held, on_upgrade);
    }
    held.deadline = forward.timeout.map(|limit| {
        let due = remaining(exchange, started, limit);
        Box::pin(tokio::time::sleep(due))
    });
    Ok(respond(exchange, response, held))
}

/// A route's timeout begins when the whole request has arrived.
fn remaining(exchange: &Exchange, started: Instant, limit: Duration) -> Duration {
    let source = exchange.source.borrow();
    let since = match source.as_ref() {
        None => started,
        Some(source) => match source.ended.get() {
            Some(ended) => ended,
            None => return limit,
        },
    };
    limit.saturating_sub(since.elapsed())
}

fn plan_timeout(exchange: &Exchange) {
    if let Some(upstream) = exchange.cluster.borrow().as_ref() {
        upstream.stats.upstream_rq_timeout.inc();
    }
}

fn plan<'a>(
    exchange: &'a Rc<Exchange>,
    upstream: Rc<Upstream>,
    mut head: Head,
    forward: &'a Forward,
    config: &RouteConfig,
    decision: Decision,
    upgrade: bool,
) -> Plan<'a> {
    let connection = exchange.http.conn.connection();
    let route = decision.route(config);
    let worker = &exchange.http.conn.worker;
    let (target, host, hash) = {
        let facts = head.facts(&connection);
        let target = decide::rewrite::path(forward, &route.matches.path, facts.path, facts.query)
            .and_then(|path| uri::PathAndQuery::try_from(path).ok());
        let host = decide::rewrite::host(forward, decision.choice(config), &facts);
        let hash = (!forward.hash.is_empty())
            .then(|| decide::hash::hash(&forward.hash, &facts, worker.random()).value)
            .flatten();
        (target, host, hash)
    };
    if let Some(target) = &target {
        exchange.rewritten(target.as_str());
    }
    let mut authority =
        HeaderValue::from_str(&head.authority).unwrap_or_else(|_| HeaderValue::from_static(""));
    if !matches!(host, Host::Keep) && forward.append_forwarded_host {
        head.headers.append("x-forwarded-host", authority.clone());
    }
    if let Host::Set(value) = &host {
        authority = value.clone();
    }
    let mut target = target.unwrap_or(head.target);
    let (mut method, headers) = (head.method, &mut head.headers);
    apply(
        decision.request_mutations(config),
        headers,
        |format| super::answer::format_value(exchange, format),
        |field, value| match field {
            MutationField::Authority => authority = value,
            MutationField::Path => {
                if let Ok(path) = uri::PathAndQuery::try_from(value.as_bytes()) {
                    target = path;
                }
            }
            MutationField::Method => {
                if let Ok(new) = http::Method::from_bytes(value.as_bytes()) {
                    method = new;
                }
            }
            MutationField::Header(_) => {}
        },
    );
    let retry = forward.retry.clone();
    Plan {
        exchange,
        upstream,
        forward,
        method,
        scheme: head.scheme,
        authority,
        authority_from_endpoint: host == Host::Endpoint,
        target,
        headers: head.headers,
        extensions: head.extensions,
        http2: head.version == Version::HTTP_2,
        http10: head.version == Version::HTTP_10,
        upgrade,
        hash,
        retry,
        count_attempts: decision.vhost(config).request_attempt_count,
    }
}

impl Plan<'_> {
    /// Attempts until one gives an answer to pass on.
    async fn run(&mut self) -> Result<Box<(Response<Incoming>, Held)>, Failure> {
        let mut tried: Vec<u32> = Vec::new();
        let retries = self.retry.as_ref().map_or(0, |retry| retry.retries);
        let mut number = 0;
        loop {
            number += 1;
            let last = number > retries;
            let (picked, flight) = self.pick(&tried, number)?;
            if self.retry.as_ref().is_some_and(|retry| retry.previous_hosts) {
                tried.extend(picked.index());
            }
            let attempt = match self.retry.as_ref().and_then(|retry| retry.per_try_timeout) {
                None => self.attempt(picked, flight, last, number).await,
                Some(limit) => {
                    match tokio::time::timeout(limit, self.attempt(picked, flight, last, number)).await {
                        Ok(attempt) => attempt,
                        Err(_) => {
                            self.upstream.stats.upstream_rq_per_try_timeout.inc();
                            Attempt::Failed {
                                failure: Failure::PerTryTimeout,
                                outcome: Ended::PerTryTimeout,
                            }
                        }
                    }
                }
            };
            match attempt {
                Attempt::Answer(answer) => {
                    let status = answer.0.status();
                    let grpc = grpc_status(answer.0.headers());
                    answer.1.picked.seen(Seen::Response(status.as_u16()));
                    let outcome = Outcome::Response {
                        status,
                        grpc,
                        headers: answer.0.headers(),
                    };
                    if last || !self.may_retry(&outcome) {
                        if number > 1 && !status.is_server_error() {
                            self.upstream.stats.upstream_rq_retry_success.inc();
                        }
                        return Ok(answer);
                    }
                }
                Attempt::Failed { failure, outcome } => {
                    let outcome = match outcome {
                        Ended::Final => return Err(failure),
                        Ended::ConnectFailure => Outcome::ConnectFailure,
                        Ended::Refused => Outcome::Refused,
                        Ended::Reset { request_sent } => Outcome::Reset { request_sent },
                        Ended::PerTryTimeout => Outcome::PerTryTimeout,
                    };
                    if last
                        && retries > 0
                        && self
                            .retry
                            .as_ref()
                            .is_some_and(|retry| again::wanted(retry, &outcome))
                    {
                        self.upstream.stats.upstream_rq_retry_limit_exceeded.inc();
                        self.exchange.flag(Flag::UpstreamRetryLimitExceeded);
                    }
                    if last || !self.may_retry(&outcome) {
                        return Err(failure);
                    }
                }
            }
            self.wait(number).await;
        }
    }

    /// May the request be sent again after this?
    fn may_retry(&self, outcome: &Outcome<'_>) -> bool {
        let Some(retry) = &self.retry else { return false };
        let replayable = self
            .exchange
            .source
            .borrow()
            .as_ref()
            .is_none_or(|source| source.can_replay());
        if !replayable || self.upgrade || !again::wanted(retry, outcome) {
            return false;
        }
        let limit = self.thresholds().retries;
        if self.upstream.retries.get() >= limit {
            self.upstream.stats.upstream_rq_retry_overflow.inc();
            return false;
        }
        true
    }

    async fn wait(&self, number: u32) {
        let Some(retry) = &self.retry else { return };
        self.upstream.stats.upstream_rq_retry.inc();
        let upstream = self.upstream.clone();
        upstream.retries.set(upstream.retries.get() + 1);
        // The count must go down even if the exchange is dropped while it waits.
        let _retrying = Retrying(upstream);
        let pause = again::backoff(retry, number, self.exchange.http.conn.worker.random());
        tokio::time::sleep(pause).await;
    }

    fn thresholds(&self) -> &Thresholds {
        let breakers = &self.upstream.cluster.breakers;
        if self.forward.high_priority {
            &breakers.high
        } else {
            &breakers.default
        }
    }

    /// An endpoint, if the cluster has one and the circuit breaker is closed.
    fn pick(&self, tried: &[u32], number: u32) -> Result<(Picked, Flight), Failure> {
        let upstream = &self.upstream;
        let limit = self.thresholds();
        if upstream.requests.get() >= limit.requests {
            upstream.stats.upstream_rq_pending_overflow.inc();
            return Err(Failure::Overflow {
                breaker: "max_requests",
            });
        }
        let worker = &self.exchange.http.conn.worker;
        let origin = self.exchange.http.conn.origin;
        match upstream.pick(&worker.stats, origin, self.hash, worker.random(), tried) {
            Ok(picked) => {
                self.note_upstream(&picked, number);
                Ok((picked, Flight::new(upstream)))
            }
            Err(NoHost::Unhealthy | NoHost::NoOrigin) => {
                upstream.stats.upstream_cx_none_healthy.inc();
                Err(Failure::NoHealthyUpstream {
                    cluster: upstream.cluster.name.to_string(),
                })
            }
        }
    }

    fn note_upstream(&self, picked: &Picked, attempts: u32) {
        if self.exchange.plan.log.is_empty() {
            return;
        }
        *self.exchange.upstream.borrow_mut() = Some(Box::new(UpstreamRecord {
            cluster: self.upstream.cluster.name.clone(),
            host: Some(picked.host.address),
            local: None,
            attempts,
            connection_id: None,
            protocol: None,
            transport_failure: None,
            tls: None,
        }));
    }

    /// One attempt, to the head of the answer.
    async fn attempt(&mut self, picked: Picked, flight: Flight, last: bool, number: u32) -> Attempt {
        let plain = self.upgrade || self.http10;
        let lease = match self.lease(&picked, plain).await {
            Ok(lease) => lease,
            Err(failed) => return failed,
        };
        self.note_connection(&picked, &lease);
        let request = self.request(&picked, &lease, last, number);
        self.exchange.first_tx.set(Some(self.exchange.start.elapsed()));
        let sent = Instant::now();
        let (lease, result) = match lease {
            Lease::Single(mut single) => {
                let result = single.sender.try_send_request(request).await;
                (Lease::Single(single), result)
            }
            Lease::Shared(stream) => {
                let result = stream.0.sender.clone().try_send_request(request).await;
                (Lease::Shared(stream), result)
            }
        };
        match result {
            Ok(response) => {
                self.exchange.first_rx.set(Some(self.exchange.start.elapsed()));
                self.upstream.stats.upstream_rq_time.observe_time(sent.elapsed());
                self.upstream.stats.answered(response.status().as_u16());
                let host = &picked.host.stats;
                host.rq_total.inc();
                if response.status().is_server_error() {
                    host.rq_error.inc()
                } else {
                    host.rq_success.inc()
                }
                let held = Held {
                    lease,
                    picked,
                    flight,
                    plain,
                    deadline: None,
                };
                Attempt::Answer(Box::new((response, held)))
            }
            Err(error) => {
                picked.seen(Seen::Reset);
                self.failed(error)
            }
        }
    }

    /// A connection to the endpoint.
    async fn lease(&self, picked: &Picked, plain: bool) -> Result<Lease, Attempt> {
        let worker = &self.exchange.http.conn.worker;
        let upstream = &self.upstream;
        let carries = !plain && picked.tls.as_deref().is_some_and(is_mesh);
        let want = if plain {
            Want::Http1
        } else if carries {
            Want::Negotiated
        } else {
            match decide::peer::protocol(&upstream.cluster, self.http2, picked.tls.as_deref()) {
                Speak::Http1 => Want::Http1,
                Speak::Http2 => Want::Http2,
                Speak::ByAlpn => Want::Negotiated,
            }
        };
        let purpose = match want {
            Want::Negotiated if carries => Purpose::Carried { http2: self.http2 },
            Want::Http2 => Purpose::Http2,
            Want::Http1 | Want::Negotiated => Purpose::Http1,
        };
        let pool = if plain {
            &picked.host.plain_pool
        } else {
            &picked.host.pool
        };
        let result = pool
            .checkout(want, &upstream.cluster.http, async || {
                let dial = dial(worker, upstream, picked, purpose).map_err(|error| ConnectError::Http {
                    address: picked.host.address,
                    error: error.to_string(),
                })?;
                upstream.stats.upstream_cx_total.inc();
                picked.host.stats.cx_total.inc();
                let start = Instant::now();
                let connected = connect(&dial).await?;
                upstream
                    .stats
                    .upstream_cx_connect_ms
                    .observe_time(start.elapsed());
                if connected.tls.is_some() {
                    upstream.stats.upstream_cx_ssl_handshake.inc();
                }
                Ok((connected, worker.next_id()))
            })
            .await;
        result.map_err(|error| {
            let why = count_failure(upstream, &error);
            let address = picked.host.address.to_string();
            picked.host.stats.cx_connect_fail.inc();
            picked.seen(Seen::ConnectFailed);
            if let Some(record) = self.exchange.upstream.borrow_mut().as_mut() {
                record.transport_failure = Some(why.clone().into());
            }
            let failure = match &*error {
                ConnectError::Timeout { .. } => Failure::ConnectTimeout { address },
                ConnectError::Tls { error, .. } => Failure::UpstreamTls {
                    address,
                    why: error.to_string(),
                },
                ConnectError::Tcp { error, .. } => Failure::ConnectFailure {
                    address,
                    why: error.to_string(),
                },
                ConnectError::Http { error, .. } => Failure::ConnectFailure {
                    address,
                    why: error.clone(),
                },
            };
            Attempt::Failed {
                failure,
                outcome: Ended::ConnectFailure,
            }
        })
    }

    /// The connection's facts, for the log and the edge.
    fn note_connection(&self, picked: &Picked, lease: &Lease) {
        let facts = lease.facts();
        if let Some(record) = self.exchange.upstream.borrow_mut().as_mut() {
            record.local = Some(facts.local);
            record.connection_id = Some(facts.id);
            record.protocol = Some(match lease {
                Lease::Single(_) => WireProtocol::Http11,
                Lease::Shared(_) => WireProtocol::Http2,
            });
            record.tls = facts.tls.clone();
        }
        let kind = self.exchange.kind();
        let slot = kind as usize;
        let conn = &self.exchange.http.conn;
        if picked.endpoint.is_some()
            && let Some(edge) = &picked.host.edges.borrow()[slot]
        {
            *self.exchange.edge.borrow_mut() = Some(edge.clone());
            return;
        }
        if picked.endpoint.is_none() {
            let known = self.exchange.http.edges.borrow();
            let name = &self.upstream.cluster.name;
            if let Some((_, edge)) = known
                .iter()
                .find(|((cluster, of), _)| *of == kind && cluster == name)
            {
                *self.exchange.edge.borrow_mut() = Some(edge.clone());
                return;
            }
        }
        let principal = facts.tls.as_ref().and_then(|tls| tls.peer_uris.first());
        let Some(key) = edge::key(conn, &self.upstream.cluster, Some(picked), principal, kind) else {
            return;
        };
        let edge = conn.worker.stats.edge(key);
        *self.exchange.edge.borrow_mut() = Some(edge.clone());
        if picked.endpoint.is_some() {
            picked.host.edges.borrow_mut()[slot] = Some(edge);
        } else {
            self.exchange
                .http
                .edges
                .borrow_mut()
                .push(((self.upstream.cluster.name.clone(), kind), edge));
        }
    }

    /// The request for this connection. The headers stay only where a further attempt may need them.
    fn request(&mut self, picked: &Picked, lease: &Lease, last: bool, number: u32) -> Request<RequestBody> {
        let shared = matches!(lease, Lease::Shared(_));
        let repeat = !last
            && self
                .retry
                .as_ref()
                .is_some_and(|retry| shared || replay_bytes(retry).is_some());
        let mut headers = std::mem::take(&mut self.headers);
        if repeat {
            self.headers = headers.clone();
        }
        if self.count_attempts {
            headers.insert(X_ENVOY_ATTEMPT, number.into());
        }
        let mut authority = self.authority.clone();
        if self.authority_from_endpoint
            && let Some(endpoint) = &picked.endpoint
            && let Ok(name) = HeaderValue::from_str(&endpoint.hostname)
            && !name.is_empty()
        {
            authority = name;
        }
        let facts = lease.facts();
        if facts.carrier {
            if !self.http2 {
                carry::mark(&mut headers);
            }
            if !facts.introduced.replace(true) {
                let own = &self.exchange.http.conn.worker.own;
                carry::introduce(&mut headers, &own.workload.to_metadata());
            }
        }
        let body = match self.exchange.source.borrow().as_ref() {
            None => RequestBody::empty(),
            Some(source) => RequestBody::of(source.clone()),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        if shared {
            carry::strip_connection_headers(&mut headers);
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = absolute(self.scheme, &authority, &self.target);
        } else {
            if !self.upgrade {
                carry::strip_connection_headers(&mut headers);
            }
            *request.version_mut() = if self.http10 {
                Version::HTTP_10
            } else {
                Version::HTTP_11
            };
            *request.uri_mut() = Uri::from(self.target.clone());
            headers.insert(header::HOST, authority);
            *request.extensions_mut() = self.extensions.clone();
        }
        *request.headers_mut() = headers;
        request
    }

    /// What a failed send means.
    fn failed(&mut self, mut error: TrySendError<Request<RequestBody>>) -> Attempt {
        let unsent = error.take_message();
        let request_sent = unsent.is_none();
        if let Some(request) = unsent
            && self.headers.is_empty()
        {
            let (request::Parts { headers, .. }, _) = request.into_parts();
            self.headers = headers;
            self.headers.remove(header::HOST);
            carry::unpack(&mut self.headers);
        }
        let error = error.into_error();
        if self
            .exchange
            .source
            .borrow()
            .as_ref()
            .is_some_and(|source| source.failed.get())
        {
            return Attempt::Failed {
                failure: Failure::DownstreamClosed,
                outcome: Ended::Final,
            };
        }
        let refused = refused_stream(&error);
        self.upstream.stats.upstream_rq_rx_reset.inc();
        let why = describe(&error);
        let failure = if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            Failure::UpstreamClosed
        } else if error.is_parse() {
            self.upstream.stats.upstream_cx_protocol_error.inc();
            Failure::UpstreamProtocol { why }
        } else {
            Failure::UpstreamReset { why }
        };
        let outcome = if refused {
            Ended::Refused
        } else {
            Ended::Reset { request_sent }
        };
        Attempt::Failed { failure, outcome }
    }
}

/// A retry that is waiting, for the circuit breaker.
struct Retrying(Rc<Upstream>);

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retries.set(self.0.retries.get().saturating_sub(1));
    }
}

/// The error with its causes: hyper's own text leaves them out.
fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Did the peer say that it did not look at the request? (RFC 9113 §8.7)
fn refused_stream(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR));
        }
        cause = error.source();
    }
    false
}

fn absolute(scheme: &str, authority: &HeaderValue, target: &uri::PathAndQuery) -> Uri {
    Uri::builder()
        .scheme(scheme)
        .authority(authority.as_bytes())
        .path_and_query(target.clone())
        .build()
        .unwrap_or_else(|_| Uri::from(target.clone()))
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The upstream's answer as the downstream gets it.
fn respond(exchange: &Rc<Exchange>, response: Response<Incoming>, held: Held) -> Response<ResponseBody> {
    let (mut parts, incoming) = response.into_parts();
    carry::strip_connection_headers(&mut parts.headers);
    parts.version = if exchange.http.http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    super::answer::finish_head(exchange, &mut parts.headers, true);
    exchange.details("via_upstream".into());
    let tail = Tail::new(exchange.clone(), Some(Box::new(held)));
    let response = Response::from_parts(parts, ResponseBody::Upstream { incoming, tail });
    exchange.answered(&response);
    let mut response = response;
    if let ResponseBody::Upstream { incoming, tail } = response.body_mut()
        && hyper::body::Body::is_end_stream(incoming)
    {
        tail.complete();
    }
    response
}
