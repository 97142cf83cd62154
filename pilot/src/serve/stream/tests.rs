//! Both variants over a real gRPC connection, with the client's state machine for delta and by hand for the other.

use std::net::SocketAddr;

use mesh_proto::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryResponse, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    pb::google::rpc,
    xds::{Type, client::Client},
};
use mesh_runtime::drain::{self, Trigger};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Streaming, transport::Channel};

use super::*;
use crate::{
    admin,
    metrics::Metrics,
    serve::{Service, limit::Limits},
    testing::{SERVICES, changes},
};

const ROUTE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
    metadata: {name: reviews, namespace: default}\n\
    spec: {hosts: [reviews], http: [{route: [{destination: {host: ratings}}]}]}\n";
const CLUSTER: &str = "outbound|9080||reviews.default.svc.cluster.local";

async fn pilot() -> (Arc<Hub>, SocketAddr, Trigger) {
    let hub = Arc::new(Hub::new(0, Metrics::default()));
    hub.apply(changes(SERVICES));
    let (trigger, drain) = drain::channel();
    let service = Service::new(hub.clone(), Arc::new(Limits::new(10, 100)), None, drain);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(service.into_server());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (hub, address, trigger)
}

async fn channel(address: SocketAddr) -> AggregatedDiscoveryServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    AggregatedDiscoveryServiceClient::new(channel)
}

fn node(id: &str) -> Node {
    let metadata = NodeMetadata {
        labels: [("app".to_owned(), "productpage".to_owned())].into(),
        ..NodeMetadata::default()
    };
    Node {
        id: id.to_owned(),
        metadata: Some(metadata.to_struct()),
        ..Node::default()
    }
}

const ID: &str = "sidecar~10.0.0.9~productpage-0.default~default.svc.cluster.local";

/// A delta client as the proxy has one.
struct Delta {
    client: Client,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    async fn connect(address: SocketAddr, mut client: Client) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        for request in client.connect(node(ID)) {
            requests.send(request).await.unwrap();
        }
        let call = channel(address)
            .await
            .delta_aggregated_resources(ReceiverStream::new(outgoing))
            .await;
        Self {
            client,
            requests,
            responses: call.unwrap().into_inner(),
        }
    }

    async fn receive(&mut self) -> mesh_proto::xds::client::Update {
        let response = timeout(Duration::from_secs(5), self.responses.message())
            .await
            .expect("nothing came");
        self.client.receive(response.unwrap().unwrap()).unwrap()
    }

    async fn accept(&mut self) -> (Type, Vec<String>) {
        let update = self.receive().await;
        let ack = self.client.ack(&update);
        self.requests.send(ack).await.unwrap();
        let kind = Type::from_url(&update.type_url).unwrap();
        (
            kind,
            update.changed.into_iter().map(|resource| resource.name).collect(),
        )
    }

    async fn subscribe(&mut self, kind: Type, names: &[&str]) {
        let request = self.client.subscribe(kind.url(), names.iter().copied()).unwrap();
        self.requests.send(request).await.unwrap();
    }
}

/// Waits until a condition holds: answers travel.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to hold");
}

#[tokio::test]
async fn delta_gets_everything_then_changes_then_only_the_difference() {
    let (hub, address, _trigger) = pilot().await;
    let types = [Type::Cluster, Type::Endpoint, Type::Route].map(Type::url);
    let mut delta = Delta::connect(address, Client::new(types)).await;
    let (kind, names) = delta.accept().await;
    assert_eq!(kind, Type::Cluster);
    assert!(names.iter().any(|name| name == CLUSTER));
    let eds: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| name.contains("9080"))
        .collect();
    delta.subscribe(Type::Endpoint, &eds).await;
    assert_eq!(
        delta.accept().await,
        (
            Type::Endpoint,
            eds.iter().map(|name| (*name).to_owned()).collect()
        )
    );
    delta.client.subscribe(
        Type::Endpoint.url(),
        ["outbound|6379||redis.default.svc.cluster.local"],
    );
    delta.subscribe(Type::Route, &["9080"]).await;
    // The session waits a moment for the endpoints that this client never asks for.
    assert_eq!(delta.accept().await, (Type::Route, vec!["9080".to_owned()]));

    hub.apply(changes(ROUTE));
    assert_eq!(delta.accept().await, (Type::Route, vec!["9080".to_owned()]));
    let key = mesh_proto::kube::ObjectKey::new("default", "reviews");
    let acked = || admin::acked::acked(&hub, mesh_proto::kube::Kind::VirtualService, &key).unwrap();
    until(|| acked().acked).await;
    assert_eq!((acked().proxies, acked().in_effect), (1, true));

    let Delta {
        mut client,
        requests,
        responses,
    } = delta;
    drop((requests, responses));
    client.disconnect();
    until(|| hub.proxies().is_empty()).await;
    hub.apply(changes(&SERVICES.replace("10.0.0.2]", "10.0.0.3]")));
    let mut again = Delta::connect(address, client).await;
    assert_eq!(
        again.accept().await,
        (Type::Cluster, vec![]),
        "all of them are known"
    );
    let (kind, names) = again.accept().await;
    assert_eq!(kind, Type::Endpoint);
    assert!(
        names.contains(&CLUSTER.to_owned()) && names.len() < 4,
        "{names:?}"
    );
}

#[tokio::test]
async fn a_refusal_is_kept_with_its_reason() {
    let (hub, address, _trigger) = pilot().await;
    let mut delta = Delta::connect(address, Client::new([Type::Cluster.url()])).await;
    let update = delta.receive().await;
    let nack = delta.client.nack(&update, &[], format!("{CLUSTER}: no"));
    delta.requests.send(nack).await.unwrap();
    let proxy = || hub.proxy("productpage-0.default");
    until(|| proxy().is_some_and(|p| p.with_session(|s| s.rejections().count() == 1))).await;
    let error = proxy().unwrap().with_session(|session| {
        let (kind, rejection) = session.rejections().next().unwrap();
        (kind, rejection.error.clone(), rejection.resources.len())
    });
    assert_eq!(error, (Type::Cluster, format!("{CLUSTER}: no"), 1));
}

#[tokio::test]
async fn state_of_the_world() {
    let (hub, address, _trigger) = pilot().await;
    let (requests, outgoing) = mpsc::channel(16);
    let request = |nonce: &str, error: Option<&str>| DiscoveryRequest {
        node: Some(node(ID)),
        type_url: Type::Cluster.url().into(),
        response_nonce: nonce.to_owned(),
        error_detail: error.map(|e| rpc::Status {
            code: 3,
            message: e.into(),
            details: Vec::new(),
        }),
        ..DiscoveryRequest::default()
    };
    requests.send(request("", None)).await.unwrap();
    let call = channel(address)
        .await
        .stream_aggregated_resources(ReceiverStream::new(outgoing))
        .await;
    let mut responses = call.unwrap().into_inner();
    let first = responses.message().await.unwrap().unwrap();
    requests.send(request(&first.nonce, None)).await.unwrap();
    let more = "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: default}\n\
                spec: {clusterIP: 10.96.0.77, ports: [{name: http, port: 9080}]}\n";
    hub.apply(changes(more));
    let second = responses.message().await.unwrap().unwrap();
    assert_eq!(second.resources.len(), first.resources.len() + 1);
    assert_ne!(second.version_info, first.version_info);
}

#[tokio::test]
async fn a_stream_that_says_nothing_sensible_is_told_why() {
    let (_hub, address, _trigger) = pilot().await;
    let nameless = DeltaDiscoveryRequest {
        type_url: Type::Cluster.url().into(),
        ..Default::default()
    };
    let strange = DeltaDiscoveryRequest {
        node: Some(node("me")),
        ..nameless.clone()
    };
    for (request, text) in [(nameless, "no node"), (strange, "kind~ip~pod.namespace~domain")] {
        let call = channel(address)
            .await
            .delta_aggregated_resources(tokio_stream::iter([request]))
            .await;
        let status = match call {
            Ok(response) => response.into_inner().message().await.unwrap_err(),
            Err(status) => status,
        };
        assert!(status.message().contains(text), "{status}");
    }
}

#[tokio::test]
async fn a_drain_ends_streams_so_that_clients_go_elsewhere() {
    let (hub, address, trigger) = pilot().await;
    let mut delta = Delta::connect(address, Client::new([Type::Cluster.url()])).await;
    delta.accept().await;
    until(|| hub.proxies().len() == 1).await;
    trigger.drain();
    let status = timeout(Duration::from_secs(5), delta.responses.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    until(|| hub.proxies().is_empty()).await;
}
