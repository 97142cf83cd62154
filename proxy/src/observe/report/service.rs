//! One destination of the access-log service: a task that keeps a stream open while there is something to say, gathers
//! entries for the configured time or size, and starts over with a growing wait when the stream is lost. What was on
//! its way then is counted as dropped, and the service is told so with the next message that gets through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use mesh_proto::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage,
    access_log_service_client::AccessLogServiceClient,
    stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries},
};
use mesh_runtime::backoff::Backoff;
use prost::Message;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::{
    config::log::GrpcSink,
    observe::{access_log::Host, stats::Stats},
};

use super::{Connect, Entries, entry};

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
    Lost { why: String, entries: u64 },
}

/// A message on its way to the connection.
struct Sending {
    message: StreamAccessLogsMessage,
    entries: u64,
    /// Earlier losses that it tells of.
    told: u64,
}

/// What is known of the messages of one stream: what was given to the connection's queue and what it has taken out.
struct Account<'a> {
    lost: &'a AtomicU64,
    given: (u64, u64),
    taken: Arc<(AtomicU64, AtomicU64)>,
}

impl Account<'_> {
    fn given(&mut self, sending: &Sending) {
        self.given.0 += sending.entries;
        self.given.1 += sending.told;
    }

    /// The stream is gone, and `rest` entries that it was not given. What it did not take is to be told of, again or for
    /// the first time. Returns the entries that are lost.
    fn close(&self, rest: u64) -> u64 {
        let entries = self.given.0 - self.taken.0.load(Relaxed) + rest;
        let told = self.given.1 - self.taken.1.load(Relaxed);
        self.lost.fetch_add(entries + told, Relaxed);
        entries
    }
}

/// Runs until the queue is closed.
pub(super) async fn run(
    sink: GrpcSink,
    host: Host,
    connect: Arc<dyn Connect>,
    mut queue: mpsc::Receiver<Entries>,
    stats: Stats,
    lost: Arc<AtomicU64>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    while let Some(first) = queue.recv().await {
        let opened = Instant::now();
        match stream(&sink, &host, &*connect, first, &mut queue, &stats, &lost).await {
            End::Queue => return,
            End::Lost { why, entries } => {
                stats.control().report_dropped.add_shared(entries);
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
    lost: &AtomicU64,
) -> End {
    let mut account = Account {
        lost,
        given: (0, 0),
        taken: Arc::default(),
    };
    let mut batch = Batch::default();
    batch.add(first);
    let channel = match connect.channel(&sink.cluster) {
        Ok(channel) => channel,
        Err(why) => {
            let entries = account.close(batch.len() as u64);
            return End::Lost { why, entries };
        }
    };
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let (taken, sent) = (Arc::clone(&account.taken), stats.clone());
    let messages = ReceiverStream::new(receiver).map(move |sending: Sending| {
        taken.0.fetch_add(sending.entries, Relaxed);
        taken.1.fetch_add(sending.told, Relaxed);
        sent.control().report_sent.add_shared(sending.entries);
        sending.message
    });
    let mut client = AccessLogServiceClient::new(channel);
    let call = client.stream_access_logs(messages);
    tokio::pin!(call);
    let mut identifier = Some(Identifier {
        node: host.node.as_deref().cloned(),
        log_name: sink.log_name.to_string(),
    });
    let mut due = Instant::now() + sink.flush_interval;
    loop {
        let full = batch.bytes >= sink.buffer_bytes || batch.len() >= MAX_ENTRIES;
        if full || (Instant::now() >= due && batch.len() > 0) {
            let messages = batch.messages(&mut identifier);
            if let Err(end) = give(messages, &sender, &mut account, &mut call).await {
                return end;
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
                        let _ = sender.try_send(sending(message, lost));
                    }
                    drop(sender);
                    let _ = tokio::time::timeout(CLOSE, call).await;
                    return End::Queue;
                }
            },
            ended = &mut call => {
                let entries = account.close(batch.len() as u64);
                return End::Lost { why: reason(ended), entries };
            }
            () = tokio::time::sleep_until(due), if batch.len() > 0 => {}
        }
    }
}

/// Gives messages to the connection, while the call lives.
async fn give<T>(
    messages: Vec<StreamAccessLogsMessage>,
    sender: &mpsc::Sender<Sending>,
    account: &mut Account<'_>,
    mut call: impl Future<Output = Result<T, tonic::Status>> + Unpin,
) -> Result<(), End> {
    let mut messages = messages.into_iter();
    while let Some(message) = messages.next() {
        let sending = sending(message, account.lost);
        account.given(&sending);
        let sent = tokio::select! {
            sent = sender.send(sending) => sent.map_err(|_| "the stream was closed".to_owned()),
            ended = &mut call => Err(reason(ended)),
        };
        if let Err(why) = sent {
            let rest = messages.map(|message| count(&message) as u64).sum();
            let entries = account.close(rest);
            return Err(End::Lost { why, entries });
        }
    }
    Ok(())
}

/// Makes a message ready to go: it tells of what was lost before.
fn sending(mut message: StreamAccessLogsMessage, lost: &AtomicU64) -> Sending {
    let told = lost.swap(0, Relaxed);
    let entries = count(&message) as u64;
    if told > 0 {
        let common = match &mut message.log_entries {
            Some(LogEntries::HttpLogs(logs)) => {
                logs.log_entry.first_mut().map(|log| &mut log.common_properties)
            }
            Some(LogEntries::TcpLogs(logs)) => {
                logs.log_entry.first_mut().map(|log| &mut log.common_properties)
            }
            None => None,
        };
        if let Some(common) = common {
            entry::tell_dropped(common.get_or_insert_default(), told);
        }
    }
    Sending {
        message,
        entries,
        told,
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
