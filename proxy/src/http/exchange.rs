//! One request, from its head to the last byte of its answer. The exchange keeps what was decided and what happened;
//! counters, access log and span are all written from it, once, at the end.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell, RefCell},
    future::{Future, poll_fn},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, Response, Version};
use http_body::Body;

use super::{
    HttpConn, answer,
    body::{Broken, Incoming, ResponseBody, Source},
    filter::{self, Filtered},
    head::{self, Head},
    http1::{head::BadHead, spelling::Spelling},
    plan::{HttpPlan, Traced},
    router,
    timeout::{Clock, Limits, Overdue},
};
use crate::{
    cluster::{Picked, pool::Lease},
    config::{
        action::{Action, Forward},
        flag::{Flag, Flags},
        hcm::RouteSource,
        listener::Direction,
        log::LogType,
        route::RouteConfig,
        scalar::Object,
    },
    conn::{
        edge,
        tcp::{empty_ends, record_ends},
    },
    decide::{
        self,
        facts::is_grpc,
        reply::{Failure, reply},
        route::{Decision, Routed},
    },
    observe::{
        AccessRecord, Outcome, RequestProtocol,
        record::{HttpFacts, Sizes, Times, Upstream as UpstreamRecord, WireProtocol},
        stats::Edge,
        trace::{self, Span, SpanKind, TraceContext},
    },
    worker::{Active, Worker},
};

/// One request.
pub struct Exchange {
    pub http: Rc<HttpConn>,
    /// The connection manager as it was when the request came.
    pub plan: Rc<HttpPlan>,
    _active: Active,
    pub start: Instant,
    protocol: Cell<WireProtocol>,
    pub grpc: Cell<bool>,
    pub flags: Cell<Flags>,
    details: RefCell<Cow<'static, str>>,
    status: Cell<u16>,
    grpc_status: Cell<Option<u32>>,
    sent: Cell<u64>,
    pub source: RefCell<Option<Rc<Source>>>,
    /// Kept only where a log or a span wants them.
    facts: RefCell<Option<Box<HttpFacts>>>,
    pub route: RefCell<Option<(Rc<Arc<RouteConfig>>, Decision)>>,
    pub cluster: RefCell<Option<Rc<crate::cluster::Upstream>>>,
    pub edge: RefCell<Option<Edge>>,
    pub upstream: RefCell<Option<Box<UpstreamRecord>>>,
    pub first_tx: Cell<Option<Duration>>,
    pub first_rx: Cell<Option<Duration>>,
    pub trace: Cell<Option<TraceContext>>,
    /// HTTP/1.1 inside of HTTP/2: the answer's spelling goes back the same way.
    pub carried: Cell<bool>,
    /// Runs where a request is limited in time.
    clock: OnceCell<Rc<Clock>>,
    finished: Cell<bool>,
}

/// A request as a codec hands it over.
pub struct Arrived {
    pub parts: http::request::Parts,
    /// How its headers were written, if that is known.
    pub spelling: Option<Rc<Spelling>>,
    pub body: Incoming,
}

/// Answers one request. The codec never sees an error: failures are answers.
pub async fn run(http: Rc<HttpConn>, arrived: Arrived) -> Response<ResponseBody> {
    let exchange = Exchange::begin(http, arrived.parts.version);
    let result = {
        let process = exchange.process(arrived);
        tokio::pin!(process);
        poll_fn(|cx| {
            if let Poll::Ready(result) = process.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            exchange.poll_overdue(cx).map(|overdue| {
                exchange.count_overdue(overdue);
                Err(overdue.failure())
            })
        })
        .await
    };
    match result {
        Ok(response) => response,
        Err(failure) => answer::failure(&exchange, &failure),
    }
}

/// Answers what is no request: a head that is not understood. It is counted and logged as one all the same.
pub fn refuse(http: Rc<HttpConn>, bad: BadHead) -> Response<ResponseBody> {
    let exchange = Exchange::begin(http, Version::HTTP_11);
    if !exchange.plan.log.is_empty() {
        *exchange.facts.borrow_mut() = Some(Box::default());
    }
    let failure = Failure::Malformed {
        status: bad.status(),
        details: bad.details(),
        why: bad.to_string(),
    };
    answer::failure(&exchange, &failure)
}

impl Exchange {
    fn begin(http: Rc<HttpConn>, version: Version) -> Rc<Self> {
        let now = Instant::now();
        let plan = http.plan();
        let stats = &plan.stats;
        stats.downstream_rq_total.inc();
        stats.rq_total.inc();
        stats.downstream_rq_active.inc();
        if http.http2 {
            stats.downstream_rq_http2_total.inc()
        } else {
            stats.downstream_rq_http1_total.inc()
        }
        http.in_flight.set(http.in_flight.get() + 1);
        http.requests.set(http.requests.get().saturating_add(1));
        http.last.set(now);
        Rc::new(Self {
            _active: Active::new(&http.conn.worker),
            start: now,
            protocol: Cell::new(wire(version)),
            grpc: Cell::new(false),
            flags: Cell::new(Flags::none()),
            details: RefCell::new(Cow::Borrowed("")),
            status: Cell::new(0),
            grpc_status: Cell::new(None),
            sent: Cell::new(0),
            source: RefCell::default(),
            facts: RefCell::default(),
            route: RefCell::default(),
            cluster: RefCell::default(),
            edge: RefCell::default(),
            upstream: RefCell::default(),
            first_tx: Cell::new(None),
            first_rx: Cell::new(None),
            trace: Cell::new(None),
            carried: Cell::new(false),
            clock: OnceCell::new(),
            finished: Cell::new(false),
            plan,
            http,
        })
    }

    /// When it began, as a calendar has it.
    fn wall(&self) -> SystemTime {
        SystemTime::now() - self.start.elapsed()
    }

    pub fn flag(&self, flag: Flag) {
        let mut flags = self.flags.get();
        flags.add(flag);
        self.flags.set(flags);
    }

    pub fn details(&self, details: Cow<'static, str>) {
        *self.details.borrow_mut() = details;
    }

    pub fn protocol(&self) -> WireProtocol {
        self.protocol.get()
    }

    /// The user's object that decided the route.
    pub fn object(&self) -> Option<Arc<Object>> {
        let route = self.route.borrow();
        let (config, decision) = route.as_ref()?;
        decision
            .route(config)
            .object
            .clone()
            .or_else(|| decision.vhost(config).object.clone())
    }

    /// The listener's limits, or the route's where it has its own.
    fn limit(&self, forward: Option<&Forward>) {
        let timeouts = &self.plan.hcm.timeouts;
        let limits = Limits {
            answer: None,
            request: timeouts.request,
            idle: forward
                .and_then(|forward| forward.idle_timeout)
                .unwrap_or(timeouts.stream_idle),
            stream: forward
                .and_then(|forward| forward.max_stream)
                .or(timeouts.max_stream),
        };
        if let Some(clock) = self.clock.get() {
            clock.limit(limits);
        } else {
            self.begin_clock(limits);
        }
    }

    fn begin_clock(&self, limits: Limits) {
        if let Some(clock) = self.http.conn.worker.timers.begin(limits, self.start) {
            let _first = self.clock.set(Rc::new(clock));
        }
    }

    /// The route gives the upstream this long for its answer.
    pub fn answer_within(&self, limit: Duration) {
        if self.clock.get().is_none() {
            self.begin_clock(Limits {
                answer: Some(limit),
                ..Limits::default()
            });
        }
        if let Some(clock) = self.clock.get() {
            let now = Instant::now();
            clock.answer_within(limit, now);
            if self.source.borrow().is_none() {
                clock.request_read(now);
            }
        }
    }

    fn count_overdue(&self, overdue: Overdue) {
        let stats = &self.plan.stats;
        match overdue {
            Overdue::Request => stats.downstream_rq_timeout.inc(),
            Overdue::Idle => stats.downstream_rq_idle_timeout.inc(),
            Overdue::Stream => stats.downstream_rq_max_duration_reached.inc(),
            Overdue::Answer => {
                if let Some(upstream) = self.cluster.borrow().as_ref() {
                    upstream.stats.upstream_rq_timeout.inc();
                }
            }
        }
    }

    /// Has a limit passed?
    fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<Overdue> {
        match self.clock.get() {
            None => Poll::Pending,
            Some(clock) => clock.poll_due(cx),
        }
    }

    async fn process(self: &Rc<Self>, arrived: Arrived) -> Result<Response<ResponseBody>, Failure> {
        if self.http.is_refused() {
            let what = "a filter chain for plaintext: the mode of mutual TLS has changed since this connection began";
            return Err(Failure::NotReady {
                what: what.to_owned(),
            });
        }
        let Arrived {
            parts,
            spelling,
            body,
        } = arrived;
        self.limit(None);
        self.check_size(&parts.headers)?;
        let mut head = head::read(&self.http, &self.plan.hcm, parts, spelling)?;
        self.carried
            .set(self.http.http2 && head.version != Version::HTTP_2);
        self.protocol.set(wire(head.version));
        self.grpc.set(is_grpc(&head.headers));
        self.trace(&mut head);
        self.keep_facts(&head);
        if head.redirect {
            self.plan
                .stats
                .downstream_rq_redirected_with_normalized_path
                .inc();
            return Ok(answer::redirect(
                self,
                http::StatusCode::TEMPORARY_REDIRECT,
                head.target.as_str(),
            ));
        }
        let config = self.routes()?;
        let conn = self.http.conn.clone();
        let connection = conn.connection();
        let facts = head.facts(&connection);
        let worker = &self.http.conn.worker;
        let decision = match decide::route(&config, &facts, worker.random()) {
            Routed::Found(decision) => decision,
            Routed::TlsRequired => {
                let location = decide::rewrite::tls_location(&facts);
                return Ok(answer::redirect(
                    self,
                    http::StatusCode::MOVED_PERMANENTLY,
                    &location,
                ));
            }
            Routed::NotFound => {
                self.plan.stats.no_route.inc();
                return Err(Failure::NoRoute);
            }
        };
        *self.route.borrow_mut() = Some((config.clone(), decision));
        self.find_cluster(&config, decision, &head.headers);
        let extra = match filter::run(self, &mut head, &config, decision).await? {
            Filtered::Continue(extra) => extra,
            Filtered::Answer(response) => return Ok(*response),
        };
        let mut response = match &decision.route(&config).action {
            Action::Forward(forward) => {
                if forward.idle_timeout.is_some() || forward.max_stream.is_some() {
                    self.limit(Some(forward));
                }
                if !body.is_end_stream() {
                    let keep = forward.retry.as_ref().map(|retry| router::replay_bytes(retry));
                    let clock = self.clock.get().cloned();
                    *self.source.borrow_mut() = Some(Source::new(body, keep.flatten(), clock));
                } else if let Some(clock) = self.clock.get() {
                    clock.request_read(self.start);
                }
                router::forward(self, head, forward, &config, decision).await?
            }
            Action::Redirect(redirect) => {
                let facts = head.facts(&connection);
                let location =
                    decide::rewrite::location(redirect, &decision.route(&config).matches.path, &facts);
                self.plan.stats.rq_redirect.inc();
                answer::redirect(self, redirect.status, &location)
            }
            Action::Direct(direct) => {
                self.plan.stats.rq_direct_response.inc();
                answer::direct(self, direct.status, direct.body.clone())
            }
        };
        if let Some(extra) = extra {
            for (name, value) in &extra {
                response.headers_mut().insert(name, value.clone());
            }
        }
        answer::mutate(self, &mut response, &config, decision);
        Ok(response)
    }

    /// HTTP/1.x bounds a head while it comes; HTTP/2 has put it together already.
    fn check_size(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let limits = &self.plan.hcm.limits;
        let size = || -> usize {
            headers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum()
        };
        if self.http.http2
            && (headers.len() > limits.max_headers_count || size() > limits.max_request_headers_bytes)
        {
            let stats = &self.http.conn.worker.stats;
            stats.counter("http2.header_overflow").inc();
            return Err(Failure::HeadersTooLarge);
        }
        Ok(())
    }

    fn routes(&self) -> Result<Rc<Arc<RouteConfig>>, Failure> {
        if let Some(config) = &self.plan.inline {
            return Ok(config.clone());
        }
        let RouteSource::Rds(name) = &self.plan.hcm.routes else {
            return Err(Failure::Internal {
                why: "inline routes were not kept".to_owned(),
            });
        };
        let missing = || Failure::NotReady {
            what: format!("route configuration {name}"),
        };
        self.http.conn.worker.routes(name).ok_or_else(missing)
    }

    /// The cluster the route leads to, before anything is sent: refusals and faults are counted for it too.
    fn find_cluster(&self, config: &RouteConfig, decision: Decision, headers: &HeaderMap) {
        let worker = &self.http.conn.worker;
        if let Some(name) = decision.cluster(config, headers) {
            *self.cluster.borrow_mut() = worker.clusters.get(name, &worker.store, &worker.stats);
        }
    }

    /// Joins the request's trace, or begins one.
    fn trace(&self, head: &mut Head) {
        let Some(Traced { sampling, .. }) = &self.plan.traced else {
            return;
        };
        let incoming = trace::extract(&head.headers);
        let forced = head.headers.contains_key("x-client-trace-id");
        let worker = &self.http.conn.worker;
        let context = trace::begin(incoming, *sampling, forced, || worker.random());
        trace::inject(&context, &mut head.headers);
        self.trace.set(Some(context));
    }

    fn keep_facts(&self, head: &Head) {
        let sampled = self.trace.get().is_some_and(|trace| trace.sampled);
        if self.plan.log.is_empty() && !sampled {
            return;
        }
        let request_id = head
            .headers
            .get(&head::X_REQUEST_ID)
            .and_then(|id| id.to_str().ok());
        *self.facts.borrow_mut() = Some(Box::new(HttpFacts {
            method: head.method.clone(),
            scheme: head.scheme.into(),
            authority: head.authority.clone(),
            path: head.target.as_str().into(),
            original_path: head.original.as_ref().map(|path| path.as_str().into()),
            request_id: request_id.map(Box::from),
            request_headers: self.plan.log.wanted().of_request(&head.headers),
            ..HttpFacts::default()
        }));
    }

    /// Notes the path that a rewrite made.
    pub fn rewritten(&self, path: &str) {
        if let Some(facts) = self.facts.borrow_mut().as_mut() {
            let old = std::mem::replace(&mut facts.path, path.into());
            facts.original_path.get_or_insert(old);
        }
    }

    /// Notes the answer's head.
    pub fn answered(&self, response: &Response<ResponseBody>) {
        self.status.set(response.status().as_u16());
        if self.grpc.get() {
            self.note_grpc(response.headers());
        }
        if let Some(facts) = self.facts.borrow_mut().as_mut() {
            facts.response_headers = self.plan.log.wanted().of_response(response.headers());
        }
    }

    fn note_grpc(&self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status").and_then(|value| value.to_str().ok()) {
            self.grpc_status.set(status.parse().ok());
            if let (Some(facts), Some(message)) =
                (self.facts.borrow_mut().as_mut(), headers.get("grpc-message"))
            {
                facts.grpc_message = Some(String::from_utf8_lossy(message.as_bytes()).into());
            }
        }
    }

    pub fn kind(&self) -> RequestProtocol {
        if self.grpc.get() {
            RequestProtocol::Grpc
        } else {
            RequestProtocol::Http
        }
    }

    /// The edge for the metrics, for an exchange that never came to one on its way.
    fn late_edge(&self) -> Option<Edge> {
        if let Some(edge) = self.edge.borrow().clone() {
            return Some(edge);
        }
        let conn = &self.http.conn;
        let upstream = self.cluster.borrow().clone()?;
        let key = edge::key(conn, &upstream.cluster, None, None, self.kind())?;
        Some(conn.worker.stats.edge(key))
    }

    /// Writes the account. Does so once.
    fn finish(&self) {
        if self.finished.replace(true) {
            return;
        }
        let elapsed = self.start.elapsed();
        let (http, status, flags) = (&self.http, self.status.get(), self.flags.get());
        let stats = &self.plan.stats;
        stats.downstream_rq_active.dec();
        stats.answered(status);
        stats.downstream_rq_time.observe_time(elapsed);
        http.in_flight.set(http.in_flight.get() - 1);
        http.last.set(self.start + elapsed);
        let received = self
            .source
            .borrow()
            .as_ref()
            .map_or(0, |source| source.received.get());
        let edge = self.late_edge();
        if let Some(edge) = &edge {
            let grpc_status = if self.grpc.get() {
                self.grpc_status.get()
            } else {
                None
            };
            edge.observe(
                Outcome {
                    status,
                    grpc_status,
                    flags,
                },
                elapsed,
                received,
                self.sent.get(),
            );
        }
        let sampled = self.trace.get().filter(|trace| trace.sampled);
        if let Some(trace) = sampled {
            self.span(trace, elapsed, status);
        }
        if !self.plan.log.is_empty() {
            self.record(edge.as_ref(), elapsed, received);
        }
    }

    fn record(&self, edge: Option<&Edge>, elapsed: Duration, received: u64) {
        let http = &self.http;
        let mut facts = self.facts.borrow_mut().take();
        if let Some(facts) = &mut facts {
            facts.status = self.status.get();
            facts.grpc_status = self.grpc_status.get();
        }
        let route = self.route.borrow();
        let route = route
            .as_ref()
            .map(|(config, decision)| (decision.route(config), decision.vhost(config)));
        let request_end = match self.source.borrow().as_ref() {
            None => Some(Duration::ZERO),
            Some(source) => source.ended.get().map(|at| at.duration_since(self.start)),
        };
        let upstream = self.upstream.borrow_mut().take().or_else(|| {
            let cluster = self.cluster.borrow();
            let cluster = &cluster.as_ref()?.cluster;
            Some(Box::new(UpstreamRecord {
                cluster: cluster.name.clone(),
                host: None,
                local: None,
                attempts: 0,
                connection_id: None,
                protocol: None,
                transport_failure: None,
                tls: None,
            }))
        });
        http.conn.worker.recorder.record(
            &self.plan.log,
            AccessRecord {
                moment: LogType::DownstreamEnd,
                start: self.wall(),
                times: Times {
                    request_end,
                    first_upstream_tx: self.first_tx.get(),
                    last_upstream_tx: self
                        .first_tx
                        .get()
                        .map(|first| request_end.unwrap_or(first).max(first)),
                    first_upstream_rx: self.first_rx.get(),
                    last_upstream_rx: self.first_rx.get().map(|_| elapsed),
                    first_downstream_tx: self.first_rx.get(),
                    last_downstream_tx: Some(elapsed),
                    end: elapsed,
                    ..Times::default()
                },
                protocol: self.protocol.get(),
                http: facts,
                flags: self.flags.get(),
                details: self.details.borrow().clone(),
                termination: None,
                sizes: Sizes {
                    request_body: received,
                    response_body: self.sent.get(),
                    ..Sizes::default()
                },
                downstream: http.conn.facts.clone(),
                upstream,
                route_name: route
                    .map(|(route, _)| route.name.clone())
                    .filter(|name| !name.is_empty()),
                virtual_host: route.map(|(_, vhost)| vhost.name.clone()),
                filter_chain: Some(http.conn.chain.name.clone()),
                trace: self.trace.get(),
                ends: edge.map_or_else(|| empty_ends(&http.conn), record_ends),
                object: route
                    .and_then(|(route, vhost)| route.object.as_ref().or(vhost.object.as_ref()))
                    .cloned(),
            },
        );
    }

    fn span(&self, context: TraceContext, elapsed: Duration, status: u16) {
        let Some(target) = self.plan.traced.as_ref().and_then(|traced| traced.target.clone()) else {
            return;
        };
        let facts = self.facts.borrow();
        let Some(facts) = facts.as_ref() else { return };
        let name = {
            let route = self.route.borrow();
            let operation = route
                .as_ref()
                .and_then(|(config, decision)| decision.route(config).operation.clone());
            operation.unwrap_or_else(|| Arc::from(&*facts.authority))
        };
        let inbound = self.http.conn.direction() == Direction::Inbound;
        let url = format!("{}://{}{}", facts.scheme, facts.authority, facts.path);
        let mut tags = vec![
            (Cow::Borrowed("http.method"), facts.method.to_string()),
            (Cow::Borrowed("http.url"), url),
            (Cow::Borrowed("http.status_code"), status.to_string()),
            (Cow::Borrowed("response_flags"), self.flags.get().to_string()),
        ];
        if let Some(upstream) = self.cluster.borrow().as_ref() {
            tags.push((
                Cow::Borrowed("upstream_cluster"),
                upstream.cluster.name.to_string(),
            ));
        }
        if let Some(id) = &facts.request_id {
            tags.push((Cow::Borrowed("guid:x-request-id"), id.to_string()));
        }
        self.http.conn.worker.recorder.span(Span {
            target,
            context,
            kind: if inbound {
                SpanKind::Server
            } else {
                SpanKind::Client
            },
            name,
            start: self.wall(),
            duration: elapsed,
            error: status >= 500 || status == 0,
            tags,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // The downstream went away before there was an answer.
        if !self.finished.get() {
            self.flag(Flag::DownstreamConnectionTermination);
            self.details("downstream_remote_disconnect".into());
            self.finish();
        }
    }
}

fn wire(version: Version) -> WireProtocol {
    match version {
        Version::HTTP_10 | Version::HTTP_09 => WireProtocol::Http10,
        Version::HTTP_2 => WireProtocol::Http2,
        _ => WireProtocol::Http11,
    }
}

/// The end of an exchange: travels with the answer's body, sees its bytes, gives the connection back.
pub struct Tail {
    exchange: Rc<Exchange>,
    upstream: Option<Box<Held>>,
    complete: bool,
    /// Nothing follows the head: nobody reads a body to its end.
    bodiless: bool,
}

/// What an answer from an upstream holds until its end.
pub struct Held {
    pub lease: Lease,
    pub picked: Picked,
    pub flight: router::Flight,
    /// The connection belongs to the pool for plain HTTP/1.x.
    pub plain: bool,
}

impl Tail {
    pub fn new(exchange: Rc<Exchange>, upstream: Option<Box<Held>>) -> Self {
        Self {
            exchange,
            upstream,
            complete: false,
            bodiless: false,
        }
    }

    /// Says whether the answer is its head alone; then it is complete as soon as that has gone.
    pub fn of(mut self, bodiless: bool) -> Self {
        self.bodiless = bodiless;
        self
    }

    pub fn worker(&self) -> &Rc<Worker> {
        &self.exchange.http.conn.worker
    }

    pub fn plan(&self) -> &Rc<HttpPlan> {
        &self.exchange.plan
    }

    pub fn sent(&self, count: usize) {
        self.exchange.sent.set(self.exchange.sent.get() + count as u64);
        if let Some(clock) = self.exchange.clock.get() {
            clock.touch();
        }
    }

    pub fn trailers(&self, trailers: &HeaderMap) {
        if self.exchange.grpc.get() {
            self.exchange.note_grpc(trailers);
        }
        if let Some(facts) = self.exchange.facts.borrow_mut().as_mut() {
            facts.response_trailers = self.exchange.plan.log.wanted().of_trailers(trailers);
        }
    }

    /// Has the route's timeout or another limit passed? Then the answer breaks off here.
    pub fn overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if let Poll::Ready(overdue) = self.exchange.poll_overdue(cx) {
            self.exchange.count_overdue(overdue);
            let reply = reply(&overdue.failure(), None);
            for flag in reply.flags.iter() {
                self.exchange.flag(flag);
            }
            self.exchange.details(reply.details);
            self.upstream = None;
            return true;
        }
        false
    }

    /// An upgraded connection has ended: it is nobody's to use again.
    pub fn end_of_upgrade(mut self) {
        self.upstream = None;
        self.complete();
    }

    pub fn failed(&self, error: &Broken) {
        tracing::debug!(%error, "the upstream broke off its answer");
        self.exchange.flag(Flag::UpstreamConnectionTermination);
        self.exchange
            .details("upstream_reset_after_response_started{connection_termination}".into());
    }

    /// The last byte has passed.
    pub fn complete(&mut self) {
        if std::mem::replace(&mut self.complete, true) {
            return;
        }
        if let Some(held) = self.upstream.take() {
            let Held {
                lease, picked, plain, ..
            } = *held;
            let source = self.exchange.source.borrow();
            let request_done = source.as_ref().is_none_or(|source| source.ended.get().is_some());
            if let Lease::Single(single) = lease
                && request_done
            {
                let pool = if plain {
                    &picked.host.plain_pool
                } else {
                    &picked.host.pool
                };
                pool.give_back(single);
            }
        }
        self.exchange.finish();
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if !self.complete {
            if !self.bodiless && self.exchange.flags.get().is_empty() {
                self.exchange.flag(Flag::DownstreamConnectionTermination);
                self.exchange.details("downstream_remote_disconnect".into());
            }
            self.exchange.finish();
        }
    }
}
