//! One destination of the access-log service: a task that keeps a stream open while there is something to say, gathers
//! entries for the configured time or size, and starts over with a growing wait when the stream is lost. What was on
//! its way then is counted as dropped.

use std::{sync::Arc, time::Duration};

use mesh_proto::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage,
    access_log_service_client::AccessLogServiceClient,
    stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries},
};
use mesh_runtime::backoff::Backoff;
use prost::Message;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    config::log::GrpcSink,
    observe::{access_log::Host, stats::Stats},
};

use super::{Connect, Entries};

/// Messages between this task and the connection.
const IN_FLIGHT: usize = 4;
/// Entries in one message, so that it stays far below gRPC's 4 MiB.
const MAX_ENTRIES: usize = 1_000;
/// A stream that the server does not end gets this long to finish.
const CLOSE: Duration = Duration::from_secs(1);

/// Why the stream is over.
enum End {
    /// The proxy shuts down.
    Queue,
    /// The stream failed; so many entries went with it.
    Lost { why: String, entries: usize },
}

/// Runs until the queue is closed.
pub(super) async fn run(
    sink: GrpcSink,
    host: Host,
    connect: Arc<dyn Connect>,
    mut queue: mpsc::Receiver<Entries>,
    stats: Stats,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    while let Some(first) = queue.recv().await {
        let opened = Instant::now();
        match stream(&sink, &host, &*connect, first, &mut queue, &stats).await {
            End::Queue => return,
            End::Lost { why, entries } => {
                stats.control().report_dropped.add_shared(entries as u64);
                if opened.elapsed() > Duration::from_secs(60) {
                    backoff.reset();
                }
                let wait = backoff.next(rand::random());
                tracing::warn!(cluster = %sink.cluster, %why, entries, ?wait, "access-log stream lost; traffic goes on");
                tokio::time::sleep(wait).await;
            }
        }
    }
}

async fn stream(
    sink: &GrpcSink,
    host: &Host,
    connect: &dyn Connect,
    first: Entries,
    queue: &mut mpsc::Receiver<Entries>,
    stats: &Stats,
) -> End {
    let channel = match connect.channel(&sink.cluster) {
        Ok(channel) => channel,
        Err(why) => {
            return End::Lost {
                why,
                entries: first.len(),
            };
        }
    };
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let mut client = AccessLogServiceClient::new(channel);
    let call = client.stream_access_logs(ReceiverStream::new(receiver));
    tokio::pin!(call);
    let mut identifier = Some(Identifier {
        node: host.node.as_deref().cloned(),
        log_name: sink.log_name.to_string(),
    });
    let mut batch = Batch::default();
    batch.add(first);
    let mut due = Instant::now() + sink.flush_interval;
    loop {
        let full = batch.bytes >= sink.buffer_bytes || batch.len() >= MAX_ENTRIES;
        if full || (Instant::now() >= due && batch.len() > 0) {
            for message in batch.messages(&mut identifier) {
                let entries = count(&message);
                let sent = tokio::select! {
                    sent = sender.send(message) => sent.map_err(|_| "the stream was closed".to_owned()),
                    ended = &mut call => Err(reason(ended)),
                };
                match sent {
                    Ok(()) => stats.control().report_sent.add_shared(entries as u64),
                    Err(why) => return End::Lost { why, entries },
                }
            }
            due = Instant::now() + sink.flush_interval;
            continue;
        }
        tokio::select! {
            more = queue.recv(), if batch.len() < MAX_ENTRIES => match more {
                Some(entries) => {
                    if batch.len() == 0 {
                        due = Instant::now() + sink.flush_interval;
                    }
                    batch.add(entries);
                }
                None => {
                    for message in batch.messages(&mut identifier) {
                        // The proxy is going; what does not fit any more is lost.
                        let _ = sender.try_send(message);
                    }
                    drop(sender);
                    let _ = tokio::time::timeout(CLOSE, call).await;
                    return End::Queue;
                }
            },
            ended = &mut call => return End::Lost { why: reason(ended), entries: batch.len() },
            () = tokio::time::sleep_until(due), if batch.len() > 0 => {}
        }
    }
}

fn reason<T>(ended: Result<T, tonic::Status>) -> String {
    match ended {
        Ok(_) => "the server ended the stream".to_owned(),
        Err(status) => status.to_string(),
    }
}

fn count(message: &StreamAccessLogsMessage) -> usize {
    match &message.log_entries {
        Some(LogEntries::HttpLogs(logs)) => logs.log_entry.len(),
        Some(LogEntries::TcpLogs(logs)) => logs.log_entry.len(),
        None => 0,
    }
}

/// What waits to be sent.
#[derive(Default)]
struct Batch {
    http: HttpAccessLogEntries,
    tcp: TcpAccessLogEntries,
    bytes: usize,
}

impl Batch {
    fn len(&self) -> usize {
        self.http.log_entry.len() + self.tcp.log_entry.len()
    }

    fn add(&mut self, entries: Entries) {
        match entries {
            Entries::Http(entries) => {
                self.bytes += entries.iter().map(Message::encoded_len).sum::<usize>();
                self.http.log_entry.extend(entries);
            }
            Entries::Tcp(entries) => {
                self.bytes += entries.iter().map(Message::encoded_len).sum::<usize>();
                self.tcp.log_entry.extend(entries);
            }
        }
    }

    /// The messages for everything here. Only the first of a stream says who speaks.
    fn messages(&mut self, identifier: &mut Option<Identifier>) -> Vec<StreamAccessLogsMessage> {
        let Self { http, tcp, .. } = std::mem::take(self);
        let mut parts = Vec::new();
        let mut rest = http.log_entry;
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(MAX_ENTRIES));
            parts.push(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: rest }));
            rest = tail;
        }
        let mut rest = tcp.log_entry;
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(MAX_ENTRIES));
            parts.push(LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: rest }));
            rest = tail;
        }
        let message = |entries| StreamAccessLogsMessage {
            identifier: identifier.take(),
            log_entries: Some(entries),
        };
        parts.into_iter().map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_and_only_the_first_is_signed() {
        let mut batch = Batch::default();
        batch.add(Entries::Http(vec![Default::default(); MAX_ENTRIES + 1]));
        batch.add(Entries::Tcp(vec![Default::default()]));
        let mut identifier = Some(Identifier {
            node: None,
            log_name: "gossamer".into(),
        });
        let messages = batch.messages(&mut identifier);
        let shape: Vec<_> = messages
            .iter()
            .map(|m| (count(m), m.identifier.is_some()))
            .collect();
        assert_eq!(shape, [(MAX_ENTRIES, true), (1, false), (1, false)]);
        assert_eq!(batch.len(), 0);
    }
}
