//! From the workers to the outside: each worker pushes finished records and spans into a ring of its own through its
//! [`Recorder`]; one task on the control thread takes them, applies the filters, and gives lines to the writer, entries
//! to the access-log service and spans to the collectors. Rings hold [`RING`] items per worker; what does not fit is
//! dropped and counted, here and at every later step. A batch is taken [`INTERVAL`] after its first item. How many records
//! an access-log service has missed is told to it with the next batch it gets.

use std::{
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use mesh_runtime::drain::Drain;
use tokio::sync::Notify;

use crate::config::log::Sink;

use super::{
    access_log::{self, Host, Plan, Writer},
    record::AccessRecord,
    report::{self, Connect},
    ring::Ring,
    stats::Stats,
    trace::Span,
};

/// Records (and spans) that one worker may have waiting.
pub const RING: usize = 8_192;
/// How long the first record of a batch waits for company.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// The same while the process drains.
const LAST_INTERVAL: Duration = Duration::from_millis(10);
/// What the end of the process leaves to the last records.
const FINISH: Duration = Duration::from_secs(3);

/// What a worker hands over.
enum Item {
    Access(Arc<Plan>, Box<AccessRecord>),
    Span(Box<Span>),
}

/// One worker's ring, and what did not fit into it since it was last taken.
struct Lane {
    ring: Ring<Item>,
    /// Access records.
    records: AtomicU64,
    /// Of these, those that an access-log service would have got.
    reports: AtomicU64,
    spans: AtomicU64,
}

/// A worker's end. Not `Send`.
#[derive(Clone)]
pub struct Recorder(Rc<Arc<Lane>>);

impl Recorder {
    /// Hands a finished record to the logs of `plan`. Never waits.
    pub fn record(&self, plan: &Arc<Plan>, record: AccessRecord) {
        if !self.0.ring.push(Item::Access(Arc::clone(plan), Box::new(record))) {
            self.0.records.fetch_add(1, Relaxed);
            let reported = plan.logs().iter().any(|log| is_report(&log.sink));
            self.0.reports.fetch_add(reported.into(), Relaxed);
        }
    }

    /// Hands a finished span to its collector. Never waits.
    pub fn span(&self, span: Span) {
        if !self.0.ring.push(Item::Span(Box::new(span))) {
            self.0.spans.fetch_add(1, Relaxed);
        }
    }
}

fn is_report(sink: &Sink) -> bool {
    matches!(sink, Sink::HttpGrpc(_) | Sink::TcpGrpc(_))
}

/// The control thread's end.
#[derive(Clone)]
pub struct Outlet(Arc<Inner>);

struct Inner {
    lanes: Mutex<Vec<Arc<Lane>>>,
    wake: Arc<Notify>,
    stats: Stats,
    host: Host,
    connect: Arc<dyn Connect>,
    end: Notify,
    ended: Notify,
}

impl Outlet {
    /// `connect` opens channels to the clusters of the access-log service and the trace collectors.
    pub fn new(stats: Stats, host: Host, connect: Arc<dyn Connect>) -> Self {
        let (wake, end, ended) = (Arc::new(Notify::new()), Notify::new(), Notify::new());
        let inner = Inner {
            lanes: Mutex::default(),
            wake,
            stats,
            host,
            connect,
            end,
            ended,
        };
        Self(Arc::new(inner))
    }

    /// A worker's end; call it on the worker's thread.
    pub fn recorder(&self) -> Recorder {
        let lane = Arc::new(Lane {
            ring: Ring::new(RING, Arc::clone(&self.0.wake)),
            records: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            spans: AtomicU64::new(0),
        });
        self.lanes().push(Arc::clone(&lane));
        Recorder(Rc::new(lane))
    }

    /// Runs until [`Outlet::finish`]. While the process drains there is still traffic, so batches only get shorter.
    pub async fn run(&self, drain: Drain) {
        let inner = &self.0;
        let mut writer = Writer::new(inner.stats.clone());
        let mut reports = report::Reports::new(
            inner.stats.clone(),
            inner.host.clone(),
            Arc::clone(&inner.connect),
        );
        loop {
            tokio::select! {
                () = inner.wake.notified() => {
                    let wait = if drain.is_draining() { LAST_INTERVAL } else { INTERVAL };
                    tokio::time::sleep(wait).await;
                }
                () = inner.end.notified() => break,
            }
            self.pass(&mut writer, &mut reports);
        }
        self.pass(&mut writer, &mut reports);
        reports.finish().await;
        writer.finish().await;
        inner.ended.notify_one();
    }

    /// Writes and sends what is left; call it when the workers have finished. Waits [`FINISH`] at most.
    pub async fn finish(&self) {
        self.0.end.notify_one();
        if tokio::time::timeout(FINISH, self.0.ended.notified())
            .await
            .is_err()
        {
            tracing::debug!("the last records could not be delivered in time");
        }
    }

    /// Takes what the workers handed over since the last pass.
    fn pass(&self, writer: &mut Writer, reports: &mut report::Reports) {
        let lanes: Vec<_> = self.lanes().clone();
        for lane in lanes {
            let control = self.0.stats.control();
            control
                .access_log_dropped
                .add_shared(lane.records.swap(0, Relaxed));
            control.spans_dropped.add_shared(lane.spans.swap(0, Relaxed));
            reports.lost(lane.reports.swap(0, Relaxed));
            for item in lane.ring.take() {
                match item {
                    Item::Access(plan, record) => self.access(&plan, &record, writer, reports),
                    Item::Span(span) => reports.span(*span),
                }
            }
        }
        writer.flush();
        reports.flush();
    }

    fn access(&self, plan: &Plan, record: &AccessRecord, writer: &mut Writer, reports: &mut report::Reports) {
        for log in plan.logs() {
            if let Some(rule) = &log.filter
                && !access_log::passes(rule, record, plan.wanted(), rand::random())
            {
                continue;
            }
            match &log.sink {
                Sink::File { path, format } => {
                    writer.file(path, |out| {
                        access_log::line(format, record, plan.wanted(), &self.0.host, out)
                    });
                }
                Sink::Stdout(format) => {
                    writer.stdout(|out| access_log::line(format, record, plan.wanted(), &self.0.host, out));
                }
                Sink::Stderr(format) => {
                    writer.stderr(|out| access_log::line(format, record, plan.wanted(), &self.0.host, out));
                }
                Sink::HttpGrpc(sink) | Sink::TcpGrpc(sink) => reports.access(sink, record, plan.wanted()),
            }
        }
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Lane>>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::log::{AccessLog, Command, Format, LogFormat, Piece},
        observe::record,
    };

    struct NoConnect;

    impl Connect for NoConnect {
        fn channel(&self, cluster: &str) -> Result<tonic::transport::Channel, String> {
            Err(format!("there is no cluster {cluster}"))
        }
    }

    #[tokio::test]
    async fn records_become_lines_before_the_end() {
        let path = std::env::temp_dir().join(format!("gossamer-outlet-{}", std::process::id()));
        let pieces = vec![
            Piece::Text("status ".into()),
            Piece::Command(Command::ResponseCode, None),
        ];
        let format = LogFormat::Text(Format {
            pieces,
            omit_empty: false,
        });
        let log = AccessLog {
            sink: Sink::File {
                path: path.clone(),
                format,
            },
            filter: None,
        };
        let plan = Arc::new(Plan::compile(&[Arc::new(log)]));
        let outlet = Outlet::new(Stats::new(), Host::default(), Arc::new(NoConnect));
        let (_trigger, drain) = mesh_runtime::drain::channel();
        let running = tokio::spawn({
            let outlet = outlet.clone();
            async move { outlet.run(drain).await }
        });
        let pushing = outlet.clone();
        std::thread::spawn(move || {
            let recorder = pushing.recorder();
            for _ in 0..3 {
                recorder.record(&plan, record::example());
            }
        })
        .join()
        .unwrap();
        outlet.finish().await;
        running.await.unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "status 200\nstatus 200\nstatus 200\n"
        );
        std::fs::remove_file(path).unwrap();
    }
}
