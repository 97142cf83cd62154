//! The order of things: what waits for what, what an ACK means, what a refusal leaves; and one stream over a real
//! connection, lost and opened again.

use std::time::{Duration, Instant};

use mesh_proto::{
    envoy::config::{
        cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
        route::v3::RouteConfiguration,
    },
    envoy_json,
    pb::google::protobuf::Any,
    xds::{
        Type,
        client::{Resource, Update},
    },
};
use prost::{Message, Name};
use serde_json::{Value, json};

use super::apply::{Apply, DNS_PATIENCE, PATIENCE, Taken};
use crate::{dns::Names, observe::Stats, store::Store};

fn encode<M: Message + Name + Default>(json: &Value) -> Vec<u8> {
    envoy_json::from_value::<M>(json).unwrap().encode_to_vec()
}

fn resource(kind: Type, json: &Value) -> Resource {
    let (name, value) = match kind {
        Type::Cluster => (&json["name"], encode::<Cluster>(json)),
        Type::Endpoint => (&json["cluster_name"], encode::<ClusterLoadAssignment>(json)),
        Type::Listener => (&json["name"], encode::<Listener>(json)),
        Type::Route => (&json["name"], encode::<RouteConfiguration>(json)),
        other => panic!("{other} is not used here"),
    };
    let body = Any {
        type_url: kind.url().to_owned(),
        value,
    };
    Resource {
        name: name.as_str().unwrap().to_owned(),
        version: "1".into(),
        body,
    }
}

fn update(kind: Type, changed: &[Value], removed: &[&str]) -> Update {
    Update {
        type_url: kind.url().to_owned(),
        changed: changed.iter().map(|json| resource(kind, json)).collect(),
        removed: removed.iter().map(ToString::to_string).collect(),
        system_version: String::new(),
        nonce: "n".into(),
    }
}

fn cluster(name: &str) -> Value {
    json!({"name": name, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": {"ads": {}}}})
}

fn endpoints(name: &str, address: &str) -> Value {
    let socket = json!({"socket_address": {"address": address, "port_value": 80}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket}}]}]})
}

fn routes(name: &str, cluster: &str) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    json!({"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]})
}

fn listener(name: &str, port: u16, routes: &str) -> Value {
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "rds": {"route_config_name": routes, "config_source": {"ads": {}}},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
    });
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]}]
    })
}

struct Fixture {
    store: Store,
    apply: Apply,
}

fn fixture() -> Fixture {
    let store = Store::new();
    let types = [
        Type::Cluster,
        Type::Endpoint,
        Type::Listener,
        Type::Route,
        Type::Secret,
    ];
    Fixture {
        apply: Apply::new(store.clone(), Stats::new(), Names::new(), Vec::new(), &types),
        store,
    }
}

impl Fixture {
    fn take(&mut self, kind: Type, changed: &[Value], removed: &[&str]) -> Taken {
        self.apply.take(&update(kind, changed, removed))
    }

    fn good(&mut self, kind: Type, changed: &[Value]) {
        assert_eq!(self.take(kind, changed, &[]), Taken::default());
    }

    /// Names in force: clusters, routes, listeners.
    fn active(&self) -> String {
        let snapshot = self.store.snapshot();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names.join(",")
        };
        let clusters = sorted(snapshot.clusters.keys().map(ToString::to_string).collect());
        let routes = sorted(snapshot.routes.keys().map(ToString::to_string).collect());
        let listeners = sorted(snapshot.listeners.keys().map(ToString::to_string).collect());
        format!("{clusters}|{routes}|{listeners}")
    }

    /// The first address of a cluster, as a worker would see it.
    fn endpoint(&self, cluster: &str) -> Option<String> {
        Some(
            self.store
                .endpoints(cluster)?
                .load()
                .hosts
                .first()?
                .address
                .to_string(),
        )
    }

    fn whole() -> Self {
        let mut fixture = fixture();
        fixture.good(Type::Cluster, &[cluster("a")]);
        fixture.good(Type::Endpoint, &[endpoints("a", "10.0.0.1")]);
        fixture.good(Type::Listener, &[listener("l", 1, "r")]);
        fixture.good(Type::Route, &[routes("r", "a")]);
        assert_eq!(fixture.active(), "a|r|l");
        fixture
    }
}

#[test]
fn everything_waits_for_what_it_needs() {
    let mut f = fixture();
    f.good(Type::Cluster, &[cluster("a")]);
    assert_eq!(f.active(), "||", "the cluster has no endpoints");
    assert!(f.apply.wanted()[0].1.contains("a"));
    f.good(Type::Listener, &[listener("l", 1, "r")]);
    f.good(Type::Route, &[routes("r", "a")]);
    assert_eq!(
        f.active(),
        "||",
        "the route waits for the cluster, the listener for the route"
    );
    assert!(!f.apply.is_active(Type::Listener, "l") && !f.apply.is_complete());
    f.good(Type::Endpoint, &[endpoints("a", "10.0.0.1")]);
    assert_eq!(f.active(), "a|r|l");
    assert_eq!(f.endpoint("a").as_deref(), Some("10.0.0.1:80"));
    assert!(f.apply.is_active(Type::Listener, "l") && f.apply.is_complete());
}

#[test]
fn an_endpoint_change_swaps_no_snapshot() {
    let mut f = Fixture::whole();
    let version = f.store.version();
    f.good(Type::Endpoint, &[endpoints("a", "10.0.0.2")]);
    assert_eq!(f.endpoint("a").as_deref(), Some("10.0.0.2:80"));
    assert_eq!(f.store.version(), version);
}

#[test]
fn a_route_moves_only_when_its_new_cluster_serves() {
    let mut f = Fixture::whole();
    f.good(Type::Cluster, &[cluster("b")]);
    f.good(Type::Route, &[routes("r", "b")]);
    assert!(
        !f.apply.is_active(Type::Route, "r"),
        "the old route serves until b has endpoints"
    );
    f.good(Type::Endpoint, &[endpoints("b", "10.0.0.9")]);
    assert!(f.apply.is_active(Type::Route, "r"));
}

#[test]
fn a_removed_cluster_stays_while_a_route_names_it() {
    let mut f = Fixture::whole();
    f.good(Type::Cluster, &[cluster("b")]);
    f.good(Type::Endpoint, &[endpoints("b", "10.0.0.9")]);
    f.take(Type::Cluster, &[], &["a"]);
    assert_eq!(f.active(), "a,b|r|l");
    f.good(Type::Route, &[routes("r", "b")]);
    assert_eq!(f.active(), "b|r|l");
}

#[test]
fn a_removed_cluster_leaves_in_the_end() {
    let mut f = Fixture::whole();
    f.take(Type::Cluster, &[], &["a"]);
    assert_eq!(f.active(), "a|r|l");
    let due = f.apply.next_deadline().unwrap();
    assert!(!f.apply.settle(due - Duration::from_millis(1)));
    assert!(f.apply.settle(due));
    assert_eq!(f.active(), "|r|l", "its route says that there is no such cluster");
    assert_eq!(f.apply.next_deadline(), None);
}

#[test]
fn a_refusal_names_the_field_and_the_last_good_one_stays() {
    let mut f = Fixture::whole();
    let mut bad = routes("r", "a");
    bad["virtual_hosts"][0]["routes"][0]["match"] = json!({"safe_regex": {"regex": "("}});
    let taken = f.take(Type::Route, &[bad], &[]);
    let error = taken.error();
    assert!(
        error.starts_with("r: virtual_hosts[0].routes[0].match"),
        "{error}"
    );
    assert_eq!(f.active(), "a|r|l");
    let taken = f.take(
        Type::Listener,
        &[listener("m", 1, "r"), listener("n", 2, "r")],
        &[],
    );
    assert_eq!(taken.names(), ["m"]);
    assert!(
        taken.error().contains("127.0.0.1:1 is taken by listener l"),
        "{}",
        taken.error()
    );
    assert_eq!(f.active(), "a|r|l,n", "what was good of the update is in force");
    f.store
        .ledger(|ledger| assert!(ledger.get(Type::Route, "r").unwrap().failure.is_some()));
}

#[test]
fn a_listener_may_take_the_address_of_one_that_goes() {
    let mut f = Fixture::whole();
    assert_eq!(
        f.take(Type::Listener, &[listener("m", 1, "r")], &["l"]),
        Taken::default()
    );
    assert_eq!(f.active(), "a|r|m");
}

#[test]
fn patience_ends() {
    let mut f = fixture();
    f.good(Type::Cluster, &[cluster("a")]);
    f.good(Type::Listener, &[listener("l", 1, "r")]);
    f.take(Type::Route, &[], &["r"]);
    assert_eq!(f.active(), "||l", "the server said there is no such route");
    assert!(!f.apply.is_complete());
    let deadline = f.apply.next_deadline().unwrap();
    assert!(deadline <= Instant::now() + PATIENCE);
    f.apply.settle(deadline + Duration::from_millis(1));
    assert_eq!(f.active(), "a||l", "endpoints that never came");
    assert!(f.apply.is_complete());
}

#[test]
fn a_name_that_is_not_found_holds_nobody_up_for_long() {
    let mut f = Fixture::whole();
    let mut dns = endpoints("d", "10.0.0.1");
    dns["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] =
        json!("nowhere.invalid");
    let dns = json!({"name": "d", "type": "STRICT_DNS", "connect_timeout": "1s", "load_assignment": dns});
    f.good(Type::Cluster, &[dns]);
    f.good(Type::Route, &[routes("r", "d")]);
    assert!(
        !f.apply.is_active(Type::Route, "r"),
        "the first look-up is still on its way"
    );
    let deadline = f.apply.next_deadline().unwrap();
    assert!(deadline <= Instant::now() + DNS_PATIENCE);
    f.apply.settle(deadline);
    assert!(f.apply.is_active(Type::Route, "r"));
}

#[test]
fn what_nobody_wants_any_more_is_forgotten() {
    let mut f = Fixture::whole();
    f.good(Type::Listener, &[listener("l", 1, "s")]);
    assert_eq!(
        f.active(),
        "a|r|l",
        "the old listener serves with its route until the new one is whole"
    );
    f.good(Type::Route, &[routes("s", "a")]);
    assert_eq!(f.active(), "a|s|l");
    f.take(Type::Listener, &[], &["l"]);
    assert_eq!(f.active(), "a||");
}

mod over_the_wire {
    use std::{pin::Pin, sync::Arc};

    use mesh_proto::envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            self as discovery, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
            DiscoveryResponse,
            aggregated_discovery_service_server::{
                AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
            },
        },
    };
    use mesh_runtime::{drain, grpc};
    use tokio::sync::{mpsc, watch};
    use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
    use tonic::{Request, Response, Status, Streaming};

    use super::{
        super::{last_good::LastGood, stream},
        *,
    };

    type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

    type Answers = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

    /// Hands each stream to the test: its requests, and a way to answer.
    struct Handover(mpsc::Sender<(Streaming<DeltaDiscoveryRequest>, Answers)>);

    #[tonic::async_trait]
    impl AggregatedDiscoveryService for Handover {
        type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
        type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

        async fn stream_aggregated_resources(
            &self,
            _: Request<Streaming<DiscoveryRequest>>,
        ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
            Err(Status::unimplemented("delta only"))
        }

        async fn delta_aggregated_resources(
            &self,
            request: Request<Streaming<DeltaDiscoveryRequest>>,
        ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
            let (answers, receiver) = mpsc::channel(8);
            self.0
                .send((request.into_inner(), answers))
                .await
                .map_err(|_| Status::cancelled("the test is over"))?;
            Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
        }
    }

    fn response(kind: Type, changed: &[Value], nonce: &str) -> DeltaDiscoveryResponse {
        let wrap = |json: &Value| {
            let Resource { name, version, body } = resource(kind, json);
            discovery::Resource {
                name,
                version,
                resource: Some(body),
                ..Default::default()
            }
        };
        DeltaDiscoveryResponse {
            type_url: kind.url().to_owned(),
            nonce: nonce.to_owned(),
            resources: changed.iter().map(wrap).collect(),
            ..Default::default()
        }
    }

    async fn next(requests: &mut Streaming<DeltaDiscoveryRequest>) -> DeltaDiscoveryRequest {
        tokio::time::timeout(Duration::from_secs(5), requests.next())
            .await
            .expect("a request")
            .unwrap()
            .unwrap()
    }

    fn settings(address: &str, store: &Store, path: &std::path::Path) -> stream::Settings {
        let node = Node {
            id: "me".into(),
            cluster: "reviews.default".into(),
            ..Node::default()
        };
        let address = address.to_owned();
        stream::Settings {
            server: address.clone(),
            connect: Arc::new(move || grpc::connect(&address, None).map_err(|error| error.to_string())),
            last_good: Some(LastGood::new(path, &node)),
            node,
            types: vec![
                Type::Cluster,
                Type::Endpoint,
                Type::Listener,
                Type::Route,
                Type::Secret,
            ],
            store: store.clone(),
            stats: Stats::new(),
            identity: None,
        }
    }

    /// A proxy that starts while the server is away serves what was kept, and tells the server so when it is back.
    async fn starts_without_the_server(path: &std::path::Path) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let Fixture { store, apply } = fixture();
        let (trigger, drain) = drain::channel();
        let (complete, mut configured) = watch::channel(false);
        let settings = settings(&address.to_string(), &store, path);
        let client = tokio::spawn(stream::run(settings, apply, complete, drain));
        let ready = configured.wait_for(|complete| *complete);
        tokio::time::timeout(Duration::from_secs(5), ready)
            .await
            .expect("ready without the server")
            .unwrap();
        let snapshot = store.snapshot();
        assert!(snapshot.listeners.contains_key("l") && snapshot.routes.contains_key("r"));
        assert_eq!(store.endpoints("a").unwrap().load().hosts.len(), 1);
        let (handover, mut streams) = mpsc::channel(1);
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(Handover(handover)));
        tokio::spawn(server.serve(address));
        let (mut requests, _answers) = tokio::time::timeout(Duration::from_secs(10), streams.recv())
            .await
            .unwrap()
            .unwrap();
        let mut held = Vec::new();
        for _ in 0..4 {
            held.extend(next(&mut requests).await.initial_resource_versions.into_keys());
        }
        held.sort();
        assert_eq!(held, ["a", "a", "l", "r"], "cluster, endpoints, listener, routes");
        trigger.drain();
        client.await.unwrap();
    }

    #[tokio::test]
    async fn acknowledges_what_serves_and_resumes() {
        let listener_socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener_socket.local_addr().unwrap().to_string();
        let (handover, mut streams) = mpsc::channel(1);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener_socket);
        let service = AggregatedDiscoveryServiceServer::new(Handover(handover));
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let Fixture { store, apply } = fixture();
        let (trigger, drain) = drain::channel();
        let path = std::env::temp_dir().join(format!("gossamer-stream-{}", std::process::id()));
        let settings = settings(&address, &store, &path);
        let (complete, configured) = watch::channel(false);
        let client = tokio::spawn(stream::run(settings, apply, complete, drain));

        let (mut requests, answers) = streams.recv().await.unwrap();
        let first = next(&mut requests).await;
        assert_eq!(
            (first.type_url.as_str(), first.node.unwrap().id.as_str()),
            (Type::Cluster.url(), "me")
        );
        assert_eq!(next(&mut requests).await.type_url, Type::Listener.url());
        answers
            .send(Ok(response(Type::Cluster, &[cluster("a")], "1")))
            .await
            .unwrap();
        assert_eq!(
            next(&mut requests).await.response_nonce,
            "1",
            "the clusters are acknowledged"
        );
        assert_eq!(
            next(&mut requests).await.resource_names_subscribe,
            ["a"],
            "and their endpoints asked for"
        );
        answers
            .send(Ok(response(Type::Listener, &[listener("l", 1, "r")], "2")))
            .await
            .unwrap();
        assert_eq!(
            next(&mut requests).await.resource_names_subscribe,
            ["r"],
            "the listener is not acknowledged yet"
        );
        answers
            .send(Ok(response(Type::Route, &[routes("r", "a")], "3")))
            .await
            .unwrap();
        answers
            .send(Ok(response(Type::Endpoint, &[endpoints("a", "10.0.0.1")], "4")))
            .await
            .unwrap();
        let mut nonces = Vec::new();
        for _ in 0..3 {
            let request = next(&mut requests).await;
            assert!(request.error_detail.is_none(), "{request:?}");
            nonces.push(request.response_nonce);
        }
        assert_eq!(
            nonces,
            ["4", "2", "3"],
            "endpoints at once, listener and route when they serve"
        );
        assert!(*configured.borrow());

        drop((requests, answers));
        let (mut requests, _answers) = tokio::time::timeout(Duration::from_secs(5), streams.recv())
            .await
            .unwrap()
            .unwrap();
        let again = next(&mut requests).await;
        assert_eq!(again.initial_resource_versions["a"], "1", "what is held is told");
        assert!(again.node.is_some());
        assert_eq!(
            store.snapshot().listeners.len(),
            1,
            "the last configuration serves meanwhile"
        );
        tokio::time::timeout(Duration::from_secs(10), async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the configuration is kept");
        trigger.drain();
        client.await.unwrap();
        starts_without_the_server(&path).await;
        std::fs::remove_file(path).unwrap();
    }
}
