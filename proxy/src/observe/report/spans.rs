//! One collector of spans: a task that gathers them for a second or up to [`BATCH`] and exports them by OTLP over gRPC.
//! An export that fails is counted, not repeated.

use std::{sync::Arc, time::Duration};

use mesh_proto::otlp::trace_service_client::TraceServiceClient;
use mesh_runtime::backoff::Backoff;
use tokio::{sync::mpsc, time::Instant};

use crate::observe::{
    access_log::Host,
    stats::Stats,
    trace::{Span, Target, encode},
};

use super::Connect;

/// Spans in one export.
const BATCH: usize = 512;
const INTERVAL: Duration = Duration::from_secs(1);
/// What one export may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until the queue is closed.
pub(super) async fn run(
    target: Arc<Target>,
    host: Host,
    connect: Arc<dyn Connect>,
    mut queue: mpsc::Receiver<Vec<Span>>,
    stats: Stats,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut client = None;
    while let Some(mut batch) = queue.recv().await {
        let due = Instant::now() + INTERVAL;
        let mut closed = false;
        while batch.len() < BATCH && !closed {
            match tokio::time::timeout_at(due, queue.recv()).await {
                Ok(Some(more)) => batch.extend(more),
                Ok(None) => closed = true,
                Err(_) => break,
            }
        }
        let count = batch.len() as u64;
        match export(&target, &host, &*connect, &mut client, &batch).await {
            Ok(()) => {
                stats.control().spans_sent.add_shared(count);
                backoff.reset();
            }
            Err(why) => {
                stats.control().spans_dropped.add_shared(count);
                client = None;
                let wait = backoff.next(rand::random());
                tracing::warn!(cluster = %target.cluster, %why, spans = count, ?wait, "spans were lost");
                if !closed {
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

type Client = TraceServiceClient<tonic::transport::Channel>;

async fn export(
    target: &Target,
    host: &Host,
    connect: &dyn Connect,
    client: &mut Option<Client>,
    batch: &[Span],
) -> Result<(), String> {
    let client = match client {
        Some(client) => client,
        None => client.insert(TraceServiceClient::new(connect.channel(&target.cluster)?)),
    };
    let call = client.export(encode(target, &host.name, batch));
    match tokio::time::timeout(TIMEOUT, call).await {
        Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
        Ok(Err(status)) => Err(status.to_string()),
        Ok(Ok(response)) => match response.into_inner().partial_success {
            Some(partial) if partial.rejected_spans > 0 => Err(format!(
                "the collector refused {}: {}",
                partial.rejected_spans, partial.error_message
            )),
            _ => Ok(()),
        },
    }
}
