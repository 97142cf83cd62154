//! One spec in, levels and paths out.

use crate::{kube::Kind, validate::testing::expect};

fn check(spec: &str, found: &[&str]) {
    expect(Kind::VirtualService, spec, found);
}

/// One route under `http`.
fn route(route: &str, found: &[&str]) {
    check(&format!("hosts: [a]\nhttp: [{route}]"), found);
}

const TO: &str = "route: [{destination: {host: a}}]";

#[test]
fn objects() {
    check(&format!("hosts: [a]\nhttp: [{{{TO}}}]"), &[]);
    check("hosts: [a]", &["Error spec"]);
    check(
        &format!("hosts: ['*']\nhttp: [{{{TO}}}]"),
        &["Error spec.hosts[0]"],
    );
    check(&format!("hosts: ['*']\ngateways: [ns/gw]\nhttp: [{{{TO}}}]"), &[]);
    check(
        &format!("hosts: [a, a]\nhttp: [{{{TO}}}]"),
        &["Error spec.hosts[1]"],
    );
    check(
        &format!("hosts: [a]\ngateways: [a/b/c]\nhttp: [{{{TO}}}]"),
        &["Error spec.gateways[0]"],
    );
    check(
        &format!("hosts: [a]\nexportTo: ['*', ns]\nhttp: [{{{TO}}}]"),
        &["Error spec.exportTo[0]"],
    );
    check(
        &format!("hosts: [a]\nhttps: []\nhttp: [{{{TO}}}]"),
        &["Error spec.https"],
    );
    check("hosts: a", &["Error spec.hosts"]);
}

#[test]
fn one_without_hosts_is_delegated_to() {
    check(&format!("http: [{{{TO}}}]"), &[]);
    check(
        &format!(
            "gateways: [a]\nhttp: [{{{TO}}}, {{match: [{{port: 1}}], delegate: {{name: b}}}}]\ntcp: [{{{TO}}}]"
        ),
        &[
            "Error spec.gateways",
            "Error spec.tcp",
            "Error spec.http[1].delegate",
            "Warning spec.http[1]",
        ],
    );
    // What the other one leaves goes on.
    check(
        &format!(
            "hosts: [a]\nhttp: [{{delegate: {{name: b}}}}, {{match: [{{port: 1}}], delegate: {{name: c}}}}, {{{TO}}}]"
        ),
        &[],
    );
}

#[test]
fn routes() {
    route("{match: [{uri: {prefix: /a}}]}", &["Error spec.http[0]"]);
    route(
        "{route: [{destination: {host: ''}}]}",
        &["Error spec.http[0].route[0].destination.host"],
    );
    route(
        "{route: [{destination: {host: a, port: {number: 70000}}}]}",
        &["Error spec.http[0].route[0].destination.port.number"],
    );
    route(
        "{route: [{destination: {host: a}}, {destination: {host: b}}]}",
        &["Error spec.http[0].route"],
    );
    route(
        "{route: [{destination: {host: a}, weight: -1}]}",
        &["Error spec.http[0].route[0].weight"],
    );
    route(
        &format!("{{{TO}, redirect: {{uri: /a}}}}"),
        &["Error spec.http[0]"],
    );
    route("{redirect: {}}", &["Error spec.http[0].redirect"]);
    route(
        "{redirect: {uri: /a, redirectCode: 200}}",
        &["Error spec.http[0].redirect.redirectCode"],
    );
    route(
        "{directResponse: {status: 99}}",
        &["Error spec.http[0].directResponse.status"],
    );
    route("{delegate: {name: b}}", &[]);
    route("{delegate: {name: b, namespace: c}, timeout: 1s}", &[]);
    route(
        "{delegate: {namespace: C}}",
        &[
            "Error spec.http[0].delegate.name",
            "Error spec.http[0].delegate.namespace",
        ],
    );
    route(
        &format!("{{delegate: {{name: b}}, {TO}}}"),
        &["Error spec.http[0]"],
    );
    route(&format!("{{{TO}, timeout: 5}}"), &["Error spec.http[0].timeout"]);
    route(
        &format!("{{{TO}, retries: {{attempts: 3, retryOn: 'connect-failure,503, 5xx'}}}}"),
        &[],
    );
    route(
        &format!("{{{TO}, retries: {{attempts: 3, retryOn: 'always'}}}}"),
        &["Error spec.http[0].retries.retryOn"],
    );
    route(
        &format!("{{{TO}, rewrite: {{}}}}"),
        &["Error spec.http[0].rewrite"],
    );
    route(
        &format!("{{{TO}, headers: {{request: {{set: {{'a b': c}}}}}}}}"),
        &["Error spec.http[0].headers.request.set.a b"],
    );
}

#[test]
fn matches() {
    let matched = |text: &str, found: &[&str]| route(&format!("{{match: [{text}], {TO}}}"), found);
    matched(
        "{uri: {prefix: /a}, headers: {x: {}}, queryParams: {q: {regex: 'a.*'}}}",
        &[],
    );
    matched("{uri: {}}", &["Error spec.http[0].match[0].uri"]);
    matched(
        "{uri: {exact: /a, prefix: /b}}",
        &["Error spec.http[0].match[0].uri"],
    );
    matched("{uri: {regex: '('}}", &["Error spec.http[0].match[0].uri.regex"]);
    matched(
        "{uri: {prfix: /a}}",
        &[
            "Error spec.http[0].match[0].uri.prfix",
            "Error spec.http[0].match[0].uri",
        ],
    );
    matched("{port: 0}", &["Error spec.http[0].match[0].port"]);
    matched(
        "{headers: {'a b': {exact: c}}}",
        &["Error spec.http[0].match[0].headers.a b"],
    );
}

#[test]
fn faults() {
    let fault = |text: &str, found: &[&str]| route(&format!("{{fault: {text}, {TO}}}"), found);
    fault("{delay: {fixedDelay: 7s, percentage: {value: 0.5}}}", &[]);
    fault("{abort: {httpStatus: 500, percentage: {value: 100}}}", &[]);
    fault("{}", &["Error spec.http[0].fault"]);
    fault(
        "{delay: {percentage: {value: 100}}}",
        &["Error spec.http[0].fault.delay"],
    );
    fault(
        "{delay: {fixedDelay: 7s, percentage: {value: 101}}}",
        &["Error spec.http[0].fault.delay.percentage.value"],
    );
    fault(
        "{abort: {httpStatus: 500, grpcStatus: UNAVAILABLE}}",
        &["Error spec.http[0].fault.abort"],
    );
    fault(
        "{abort: {grpcStatus: GONE}}",
        &["Error spec.http[0].fault.abort.grpcStatus"],
    );
}

#[test]
fn tls_and_tcp() {
    check(
        "hosts: [a.b]\ntls: [{match: [{sniHosts: [a.b], port: 443}], route: [{destination: {host: a.b}}]}]",
        &[],
    );
    check(
        "hosts: [a.b]\ntls: [{match: [{sniHosts: [c.b]}], route: [{destination: {host: a.b}}]}]",
        &["Error spec.tls[0].match[0].sniHosts[0]"],
    );
    check(
        "hosts: [a.b]\ntls: [{route: [{destination: {host: a.b}}]}]",
        &["Error spec.tls[0].match"],
    );
    check(
        "hosts: [a]\ntcp: [{match: [{destinationSubnets: [x]}], route: []}]",
        &[
            "Error spec.tcp[0].match[0].destinationSubnets[0]",
            "Error spec.tcp[0].route",
        ],
    );
}
