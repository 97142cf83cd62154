//! Forwards a request: picks an endpoint, takes a connection, sends, waits for the head of the answer; tries again where
//! the route's policy wants it and the request can be repeated. The plan of one attempt is made first, then carried out.

mod failed;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header, uri};

use super::{
    body::{Incoming, RequestBody, ResponseBody},
    carry,
    dial::dial,
    exchange::{Exchange, Held, Tail},
    head::Head,
    http1::{self, Manner, client::Ask, encode::RequestLine, spelling::Spelling},
    http2::client,
    mirror, upgrade,
};
use crate::{
    balance::outlier::Seen,
    cluster::{
        NoHost, Picked, Upstream,
        connect::{ConnectError, connect},
        pool::{Lease, Pool, Shared, Single, Want},
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
const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const X_ENVOY_ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
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

/// The endpoint's connections, or those for requests that must have one of HTTP/1.1 without more.
fn pool(picked: &Picked, plain: bool) -> &Pool {
    if plain {
        &picked.host.plain_pool
    } else {
        &picked.host.pool
    }
}

/// Counts a request as in flight at its cluster.
pub struct Flight(Rc<Upstream>);

impl Flight {
    fn new(upstream: &Rc<Upstream>) -> Self {
        upstream.begin_request();
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
    spelling: Option<Rc<Spelling>>,
    /// The downstream's protocol is HTTP/2 (carried HTTP/1.1 is not).
    http2: bool,
    http10: bool,
    /// The request asks to switch protocols.
    upgrade: bool,
    hash: Option<u64>,
    /// For a client that had none, to keep it with its endpoint.
    cookie: Option<String>,
    retry: Option<Arc<Retry>>,
    count_attempts: bool,
}

/// An upstream's answer.
pub struct Answer {
    pub response: Response<Incoming>,
    /// How it was written.
    pub manner: Manner,
    pub held: Held,
}

/// How one attempt ended.
enum Attempt {
    Answer(Box<Answer>),
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
    /// A connection that had served others was closed without a word, and the request may be repeated.
    Stale,
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
    if !forward.mirrors.is_empty() {
        mirror::start(exchange, forward, &plan.original());
    }
    if let Some(limit) = forward.timeout {
        exchange.answer_within(limit);
    }
    let answer = *plan.run().await?;
    if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::switch(exchange, answer);
    }
    Ok(respond(exchange, answer, plan.cookie.as_deref()))
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
    let (target, host, hashed) = {
        let facts = head.facts(&connection);
        let target = decide::rewrite::path(forward, &route.matches.path, facts.path, facts.query)
            .and_then(|path| uri::PathAndQuery::try_from(path).ok());
        let host = decide::rewrite::host(forward, decision.choice(config), &facts);
        let hashed = match forward.hash.as_slice() {
            [] => decide::hash::Hashed::default(),
            policies => decide::hash::hash(policies, &facts, worker.random()),
        };
        (target, host, hashed)
    };
    if let Some(target) = &target {
        exchange.rewritten(target.as_str());
        if let Ok(value) = HeaderValue::from_str(head.target.as_str()) {
            head.headers.insert(X_ENVOY_ORIGINAL_PATH, value);
        }
    }
    let mut authority =
        HeaderValue::from_str(&head.authority).unwrap_or_else(|_| HeaderValue::from_static(""));
    if !matches!(host, Host::Keep) && forward.append_forwarded_host {
        head.headers.append("x-forwarded-host", authority.clone());
    }
    if !matches!(host, Host::Keep) && !head.headers.contains_key(X_ENVOY_ORIGINAL_HOST) {
        head.headers.insert(X_ENVOY_ORIGINAL_HOST, authority.clone());
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
    if !upgrade {
        carry::strip_connection_headers(headers);
    }
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
        spelling: head.spelling,
        http2: head.version == Version::HTTP_2,
        http10: head.version == Version::HTTP_10,
        upgrade,
        hash: hashed.value,
        cookie: hashed.set_cookie,
        retry,
        count_attempts: decision.vhost(config).request_attempt_count,
    }
}

impl Plan<'_> {
    /// As copies of the request see it.
    fn original(&self) -> mirror::Original<'_> {
        mirror::Original {
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            target: &self.target,
            headers: &self.headers,
            http2: self.http2,
            upgrade: self.upgrade,
        }
    }

    /// Attempts until one gives an answer to pass on.
    async fn run(&mut self) -> Result<Box<Answer>, Failure> {
        let mut tried: Vec<u32> = Vec::new();
        let retries = self.retry.as_ref().map_or(0, |retry| retry.retries);
        let mut number = 0;
        let mut repeated = false;
        // While a retry is under way the circuit breaker knows of it, also when the exchange is dropped.
        let mut retrying: Option<Retrying> = None;
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
            drop(retrying.take());
            match attempt {
                Attempt::Answer(mut answer) => {
                    let unsent = answer.response.headers_mut().remove(carry::UNSENT).is_some()
                        && answer.held.lease.facts().carrier;
                    let status = answer.response.status();
                    let headers = answer.response.headers();
                    let grpc = grpc_status(headers);
                    answer.held.picked.seen(Seen::Response(status.as_u16()));
                    let outcome = if unsent {
                        Outcome::ConnectFailure
                    } else {
                        Outcome::Response {
                            status,
                            grpc,
                            headers,
                        }
                    };
                    if last {
                        self.note_exhausted(retries, &outcome);
                    }
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
                        Ended::Stale if !repeated => {
                            repeated = true;
                            number -= 1;
                            continue;
                        }
                        Ended::Stale => Outcome::Reset { request_sent: true },
                        Ended::ConnectFailure => Outcome::ConnectFailure,
                        Ended::Refused => Outcome::Refused,
                        Ended::Reset { request_sent } => Outcome::Reset { request_sent },
                        Ended::PerTryTimeout => Outcome::PerTryTimeout,
                    };
                    if last {
                        self.note_exhausted(retries, &outcome);
                    }
                    if last || !self.may_retry(&outcome) {
                        return Err(failure);
                    }
                }
            }
            retrying = self.wait(number).await;
        }
    }

    /// The last attempt ended so that another one would follow, if there was one left.
    fn note_exhausted(&self, retries: u32, outcome: &Outcome<'_>) {
        let wanted = self
            .retry
            .as_ref()
            .is_some_and(|retry| again::wanted(retry, outcome));
        if retries > 0 && wanted {
            self.upstream.stats.upstream_rq_retry_limit_exceeded.inc();
            self.exchange.flag(Flag::UpstreamRetryLimitExceeded);
        }
    }

    /// Is everything of the request still there?
    fn can_be_sent_again(&self) -> bool {
        let source = self.exchange.source.borrow();
        !self.upgrade && source.as_ref().is_none_or(|source| source.can_replay())
    }

    /// May the request be sent again after this?
    fn may_retry(&self, outcome: &Outcome<'_>) -> bool {
        let Some(retry) = &self.retry else { return false };
        if !self.can_be_sent_again() || !again::wanted(retry, outcome) {
            return false;
        }
        if !self.upstream.may_retry(self.thresholds()) {
            self.upstream.stats.upstream_rq_retry_overflow.inc();
            return false;
        }
        true
    }

    async fn wait(&self, number: u32) -> Option<Retrying> {
        let retry = self.retry.as_ref()?;
        self.upstream.stats.upstream_rq_retry.inc();
        let upstream = self.upstream.clone();
        upstream.retries.set(upstream.retries.get() + 1);
        let retrying = Retrying(upstream);
        let pause = again::backoff(retry, number, self.exchange.http.conn.worker.random());
        tokio::time::sleep(pause).await;
        Some(retrying)
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
                let facts = &self.exchange.http.conn.facts;
                let picked = picked.on_behalf_of((facts.remote, facts.local), &worker.stats);
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
        if self.count_attempts {
            self.headers.insert(X_ENVOY_ATTEMPT, number.into());
        }
        let sent = self.exchange.start.elapsed();
        self.exchange.first_tx.set(Some(sent));
        let result = match &lease {
            Lease::Single(single) => self.send_single(&picked, single).await,
            Lease::Shared(stream) => self.send_shared(&picked, &stream.0, last).await,
        };
        let (response, manner) = match result {
            Ok(answer) => answer,
            Err(failed) => {
                if matches!(
                    failed,
                    Attempt::Failed {
                        outcome: Ended::Stale,
                        ..
                    }
                ) {
                    // The others that are idle have most likely gone with it.
                    pool(&picked, plain).sweep(Some(Duration::ZERO));
                } else {
                    picked.seen(Seen::Reset);
                    self.upstream.stats.upstream_rq_rx_reset.inc();
                }
                return failed;
            }
        };
        let received = self.exchange.start.elapsed();
        self.exchange.first_rx.set(Some(received));
        self.upstream.stats.upstream_rq_time.observe_time(received - sent);
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
        };
        Attempt::Answer(Box::new(Answer {
            response,
            manner,
            held,
        }))
    }

    fn body(&self) -> RequestBody {
        match self.exchange.source.borrow().as_ref() {
            None => RequestBody::empty(),
            Some(source) => RequestBody::of(source.clone()),
        }
    }

    /// The host to ask for: the endpoint's own name, where the route wants that.
    fn authority(&self, picked: &Picked) -> HeaderValue {
        if self.authority_from_endpoint
            && let Some(endpoint) = &picked.endpoint
            && let Ok(name) = HeaderValue::from_str(&endpoint.hostname)
            && !name.is_empty()
        {
            return name;
        }
        self.authority.clone()
    }

    async fn send_single(
        &self,
        picked: &Picked,
        single: &Single,
    ) -> Result<(Response<Incoming>, Manner), Attempt> {
        let authority = self.authority(picked);
        let ask = Ask {
            line: RequestLine {
                method: &self.method,
                target: self.target.as_str(),
                version: if self.http10 {
                    Version::HTTP_10
                } else {
                    Version::HTTP_11
                },
                authority: &authority,
            },
            headers: &self.headers,
            spelling: self.spelling.as_deref(),
            upgrade: self.upgrade,
            max_headers: self.upstream.cluster.http.max_response_headers_count,
        };
        match http1::client::send(&single.wire, ask, self.body()).await {
            Ok((response, manner)) => Ok((response.map(Incoming::Http1), manner)),
            Err(error) => Err(self.failed_single(&error, single)),
        }
    }

    async fn send_shared(
        &mut self,
        picked: &Picked,
        shared: &Shared,
        last: bool,
    ) -> Result<(Response<Incoming>, Manner), Attempt> {
        let request = self.request(picked, shared, last);
        match client::send(&shared.sender, request, self.body()).await {
            Ok(response) => {
                let mut response = response.map(Incoming::Http2);
                let carrier = shared.facts.carrier;
                let known = &mut shared.known.borrow_mut();
                let manner = carry::unpack_answer(response.headers_mut(), carrier, known);
                Ok((response, manner))
            }
            Err(error) => Err(self.failed_shared(error)),
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
        let result = pool(picked, plain)
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

    /// The request for a shared connection. The headers stay only where a further attempt may need them.
    fn request(&mut self, picked: &Picked, shared: &Shared, last: bool) -> Request<()> {
        let mut headers = std::mem::take(&mut self.headers);
        if !last && self.retry.is_some() {
            self.headers = headers.clone();
        }
        let facts = &shared.facts;
        if facts.carrier {
            if !self.http2 {
                carry::mark(&mut headers, self.spelling.as_deref());
            }
            if !facts.introduced.replace(true) {
                let own = &self.exchange.http.conn.worker.own;
                carry::introduce(&mut headers, &own.workload.to_metadata());
            }
        }
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = absolute(self.scheme, &self.authority(picked), &self.target);
        *request.headers_mut() = headers;
        request
    }
}

/// A retry that waits or is under way, for the circuit breaker.
struct Retrying(Rc<Upstream>);

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retries.set(self.0.retries.get().saturating_sub(1));
    }
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
fn respond(exchange: &Rc<Exchange>, answer: Answer, cookie: Option<&str>) -> Response<ResponseBody> {
    let Answer {
        response,
        mut manner,
        held,
    } = answer;
    let (mut parts, incoming) = response.into_parts();
    carry::strip_connection_headers(&mut parts.headers);
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(cookie).ok()) {
        parts.headers.append(header::SET_COOKIE, cookie);
    }
    parts.version = if exchange.http.http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    super::answer::finish_head(exchange, &mut parts.headers, true);
    if exchange.carried.get() {
        carry::mark_answer(&mut parts.headers, std::mem::take(&mut manner));
    }
    exchange.details("via_upstream".into());
    let tail = Tail::new(exchange.clone(), Some(Box::new(held)));
    let body = ResponseBody::Upstream {
        incoming,
        tail,
        manner,
    };
    let mut response = Response::from_parts(parts, body);
    exchange.answered(&response);
    if let ResponseBody::Upstream { incoming, tail, .. } = response.body_mut()
        && http_body::Body::is_end_stream(incoming)
    {
        tail.complete();
    }
    response
}
