//! Reports over real connections: entries and spans arrive, and a destination that is away costs only its own entries.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::{
    envoy::service::accesslog::v3::{
        StreamAccessLogsMessage, StreamAccessLogsResponse,
        access_log_service_server::{AccessLogService, AccessLogServiceServer},
        stream_access_logs_message::LogEntries,
    },
    otlp::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use mesh_runtime::grpc;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use super::*;
use crate::observe::{
    record,
    trace::{SpanKind, TraceContext},
};

struct Sink(mpsc::Sender<StreamAccessLogsMessage>);

#[tonic::async_trait]
impl AccessLogService for Sink {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(message) = stream.next().await {
            self.0
                .send(message?)
                .await
                .map_err(|_| Status::cancelled("the test is over"))?;
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0
            .send(request.into_inner())
            .await
            .map_err(|_| Status::cancelled("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Every cluster but `away` is at this address; `late` is there at the second attempt.
struct Fixed(SocketAddr, std::sync::atomic::AtomicBool);

impl Connect for Fixed {
    fn channel(&self, cluster: &str) -> Result<Channel, String> {
        match cluster {
            "away" => Err("there is no cluster away".into()),
            "late" if !self.1.swap(true, Relaxed) => Err("it is not there yet".into()),
            _ => grpc::connect(&self.0.to_string(), None).map_err(|error| error.to_string()),
        }
    }
}

fn sink(cluster: &str) -> GrpcSink {
    GrpcSink {
        cluster: cluster.into(),
        log_name: "gossamer".into(),
        flush_interval: Duration::from_millis(20),
        buffer_bytes: 16_384,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        response_trailers: Vec::new(),
    }
}

fn span() -> Span {
    Span {
        target: Arc::new(Target {
            cluster: "traces".into(),
            service_name: "reviews.default".into(),
        }),
        context: TraceContext {
            trace_id: 7,
            span_id: 8,
            parent_id: None,
            sampled: true,
            formats: Default::default(),
        },
        kind: SpanKind::Server,
        name: "reviews".into(),
        start: std::time::SystemTime::now(),
        duration: Duration::from_millis(1),
        error: false,
        tags: Vec::new(),
    }
}

async fn within<T>(what: impl Future<Output = Option<T>>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("in time")
        .expect("something")
}

#[tokio::test]
async fn entries_and_spans_arrive() {
    let (entries, mut arrived) = mpsc::channel(8);
    let (exports, mut exported) = mpsc::channel(8);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(AccessLogServiceServer::new(Sink(entries)))
        .add_service(TraceServiceServer::new(Collector(exports)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(socket)));
    let stats = Stats::new();
    let mut reports = Reports::new(
        stats.clone(),
        Host {
            name: "pod".into(),
            node: None,
        },
        Arc::new(Fixed(address, false.into())),
    );
    let mut tcp = record::example();
    tcp.http = None;
    for record in [&record::example(), &record::example(), &tcp] {
        reports.access(&sink("logs"), record, &Wanted::default());
    }
    reports.access(&sink("away"), &tcp, &Wanted::default());
    reports.span(span());
    reports.flush();
    let first = within(arrived.recv()).await;
    assert_eq!(
        first.identifier.map(|identifier| identifier.log_name).as_deref(),
        Some("gossamer")
    );
    let Some(LogEntries::HttpLogs(http)) = first.log_entries else {
        panic!("HTTP entries come first")
    };
    assert_eq!(http.log_entry.len(), 2);
    let second = within(arrived.recv()).await;
    assert!(second.identifier.is_none());
    let Some(LogEntries::TcpLogs(tcp)) = second.log_entries else {
        panic!("then TCP entries")
    };
    assert_eq!(
        tcp.log_entry[0]
            .connection_properties
            .as_ref()
            .unwrap()
            .sent_bytes,
        295
    );
    let export = within(exported.recv()).await;
    assert_eq!(export.resource_spans[0].scope_spans[0].spans[0].trace_id[15], 7);
    reports.finish().await;
    let control = stats.control();
    assert_eq!(
        (
            control.report_sent.get(),
            control.report_dropped.get(),
            control.spans_sent.get()
        ),
        (3, 1, 1)
    );
}

#[tokio::test]
async fn the_service_is_told_what_it_missed() {
    let (entries, mut arrived) = mpsc::channel(8);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(AccessLogServiceServer::new(Sink(entries)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(socket)));
    let stats = Stats::new();
    let connect = Arc::new(Fixed(address, false.into()));
    let mut reports = Reports::new(stats.clone(), Host::default(), connect);
    let record = record::example();
    // Lost in a ring before there was any destination, then two with the first attempt to reach it.
    reports.lost(5);
    for _ in 0..2 {
        reports.access(&sink("late"), &record, &Wanted::default());
    }
    reports.flush();
    while stats.control().report_dropped.get() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reports.lost(1);
    let mut told = Vec::new();
    for _ in 0..2 {
        reports.access(&sink("late"), &record, &Wanted::default());
        reports.access(&sink("late"), &record, &Wanted::default());
        reports.flush();
        let message = within(arrived.recv()).await;
        let Some(LogEntries::HttpLogs(logs)) = message.log_entries else {
            panic!("HTTP entries")
        };
        for entry in logs.log_entry {
            let metadata = entry.common_properties.unwrap().metadata.unwrap();
            let fields = &metadata.filter_metadata[mesh_proto::names::metadata::GOSSAMER].fields;
            told.push(fields.get("dropped").map(|value| value.kind.clone().unwrap()));
        }
    }
    use mesh_proto::pb::google::protobuf::value::Kind;
    assert_eq!(told, [Some(Kind::NumberValue(8.0)), None, None, None]);
    reports.finish().await;
    assert_eq!(
        (
            stats.control().report_sent.get(),
            stats.control().report_dropped.get()
        ),
        (4, 2)
    );
}
