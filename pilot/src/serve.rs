//! The xDS service: one ADS stream per proxy, delta or state-of-the-world.
//!
//! | Module | What it does |
//! | --- | --- |
//! | [`auth`] | is the proxy who it says it is? |
//! | [`limit`] | how many streams, and how fast new ones |
//! | [`proxy`] | one connected proxy: its session, what is pending for it |
//! | [`stream`] | the life of one stream |
//! | [`wire`] | gRPC on delta streams |

use std::{pin::Pin, sync::Arc, time::Duration};

use mesh_proto::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    identity::TrustDomain,
};
use mesh_runtime::{drain::Drain, grpc};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::push::Hub;

pub mod auth;
pub mod limit;
pub mod proxy;
pub mod stream;
pub mod wire;

use limit::Limits;

/// The largest request that is read: a reconnecting proxy names every resource it has.
const MAX_REQUEST: usize = 16 << 20;
/// A whole state can be large.
const MAX_RESPONSE: usize = 256 << 20;

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    /// `None` on a listener without TLS, where nothing is proven and everything is believed.
    trust: Option<Trust>,
    drain: Drain,
}

/// Whose names are believed.
#[derive(Clone, Debug)]
pub struct Trust {
    pub domain: TrustDomain,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(hub: Arc<Hub>, limits: Arc<Limits>, trust: Option<Trust>, drain: Drain) -> Self {
        Self {
            hub,
            limits,
            trust,
            drain,
        }
    }

    pub fn into_server(self) -> wire::Wire {
        let others = AggregatedDiscoveryServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_REQUEST)
            .max_encoding_message_size(MAX_RESPONSE);
        wire::Wire::new(self, others)
    }

    /// Waits for a place, and learns who calls.
    async fn admit<T>(&self, request: &Request<T>) -> Result<stream::Guest, Status> {
        let place = self.limits.admit().await.map_err(|refused| {
            self.hub.metrics.refused(refused.reason()).inc();
            Status::resource_exhausted(refused.to_string())
        })?;
        let proven = match (&self.trust, grpc::peer(request)) {
            (None, _) => None,
            (Some(trust), peer) => {
                let uris = peer.map(|peer| peer.uris.as_slice()).unwrap_or_default();
                let proven = auth::proven(uris, &trust.domain).map_err(|error| {
                    self.hub.metrics.refused("identity").inc();
                    Status::unauthenticated(error.to_string())
                })?;
                Some(proven)
            }
        };
        let address = request
            .remote_addr()
            .or_else(|| grpc::peer(request).and_then(|peer| peer.address));
        Ok(stream::Guest {
            place,
            proven,
            address,
        })
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let guest = self.admit(&request).await?;
        let responses =
            stream::run::<stream::Sotw>(self.hub.clone(), guest, request.into_inner(), self.drain.clone());
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let guest = self.admit(&request).await?;
        let responses =
            stream::run::<stream::Delta>(self.hub.clone(), guest, request.into_inner(), self.drain.clone());
        let messages = responses.map(|news| news.map(|news| news.message()));
        Ok(Response::new(Box::pin(messages)))
    }
}

/// How long a new stream may take to say who it is.
pub const FIRST_REQUEST: Duration = Duration::from_secs(10);

#[cfg(test)]
#[path = "serve/tests.rs"]
mod tests;
