//! Reports to the outside: access-log entries on Envoy's access-log service (v3 stream), spans by OTLP.
//!
//! Each destination has one task on the control thread and a queue of [`QUEUE`] batches in front of it. A destination
//! that is slow or down costs its own entries, which are counted, and nothing else: no request waits, no other
//! destination notices, memory does not grow. An access-log service is told with its next batch how many entries it has
//! missed: `dropped` in our own metadata of an entry, which Envoy's own consumers ignore.

mod entry;
mod service;
mod spans;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::HeaderName;
use mesh_proto::envoy::data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;

use crate::config::log::GrpcSink;

use super::{
    access_log::{Host, Wanted},
    record::AccessRecord,
    stats::Stats,
    trace::{Span, Target},
};

pub use entry::{http_entry, tcp_entry};

/// Batches that may wait for one destination.
const QUEUE: usize = 32;
/// Destinations of each kind: as many as a configuration may name. More are not served, and counted as dropped.
const MAX_DESTINATIONS: usize = 32;
/// What [`Reports::finish`] leaves to the last batches.
const FINISH: std::time::Duration = std::time::Duration::from_secs(2);

/// The headers that every HTTP entry has a field for.
pub const STANDARD_REQUEST_HEADERS: [HeaderName; 3] = [
    http::header::USER_AGENT,
    http::header::REFERER,
    HeaderName::from_static("x-forwarded-for"),
];

/// Opens gRPC channels to clusters of the configuration.
pub trait Connect: Send + Sync + 'static {
    /// A channel to an endpoint of this cluster as of now, with the cluster's TLS; or why there is none.
    fn channel(&self, cluster: &str) -> Result<Channel, String>;
}

/// What goes over an access-log stream. HTTP and TCP entries never share a message.
pub(super) enum Entries {
    Http(Vec<HttpAccessLogEntry>),
    Tcp(Vec<TcpAccessLogEntry>),
}

impl Entries {
    fn len(&self) -> usize {
        match self {
            Self::Http(entries) => entries.len(),
            Self::Tcp(entries) => entries.len(),
        }
    }
}

#[derive(Default)]
struct Pending {
    http: Vec<HttpAccessLogEntry>,
    tcp: Vec<TcpAccessLogEntry>,
}

struct LogDestination {
    sink: GrpcSink,
    pending: Pending,
    queue: mpsc::Sender<Entries>,
    /// Entries it has missed and was not told of yet.
    lost: Arc<AtomicU64>,
}

struct SpanDestination {
    pending: Vec<Span>,
    queue: mpsc::Sender<Vec<Span>>,
}

/// All destinations, on the control thread.
pub struct Reports {
    stats: Stats,
    host: Host,
    connect: Arc<dyn Connect>,
    logs: Vec<LogDestination>,
    spans: HashMap<Arc<Target>, SpanDestination>,
    /// Entries lost before there was a destination for them.
    early: u64,
    tasks: JoinSet<()>,
}

impl Reports {
    pub fn new(stats: Stats, host: Host, connect: Arc<dyn Connect>) -> Self {
        Self {
            stats,
            host,
            connect,
            logs: Vec::new(),
            spans: HashMap::new(),
            early: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Adds a record to the batch for this sink.
    pub fn access(&mut self, sink: &GrpcSink, record: &AccessRecord, wanted: &Wanted) {
        let found = self.logs.iter().position(|destination| destination.sink == *sink);
        let Some(index) = found.or_else(|| self.open_log(sink)) else {
            self.stats.control().report_dropped.add_shared(1);
            return;
        };
        let pending = &mut self.logs[index].pending;
        match &record.http {
            Some(http) => pending.http.push(http_entry(record, http, sink, wanted)),
            None => pending.tcp.push(tcp_entry(record)),
        }
    }

    /// So many records were lost before anybody could see for whom they were: every service may have missed them.
    pub fn lost(&mut self, count: u64) {
        if self.logs.is_empty() {
            self.early += count;
        }
        for destination in &self.logs {
            destination.lost.fetch_add(count, Relaxed);
        }
    }

    /// Adds a span to the batch for its collector.
    pub fn span(&mut self, span: Span) {
        if !self.spans.contains_key(&span.target) && self.spans.len() < MAX_DESTINATIONS {
            let (queue, batches) = mpsc::channel(QUEUE);
            let target = Arc::clone(&span.target);
            let task = spans::run(
                target,
                self.host.clone(),
                Arc::clone(&self.connect),
                batches,
                self.stats.clone(),
            );
            self.tasks.spawn(task);
            self.spans.insert(
                Arc::clone(&span.target),
                SpanDestination {
                    pending: Vec::new(),
                    queue,
                },
            );
        }
        match self.spans.get_mut(&span.target) {
            Some(destination) => destination.pending.push(span),
            None => self.stats.control().spans_dropped.add_shared(1),
        }
    }

    /// Hands the batches to their tasks. Never waits.
    pub fn flush(&mut self) {
        let control = self.stats.control();
        for LogDestination {
            pending, queue, lost, ..
        } in &mut self.logs
        {
            let Pending { http, tcp } = std::mem::take(pending);
            for entries in [Entries::Http(http), Entries::Tcp(tcp)] {
                let count = entries.len();
                if count > 0 && queue.try_send(entries).is_err() {
                    control.report_dropped.add_shared(count as u64);
                    lost.fetch_add(count as u64, Relaxed);
                }
            }
        }
        for SpanDestination { pending, queue } in self.spans.values_mut() {
            let batch = std::mem::take(pending);
            let count = batch.len();
            if count > 0 && queue.try_send(batch).is_err() {
                control.spans_dropped.add_shared(count as u64);
            }
        }
    }

    /// Lets the tasks send what they have, for a short while.
    pub async fn finish(mut self) {
        self.flush();
        self.logs.clear();
        self.spans.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH, all).await.is_err() {
            tracing::debug!("reports that could not be delivered in time are given up");
        }
    }

    fn open_log(&mut self, sink: &GrpcSink) -> Option<usize> {
        if self.logs.len() >= MAX_DESTINATIONS {
            // A destination that is no longer configured looks the same as an idle one: the oldest makes room.
            self.logs.remove(0);
        }
        let (queue, batches) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(std::mem::take(&mut self.early)));
        let task = service::run(
            sink.clone(),
            self.host.clone(),
            Arc::clone(&self.connect),
            batches,
            self.stats.clone(),
            Arc::clone(&lost),
        );
        self.tasks.spawn(task);
        self.logs.push(LogDestination {
            sink: sink.clone(),
            pending: Pending::default(),
            queue,
            lost,
        });
        Some(self.logs.len() - 1)
    }
}
