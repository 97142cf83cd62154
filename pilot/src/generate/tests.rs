//! Endpoints, secrets and names; and that equal inputs make equal resources.

use mesh_proto::xds::Type;
use serde_json::{Value, json};

use super::*;
use crate::testing::{SERVICES, gateway, names, resource, sidecar, snapshot};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn members(assignment: &Value) -> Vec<(String, Value)> {
    let mut members: Vec<(String, Value)> = assignment["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["lb_endpoints"].as_array().cloned().unwrap_or_default())
        .map(|member| {
            let address = member["endpoint"]["address"]["socket_address"]["address"]
                .as_str()
                .unwrap()
                .to_owned();
            (address, member["metadata"]["filter_metadata"].clone())
        })
        .collect();
    members.sort_by(|a, b| a.0.cmp(&b.0));
    members
}

#[test]
fn endpoints_say_who_they_are_and_what_they_take() {
    let all = members(&resource(&sidecar("productpage"), "", Type::Endpoint, REVIEWS));
    assert_eq!(all.len(), 2);
    assert_eq!(
        all[0].1["envoy.transport_socket_match"],
        json!({"tlsMode": "istio"})
    );
    assert_eq!(
        all[1].1.get("envoy.transport_socket_match"),
        None,
        "a pod without a proxy"
    );
    let workload = all[0].1["istio"]["workload"].as_str().unwrap();
    assert!(workload.contains(";default;reviews;v1;"), "{workload}");
}

#[test]
fn a_subset_has_the_endpoints_with_its_labels() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: default}\n\
                spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}\n";
    let name = "outbound|9080|v2|reviews.default.svc.cluster.local";
    let all = members(&resource(&sidecar("productpage"), rule, Type::Endpoint, name));
    assert_eq!(
        all.iter().map(|(ip, _)| ip.as_str()).collect::<Vec<_>>(),
        ["10.0.0.2"]
    );
}

#[test]
fn a_server_that_takes_plain_text_only_is_sent_plain_text() {
    let off = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: d, namespace: default}\n\
               spec: {selector: {matchLabels: {app: reviews}}, mtls: {mode: DISABLE}}\n";
    let all = members(&resource(&sidecar("productpage"), off, Type::Endpoint, REVIEWS));
    assert!(
        all.iter()
            .all(|(_, about)| about.get("envoy.transport_socket_match").is_none())
    );
}

#[test]
fn secrets_are_for_gateways_of_their_namespace() {
    // Any certificate and key will do: what they hold is the model's business.
    let names_of = |viewer: &Viewer| {
        let snapshot = snapshot(SERVICES);
        inputs(&View::new(viewer, &snapshot), Type::Secret).len()
    };
    assert_eq!(names_of(&gateway()), 0);
    assert_eq!(names_of(&sidecar("reviews")), 0);
}

#[test]
fn the_name_table_has_services_and_headless_endpoints() {
    let snapshot = snapshot(SERVICES);
    let viewer = sidecar("productpage");
    let all = inputs(&View::new(&viewer, &snapshot), Type::NameTable);
    let [Input::NameTable(table)] = &all[..] else {
        panic!("{all:?}")
    };
    let ips = |name: &str| {
        let entry = &table.names[&format!("{name}.default.svc.cluster.local")];
        entry
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(ips("reviews"), ["10.96.0.1"]);
    assert_eq!(ips("peers"), ["10.0.0.5"]);
    let silent = Viewer { dns: false, ..viewer };
    assert!(inputs(&View::new(&silent, &snapshot), Type::NameTable).is_empty());
}

#[test]
fn what_is_hidden_is_nowhere() {
    let hidden = r"
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s, namespace: default}
spec: {egress: [{hosts: ['./reviews.default.svc.cluster.local']}]}
";
    let seen = names(&sidecar("productpage"), hidden, Type::Endpoint);
    assert_eq!(seen, [REVIEWS]);
}

#[test]
fn alike_viewers_get_equal_inputs() {
    let snapshot = snapshot(SERVICES);
    let (a, b) = (sidecar("productpage"), sidecar("productpage"));
    for kind in Type::ALL {
        assert_eq!(
            inputs(&View::new(&a, &snapshot), kind),
            inputs(&View::new(&b, &snapshot), kind)
        );
    }
}

#[test]
fn every_name_comes_once() {
    let snapshot = snapshot(SERVICES);
    for viewer in [sidecar("reviews"), gateway()] {
        for kind in Type::ALL {
            let all: Vec<String> = inputs(&View::new(&viewer, &snapshot), kind)
                .iter()
                .map(Input::name)
                .collect();
            let distinct: BTreeSet<&String> = all.iter().collect();
            assert_eq!(distinct.len(), all.len(), "{kind}: {all:?}");
        }
    }
}

use crate::view::Viewer;
