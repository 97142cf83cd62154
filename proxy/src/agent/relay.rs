//! Envoy's ADS stream to pilot: each message goes on as it came, over a connection that proves itself with the workload's
//! certificate. On the same stream the agent asks for the name table, which Envoy has no use for, and keeps it. When one side
//! ends its stream, so does the other; Envoy then comes again by itself.
//!
//! Bounds: [`WAITING`] messages in either direction, each at most as large as our proxy would take it.

use mesh_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
            aggregated_discovery_service_server::AggregatedDiscoveryService,
        },
    },
    nds::NameTable,
    xds::{Type, client::Client},
};
use mesh_runtime::tls::IdentityCell;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    dns::{Names, Table, resolv_conf},
    settings::ProxyArgs,
    xds::stream::{self, Connect},
};

const WAITING: usize = 256;
/// What Envoy may say at once: names of all that it holds, after a reconnect.
pub const MAX_REQUEST: usize = 64 << 20;

/// The service for Envoy.
#[derive(Clone)]
pub struct Relay {
    connect: Connect,
    identity: IdentityCell,
    /// Does anybody ask us for names?
    dns: bool,
    names: Names,
    search: Vec<String>,
}

impl Relay {
    pub fn new(connect: Connect, identity: IdentityCell, args: &ProxyArgs, names: Names) -> Self {
        let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Self {
            connect,
            identity,
            dns: args.dns_capture,
            names,
            search: resolv_conf::parse(&conf).search,
        }
    }

    /// One stream of Envoy's, to its end; which is told to Envoy.
    async fn follow(&self, mut requests: Streaming<DeltaDiscoveryRequest>, answers: mpsc::Sender<Answer>) {
        let opened = tokio::select! {
            opened = self.open(&mut requests) => opened,
            () = answers.closed() => return,
        };
        let why = match opened {
            Ok((sender, responses)) => {
                tracing::info!("Envoy is connected to the control plane");
                let up = upward(requests, sender.clone());
                let down = self.downward(responses, sender, &answers);
                tokio::select! {
                    why = up => why,
                    why = down => why,
                    () = answers.closed() => return,
                }
            }
            Err(why) => why,
        };
        tracing::warn!(%why, "Envoy's stream to the control plane ended; its last configuration serves");
        // Nobody is there to hear it: then it is over anyway.
        let _ = answers.send(Err(Status::unavailable(why))).await;
    }

    /// The stream to pilot, with Envoy's first message on it; not before we can say who we are.
    async fn open(
        &self,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
    ) -> Result<
        (
            mpsc::Sender<DeltaDiscoveryRequest>,
            Streaming<DeltaDiscoveryResponse>,
        ),
        String,
    > {
        let first = match requests.message().await {
            Ok(Some(first)) => first,
            Ok(None) => return Err("Envoy ended it".to_owned()),
            Err(status) => return Err(format!("Envoy: {}", status.message())),
        };
        let mut identity = self.identity.subscribe();
        let known = identity.wait_for(Option::is_some).await.is_ok();
        if !known {
            return Err("there is no certificate any more".to_owned());
        }
        let channel = (self.connect)()?;
        let (sender, receiver) = mpsc::channel(WAITING);
        // There is room: it is the first.
        let _ = sender.send(first).await;
        let mut service =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(stream::MAX_MESSAGE);
        let opening = service.delta_aggregated_resources(ReceiverStream::new(receiver));
        match opening.await {
            Ok(responses) => Ok((sender, responses.into_inner())),
            Err(status) => Err(stream::describe(&status)),
        }
    }

    /// From pilot to Envoy, without the name table.
    async fn downward(
        &self,
        mut responses: Streaming<DeltaDiscoveryResponse>,
        sender: mpsc::Sender<DeltaDiscoveryRequest>,
        answers: &mpsc::Sender<Answer>,
    ) -> String {
        let mut own = Client::new([Type::NameTable.url()]);
        if self.dns {
            for mut request in own.connect(Node::default()) {
                // Envoy has said who we are.
                request.node = None;
                let _ = sender.send(request).await;
            }
        }
        loop {
            let response = match responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return "pilot ended it".to_owned(),
                Err(status) => return stream::describe(&status),
            };
            if response.type_url == Type::NameTable.url() {
                let answer = self.take(&mut own, response);
                let _ = sender.send(answer).await;
            } else if answers.send(Ok(response)).await.is_err() {
                return "Envoy is gone".to_owned();
            }
        }
    }

    /// The name table, into force.
    fn take(&self, own: &mut Client, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let update = match own.receive(response) {
            Ok(update) => update,
            Err(refused) => return *refused.request,
        };
        for resource in &update.changed {
            match NameTable::decode(&resource.body.value[..]) {
                Ok(table) => self.names.set(Table::build(&table, &self.search)),
                Err(error) => {
                    let text = format!("{}: cannot be read: {error}", resource.name);
                    return own.nack(&update, std::slice::from_ref(&resource.name), text);
                }
            }
        }
        if !update.removed.is_empty() {
            self.names.set(Table::default());
        }
        own.ack(&update)
    }
}

/// From Envoy to pilot.
async fn upward(
    mut requests: Streaming<DeltaDiscoveryRequest>,
    sender: mpsc::Sender<DeltaDiscoveryRequest>,
) -> String {
    loop {
        match requests.message().await {
            Ok(Some(request)) => {
                if let Some(error) = &request.error_detail {
                    tracing::warn!(r#type = %request.type_url, why = %error.message, "Envoy refused configuration");
                }
                if sender.send(request).await.is_err() {
                    return "pilot does not listen".to_owned();
                }
            }
            Ok(None) => return "Envoy ended it".to_owned(),
            Err(status) => return format!("Envoy: {}", status.message()),
        }
    }
}

type Answer = Result<DeltaDiscoveryResponse, Status>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Relay {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Answer>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "the agent relays DeltaAggregatedResources, as its bootstrap says (api_type: DELTA_GRPC)",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let relay = self.clone();
        tokio::spawn(async move { relay.follow(request.into_inner(), sender).await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
