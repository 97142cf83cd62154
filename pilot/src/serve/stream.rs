//! The life of one stream: the first request says who it is; then requests, pushes and responses until either side ends.
//!
//! It ends when the client does, when a request cannot be served (the status says why), or when pilot drains (the client
//! connects to another pilot). At most one response waits to be written.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse},
    },
    identity::SpiffeId,
    node::{NodeId, NodeMetadata},
    xds::server::{Event, News},
};
use mesh_runtime::drain::Drain;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use super::{FIRST_REQUEST, auth, limit::Place, proxy::Proxy};
use crate::{
    plan::order::{Request, Response},
    push::Hub,
};

/// How long listeners and routes wait for a client to ask for the endpoints of new clusters.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who opened the stream, as far as it is known before the first request.
#[derive(Debug)]
pub struct Guest {
    pub place: Place,
    pub proven: Option<SpiffeId>,
    pub address: Option<SocketAddr>,
}

/// One of the protocol's two variants.
pub trait Variant: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const SOTW: bool;
    fn node(request: &Self::Request) -> Option<&Node>;
    fn request(request: Self::Request) -> Request;
    /// `None` never happens: a session answers in its own variant.
    fn response(response: Response) -> Option<Self::Response>;
}

#[derive(Debug)]
pub enum Delta {}

impl Variant for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = News;
    const SOTW: bool = false;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn request(request: Self::Request) -> Request {
        Request::Delta(request)
    }

    fn response(response: Response) -> Option<Self::Response> {
        match response {
            Response::Delta(response) => Some(response),
            Response::Sotw(_) => None,
        }
    }
}

#[derive(Debug)]
pub enum Sotw {}

impl Variant for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const SOTW: bool = true;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn request(request: Self::Request) -> Request {
        Request::Sotw(request)
    }

    fn response(response: Response) -> Option<Self::Response> {
        match response {
            Response::Sotw(response) => Some(response),
            Response::Delta(_) => None,
        }
    }
}

/// Serves the stream in a task of its own; gives its responses.
pub fn run<V: Variant>(
    hub: Arc<Hub>,
    guest: Guest,
    requests: impl Stream<Item = Result<V::Request, Status>> + Send + Unpin + 'static,
    drain: Drain,
) -> impl Stream<Item = Result<V::Response, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(status) = serve::<V>(&hub, guest, requests, &sender, &drain).await {
            // A client that is gone already needs no status.
            drop(sender.send(Err(status)).await);
        }
    });
    ReceiverStream::new(receiver)
}

type Sender<V> = mpsc::Sender<Result<<V as Variant>::Response, Status>>;

async fn serve<V: Variant>(
    hub: &Arc<Hub>,
    guest: Guest,
    mut requests: impl Stream<Item = Result<V::Request, Status>> + Send + Unpin,
    sender: &Sender<V>,
    drain: &Drain,
) -> Result<(), Status> {
    let first = timeout(FIRST_REQUEST, requests.next())
        .await
        .map_err(|_| Status::deadline_exceeded("no request came; the first one must name the node"))?;
    let Some(first) = first.transpose()? else {
        return Ok(());
    };
    let proxy = Arc::new(introduce::<V>(hub, &guest, &first)?);
    let name = proxy.name();
    hub.connect(proxy.clone());
    let connected = Connected {
        hub: hub.clone(),
        number: proxy.number,
    };
    tracing::info!(
        proxy = name,
        number = proxy.number,
        sotw = V::SOTW,
        "proxy connected"
    );
    let result = exchange::<V>(hub, &proxy, first, requests, sender, drain).await;
    drop(connected);
    match &result {
        Ok(()) => tracing::info!(proxy = name, number = proxy.number, "proxy disconnected"),
        Err(status) => {
            tracing::info!(
                proxy = name,
                number = proxy.number,
                reason = status.message(),
                "proxy disconnected"
            );
        }
    }
    drop(guest.place);
    result
}

/// Takes the proxy off the list whatever ends the stream.
struct Connected {
    hub: Arc<Hub>,
    number: u64,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.hub.disconnect(self.number);
    }
}

fn introduce<V: Variant>(hub: &Hub, guest: &Guest, first: &V::Request) -> Result<Proxy, Status> {
    let node = V::node(first).ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
    let id: NodeId = node
        .id
        .parse()
        .map_err(|error: mesh_proto::node::NodeIdError| Status::invalid_argument(error.to_string()))?;
    let mut metadata = NodeMetadata::from_node(node);
    if let Some(proven) = &guest.proven {
        auth::agree(&id, &metadata, proven).map_err(|error| {
            hub.metrics.refused("identity").inc();
            tracing::warn!(node = node.id, %proven, %error, "proxy refused");
            Status::permission_denied(error.to_string())
        })?;
        metadata.service_account.clone_from(&proven.service_account);
    }
    Ok(Proxy::new(
        hub,
        hub.stream_number(),
        V::SOTW,
        id,
        metadata,
        guest.address,
    ))
}

async fn exchange<V: Variant>(
    hub: &Hub,
    proxy: &Proxy,
    first: V::Request,
    mut requests: impl Stream<Item = Result<V::Request, Status>> + Send + Unpin,
    sender: &Sender<V>,
    drain: &Drain,
) -> Result<(), Status> {
    take(hub, proxy, V::request(first));
    let mut patient_until = None;
    loop {
        while let Some(response) = proxy.next(SystemTime::now()).and_then(V::response) {
            hub.metrics.responses.inc();
            if sender.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        patient_until = proxy
            .is_patient()
            .then(|| patient_until.unwrap_or_else(|| Instant::now() + PATIENCE));
        let patience = sleep_until(patient_until.unwrap_or_else(Instant::now));
        tokio::select! {
            request = requests.next() => match request {
                Some(request) => take(hub, proxy, V::request(request?)),
                None => return Ok(()),
            },
            () = proxy.woken() => {}
            () = patience, if patient_until.is_some() => proxy.lose_patience(),
            () = drain.drained() => return Err(Status::unavailable("pilot is going away")),
        }
    }
}

fn take(hub: &Hub, proxy: &Proxy, request: Request) {
    let name = proxy.name();
    match proxy.request(&request, SystemTime::now()) {
        None => tracing::debug!(
            proxy = name,
            kind = request.type_url(),
            "a type that is not served here"
        ),
        Some((kind, Event::Rejected(rejection))) => {
            hub.metrics.rejected(kind).inc();
            let resources: Vec<&str> = rejection.resources.iter().map(|(name, _)| &**name).collect();
            tracing::warn!(proxy = name, %kind, ?resources, error = rejection.error, "proxy refused configuration");
        }
        Some((kind, Event::TooManyNames)) => {
            tracing::warn!(proxy = name, %kind, "proxy asks for more names than it may; the rest is not served");
        }
        Some((kind, event)) => tracing::debug!(proxy = name, %kind, ?event, "request"),
    }
}

#[cfg(test)]
#[path = "stream/tests.rs"]
mod tests;
