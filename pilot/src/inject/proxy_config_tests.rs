//! What ProxyConfigs change about an injected pod, and which of them count.

use super::*;
use crate::{
    convert::testing::item,
    model::{Item, Kind},
};

const MESH: &str = "istio-system";

fn object(namespace: &str, name: &str, spec: &str) -> Arc<ProxySettings> {
    let text = format!(
        "apiVersion: {}\nkind: ProxyConfig\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n",
        Kind::ProxyConfig.api_version()
    );
    match item(&text) {
        Item::ProxySettings(settings) => settings,
        other => panic!("{other:?}"),
    }
}

/// Threads, the variable A, and the image of the proxy of a pod.
fn proxy(annotations: &str, objects: &[Arc<ProxySettings>]) -> (String, String, String) {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: ns, labels: {{app: a}}, annotations: {{{annotations}}}}}\n\
         spec: {{containers: [{{name: app, image: i}}]}}\n"
    );
    let pod: Pod = serde_saphyr::from_str(&text).expect(&text);
    let labels = Labels::from([("istio-injection".to_owned(), "enabled".to_owned())]);
    let settings = Settings {
        proxy_image: "hub/proxy:1.0".into(),
        ..Settings::default()
    };
    let mut mesh = MeshConfig::default();
    mesh.default_config.concurrency = Some(1);
    mesh.default_config.proxy_metadata = [("A".to_owned(), "mesh".to_owned())].into();
    let Outcome::Injected(pod) = inject(&pod, &labels, &mesh, objects, &settings) else {
        panic!("{text} gets no sidecar")
    };
    let spec = pod.spec.expect("a spec");
    let mut inits = spec.init_containers.into_iter().flatten();
    let proxy = inits
        .find(|one| one.name == names::container::PROXY)
        .expect("a proxy");
    let variable = |name: &str| {
        let mut all = proxy.env.iter().flatten().filter(|one| one.name == name);
        let value = all.next().and_then(|one| one.value.clone()).unwrap_or_default();
        assert!(all.next().is_none(), "{name} is there twice");
        value
    };
    (
        variable("PROXY_CONCURRENCY"),
        variable("A"),
        proxy.image.clone().unwrap_or_default(),
    )
}

#[test]
fn the_nearest_counts() {
    let mesh = object(MESH, "all", "concurrency: 2, environmentVariables: {A: root}");
    let namespace = object(
        "ns",
        "here",
        "environmentVariables: {A: namespace}, image: {imageType: debug}",
    );
    let own = object("ns", "own", "selector: {matchLabels: {app: a}}, concurrency: 4");
    let others = [
        object("ns", "other", "selector: {matchLabels: {app: b}}, concurrency: 9"),
        object("nx", "other", "concurrency: 9"),
        object(
            MESH,
            "chosen",
            "selector: {matchLabels: {app: a}}, concurrency: 9",
        ),
    ];
    let with = |objects: &[&Arc<ProxySettings>]| -> Vec<Arc<ProxySettings>> {
        objects.iter().copied().chain(&others).cloned().collect()
    };
    const ANNOTATION: &str = "proxy.istio.io/config: '{concurrency: 3, proxyMetadata: {A: pod}}'";
    let check = |annotations: &str, objects: &[&Arc<ProxySettings>], expect: (&str, &str, &str)| {
        let (threads, variable, image) = proxy(annotations, &with(objects));
        assert_eq!((&*threads, &*variable, &*image), expect);
    };
    check("", &[], ("1", "mesh", "hub/proxy:1.0"));
    check("", &[&mesh], ("2", "root", "hub/proxy:1.0"));
    check(
        "",
        &[&mesh, &namespace],
        ("2", "namespace", "hub/proxy:1.0-debug"),
    );
    check(
        ANNOTATION,
        &[&mesh, &namespace],
        ("3", "pod", "hub/proxy:1.0-debug"),
    );
    check(
        ANNOTATION,
        &[&mesh, &namespace, &own],
        ("4", "pod", "hub/proxy:1.0-debug"),
    );
    check(
        "sidecar.istio.io/proxyImage: mine:1",
        &[&namespace],
        ("1", "namespace", "mine:1"),
    );
    check(
        "proxy.istio.io/config: '{image: {imageType: distroless}}'",
        &[&namespace],
        ("1", "namespace", "hub/proxy:1.0-distroless"),
    );
}

#[test]
fn images_of_a_type() {
    for (image, kind, expect) in [
        ("hub/proxy:1.0", "", "hub/proxy:1.0"),
        ("hub/proxy:1.0-debug", "", "hub/proxy:1.0-debug"),
        ("hub/proxy:1.0-debug", "default", "hub/proxy:1.0"),
        ("hub/proxy:1.0-debug", "distroless", "hub/proxy:1.0-distroless"),
        ("hub:5000/proxy", "debug", "hub:5000/proxy:latest-debug"),
        ("hub/proxy@sha256:ab", "debug", "hub/proxy@sha256:ab"),
    ] {
        assert_eq!(of_type(image, kind), expect, "{image} {kind}");
    }
}
