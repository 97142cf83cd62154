//! The order of things, seen from a client.

use bytes::Bytes;
use mesh_proto::{
    pb::google::rpc::Status,
    xds::{Encoded, Version},
};

use mesh_proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;

use super::*;

fn catalog(kind: Type, resources: &[(&str, u64)]) -> Arc<Resources> {
    let encoded = |(name, version): &(&str, u64)| {
        Arc::new(Encoded {
            name: (*name).into(),
            version: Version(*version),
            kind,
            body: Bytes::new(),
        })
    };
    Arc::new(resources.iter().map(encoded).collect())
}

struct World {
    session: Session,
    target: [Arc<Resources>; 6],
    sequence: u64,
}

impl World {
    fn new() -> Self {
        Self {
            session: Session::new(1, false),
            target: Default::default(),
            sequence: 0,
        }
    }

    fn set(&mut self, kind: Type, resources: &[(&str, u64)]) -> &mut Self {
        self.target[kind.index()] = catalog(kind, resources);
        self
    }

    fn push(&mut self) {
        self.sequence += 1;
        self.session.retarget(&self.target, self.sequence);
    }

    fn subscribe(&mut self, kind: Type, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.session.request(&Request::Delta(request), 0);
    }

    fn answer(&mut self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|e| Status {
                code: 3,
                message: e.into(),
                details: Vec::new(),
            }),
            ..DeltaDiscoveryRequest::default()
        };
        self.session.request(&Request::Delta(request), 0);
    }

    fn next(&mut self) -> Option<DeltaDiscoveryResponse> {
        match self.session.next(0) {
            Some(Response::Delta(news)) => Some(news.message()),
            Some(Response::Sotw(_)) => panic!("a delta stream"),
            None => None,
        }
    }

    /// Everything that comes, accepted as it comes: `CDS +a -b`.
    fn run(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(response) = self.next() {
            seen.push(text(&response));
            self.answer(&response, None);
        }
        seen
    }

    fn connected() -> Self {
        let mut world = Self::new();
        world
            .set(Type::Cluster, &[("a", 1)])
            .set(Type::Endpoint, &[("a", 1)]);
        world
            .set(Type::Listener, &[("l", 1)])
            .set(Type::Route, &[("r", 1)]);
        world.push();
        world.subscribe(Type::Cluster, &["*"]);
        world.subscribe(Type::Listener, &["*"]);
        assert_eq!(world.run(), ["CDS +a"], "listeners wait for the endpoints");
        world.subscribe(Type::Endpoint, &["a"]);
        assert_eq!(world.run(), ["EDS +a", "LDS +l"]);
        world.subscribe(Type::Route, &["r"]);
        assert_eq!(world.run(), ["RDS +r"]);
        assert!(world.session.is_settled());
        world
    }
}

fn text(response: &DeltaDiscoveryResponse) -> String {
    let kind = Type::from_url(&response.type_url)
        .map(Type::short)
        .unwrap_or_default();
    let added = response
        .resources
        .iter()
        .map(|resource| format!(" +{}", resource.name));
    let removed = response.removed_resources.iter().map(|name| format!(" -{name}"));
    format!("{kind}{}", added.chain(removed).collect::<String>())
}

#[test]
fn a_new_destination_is_made_before_the_old_one_is_broken() {
    let mut world = World::connected();
    world
        .set(Type::Cluster, &[("b", 1)])
        .set(Type::Endpoint, &[("b", 1)])
        .set(Type::Route, &[("r", 2)]);
    world.push();
    assert_eq!(world.run(), ["CDS +b"]);
    assert!(world.session.is_patient() && !world.session.is_settled());
    world.subscribe(Type::Endpoint, &["b"]);
    assert_eq!(world.run(), ["EDS +b", "RDS +r", "CDS -a", "EDS -a"]);
    assert!(world.session.is_settled());
}

#[test]
fn a_client_that_never_asks_for_endpoints_is_waited_for_only_so_long() {
    let mut world = World::connected();
    world
        .set(Type::Cluster, &[("a", 1), ("b", 1)])
        .set(Type::Endpoint, &[("a", 1), ("b", 1)]);
    world.set(Type::Route, &[("r", 2)]);
    world.push();
    assert_eq!(world.run(), ["CDS +b"]);
    world.session.lose_patience();
    assert_eq!(world.run(), ["RDS +r"]);
}

#[test]
fn endpoints_alone_touch_nothing_else() {
    let mut world = World::connected();
    world.set(Type::Endpoint, &[("a", 2)]);
    world.push();
    assert_eq!(world.run(), ["EDS +a"]);
}

#[test]
fn a_changed_cluster_gets_its_endpoints_again() {
    let mut world = World::connected();
    world.set(Type::Cluster, &[("a", 2)]);
    world.push();
    assert_eq!(world.run(), ["CDS +a", "EDS +a"]);
}

#[test]
fn routes_wait_for_a_cluster_that_is_on_its_way() {
    let mut world = World::connected();
    world
        .set(Type::Cluster, &[("a", 2)])
        .set(Type::Route, &[("r", 2)]);
    world.push();
    let clusters = world.next().unwrap();
    assert_eq!(text(&clusters), "CDS +a");
    let endpoints = world.next().unwrap();
    assert_eq!(text(&endpoints), "EDS +a");
    assert_eq!(world.next(), None, "nothing until both are answered");
    world.answer(&clusters, None);
    assert_eq!(world.next(), None);
    world.answer(&endpoints, None);
    assert_eq!(world.run(), ["RDS +r"]);
}

#[test]
fn a_refused_route_keeps_what_it_refers_to() {
    let mut world = World::connected();
    world
        .set(Type::Cluster, &[])
        .set(Type::Endpoint, &[])
        .set(Type::Route, &[("r", 2)]);
    world.push();
    let routes = world.next().unwrap();
    assert_eq!(text(&routes), "RDS +r");
    world.answer(&routes, Some("r: no"));
    assert_eq!(
        world.run(),
        [] as [&str; 0],
        "the old route still needs cluster a"
    );
    assert_eq!(world.session.rejections().count(), 1);
    world.set(Type::Route, &[("r", 3)]);
    world.push();
    assert_eq!(world.run(), ["RDS +r", "CDS -a", "EDS -a"]);
}

#[test]
fn what_comes_back_meanwhile_is_not_removed() {
    let mut world = World::connected();
    world.set(Type::Cluster, &[]).set(Type::Route, &[("r", 2)]);
    world.push();
    let routes = world.next().unwrap();
    world.set(Type::Cluster, &[("a", 1)]);
    world.push();
    world.answer(&routes, None);
    assert_eq!(world.run(), [] as [&str; 0]);
}

#[test]
fn a_record_is_kept_of_what_was_sent_and_answered() {
    let mut world = World::connected();
    world.set(Type::Route, &[("r", 2)]);
    world.push();
    let routes = world.next().unwrap();
    assert_eq!(world.session.record(Type::Route).sent, Some(2));
    assert_eq!(world.session.record(Type::Route).acked, Some(1));
    world.answer(&routes, Some("r: no"));
    let record = world.session.record(Type::Route);
    assert_eq!((record.acked, record.nacked), (Some(1), Some(2)));
}
