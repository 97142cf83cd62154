//! What proxies send: access logs (`access_log`) and spans (`otlp`). Receivers hold the shared [`State`] and nothing else;
//! a message is worked off when it comes, so a slow aggregator slows the stream down and fills no memory here.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tonic::{Request, Status};

use mesh_proto::identity::SpiffeId;
use mesh_runtime::grpc;

use crate::{metrics::Metrics, query::traces::Traces, series::Series};

pub mod access_log;
pub mod entry;
pub mod otlp;

/// Longest message.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Streams at once, one for each worker of a proxy or fewer.
pub const MAX_STREAMS: usize = 20_000;

/// What receivers, sinks and pages share.
#[derive(Clone, Debug)]
pub struct State {
    pub series: Series,
    pub traces: Arc<Mutex<Traces>>,
    pub metrics: Metrics,
    started: Instant,
}

impl State {
    pub fn new(series: Series, max_traces: usize, metrics: Metrics) -> Self {
        Self {
            series,
            traces: Arc::new(Mutex::new(Traces::new(max_traces))),
            metrics,
            started: Instant::now(),
        }
    }

    /// The time of all sums: since this process began.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Who opened this connection. TLS has required a certificate of the mesh; here it must name one workload.
fn proven<T>(request: &Request<T>) -> Result<SpiffeId, Status> {
    let uris = grpc::peer(request)
        .map(|peer| peer.uris.clone())
        .unwrap_or_default();
    match &uris[..] {
        [uri] => uri
            .parse()
            .map_err(|error| Status::unauthenticated(format!("client certificate: {error}"))),
        _ => Err(Status::unauthenticated(format!(
            "client certificate names {uris:?}, expected one SPIFFE id"
        ))),
    }
}
