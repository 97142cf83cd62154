//! Which pods get a sidecar, and what an injected pod looks like.

use super::*;

/// A pod from YAML: metadata fields besides name, spec fields besides the container.
fn pod(namespace: &str, metadata: &str, spec: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: reviews-v1-5d-x, namespace: {namespace}, {metadata}}}\n\
         spec: {{serviceAccountName: rev, containers: [{{name: reviews, image: r, ports: [{{containerPort: 9080}}]}}], {spec}}}\n"
    );
    serde_saphyr::from_str(&text).expect(&text)
}

fn labels(text: &str) -> Labels {
    serde_saphyr::from_str(&format!("{{{text}}}")).expect("labels")
}

fn run(pod: &Pod, namespace: &str) -> Outcome {
    inject(
        pod,
        &labels(namespace),
        &MeshConfig::default(),
        [],
        &Settings::default(),
    )
}

fn injected(pod: &Pod) -> Pod {
    match run(pod, "istio-injection: enabled") {
        Outcome::Injected(pod) => *pod,
        other => panic!("{other:?}"),
    }
}

/// `injected`, the reason's name, or the path that was refused.
fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Injected(_) => "injected".into(),
        Outcome::Skipped(reason) => {
            assert!(!reason.to_string().is_empty());
            format!("{reason:?}")
                .split('(')
                .next()
                .unwrap_or_default()
                .to_owned()
        }
        Outcome::Refused(finding) => finding.path.clone(),
    }
}

#[test]
fn decisions() {
    let check = |namespace: &str, metadata: &str, spec: &str, expect: &str| {
        let outcome = run(&pod("ns", metadata, spec), namespace);
        assert_eq!(show(&outcome), expect, "[{namespace}] [{metadata}] [{spec}]");
    };
    const ON: &str = "istio-injection: enabled";
    const OFF: &str = "istio-injection: disabled";
    let label = |value: &str| format!("labels: {{sidecar.istio.io/inject: '{value}'}}");
    let annotation = |value: &str| format!("annotations: {{sidecar.istio.io/inject: '{value}'}}");

    check(ON, "", "", "injected");
    check("", "", "", "NotEnabled");
    check(OFF, "", "", "NamespaceDisabled");
    check("istio-injection: perhaps", "", "", "NotEnabled");
    check("", &label("true"), "", "injected");
    check("", &annotation("true"), "", "injected");
    check(ON, &label("false"), "", "PodDisabled");
    check(ON, &annotation("false"), "", "PodDisabled");
    check(OFF, &label("true"), "", "NamespaceDisabled");
    check(
        ON,
        &format!("{}, {}", label("true"), annotation("false")),
        "",
        "injected",
    );
    check(
        ON,
        &format!("{}, {}", label("false"), annotation("true")),
        "",
        "PodDisabled",
    );
    check(ON, &label("yes"), "", "metadata.labels[sidecar.istio.io/inject]");
    check("istio.io/rev: default", "", "", "injected");
    check("istio.io/rev: canary", "", "", "OtherRevision");
    check("istio.io/rev: canary", &label("true"), "", "OtherRevision");
    check(
        "istio-injection: enabled, istio.io/rev: canary",
        "",
        "",
        "injected",
    );
    check("", "labels: {istio.io/rev: default}", "", "injected");
    check("", "labels: {istio.io/rev: canary}", "", "OtherRevision");
    check(ON, "", "hostNetwork: true", "HostNetwork");
    check(
        ON,
        "",
        "initContainers: [{name: istio-proxy, image: other}]",
        "AlreadyInjected",
    );
    check(
        ON,
        "",
        "initContainers: [{name: istio-proxy, image: auto}]",
        "injected",
    );
    check(
        ON,
        "annotations: {inject.istio.io/templates: custom}",
        "",
        "metadata.annotations[inject.istio.io/templates]",
    );
    check(
        ON,
        "annotations: {inject.istio.io/templates: sidecar}",
        "",
        "injected",
    );
    check(
        ON,
        "annotations: {sidecar.istio.io/proxyCPU: lots}",
        "",
        "metadata.annotations[sidecar.istio.io/proxyCPU]",
    );
    check(
        ON,
        "annotations: {sidecar.istio.io/nativeSidecar: 'false'}",
        "",
        "metadata.annotations[sidecar.istio.io/nativeSidecar]",
    );
    check(
        ON,
        "annotations: {sidecar.istio.io/interceptionMode: TPROXY}",
        "",
        "metadata.annotations[sidecar.istio.io/interceptionMode]",
    );
    check(
        ON,
        "",
        "initContainers: [{name: istio-init}]",
        "spec.initContainers[0].name",
    );
    check(
        ON,
        "",
        "initContainers: [{name: a, ports: [{containerPort: 15006}]}]",
        "spec.initContainers[0].ports[0].containerPort",
    );
    check(
        ON,
        "annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: 'http'}",
        "",
        "metadata.annotations[traffic.sidecar.istio.io/excludeOutboundPorts]",
    );
    check(
        ON,
        "annotations: {proxy.istio.io/config: 'concurrency: x'}",
        "",
        "metadata.annotations[proxy.istio.io/config].concurrency",
    );

    for namespace in ["istio-system", "kube-system"] {
        assert_eq!(
            show(&run(&pod(namespace, &label("true"), ""), ON)),
            "SystemNamespace"
        );
    }
    let settings = Settings {
        enable_by_default: true,
        ..Settings::default()
    };
    let outcome = inject(
        &pod("ns", "", ""),
        &Labels::new(),
        &MeshConfig::default(),
        [],
        &settings,
    );
    assert_eq!(show(&outcome), "injected");
}

/// Owner, namespace's labels, pod's labels, annotations, spec → what becomes of it.
#[test]
fn kinds_of_pods() {
    let owned = |kind: &str, name: &str| {
        format!(
            "ownerReferences: [{{apiVersion: x/v1, kind: {kind}, name: {name}, uid: u, controller: true}}]"
        )
    };
    let canary = Settings {
        revision: "canary".into(),
        ..Settings::default()
    };
    let tagged = Settings {
        any_revision: true,
        ..canary.clone()
    };
    let selective = Settings {
        never: vec![selector("{matchLabels: {app: builder}}")],
        always: vec![selector("{matchExpressions: [{key: mesh, operator: Exists}]}")],
        ..Settings::default()
    };
    let normal = Settings::default();
    let run = |settings: &Settings, namespace: (&str, &str), metadata: &str, spec: &str| {
        let pod = pod(namespace.0, metadata, spec);
        show(&inject(
            &pod,
            &labels(namespace.1),
            &MeshConfig::default(),
            [],
            settings,
        ))
    };
    const ON: (&str, &str) = ("ns", "istio-injection: enabled");
    const PLAIN: (&str, &str) = ("ns", "");
    const CANARY: (&str, &str) = ("ns", "istio.io/rev: canary");
    let gateway = "labels: {sidecar.istio.io/inject: 'true', istio: ingressgateway}, \
                   annotations: {inject.istio.io/templates: gateway}";
    let cases = [
        (&normal, ON, owned("ReplicaSet", "reviews-5d"), "", "injected"),
        (
            &normal,
            ON,
            owned("StatefulSet", "db"),
            "hostname: db-0",
            "injected",
        ),
        (&normal, ON, owned("DaemonSet", "agent"), "", "injected"),
        (
            &normal,
            ON,
            owned("DaemonSet", "agent"),
            "hostNetwork: true",
            "HostNetwork",
        ),
        (
            &normal,
            ON,
            owned("Job", "batch-1"),
            "restartPolicy: Never",
            "injected",
        ),
        (
            &normal,
            PLAIN,
            owned("Job", "batch-1"),
            "restartPolicy: Never",
            "NotEnabled",
        ),
        (
            &normal,
            ("kube-system", "istio-injection: enabled"),
            String::new(),
            "",
            "SystemNamespace",
        ),
        (&normal, ("istio-system", ""), gateway.to_owned(), "", "injected"),
        (
            &normal,
            ("istio-system", ""),
            "labels: {sidecar.istio.io/inject: 'true'}".into(),
            "",
            "SystemNamespace",
        ),
        (
            &normal,
            ("istio-system", ""),
            "annotations: {inject.istio.io/templates: gateway}".into(),
            "",
            "SystemNamespace",
        ),
        (&normal, PLAIN, gateway.to_owned(), "", "injected"),
        (
            &normal,
            PLAIN,
            gateway.to_owned(),
            "hostNetwork: true",
            "HostNetwork",
        ),
        (
            &normal,
            ("ns", "istio-injection: disabled"),
            gateway.to_owned(),
            "",
            "NamespaceDisabled",
        ),
        (&canary, CANARY, String::new(), "", "injected"),
        (&canary, ON, String::new(), "", "OtherRevision"),
        (
            &canary,
            ("ns", "istio.io/rev: prod"),
            String::new(),
            "",
            "OtherRevision",
        ),
        (
            &tagged,
            ("ns", "istio.io/rev: prod"),
            String::new(),
            "",
            "injected",
        ),
        (&tagged, ON, String::new(), "", "injected"),
        (
            &tagged,
            PLAIN,
            "labels: {istio.io/rev: prod}".into(),
            "",
            "injected",
        ),
        (
            &selective,
            ON,
            "labels: {app: builder}".into(),
            "",
            "NeverSelected",
        ),
        (
            &selective,
            ON,
            "labels: {app: builder, sidecar.istio.io/inject: 'true'}".into(),
            "",
            "injected",
        ),
        (&selective, PLAIN, "labels: {mesh: x}".into(), "", "injected"),
        (&selective, PLAIN, "labels: {other: x}".into(), "", "NotEnabled"),
    ];
    for (settings, namespace, metadata, spec, expect) in cases {
        let got = run(settings, namespace, &metadata, spec);
        assert_eq!(got, expect, "{namespace:?} [{metadata}] [{spec}]");
    }
}

fn selector(text: &str) -> LabelSelector {
    serde_saphyr::from_str(text).expect(text)
}

#[test]
fn a_gateway_is_completed() {
    let text = "metadata: {generateName: gw-, namespace: istio-system, labels: {sidecar.istio.io/inject: 'true', istio: gw}, \
                annotations: {inject.istio.io/templates: gateway}}\n\
                spec: {serviceAccountName: gw, containers: [{name: istio-proxy, image: auto, env: [{name: X, value: y}], \
                ports: [{containerPort: 8080}], resources: {limits: {cpu: '2'}}}]}\n";
    let pod: Pod = serde_saphyr::from_str(text).expect(text);
    let Outcome::Injected(gateway) = run(&pod, "") else {
        panic!("{:?}", run(&pod, ""))
    };
    let spec = gateway.spec.as_ref().expect("a spec");
    assert_eq!((spec.containers.len(), spec.init_containers.as_ref()), (1, None));
    let proxy = &spec.containers[0];
    assert!(
        proxy
            .image
            .as_deref()
            .is_some_and(|image| image.starts_with("gossamer/proxy:"))
    );
    assert_eq!(
        proxy.args.as_deref(),
        Some(&["proxy".to_owned(), "router".to_owned()][..])
    );
    assert_eq!(proxy.restart_policy, None);
    let names: Vec<&str> = proxy
        .env
        .iter()
        .flatten()
        .map(|entry| entry.name.as_str())
        .collect();
    assert!(names.contains(&"X") && names.contains(&"POD_NAME") && !names.contains(&"ISTIO_META_POD_PORTS"));
    assert_eq!(proxy.ports.as_ref().map(Vec::len), Some(2));
    let context = spec.security_context.as_ref().expect("a context");
    assert!(context.sysctls.iter().flatten().any(|one| one.value == "0"));
    let labels = gateway.metadata.labels.as_ref().expect("labels");
    assert!(!labels.contains_key("security.istio.io/tlsMode") && labels.contains_key("istio.io/rev"));
    // Once is enough.
    assert_eq!(show(&run(&gateway, "")), "AlreadyInjected");
}

#[test]
fn a_sidecar_of_the_users_is_completed() {
    let mut own = pod("ns", "", "");
    let auto = "{name: istio-proxy, image: auto, volumeMounts: [{name: certs, mountPath: /certs}]}";
    own.spec
        .as_mut()
        .expect("a spec")
        .containers
        .push(serde_saphyr::from_str(auto).expect(auto));
    let spec = injected(&own).spec.expect("a spec");
    assert_eq!(spec.containers.len(), 1, "it has moved");
    let proxy = &spec.init_containers.as_ref().expect("containers")[1];
    let mounts = proxy.volume_mounts.as_ref().expect("mounts");
    assert!(mounts.iter().any(|mount| mount.mount_path == "/certs") && mounts.len() == 5);
    assert_eq!(proxy.restart_policy.as_deref(), Some("Always"));
}

/// What another webhook adds after us gets the mesh too, and nothing is done twice.
#[test]
fn injecting_again() {
    let settings = Settings {
        rewrite_probes: true,
        ..Settings::default()
    };
    let run = |pod: &Pod| {
        inject(
            pod,
            &labels("istio-injection: enabled"),
            &MeshConfig::default(),
            [],
            &settings,
        )
    };
    let Outcome::Injected(first) = run(&pod("ns", "", "")) else {
        panic!()
    };
    assert_eq!(show(&run(&first)), "AlreadyInjected");
    let mut changed = first.clone();
    let spec = changed.spec.as_mut().expect("a spec");
    let extra = "{name: extra, ports: [{containerPort: 7}], livenessProbe: {httpGet: {port: 7}}}";
    spec.containers.push(serde_saphyr::from_str(extra).expect(extra));
    let early = serde_saphyr::from_str("{name: early}").expect("a container");
    spec.init_containers.get_or_insert_default().insert(0, early);
    let Outcome::Injected(second) = run(&changed) else {
        panic!("{:?}", run(&changed))
    };
    assert_eq!(
        env(&second, "ISTIO_META_APP_CONTAINERS").as_deref(),
        Some("reviews,extra")
    );
    assert!(
        env(&second, "ISTIO_KUBE_APP_PROBERS").is_some_and(|text| text.contains("/app-health/extra/livez"))
    );
    let inits = second
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_ref());
    let names: Vec<&str> = inits.into_iter().flatten().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["istio-init", "istio-proxy", "early"]);
    assert_eq!(show(&run(&second)), "AlreadyInjected");
}

#[test]
fn annotations_shape_the_proxy() {
    let pod = injected(&pod(
        "ns",
        "labels: {topology.istio.io/network: n1}, annotations: {sidecar.istio.io/proxyCPU: 200m, \
         sidecar.istio.io/proxyMemoryLimit: 1Gi, sidecar.istio.io/logLevel: debug, sidecar.istio.io/proxyImage: other:1, \
         sidecar.istio.io/interceptionMode: NONE, sidecar.istio.io/discoveryAddress: 'p:1', \
         sidecar.istio.io/userVolume: '{\"v\": {\"emptyDir\": {}}}', \
         sidecar.istio.io/userVolumeMount: '{\"v\": {\"mountPath\": \"/v\"}}'}",
        "",
    ));
    let spec = pod.spec.as_ref().expect("a spec");
    let inits = spec.init_containers.as_ref().expect("containers");
    assert_eq!(inits.len(), 1, "no redirection");
    let proxy = &inits[0];
    assert_eq!(proxy.image.as_deref(), Some("other:1"));
    let resources = serde_json::to_value(&proxy.resources).expect("JSON");
    assert_eq!(
        resources,
        serde_json::json!({"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}})
    );
    let env = |name: &str| {
        let mut all = proxy.env.iter().flatten();
        all.find(|entry| entry.name == name)
            .and_then(|entry| entry.value.clone())
    };
    for (name, expect) in [
        ("PROXY_LOG_LEVEL", "debug"),
        ("DISCOVERY_ADDRESS", "p:1"),
        ("ISTIO_META_INTERCEPTION_MODE", "NONE"),
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("ISTIO_META_NETWORK", "n1"),
    ] {
        assert_eq!(env(name).as_deref(), Some(expect), "{name}");
    }
    assert!(spec.volumes.iter().flatten().any(|volume| volume.name == "v"));
}

#[test]
fn a_stock_envoy_takes_our_place() {
    let chosen =
        |value: &str| format!("labels: {{app: a}}, annotations: {{sidecar.gossamer.dev/dataPlane: {value}}}");
    let ours = injected(&pod("ns", &chosen("gossamer"), ""));
    let envoy = injected(&pod("ns", &chosen("envoy"), ""));
    let proxy = |pod: &Pod| {
        let spec = pod.spec.clone().expect("a spec");
        let inits = spec.init_containers.expect("init containers");
        inits
            .into_iter()
            .find(|one| one.name == "istio-proxy")
            .expect("a proxy")
    };
    let (ours, envoy) = (proxy(&ours), proxy(&envoy));
    let words = |args: &[&str]| Some(args.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(ours.args, words(&["proxy", "sidecar"]));
    assert_eq!(envoy.args, words(&["agent", "sidecar"]));
    assert!(
        envoy
            .image
            .as_deref()
            .is_some_and(|image| image.starts_with("gossamer/proxy-envoy:"))
    );
    // Nothing else is different: redirection, probes, user and environment are those of our proxy.
    assert_eq!(
        k8s_openapi::api::core::v1::Container {
            args: ours.args.clone(),
            image: ours.image.clone(),
            ..envoy
        },
        ours
    );
    let wrong = run(&pod("ns", &chosen("nginx"), ""), "istio-injection: enabled");
    assert_eq!(
        show(&wrong),
        "metadata.annotations[sidecar.gossamer.dev/dataPlane]"
    );
}

#[test]
fn injecting_twice_changes_nothing() {
    let once = injected(&pod("ns", "labels: {app: reviews, version: v1}", ""));
    assert_eq!(show(&run(&once, "istio-injection: enabled")), "AlreadyInjected");
}

#[test]
fn the_proxy_comes_first() {
    let pod = injected(&pod("ns", "", "initContainers: [{name: own}]"));
    let spec = pod.spec.expect("a spec");
    let names: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["istio-init", "istio-proxy", "own"]);
    let proxy = &spec.init_containers.as_ref().expect("containers")[1];
    assert_eq!(proxy.restart_policy.as_deref(), Some("Always"));
    assert_eq!(
        proxy
            .security_context
            .as_ref()
            .and_then(|context| context.run_as_user),
        Some(1337)
    );
    assert!(proxy.startup_probe.is_some());
    // Every volume that is mounted is there, none twice.
    let mut volumes: Vec<&str> = spec
        .volumes
        .iter()
        .flatten()
        .map(|volume| volume.name.as_str())
        .collect();
    volumes.sort_unstable();
    let mut mounts: Vec<&str> = proxy
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| mount.name.as_str())
        .collect();
    mounts.sort_unstable();
    assert_eq!(volumes, mounts);
}

fn redirect(annotations: &str) -> String {
    let pod = injected(&pod("ns", &format!("annotations: {{{annotations}}}"), ""));
    let containers = pod
        .spec
        .and_then(|spec| spec.init_containers)
        .expect("containers");
    containers[0].args.as_ref().expect("arguments").join(" ")
}

#[test]
fn redirection() {
    assert_eq!(
        redirect(""),
        "redirect -p 15001 -z 15006 -u 1337 -g 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020 -o  --redirect-dns"
    );
    let args = redirect(
        "traffic.sidecar.istio.io/excludeInboundPorts: '8081, 15020', traffic.sidecar.istio.io/excludeOutboundPorts: '6379', \
         traffic.sidecar.istio.io/includeOutboundIPRanges: '10.0.0.0/8', traffic.sidecar.istio.io/includeInboundPorts: '', \
         traffic.sidecar.istio.io/excludeInterfaces: 'eth1, eth2'",
    );
    assert_eq!(
        args,
        "redirect -p 15001 -z 15006 -u 1337 -g 1337 -m REDIRECT -i 10.0.0.0/8 -x  -b  -d 8081,15020,15090,15021 -o 6379 \
         -c eth1,eth2 --redirect-dns"
    );
}

fn env(pod: &Pod, name: &str) -> Option<String> {
    let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
    let entry = containers[1]
        .env
        .as_ref()?
        .iter()
        .find(|entry| entry.name == name)?;
    entry.value.clone().or_else(|| {
        Some(format!(
            "<{}>",
            entry.value_from.as_ref()?.field_ref.as_ref()?.field_path
        ))
    })
}

#[test]
fn environment() {
    let pod = injected(&pod(
        "ns",
        "annotations: {proxy.istio.io/config: '{concurrency: 4, proxyMetadata: {A: b}, terminationDrainDuration: 9s}', \
         prometheus.io/scrape: 'true', prometheus.io/port: '9080'}, \
         labels: {pod-template-hash: 5d}, \
         ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: reviews-v1-5d, uid: u, controller: true}]",
        "",
    ));
    let check = |name: &str, expect: &str| assert_eq!(env(&pod, name).as_deref(), Some(expect), "{name}");
    check("POD_NAME", "<metadata.name>");
    check("SERVICE_ACCOUNT", "<spec.serviceAccountName>");
    check("PROXY_CONCURRENCY", "4");
    check("TERMINATION_DRAIN_DURATION_SECONDS", "9");
    check("DISCOVERY_ADDRESS", "pilot.istio-system.svc:15012");
    check("ISTIO_META_WORKLOAD_NAME", "reviews-v1");
    check(
        "ISTIO_META_POD_PORTS",
        r#"[{"containerPort":9080,"protocol":"TCP"}]"#,
    );
    check("ISTIO_META_APP_CONTAINERS", "reviews");
    check(
        "ISTIO_PROMETHEUS_ANNOTATIONS",
        r#"{"path":"/metrics","port":"9080","scrape":"true"}"#,
    );
    check("A", "b");
    let annotations = pod.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(
        annotations.get("prometheus.io/port").map(String::as_str),
        Some("15020")
    );
}

#[test]
fn labels_and_status() {
    let plain = injected(&pod("ns", "labels: {app: reviews, version: v1}", ""));
    let labels = plain.metadata.labels.as_ref().expect("labels");
    let label = |name: &str| labels.get(name).map(String::as_str);
    assert_eq!(label("security.istio.io/tlsMode"), Some("istio"));
    assert_eq!(label("service.istio.io/canonical-name"), Some("reviews"));
    assert_eq!(label("service.istio.io/canonical-revision"), Some("v1"));
    let status = &plain.metadata.annotations.as_ref().expect("annotations")["sidecar.istio.io/status"];
    let status: serde_json::Value = serde_json::from_str(status).expect("JSON");
    assert_eq!(
        status["initContainers"],
        serde_json::json!(["istio-init", "istio-proxy"])
    );
    // What the user said stays.
    let own = injected(&pod("ns", "labels: {service.istio.io/canonical-name: own}", ""));
    assert_eq!(
        own.metadata.labels.expect("labels")["service.istio.io/canonical-name"],
        "own"
    );
}

#[test]
fn the_proxy_takes_an_injected_pod() {
    // The model reads back what was injected.
    let pod = injected(&pod("ns", "labels: {app: reviews}", ""));
    let value = serde_json::to_value(&pod).expect("JSON");
    let manifest = mesh_proto::kube::Manifest::read(value, None).expect("a manifest");
    let converted = crate::convert::convert(&manifest, &MeshConfig::default());
    assert_eq!(converted.findings, []);
    let crate::convert::Meaning::Item(crate::model::Item::Workload(workload)) = converted.meaning else {
        panic!()
    };
    assert!(workload.has_proxy && workload.mesh_tls);
}
