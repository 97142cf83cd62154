//! YAML in, codes and paths out.

use super::*;
use crate::testing::changes;

/// Findings as `code object path`.
fn check(text: &str, expect: &[&str]) {
    let findings = offline(changes(text));
    let found: Vec<String> = findings
        .iter()
        .map(|finding| {
            assert!(
                !finding.text.is_empty() && finding.source.is_some(),
                "{finding:?}"
            );
            format!("{} {} {}", finding.code, finding.object.name, finding.path)
        })
        .collect();
    assert_eq!(found, expect, "{findings:#?}");
}

fn object(kind: Kind, name: &str, spec: &str) -> String {
    let api = kind.api_version();
    format!("---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: ns}}\nspec: {spec}\n")
}

fn service(name: &str, ports: &str) -> String {
    object(
        Kind::Service,
        name,
        &format!("{{clusterIP: 10.0.0.1, selector: {{app: {name}}}, ports: [{ports}]}}"),
    )
}

fn pod(name: &str, labels: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: ns, labels: {{{labels}}}}}\n\
         spec: {{containers: [{{name: a}}], {spec}}}\n"
    )
}

fn namespace(labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: ns, labels: {{{labels}}}}}\n")
}

fn route(name: &str, hosts: &str, destination: &str) -> String {
    object(
        Kind::VirtualService,
        name,
        &format!("{{hosts: [{hosts}], http: [{{route: [{{destination: {{{destination}}}}}]}}]}}"),
    )
}

const HTTP: &str = "{name: http, port: 80}";

#[test]
fn references_to_nothing() {
    let reviews = service("reviews", HTTP);
    check(&(reviews.clone() + &route("v", "reviews", "host: reviews")), &[]);
    check(
        &(reviews.clone() + &route("v", "reviews", "host: reviwes")),
        &["IST0101 v spec.http[0].route[0].destination.host"],
    );
    check(
        &(reviews.clone() + &route("v", "reviews", "host: reviews, port: {number: 81}")),
        &["IST0101 v spec.http[0].route[0].destination.port.number"],
    );
    check(
        &(reviews.clone() + &route("v", "reviews", "host: reviews, subset: v1")),
        &["IST0101 v spec.http[0].route[0].destination.subset"],
    );
    let rule = object(
        Kind::DestinationRule,
        "d",
        "{host: reviews, subsets: [{name: v1}]}",
    );
    check(
        &(reviews.clone() + &rule + &route("v", "reviews", "host: reviews, subset: v1")),
        &[],
    );
    check(
        &(service("two", "{name: http, port: 80}, {name: tcp, port: 81}") + &route("v", "two", "host: two")),
        &["IST0112 v spec.http[0].route[0].destination.port"],
    );
    let gateway = object(
        Kind::VirtualService,
        "v",
        "{hosts: [a.b], gateways: [gw], http: [{route: [{destination: {host: reviews}}]}]}",
    );
    check(&(reviews + &gateway), &["IST0101 v spec.gateways[0]"]);
}

#[test]
fn hints_at_what_was_meant() {
    let text = service("reviews", HTTP) + &route("v", "reviews", "host: reviwes");
    let findings = offline(changes(&text));
    assert!(
        findings[0]
            .text
            .contains("did you mean reviews.ns.svc.cluster.local?"),
        "{}",
        findings[0]
    );
}

#[test]
fn injection() {
    check(&namespace("istio-injection: enabled"), &[]);
    check(&namespace("istio-injection: disabled"), &[]);
    check(&namespace(""), &["IST0102 ns metadata.labels"]);
    check(
        &namespace("istio-injection: enabled, istio.io/rev: a"),
        &["IST0123 ns metadata.labels"],
    );
    let enabled = namespace("istio-injection: enabled");
    check(&(enabled.clone() + &pod("p", "app: a", "")), &["IST0103 p "]);
    check(&(enabled.clone() + &pod("p", "app: a", "hostNetwork: true")), &[]);
    check(
        &(enabled.clone() + &pod("p", "sidecar.istio.io/inject: 'false'", "")),
        &[],
    );
    check(
        &(enabled.clone() + &pod("p", "app: a", "initContainers: [{name: istio-proxy}]")),
        &[],
    );
    check(
        &(enabled
            + &pod(
                "p",
                "app: a",
                "initContainers: [{name: istio-proxy}], securityContext: {runAsUser: 1337}",
            )),
        &["IST0144 p spec.containers[0].securityContext.runAsUser"],
    );
}

#[test]
fn port_names() {
    check(
        &service(
            "a",
            "{name: http, port: 80}, {name: web, port: 81}, {name: x, port: 82, appProtocol: grpc}",
        ),
        &["IST0118 a spec.ports[1].name"],
    );
    check(&service("a", "{port: 80}"), &["IST0118 a spec.ports[0].name"]);
    check(&service("a", "{port: 3306}"), &[]);
}

#[test]
fn conflicting_hosts() {
    let a = service("a", HTTP);
    check(
        &(a.clone() + &route("v", "a", "host: a") + &route("w", "a.ns.svc.cluster.local", "host: a")),
        &["IST0109 v spec.hosts[0]", "IST0109 w spec.hosts[0]"],
    );
    let elsewhere = route("w", "a.ns.svc.cluster.local", "host: a.ns.svc.cluster.local")
        .replace("namespace: ns", "namespace: other")
        .replace("{hosts:", "{exportTo: ['.'], hosts:");
    let private = route("v", "a", "host: a").replace("{hosts:", "{exportTo: ['.'], hosts:");
    check(&(a + &private + &elsewhere), &[]);
}

const SERVER: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}";

#[test]
fn gateways() {
    let gateway = |name: &str, server: &str| {
        object(
            Kind::Gateway,
            name,
            &format!("{{selector: {{istio: ingressgateway}}, servers: [{server}]}}"),
        )
    };
    let routed = |host: &str| {
        object(
            Kind::VirtualService,
            "v",
            &format!("{{hosts: [{host}], gateways: [gw], http: [{{directResponse: {{status: 200}}}}]}}"),
        )
    };
    check(&(gateway("gw", SERVER) + &routed("a.example.com")), &[]);
    check(
        &(gateway("gw", SERVER) + &routed("a.example.org")),
        &["IST0132 v spec.hosts[0]"],
    );
    check(
        &(gateway("gw", SERVER) + &gateway("other", SERVER)),
        &[
            "IST0145 gw spec.servers[0].hosts",
            "IST0145 other spec.servers[0].hosts",
        ],
    );
    check(
        &(gateway("gw", SERVER) + &gateway("other", &SERVER.replace("'*.", "'a."))),
        &[],
    );
    check(
        &(gateway("gw", SERVER) + &pod("p", "app: a", "")),
        &["IST0101 gw spec.selector"],
    );
    let served = pod("p", "istio: ingressgateway", "");
    check(&(gateway("gw", SERVER) + &served), &[]);
    let front = object(
        Kind::Service,
        "front",
        "{selector: {istio: ingressgateway}, ports: [{name: https, port: 443}]}",
    );
    check(
        &(gateway("gw", SERVER) + &served + &front),
        &["IST0162 gw spec.servers[0].port.number"],
    );
    // Port 80 is bound at 8080 then, so it is led to; 8080 itself is too, and where nothing is translated, only it.
    let behind = |labels: &str| {
        object(
            Kind::Service,
            "front",
            "{selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: 8080}]}",
        )
        .replace("metadata: {", &format!("metadata: {{labels: {{{labels}}}, "))
    };
    let inner = SERVER.replace("number: 80,", "number: 8080,");
    check(&(gateway("gw", SERVER) + &served + &behind("")), &[]);
    check(&(gateway("gw", &inner) + &served + &behind("")), &[]);
    let off = behind("experimental.istio.io/disable-gateway-port-translation: 'true'");
    check(&(gateway("gw", &inner) + &served + &off), &[]);
    check(
        &(gateway("gw", SERVER) + &served + &off),
        &["IST0162 gw spec.servers[0].port.number"],
    );
    let secure = "{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}";
    check(
        &gateway("gw", secure),
        &["IST0101 gw spec.servers[0].tls.credentialName"],
    );
    let broken = "---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: c, namespace: ns}\n\
                  stringData: {tls.crt: x, tls.key: z}\n";
    check(
        &(gateway("gw", secure) + broken),
        &[
            "IST0161 gw spec.servers[0].tls.credentialName",
            "IST0161 c data.tls.crt",
        ],
    );
}

#[test]
fn tls_of_destinations() {
    let a = service("a", HTTP);
    let rule = |policy: &str| {
        object(
            Kind::DestinationRule,
            "d",
            &format!("{{host: a, trafficPolicy: {policy}}}"),
        )
    };
    let peer = |mode: &str| {
        object(
            Kind::PeerAuthentication,
            "p",
            &format!("{{mtls: {{mode: {mode}}}}}"),
        )
    };
    check(
        &(a.clone() + &rule("{tls: {mode: SIMPLE}}")),
        &["IST0128 d spec.trafficPolicy.tls.caCertificates"],
    );
    check(
        &(a.clone() + &rule("{tls: {mode: SIMPLE, caCertificates: /a.pem}}")),
        &[],
    );
    check(
        &(a.clone() + &rule("{portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}")),
        &["IST0129 d spec.trafficPolicy.portLevelSettings[0].tls.caCertificates"],
    );
    check(
        &(a.clone() + &rule("{tls: {mode: DISABLE}}") + &peer("STRICT")),
        &["IST0113 d spec.trafficPolicy.tls.mode"],
    );
    check(
        &(a.clone() + &rule("{tls: {mode: ISTIO_MUTUAL}}") + &peer("DISABLE")),
        &["IST0113 d spec.trafficPolicy.tls.mode"],
    );
    check(
        &(a.clone() + &rule("{tls: {mode: ISTIO_MUTUAL}}") + &peer("STRICT")),
        &[],
    );
    check(&(a + &rule("{tls: {mode: DISABLE}}") + &peer("PERMISSIVE")), &[]);
}

#[test]
fn sidecars_and_policies() {
    let sidecar = |name: &str, selector: &str| {
        object(
            Kind::Sidecar,
            name,
            &format!("{{{selector} egress: [{{hosts: ['./*']}}]}}"),
        )
    };
    check(
        &(sidecar("a", "") + &sidecar("b", "")),
        &["IST0111 a spec", "IST0111 b spec"],
    );
    let select = "workloadSelector: {labels: {app: a}},";
    check(
        &(sidecar("a", select) + &sidecar("b", select) + &pod("p", "app: a", "")),
        &[
            "IST0110 a spec.workloadSelector",
            "IST0110 b spec.workloadSelector",
        ],
    );
    let proxy = |name: &str, selector: &str| {
        object(Kind::ProxyConfig, name, &format!("{{{selector} concurrency: 1}}"))
    };
    check(
        &(proxy("a", "") + &proxy("b", "")),
        &["IST0133 a spec", "IST0133 b spec"],
    );
    let select = "selector: {matchLabels: {app: b}},";
    check(
        &(proxy("a", select) + &pod("p", "app: a", "")),
        &["IST0101 a spec.selector.matchLabels"],
    );
    let policy = object(
        Kind::PeerAuthentication,
        "p",
        "{selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}}",
    );
    check(
        &(policy.clone() + &pod("x", "app: a", "")),
        &["IST0127 p spec.selector.matchLabels"],
    );
    check(&(policy + &pod("x", "app: b", "")), &[]);
    let allow = object(
        Kind::AuthorizationPolicy,
        "a",
        "{rules: [{from: [{source: {namespaces: [ns, nx, 'z*']}}]}]}",
    );
    check(
        &(allow + &namespace("istio-injection: enabled")),
        &["IST0101 a spec.rules[0].from[0].source.namespaces[1]"],
    );
}

#[test]
fn listeners_of_sidecars() {
    let service = object(
        Kind::ServiceEntry,
        "s",
        "{hosts: [way.out, old.way], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}",
    );
    let anywhere = object(
        Kind::ServiceEntry,
        "t",
        "{hosts: [any.where], resolution: NONE, ports: [{number: 81, name: http, protocol: HTTP}]}",
    );
    let sidecar = |spec: &str| service.clone() + &anywhere + &object(Kind::Sidecar, "x", spec);
    let port = |number: u16, more: &str| {
        sidecar(&format!(
            "{{egress: [{{port: {{number: {number}, protocol: HTTP, name: a}}, hosts: ['./*'], {more}}}]}}"
        ))
    };
    check(&port(80, ""), &[]);
    check(&port(8080, ""), &["IST0133 x spec.egress[0].port.number"]);
    check(&port(81, ""), &[]);
    check(
        &port(81, "captureMode: NONE"),
        &["IST0133 x spec.egress[0].captureMode"],
    );
    let proxy = |egress: &str, host: &str, port: u16| {
        sidecar(&format!(
            "{{{egress} outboundTrafficPolicy: {{mode: ALLOW_ANY, egressProxy: {{host: {host}, port: {{number: {port}}}}}}}}}"
        ))
    };
    const PROXY: &str = "spec.outboundTrafficPolicy.egressProxy";
    let deprecated = format!("IST0002 x {PROXY}");
    let found = |more: &str| format!("IST0101 x {PROXY}.{more}");
    check(&proxy("", "way.out", 80), &[&deprecated]);
    check(&proxy("", "way.home", 80), &[&found("host"), &deprecated]);
    check(&proxy("", "way.out", 81), &[&found("port.number"), &deprecated]);
    check(
        &proxy("egress: [{hosts: ['./old.way']}],", "way.out", 80),
        &[&found("host"), &deprecated],
    );
}

#[test]
fn single_objects_are_told_too() {
    check(
        &route("v", "a", "hots: a"),
        &[
            "IST0106 v spec.http[0].route[0].destination.host",
            "IST0106 v spec.http[0].route[0].destination.hots",
        ],
    );
}
