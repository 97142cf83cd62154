//! A change reaches whom it concerns, and nobody else.

use mesh_proto::xds::Type;

use super::*;
use crate::{
    serve::proxy::Proxy,
    testing::{SERVICES, changes},
};

fn connect(hub: &Arc<Hub>, id: &str, app: &str) -> Arc<Proxy> {
    let metadata = mesh_proto::node::NodeMetadata {
        labels: [("app".to_owned(), app.to_owned())].into(),
        ..Default::default()
    };
    let proxy = Arc::new(Proxy::new(
        hub,
        hub.stream_number(),
        false,
        id.parse().unwrap(),
        metadata,
        None,
    ));
    hub.connect(proxy.clone());
    proxy
}

fn hub() -> Arc<Hub> {
    let hub = Arc::new(Hub::new(0, Metrics::default()));
    hub.apply(changes(SERVICES));
    hub
}

/// Which types of a proxy's class are other maps than before.
fn changed(before: &Catalog, after: &Catalog) -> Vec<Type> {
    Type::ALL
        .into_iter()
        .filter(|kind| !Arc::ptr_eq(&before[kind.index()], &after[kind.index()]))
        .collect()
}

#[test]
fn endpoints_touch_nothing_but_endpoints() {
    let hub = hub();
    let proxy = connect(&hub, "sidecar~1~a.default~x", "a");
    let before = proxy.class().catalog();
    // The same two identities, so clusters need not know.
    hub.apply(changes(
        &SERVICES.replace("addresses: [10.0.0.1]", "addresses: [10.0.0.7]"),
    ));
    let after = proxy.class().catalog();
    assert_eq!(changed(&before, &after), [Type::Endpoint]);
    let differing: Vec<&Arc<str>> = after[Type::Endpoint.index()]
        .iter()
        .filter(|own| before[Type::Endpoint.index()].get(&own.name) != Some(own))
        .map(|own| &own.name)
        .collect();
    assert_eq!(differing.len(), 1, "only the cluster concerned: {differing:?}");
}

#[test]
fn a_rule_touches_only_those_who_see_it() {
    let hub = hub();
    let near = connect(&hub, "sidecar~1~a.default~x", "a");
    let far = connect(&hub, "sidecar~2~b.shop~x", "b");
    let (near_before, far_before) = (near.class().catalog(), far.class().catalog());
    hub.apply(changes(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: default}\n\
         spec: {hosts: [reviews], exportTo: ['.'], http: [{route: [{destination: {host: ratings}}]}]}\n",
    ));
    assert_eq!(changed(&near_before, &near.class().catalog()), [Type::Route]);
    assert_eq!(changed(&far_before, &far.class().catalog()), []);
    assert!(
        far.acknowledged(hub.snapshot().sequence),
        "what does not concern it needs no answer"
    );
}

#[test]
fn alike_proxies_share_everything() {
    let hub = hub();
    let a = connect(&hub, "sidecar~1~a-0.default~x", "a");
    let b = connect(&hub, "sidecar~2~a-1.default~x", "a");
    assert!(Arc::ptr_eq(&a.class(), &b.class()));
    let other = connect(&hub, "sidecar~3~c.default~x", "c");
    let (mine, theirs) = (a.class().catalog(), other.class().catalog());
    let name = "outbound|9080||reviews.default.svc.cluster.local";
    let of = |catalog: &Catalog| catalog[Type::Cluster.index()][name].clone();
    assert!(
        Arc::ptr_eq(&of(&mine), &of(&theirs)),
        "other proxies share what is made from equal inputs"
    );
}

#[test]
fn a_class_goes_with_its_last_proxy() {
    let hub = hub();
    let proxy = connect(&hub, "sidecar~1~a.default~x", "a");
    let class = Arc::downgrade(&proxy.class());
    hub.disconnect(proxy.number);
    drop(proxy);
    assert!(class.upgrade().is_none());
}

#[test]
fn a_pods_new_labels_make_another_viewer() {
    let hub = hub();
    let proxy = connect(&hub, "sidecar~10.0.0.1~reviews-v1-0.default~x", "reviews");
    assert_eq!(proxy.class().viewer.canonical_revision, "v1");
    hub.apply(changes(
        &SERVICES.replace("{app: reviews, version: v1,", "{app: reviews, version: v9,"),
    ));
    assert_eq!(proxy.class().viewer.canonical_revision, "v9");
}

#[test]
fn versions_do_not_depend_on_the_process() {
    let (one, two) = (hub(), hub());
    let of = |hub: &Arc<Hub>| {
        let proxy = connect(hub, "sidecar~1~a.default~x", "a");
        let catalog = proxy.class().catalog();
        catalog
            .iter()
            .flat_map(|map| map.iter().map(|r| (r.name.clone(), r.version)))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&one), of(&two));
}

#[test]
fn the_moment_of_an_object_is_kept() {
    let hub = hub();
    let key = ObjectKey::new("default", "reviews");
    let first = hub.moment(Kind::Service, &key).unwrap();
    hub.apply(changes(&SERVICES.replace("port: 6379", "port: 6380")));
    assert_eq!(
        hub.moment(Kind::Service, &key),
        Some(first),
        "another object changed"
    );
    let redis = ObjectKey::new("default", "redis");
    assert!(hub.moment(Kind::Service, &redis).unwrap().sequence > first.sequence);
}
