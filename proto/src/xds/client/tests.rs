//! What the client says in each situation of the protocol.

use super::*;
use crate::envoy::service::discovery::v3 as discovery;

const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

fn client() -> Client {
    Client::new([CDS, EDS])
}

fn node() -> Node {
    Node {
        id: "sidecar~1~a.b~c".into(),
        ..Node::default()
    }
}

fn response(kind: &str, nonce: &str, resources: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource = |(name, version): &(&str, &str)| discovery::Resource {
        name: (*name).into(),
        version: (*version).into(),
        resource: Some(Any {
            type_url: kind.into(),
            value: Vec::new(),
        }),
        ..discovery::Resource::default()
    };
    DeltaDiscoveryResponse {
        type_url: kind.into(),
        nonce: nonce.into(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn accept(client: &mut Client, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let update = client.receive(response).unwrap();
    client.ack(&update)
}

#[test]
fn connect_asks_for_wildcards_and_carries_the_node_once() {
    let mut client = client();
    let requests = client.connect(node());
    assert_eq!(requests.len(), 1, "nothing is wanted of EDS yet");
    assert_eq!(requests[0].type_url, CDS);
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert!(requests[0].node.is_some());
    let request = client.subscribe(EDS, ["a"]).unwrap();
    assert_eq!(request.resource_names_subscribe, ["a"]);
    assert!(request.node.is_none());
}

#[test]
fn the_first_request_carries_the_node_even_when_it_is_late() {
    let mut client = Client::new([EDS]);
    assert!(client.connect(node()).is_empty());
    assert!(client.subscribe(EDS, ["a"]).unwrap().node.is_some());
    assert!(client.subscribe(EDS, ["b"]).unwrap().node.is_none());
}

#[test]
fn subscribing_is_said_once() {
    let mut client = client();
    assert_eq!(
        client.subscribe(EDS, ["a"]),
        None,
        "not connected: said at connect"
    );
    let requests = client.connect(node());
    assert_eq!(requests[1].resource_names_subscribe, ["a"]);
    assert_eq!(client.subscribe(EDS, ["a"]), None);
    assert_eq!(client.unsubscribe(EDS, ["b"]), None);
    let request = client.want(EDS, ["b".to_owned(), "c".to_owned()]).unwrap();
    assert_eq!(request.resource_names_subscribe, ["b", "c"]);
    assert_eq!(request.resource_names_unsubscribe, ["a"]);
    assert_eq!(client.names(EDS).collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn ack_records_versions_and_a_reconnect_tells_them() {
    let mut client = client();
    client.connect(node());
    let ack = accept(&mut client, response(CDS, "n1", &[("a", "1"), ("b", "1")], &[]));
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n1", None));
    accept(&mut client, response(CDS, "n2", &[("a", "2")], &["b"]));
    client.disconnect();
    let requests = client.connect(node());
    assert_eq!(
        requests[0].initial_resource_versions,
        [("a".to_owned(), "2".to_owned())].into()
    );
    assert!(requests[0].node.is_some(), "every stream introduces itself");
    assert!(
        requests[0].response_nonce.is_empty(),
        "a nonce belongs to its stream"
    );
}

#[test]
fn nack_keeps_the_old_versions() {
    let mut client = client();
    client.connect(node());
    accept(&mut client, response(CDS, "n1", &[("a", "1"), ("b", "1")], &[]));
    let update = client
        .receive(response(CDS, "n2", &[("a", "2"), ("b", "2")], &[]))
        .unwrap();
    let nack = client.nack(&update, &[], "no".into());
    assert_eq!(nack.response_nonce, "n2");
    assert_eq!(nack.error_detail.unwrap().message, "no");
    assert_eq!(client.version(CDS, "a"), Some("1"));
    let update = client
        .receive(response(CDS, "n3", &[("a", "3"), ("b", "3")], &[]))
        .unwrap();
    client.nack(&update, &["b".to_owned()], "b: no".into());
    assert_eq!(
        (client.version(CDS, "a"), client.version(CDS, "b")),
        (Some("3"), Some("1"))
    );
}

#[test]
fn what_was_unsubscribed_meanwhile_is_not_applied() {
    let mut client = client();
    client.connect(node());
    client.subscribe(EDS, ["a", "b"]);
    client.unsubscribe(EDS, ["b"]);
    let update = client
        .receive(response(EDS, "n1", &[("a", "1"), ("b", "1")], &["c"]))
        .unwrap();
    assert_eq!(update.changed.len(), 1);
    assert!(update.removed.is_empty());
    client.unsubscribe(EDS, ["a"]);
    client.ack(&update);
    assert_eq!(client.version(EDS, "a"), None);
}

#[test]
fn unsubscribing_forgets_the_version() {
    let mut client = client();
    client.connect(node());
    client.subscribe(EDS, ["a"]);
    accept(&mut client, response(EDS, "n1", &[("a", "1")], &[]));
    client.unsubscribe(EDS, ["a"]);
    client.subscribe(EDS, ["a"]);
    client.disconnect();
    assert!(client.connect(node())[1].initial_resource_versions.is_empty());
}

#[test]
fn an_absent_name_is_told_to_the_caller() {
    let mut client = client();
    client.connect(node());
    client.subscribe(EDS, ["a"]);
    let update = client.receive(response(EDS, "n1", &[], &["a"])).unwrap();
    assert_eq!(update.removed, ["a"]);
}

#[test]
fn broken_responses_are_refused_on_the_wire() {
    let mut client = client();
    client.connect(node());
    let mut wrong = response(CDS, "n1", &[("a", "1")], &[]);
    wrong.resources[0].resource.as_mut().unwrap().type_url = EDS.into();
    let mut empty = response(CDS, "n2", &[("a", "1")], &[]);
    empty.resources[0].resource = None;
    let cases = [
        wrong,
        empty,
        response("type.googleapis.com/other", "n3", &[], &[]),
        response(CDS, "n4", &[("a", "1"), ("a", "2")], &[]),
        response(CDS, "n5", &[("", "1")], &[]),
    ];
    for case in cases {
        let nonce = case.nonce.clone();
        let refused = client.receive(case).unwrap_err();
        assert_eq!(refused.request.response_nonce, nonce);
        assert_eq!(
            refused.request.error_detail.as_ref().unwrap().message,
            refused.reason
        );
    }
}
