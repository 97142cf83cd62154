//! What a proxy sees.

use super::*;
use crate::testing::{SERVICES, gateway, sidecar, snapshot};

#[test]
fn a_proxys_pod_knows_better_than_the_proxy() {
    let snapshot = snapshot(SERVICES);
    let id: NodeId = "sidecar~10.0.0.1~reviews-v1-0.default~default.svc.cluster.local"
        .parse()
        .unwrap();
    let claims = NodeMetadata {
        labels: [("app".to_owned(), "admin".to_owned())].into(),
        ..NodeMetadata::default()
    };
    let viewer = Viewer::new(&id, &claims, snapshot.workloads.get("default", "reviews-v1-0"));
    assert_eq!(viewer.labels.get("app").map(String::as_str), Some("reviews"));
    assert_eq!(
        (viewer.canonical_name.as_str(), viewer.canonical_revision.as_str()),
        ("reviews", "v1")
    );
}

#[test]
fn the_narrowest_route_counts() {
    let route = |name: &str, host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{hosts: ['{host}'], http: [{{route: [{{destination: {{host: reviews}}}}]}}]}}\n"
        )
    };
    let objects = [
        SERVICES,
        &route("a-wide", "*.default.svc.cluster.local"),
        &route("narrow", "reviews"),
    ]
    .concat();
    let snapshot = snapshot(&objects);
    let viewer = sidecar("productpage");
    let view = View::new(&viewer, &snapshot);
    let of = |name: &str| {
        let host = Host::of_service(name, "default", names::CLUSTER_DOMAIN);
        view.route_of(&host).map(|route| route.origin.name.clone())
    };
    assert_eq!(of("reviews").as_deref(), Some("narrow"));
    assert_eq!(of("ratings").as_deref(), Some("a-wide"));
}

#[test]
fn the_nearest_policy_counts() {
    let rule = |namespace: &str, name: &str, extra: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{host: reviews.default.svc.cluster.local{extra}}}\n"
        )
    };
    let check = |rules: &[String], expect: Option<&str>| {
        let snapshot = snapshot(&[SERVICES, &rules.concat()].concat());
        let viewer = Viewer {
            namespace: "shop".into(),
            ..sidecar("productpage")
        };
        let view = View::new(&viewer, &snapshot);
        let host = Host::of_service("reviews", "default", names::CLUSTER_DOMAIN);
        let policy = view.policy(view.service(&host).unwrap());
        assert_eq!(policy.map(|policy| policy.origin.name.as_str()), expect);
    };
    check(&[], None);
    check(&[rule("istio-system", "root", "")], Some("root"));
    check(
        &[rule("istio-system", "root", ""), rule("default", "server", "")],
        Some("server"),
    );
    check(
        &[rule("default", "server", ""), rule("shop", "client", "")],
        Some("client"),
    );
    check(&[rule("default", "server", ", exportTo: ['.']")], None);
    check(&[rule("other", "stranger", "")], None);
    let selecting = rule(
        "shop",
        "mine",
        ", workloadSelector: {matchLabels: {app: productpage}}",
    );
    check(&[rule("shop", "client", ""), selecting], Some("mine"));
}

#[test]
fn a_gateway_is_no_sidecar() {
    let snapshot = snapshot(SERVICES);
    let viewer = gateway();
    let view = View::new(&viewer, &snapshot);
    assert!(view.is_gateway());
    assert_eq!(view.services().count(), 0, "no rule leads anywhere");
}
