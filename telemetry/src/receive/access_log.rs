//! Envoy's access-log service v3: a stream from each proxy, with batches of HTTP and TCP entries.
//! The first message of a stream names the proxy; the connection's certificate proves it. What a proxy lost before it could
//! send it, it tells in an entry's metadata (or in its node's), so that the graph can say that it is incomplete.

use std::sync::Arc;

use mesh_proto::{
    envoy::service::accesslog::v3::{
        StreamAccessLogsMessage, StreamAccessLogsResponse,
        access_log_service_server::{AccessLogService, AccessLogServiceServer},
        stream_access_logs_message::{Identifier, LogEntries},
    },
    identity::SpiffeId,
    names,
    node::NodeMetadata,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::{MAX_MESSAGE, MAX_STREAMS, State, entry, proven};
use crate::{
    attribute,
    enrich::{Entry, Refused, Reporting},
    metrics::{ProtocolLabel, ReasonLabel},
    record::Record,
};

/// The service.
#[derive(Clone, Debug)]
pub struct Receiver {
    state: State,
    slots: Arc<Semaphore>,
}

impl Receiver {
    pub fn new(state: State) -> Self {
        Self {
            state,
            slots: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    pub fn into_server(self) -> AccessLogServiceServer<Self> {
        AccessLogServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    fn message(&self, reporting: &Reporting, message: StreamAccessLogsMessage) {
        let Some(entries) = message.log_entries else {
            return;
        };
        let mut batch = Batch {
            reporting,
            records: Vec::new(),
            refused: Vec::new(),
            dropped: 0,
            skipped: 0,
        };
        match &entries {
            LogEntries::HttpLogs(logs) => {
                for log in &logs.log_entry {
                    let common = log.common_properties.as_ref();
                    batch.add(entry::http(log), common.and_then(entry::fields));
                }
            }
            LogEntries::TcpLogs(logs) => {
                for log in &logs.log_entry {
                    let common = log.common_properties.as_ref();
                    batch.add(entry::tcp(log), common.and_then(entry::fields));
                }
            }
        }
        let metrics = &self.state.metrics;
        for record in &batch.records {
            metrics
                .records
                .get_or_create(&ProtocolLabel {
                    protocol: record.key.protocol.as_str(),
                })
                .inc();
        }
        for refused in &batch.refused {
            metrics
                .refused
                .get_or_create(&ReasonLabel {
                    reason: refused.word(),
                })
                .inc();
        }
        if let Some(refused) = batch.refused.first() {
            let (count, proxy) = (batch.refused.len(), &reporting.proven);
            tracing::debug!(%proxy, count, reason = %refused, "access-log entries refused");
        }
        metrics.dropped.inc_by(batch.dropped);
        metrics.skipped.inc_by(batch.skipped);
        metrics
            .other
            .inc_by(self.state.series.add(&batch.records, self.state.now()));
    }

    async fn stream(
        &self,
        proven: SpiffeId,
        mut stream: Streaming<StreamAccessLogsMessage>,
    ) -> Result<(), Status> {
        let mut reporting: Option<Reporting> = None;
        while let Some(message) = stream.message().await? {
            if let Some(identifier) = &message.identifier {
                let new = introduce(&proven, identifier);
                if reporting.is_none() {
                    tracing::debug!(proxy = %proven, workload = %new.workload.name, "proxy reports");
                }
                self.state.metrics.dropped.inc_by(new.dropped);
                reporting = Some(new);
            }
            match &reporting {
                Some(reporting) => self.message(reporting, message),
                None => {
                    return Err(Status::invalid_argument(
                        "the first message must have an identifier",
                    ));
                }
            }
        }
        Ok(())
    }
}

fn introduce(proven: &SpiffeId, identifier: &Identifier) -> Reporting {
    let node = identifier.node.clone().unwrap_or_default();
    Reporting::new(
        proven.clone(),
        &node.id,
        &NodeMetadata::from_node(&node),
        node.metadata.as_ref(),
    )
}

struct Batch<'a> {
    reporting: &'a Reporting,
    records: Vec<Record>,
    refused: Vec<Refused>,
    dropped: u64,
    skipped: u64,
}

impl Batch<'_> {
    fn add(&mut self, entry: Option<Entry<'_>>, fields: Option<&mesh_proto::pb::google::protobuf::Struct>) {
        self.dropped = self
            .dropped
            .saturating_add(attribute::count(fields, names::metadata::DROPPED));
        match entry.map(|entry| self.reporting.record(entry)) {
            Some(Ok(record)) => self.records.push(record),
            Some(Err(refused)) => self.refused.push(refused),
            None => self.skipped += 1,
        }
    }
}

#[tonic::async_trait]
impl AccessLogService for Receiver {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let proven = proven(&request)?;
        let _slot = self.slots.try_acquire().map_err(|_| {
            Status::resource_exhausted(format!("{MAX_STREAMS} proxies report already; try again"))
        })?;
        self.state.metrics.streams.inc();
        let result = self.stream(proven, request.into_inner()).await;
        self.state.metrics.streams.dec();
        result.map(|()| Response::new(StreamAccessLogsResponse {}))
    }
}
