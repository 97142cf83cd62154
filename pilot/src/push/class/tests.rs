//! Shared where it can be, made again only where it must be, and always what one would get by making
//! everything anew.

use super::*;
use crate::{
    metrics::Metrics,
    push::Hub,
    testing::{SERVICES, changes, gateway, sidecar},
};

const PREFERRED: &str = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
    metadata: {name: r, namespace: default}\nspec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, \
    {name: v2, labels: {version: v2}}]}\n";

fn hub(objects: &str) -> Hub {
    let hub = Hub::new(0, Metrics::default());
    hub.apply(changes(objects));
    hub
}

fn fresh(viewer: &Viewer, objects: &str) -> Catalog {
    let hub = hub(objects);
    hub.catalog(&hub.class(viewer.clone())).0
}

/// Names and versions; maps inside of bodies are written in any order.
fn versions(catalog: &Catalog, kind: Type) -> Vec<String> {
    let all = catalog[kind.index()].iter();
    all.map(|own| format!("{} {}", own.name, own.version)).collect()
}

fn moved(number: usize) -> String {
    let objects = SERVICES.replace("addresses: [10.0.0.1]", &format!("addresses: [10.0.1.{number}]"));
    [&objects, PREFERRED].concat()
}

#[test]
fn moved_endpoints_are_as_if_made_anew() {
    let hub = hub(&[SERVICES, PREFERRED].concat());
    let classes: Vec<Arc<Class>> = [sidecar("a"), sidecar("reviews"), gateway()]
        .map(|viewer| hub.class(viewer))
        .into();
    let before: Vec<Catalog> = classes.iter().map(|class| hub.catalog(class).0).collect();
    // More snapshots than are remembered, looked at one by one at first and then not for a long time.
    for number in [1, 2, 3].into_iter().chain(10..90) {
        let objects = moved(number);
        hub.apply(changes(&objects));
        if (4..89).contains(&number) {
            continue;
        }
        for (class, before) in classes.iter().zip(&before) {
            let now = hub.catalog(class).0;
            let anew = fresh(&class.viewer, &objects);
            for kind in Type::ALL {
                assert_eq!(
                    versions(&now, kind),
                    versions(&anew, kind),
                    "{kind} after {number}"
                );
            }
            let i = Type::Cluster.index();
            assert!(Arc::ptr_eq(&now[i], &before[i]), "clusters do not change");
        }
    }
}

#[test]
fn neighbours_share_all_that_is_not_about_them() {
    let hub = hub(&[SERVICES, PREFERRED].concat());
    let classes = [sidecar("a"), sidecar("reviews")].map(|viewer| hub.class(viewer));
    let [a, reviews] = classes.each_ref().map(|class| hub.catalog(class).0);
    assert!(!Arc::ptr_eq(&classes[0], &classes[1]));
    for kind in [Type::Endpoint, Type::Route, Type::NameTable] {
        assert!(Arc::ptr_eq(&a[kind.index()], &reviews[kind.index()]), "{kind}");
    }
    let clusters = Type::Cluster.index();
    assert!(reviews[clusters].contains("inbound|8080||"), "its own port");
    assert!(!a[clusters].contains("inbound|8080||"));
    hub.apply(changes(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: default}\n\
         spec: {workloadSelector: {labels: {app: a}}, egress: [{hosts: ['./ratings.default.svc.cluster.local']}]}\n",
    ));
    let [a, reviews] = classes.each_ref().map(|class| hub.catalog(class).0);
    let endpoints = Type::Endpoint.index();
    assert!(
        a[endpoints].len() < reviews[endpoints].len(),
        "they are not alike any more"
    );
}

#[test]
fn rules_of_requests_touch_nothing_but_routes() {
    let hub = hub(SERVICES);
    let class = hub.class(sidecar("a"));
    let before = hub.catalog(&class).0;
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: default}\n\
        spec: {hosts: [reviews], http: [{timeout: 3s, route: [{destination: {host: ratings}}]}]}\n";
    hub.apply(changes(rule));
    hub.catalog(&class);
    let made = hub.cache.counts().0;
    hub.apply(changes(&rule.replace("3s", "4s")));
    let after = hub.catalog(&class).0;
    let changed: Vec<Type> = Type::ALL
        .into_iter()
        .filter(|kind| !Arc::ptr_eq(&before[kind.index()], &after[kind.index()]))
        .collect();
    assert_eq!(changed, [Type::Route]);
    assert_eq!(hub.cache.counts().0 - made, 1, "one table is made, nothing else");
}

#[test]
fn changed_rules_are_as_if_made_anew() {
    let rule = |name: &str, host: &str, timeout: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{hosts: ['{host}'], http: [{{timeout: {timeout}, route: [{{destination: {{host: ratings}}}}]}}]}}\n"
        )
    };
    let steps = [
        rule("a", "reviews", "1s"),
        rule("a", "reviews", "2s"),
        rule("a", "odd", "2s"),
        rule("a", "*.default.svc.cluster.local", "2s"),
        rule("a", "www.example.org", "2s"),
        rule("a", "www.example.org", "3s"),
        [rule("a", "reviews", "1s"), rule("b", "ratings", "2s")].concat(),
        [rule("a", "reviews", "1s"), rule("b", "odd", "2s")].concat(),
    ];
    let hub = hub(SERVICES);
    let classes = [sidecar("a"), gateway()].map(|viewer| hub.class(viewer));
    for step in steps {
        hub.apply(changes(&step));
        for class in &classes {
            let now = hub.catalog(class).0;
            let anew = fresh(&class.viewer, &[SERVICES, &step].concat());
            assert_eq!(
                versions(&now, Type::Route),
                versions(&anew, Type::Route),
                "{step}"
            );
        }
    }
}
