//! Sidecar alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Validate, destination_rule, field, gateway, service_entry::PROTOCOLS};
use crate::{
    finding::Report,
    kube::{
        Object,
        networking::{
            CaptureMode, EgressListener, IngressListener, Port, ServerTlsMode, Sidecar, SidecarOutbound,
        },
    },
    mesh::OutboundMode,
};

impl Validate for Sidecar {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        match &self.workload_selector {
            Some(selector) if selector.labels.is_empty() => report.warn(
                "spec.workloadSelector",
                "has no labels, so it selects all workloads of the namespace",
            ),
            Some(selector) => field::labels(&selector.labels, "spec.workloadSelector.labels", report),
            None => {}
        }
        for (i, ingress) in self.ingress.iter().enumerate() {
            check_ingress(ingress, &format!("spec.ingress[{i}]"), report);
            let number = |listener: &IngressListener| listener.port.as_ref().map(|port| port.number);
            let earlier = &self.ingress[..i];
            if ingress.port.is_some() && earlier.iter().any(|other| number(other) == number(ingress)) {
                report.error(
                    format!("spec.ingress[{i}].port.number"),
                    "this port is there twice",
                );
            }
        }
        for (i, egress) in self.egress.iter().enumerate() {
            check_egress(egress, &format!("spec.egress[{i}]"), report);
            egress_order(&self.egress, i, report);
        }
        if let Some(pool) = &self.inbound_connection_pool {
            destination_rule::connection_pool(pool, "spec.inboundConnectionPool", report);
        }
        if let Some(outbound) = &self.outbound_traffic_policy {
            check_outbound(outbound, report);
        }
    }
}

fn check_port(port: &Port, at: &str, report: &mut Report) {
    let protocol = port.protocol.to_ascii_uppercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        report.error(
            format!("{at}.protocol"),
            format!("{:?} is not one of {}", port.protocol, PROTOCOLS.join(", ")),
        );
    }
    if !port.name.is_empty() {
        field::port_name(&port.name, &format!("{at}.name"), report);
    }
}

fn check_bind(bind: &str, at: &str, report: &mut Report) {
    if !bind.is_empty() && bind.parse::<IpAddr>().is_err() {
        report.error(format!("{at}.bind"), format!("{bind:?} is not an address"));
    }
}

fn check_ingress(ingress: &IngressListener, at: &str, report: &mut Report) {
    let Some(port) = &ingress.port else {
        report.error(format!("{at}.port"), "a listener needs a port");
        return;
    };
    check_port(port, &format!("{at}.port"), report);
    field::port(port.number, &format!("{at}.port.number"), report);
    check_bind(&ingress.bind, at, report);
    let path = format!("{at}.defaultEndpoint");
    if !ingress.default_endpoint.is_empty() {
        endpoint(&ingress.default_endpoint, &path, report);
    }
    if ingress.capture_mode == Some(CaptureMode::None) {
        no_loop(ingress, port.number, &path, report);
    }
    if let Some(pool) = &ingress.connection_pool {
        destination_rule::connection_pool(pool, &format!("{at}.connectionPool"), report);
    }
    let Some(tls) = &ingress.tls else { return };
    let at = format!("{at}.tls");
    let protocol = port.protocol.to_ascii_uppercase();
    if !matches!(protocol.as_str(), "HTTPS" | "TLS") {
        report.error(
            &at,
            format!("needs protocol HTTPS or TLS, not {:?}", port.protocol),
        );
    }
    // The table of fields says so of each of them.
    let gateways_alone = tls.https_redirect
        || !tls.credential_name.is_empty()
        || !tls.credential_names.is_empty()
        || !tls.tls_certificates.is_empty();
    if matches!(
        tls.mode,
        Some(ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough | ServerTlsMode::Passthrough)
    ) {
        report.error(
            format!("{at}.mode"),
            "is for clients that are not of the mesh: use SIMPLE, MUTUAL or OPTIONAL_MUTUAL",
        );
    } else if !gateways_alone {
        gateway::check_tls(tls, &protocol, &at, report);
    }
}

/// A proxy that is bound to a port must not send to itself.
fn no_loop(ingress: &IngressListener, port: u32, path: &str, report: &mut Report) {
    if ingress.default_endpoint.is_empty() {
        report.error(
            path,
            "must be given with captureMode NONE: the proxy itself has the port, so the application has another one",
        );
    } else if ingress.bind.is_empty() && ingress.default_endpoint.ends_with(&format!(":{port}")) {
        report.error(
            path,
            "is the port that the proxy itself has with captureMode NONE: use another port, or bind",
        );
    }
}

/// Where a proxy may send what it takes in: to its own pod.
fn endpoint(text: &str, path: &str, report: &mut Report) {
    if text.starts_with("unix://") {
        report.refuse_unsupported(
            path,
            "Unix sockets are not supported, because our proxy connects by TCP alone; let the application listen on \
             127.0.0.1 and use 127.0.0.1:port",
        );
        return;
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    let own = host.is_empty()
        || address.is_ok_and(|address| {
            address.is_loopback() || address == Ipv4Addr::UNSPECIFIED || address == Ipv6Addr::UNSPECIFIED
        });
    if !own || port.parse::<u16>().map_or(true, |port| port == 0) {
        report.error(
            path,
            format!("{text:?} must be 127.0.0.1:port, 0.0.0.0:port, [::1]:port or [::]:port"),
        );
    }
}

fn check_egress(egress: &EgressListener, at: &str, report: &mut Report) {
    if egress.hosts.is_empty() {
        report.error(format!("{at}.hosts"), "needs at least one namespace/host");
    }
    for (j, host) in egress.hosts.iter().enumerate() {
        egress_host(host, &format!("{at}.hosts[{j}]"), report);
    }
    let Some(port) = &egress.port else {
        if !egress.bind.is_empty() {
            report.error(format!("{at}.bind"), "needs a port beside it");
        }
        return;
    };
    check_port(port, &format!("{at}.port"), report);
    if egress.bind.starts_with("unix://") {
        report.refuse_unsupported(
            format!("{at}.bind"),
            "Unix sockets are not supported, because our proxy listens by TCP alone; use 127.0.0.1 and captureMode NONE",
        );
        return;
    }
    field::port(port.number, &format!("{at}.port.number"), report);
    check_bind(&egress.bind, at, report);
}

fn egress_host(host: &str, path: &str, report: &mut Report) {
    let Some((namespace, name)) = host.split_once('/') else {
        report.error(
            path,
            format!("{host:?} must be namespace/host, such as ./* or istio-system/*"),
        );
        return;
    };
    if !matches!(namespace, "*" | "." | "~") && !field::namespace_name(namespace) {
        report.error(path, format!("{namespace:?} is not a namespace, '.', '*' or '~'"));
    }
    field::host(name, path, true, report);
}

/// Listeners differ in their ports, and what is for all other ports comes last.
fn egress_order(list: &[EgressListener], i: usize, report: &mut Report) {
    let (earlier, egress) = (&list[..i], &list[i]);
    match &egress.port {
        None if i + 1 < list.len() => report.error(
            format!("spec.egress[{i}]"),
            "says no port, so it stands for all other ports and must come last",
        ),
        Some(port) => {
            let same = |other: &EgressListener| {
                other
                    .port
                    .as_ref()
                    .is_some_and(|other| other.number == port.number)
                    && (port.number != 0 || other.bind == egress.bind)
            };
            if earlier.iter().any(same) {
                report.error(
                    format!("spec.egress[{i}].port.number"),
                    "this port is there twice",
                );
            }
        }
        None => {}
    }
}

fn check_outbound(outbound: &SidecarOutbound, report: &mut Report) {
    let Some(proxy) = &outbound.egress_proxy else {
        return;
    };
    let at = "spec.outboundTrafficPolicy.egressProxy";
    if outbound.mode != OutboundMode::AllowAny {
        report.error(at, "needs mode ALLOW_ANY");
    }
    field::host(&proxy.host, &format!("{at}.host"), false, report);
    match &proxy.port {
        None => report.error(format!("{at}.port"), "must be given"),
        Some(port) => field::port(port.number, &format!("{at}.port.number"), report),
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    fn check(spec: &str, found: &[&str]) {
        expect(Kind::Sidecar, spec, found);
    }

    #[test]
    fn egress() {
        check("egress: [{hosts: ['./*', 'istio-system/*', '~/*']}]", &[]);
        check("egress: [{hosts: []}]", &["Error spec.egress[0].hosts"]);
        check(
            "egress: [{hosts: [reviews]}, {hosts: ['A/*']}]",
            &[
                "Error spec.egress[0].hosts[0]",
                "Error spec.egress[0]",
                "Error spec.egress[1].hosts[0]",
            ],
        );
        check(
            "egress: [{hosts: ['./*'], port: {number: 80, protocol: HTTP, name: http}}]",
            &[],
        );
        check(
            "egress: [{hosts: ['./*'], port: {number: 80, protocol: x}}, \
             {hosts: ['./*'], bind: 'unix:///a', port: {number: 80, protocol: TCP}}]",
            &[
                "Error spec.egress[0].port.protocol",
                "Error spec.egress[1].bind",
                "Error spec.egress[1].port.number",
            ],
        );
        check(
            "egress: [{hosts: ['./*'], bind: 127.0.0.1}]",
            &["Error spec.egress[0].bind"],
        );
        check(
            "egress: [{hosts: ['./*'], bind: here, port: {number: 80, protocol: TCP, targetPort: 81}}]",
            &[
                "Error spec.egress[0].bind",
                "Warning spec.egress[0].port.targetPort",
            ],
        );
    }

    #[test]
    fn ingress() {
        let one = |text: &str, found: &[&str]| {
            check(&format!("ingress: [{text}]"), found);
        };
        const PORT: &str = "port: {number: 9080, protocol: HTTP, name: http}";
        one(&format!("{{{PORT}, defaultEndpoint: '127.0.0.1:8080'}}"), &[]);
        one(
            &format!("{{{PORT}, defaultEndpoint: 'unix:///run/a.sock'}}"),
            &["Error spec.ingress[0].defaultEndpoint"],
        );
        for (endpoint, bind, found) in [
            ("", "", &["Error spec.ingress[0].defaultEndpoint"][..]),
            ("127.0.0.1:9080", "", &["Error spec.ingress[0].defaultEndpoint"]),
            ("127.0.0.1:9080", "10.0.0.9", &[]),
            ("127.0.0.1:8080", "", &[]),
        ] {
            one(
                &format!("{{{PORT}, captureMode: NONE, defaultEndpoint: '{endpoint}', bind: '{bind}'}}"),
                found,
            );
        }
        one(
            &format!("{{{PORT}, defaultEndpoint: '10.0.0.1:80'}}"),
            &["Error spec.ingress[0].defaultEndpoint"],
        );
        one("{}", &["Error spec.ingress[0].port"]);
        one(
            &format!("{{{PORT}, bind: here, tls: {{mode: SIMPLE, credentialName: c}}}}"),
            &[
                "Error spec.ingress[0].bind",
                "Error spec.ingress[0].tls",
                "Error spec.ingress[0].tls.credentialName",
            ],
        );
        one(
            "{port: {number: 443, protocol: HTTPS}, tls: {mode: ISTIO_MUTUAL}}",
            &["Error spec.ingress[0].tls.mode"],
        );
        one(
            "{port: {number: 443, protocol: HTTPS}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}",
            &[],
        );
        one(
            &format!("{{{PORT}}}, {{{PORT}, connectionPool: {{}}}}"),
            &[
                "Error spec.ingress[1].connectionPool",
                "Error spec.ingress[1].port.number",
            ],
        );
    }

    #[test]
    fn the_rest() {
        check(
            "workloadSelector: {labels: {}}",
            &["Warning spec.workloadSelector"],
        );
        check("outboundTrafficPolicy: {mode: REGISTRY_ONLY}", &[]);
        check(
            "outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: a}}",
            &[
                "Error spec.outboundTrafficPolicy.egressProxy",
                "Error spec.outboundTrafficPolicy.egressProxy.port",
            ],
        );
        check(
            "inboundConnectionPool: {http: {http2MaxRequests: -1}}",
            &["Error spec.inboundConnectionPool.http.http2MaxRequests"],
        );
    }
}
