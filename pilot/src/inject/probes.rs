//! The application's probes, asked by the proxy. Pure.
//!
//! The kubelet has no certificate of the mesh, so where mutual TLS is required it could not ask the application. Probes by
//! HTTP, TCP and gRPC therefore go to the proxy (`/app-health/<container>/…` on its status port), which asks the
//! application as the probe was written; it learns how from its environment, in Istio's form:
//! `{"/app-health/app/livez": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1}}`.
//! Commands are left alone, and so are probes of another host and of the proxy's own ports.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use mesh_proto::names::{container, port};
use serde_json::{Value, json};

/// What the proxy's environment says about probes.
pub const ENV: &str = "ISTIO_KUBE_APP_PROBERS";
/// Ports that answer the kubelet by themselves.
const OWN: [u16; 3] = [port::METRICS, port::HEALTH, port::STATS];

/// Paths on the proxy, and what to ask there.
pub type Probers = BTreeMap<String, Value>;

/// Rewrites every probe that is not rewritten yet.
pub fn rewrite(pod: &mut Pod, status_port: u16) -> Probers {
    let mut probers = Probers::new();
    let Some(spec) = &mut pod.spec else {
        return probers;
    };
    let inits = spec.init_containers.iter_mut().flatten();
    for one in spec.containers.iter_mut().chain(inits) {
        if one.name != container::PROXY && one.name != container::INIT {
            rewrite_container(one, status_port, &mut probers);
        }
    }
    probers
}

fn rewrite_container(one: &mut Container, status_port: u16, probers: &mut Probers) {
    let Container {
        name,
        ports,
        startup_probe,
        liveness_probe,
        readiness_probe,
        lifecycle,
        ..
    } = one;
    let number = |port: &IntOrString| match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(text) => ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(text))
            .and_then(|port| u16::try_from(port.container_port).ok())
            .or_else(|| text.parse().ok()),
    };
    let probes = [
        (startup_probe, "startupz"),
        (liveness_probe, "livez"),
        (readiness_probe, "readyz"),
    ];
    for (probe, page) in probes {
        if let Some(probe) = probe
            && let Some(question) = question(probe, &number, status_port)
        {
            let path = format!("/app-health/{name}/{page}");
            probe.http_get = Some(ask(&path, status_port));
            (probe.tcp_socket, probe.grpc) = (None, None);
            probers.insert(path, question);
        }
    }
    let Some(lifecycle) = lifecycle else { return };
    let hooks = [
        (&mut lifecycle.post_start, "poststartz"),
        (&mut lifecycle.pre_stop, "prestopz"),
    ];
    for (hook, page) in hooks {
        let Some(LifecycleHandler {
            http_get: Some(get), ..
        }) = hook
        else {
            continue;
        };
        if let Some(question) = http(get, &number, status_port) {
            let path = format!("/app-lifecycle/{name}/{page}");
            *get = ask(&path, status_port);
            probers.insert(path, question);
        }
    }
}

/// The probe as the proxy reads it; `None` leaves it alone.
fn question(probe: &Probe, number: &impl Fn(&IntOrString) -> Option<u16>, status_port: u16) -> Option<Value> {
    let mut question = if let Some(get) = &probe.http_get {
        http(get, number, status_port)?
    } else if let Some(tcp) = &probe.tcp_socket {
        let port = foreign(number(&tcp.port)?, tcp.host.as_deref(), status_port)?;
        json!({ "tcpSocket": { "port": port } })
    } else {
        let grpc = probe.grpc.as_ref()?;
        let port = foreign(u16::try_from(grpc.port).ok()?, None, status_port)?;
        json!({ "grpc": { "port": port, "service": grpc.service.clone().unwrap_or_default() } })
    };
    question["timeoutSeconds"] = probe.timeout_seconds.unwrap_or(1).max(1).into();
    Some(question)
}

fn http(
    get: &HTTPGetAction,
    number: &impl Fn(&IntOrString) -> Option<u16>,
    status_port: u16,
) -> Option<Value> {
    let port = foreign(number(&get.port)?, get.host.as_deref(), status_port)?;
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let mut http = json!({
        "path": path,
        "port": port,
        "scheme": get.scheme.as_deref().unwrap_or("HTTP"),
    });
    if let Some(headers) = get.http_headers.as_ref().filter(|headers| !headers.is_empty()) {
        http["httpHeaders"] = json!(headers);
    }
    Some(json!({ "httpGet": http }))
}

/// A port of the application's, on the pod itself.
fn foreign(number: u16, host: Option<&str>, status_port: u16) -> Option<u16> {
    let elsewhere = host.is_some_and(|host| !host.is_empty());
    (!elsewhere && number != status_port && !OWN.contains(&number)).then_some(number)
}

fn ask(path: &str, status_port: u16) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(i32::from(status_port)),
        ..HTTPGetAction::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(container: &str, rewritten: &str, probers: Value) {
        let pod = |container: &str| -> Pod {
            serde_saphyr::from_str(&format!(
                "metadata: {{name: p}}\nspec: {{containers: [{container}]}}"
            ))
            .expect(container)
        };
        let mut before = pod(container);
        let found = rewrite(&mut before, 15020);
        assert_eq!(before, pod(rewritten));
        assert_eq!(json!(found), probers);
        assert_eq!(rewrite(&mut before, 15020), Probers::new(), "once is enough");
    }

    #[test]
    fn kinds_of_probes() {
        check(
            "{name: a, ports: [{name: web, containerPort: 8080}], livenessProbe: {periodSeconds: 3, timeoutSeconds: 4, \
             httpGet: {path: /h, port: web, scheme: HTTPS, httpHeaders: [{name: X, value: y}]}}}",
            "{name: a, ports: [{name: web, containerPort: 8080}], livenessProbe: {periodSeconds: 3, timeoutSeconds: 4, \
             httpGet: {path: /app-health/a/livez, port: 15020}}}",
            json!({"/app-health/a/livez": {"timeoutSeconds": 4, "httpGet": {"path": "/h", "port": 8080, "scheme": "HTTPS",
                "httpHeaders": [{"name": "X", "value": "y"}]}}}),
        );
        check(
            "{name: a, readinessProbe: {tcpSocket: {port: 6379}}, startupProbe: {grpc: {port: 9, service: s}}}",
            "{name: a, readinessProbe: {httpGet: {path: /app-health/a/readyz, port: 15020}}, \
             startupProbe: {httpGet: {path: /app-health/a/startupz, port: 15020}}}",
            json!({"/app-health/a/readyz": {"timeoutSeconds": 1, "tcpSocket": {"port": 6379}},
                "/app-health/a/startupz": {"timeoutSeconds": 1, "grpc": {"port": 9, "service": "s"}}}),
        );
        check(
            "{name: a, lifecycle: {preStop: {httpGet: {port: 80}}, postStart: {exec: {command: [x]}}}}",
            "{name: a, lifecycle: {preStop: {httpGet: {path: /app-lifecycle/a/prestopz, port: 15020}}, \
             postStart: {exec: {command: [x]}}}}",
            json!({"/app-lifecycle/a/prestopz": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}}}),
        );
    }

    #[test]
    fn what_is_left_alone() {
        for container in [
            "{name: a, livenessProbe: {exec: {command: [x]}}}",
            "{name: a, livenessProbe: {httpGet: {port: nowhere}}}",
            "{name: a, livenessProbe: {httpGet: {port: 80, host: example.com}}}",
            "{name: a, livenessProbe: {httpGet: {path: /healthz/ready, port: 15021}}}",
            "{name: istio-proxy, livenessProbe: {httpGet: {port: 80}}}",
        ] {
            check(container, container, json!({}));
        }
    }
}
