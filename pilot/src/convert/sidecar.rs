//! Sidecar.

use mesh_proto::kube::{Object, networking as api};

use super::{DOMAIN, destination_rule, gateway, port};
use crate::model::{
    Host, Origin, Protocol, Selector, Sidecar,
    route::Destination,
    sidecar::{Capture, Egress, EgressHost, EgressPort, Ingress, LocalEndpoint},
};

pub fn convert(object: &Object<api::Sidecar>, origin: Origin) -> Sidecar {
    let spec = &object.spec;
    let selector = spec
        .workload_selector
        .as_ref()
        .filter(|selector| !selector.labels.is_empty());
    let egress = spec.egress.iter().map(|one| egress(one, &origin.namespace));
    let outbound = spec.outbound_traffic_policy.as_ref();
    Sidecar {
        selector: selector.map(|selector| Selector(selector.labels.clone())),
        ingress: spec.ingress.iter().filter_map(ingress).collect(),
        egress: (!spec.egress.is_empty()).then(|| egress.collect()),
        inbound_pool: spec.inbound_connection_pool.as_ref().map(destination_rule::pool),
        outbound: outbound.map(|policy| policy.mode),
        egress_proxy: outbound
            .and_then(|policy| policy.egress_proxy.as_ref())
            .map(|proxy| Destination {
                host: Host::resolve(&proxy.host, &origin.namespace, DOMAIN),
                subset: (!proxy.subset.is_empty()).then(|| proxy.subset.clone()),
                port: proxy.port.as_ref().map(|own| port(own.number)),
            }),
        origin,
    }
}

fn protocol(port: &api::Port) -> Protocol {
    Protocol::declared(&port.protocol).unwrap_or(Protocol::Tcp)
}

fn capture(mode: Option<api::CaptureMode>) -> Capture {
    match mode {
        None | Some(api::CaptureMode::Default) => Capture::Default,
        Some(api::CaptureMode::Iptables) => Capture::Redirected,
        Some(api::CaptureMode::None) => Capture::Bound,
    }
}

fn egress(listener: &api::EgressListener, own: &str) -> Egress {
    Egress {
        port: listener.port.as_ref().map(|declared| EgressPort {
            number: port(declared.number),
            protocol: protocol(declared),
            bind: listener.bind.parse().ok(),
        }),
        capture: capture(listener.capture_mode),
        hosts: listener
            .hosts
            .iter()
            .filter_map(|text| egress_host(text, own))
            .collect(),
    }
}

/// `~/…` stands for nothing.
fn egress_host(text: &str, own: &str) -> Option<EgressHost> {
    let (namespace, host) = text.split_once('/')?;
    let in_namespace = if matches!(namespace, "." | "*") {
        own
    } else {
        namespace
    };
    (namespace != "~").then(|| EgressHost {
        scope: gateway::scope(namespace),
        host: Host::resolve(host, in_namespace, DOMAIN),
    })
}

fn ingress(listener: &api::IngressListener) -> Option<Ingress> {
    let declared = listener.port.as_ref()?;
    Some(Ingress {
        port: port(declared.number),
        protocol: protocol(declared),
        bind: listener.bind.parse().ok(),
        capture: capture(listener.capture_mode),
        endpoint: endpoint(&listener.default_endpoint),
        tls: listener
            .tls
            .as_ref()
            .map(|tls| gateway::server_tls(tls, &declared.protocol)),
        pool: listener.connection_pool.as_ref().map(destination_rule::pool),
    })
}

/// `validate` has seen that nothing else is written there.
fn endpoint(text: &str) -> Option<LocalEndpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(match host.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_unspecified() => LocalEndpoint::Pod { port },
        Ok(address) => LocalEndpoint::Loopback {
            ipv6: address.is_ipv6(),
            port,
        },
        Err(_) => LocalEndpoint::Loopback { ipv6: false, port },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::testing::of_spec,
        model::{Item, Kind},
    };

    fn sidecar(spec: &str) -> std::sync::Arc<Sidecar> {
        match of_spec(Kind::Sidecar, spec) {
            Item::Sidecar(sidecar) => sidecar,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_seen() {
        let check = |spec: &str, namespace: &str, host: &str, expect: bool| {
            assert_eq!(
                sidecar(spec).sees(namespace, &Host::new(host), 80),
                expect,
                "{spec} {namespace} {host}"
            );
        };
        check("{}", "x", "a.x.svc.cluster.local", true);
        check("egress: [{hosts: ['./*']}]", "ns", "a.ns.svc.cluster.local", true);
        check("egress: [{hosts: ['./*']}]", "x", "a.x.svc.cluster.local", false);
        check("egress: [{hosts: ['x/a']}]", "x", "a.x.svc.cluster.local", true);
        check("egress: [{hosts: ['x/a']}]", "x", "b.x.svc.cluster.local", false);
        check(
            "egress: [{hosts: ['~/*']}]",
            "ns",
            "a.ns.svc.cluster.local",
            false,
        );
        check("egress: [{hosts: ['*/*.com']}]", "y", "a.com", true);
    }

    #[test]
    fn the_narrowest_listener_counts_for_a_port() {
        let two = sidecar(
            "egress: [{port: {number: 9080, protocol: HTTP, name: http}, bind: 127.0.0.1, captureMode: NONE, \
             hosts: [./a]}, {hosts: [./b]}]",
        );
        let sees = |host: &str, port: u16| two.sees("ns", &Host::resolve(host, "ns", DOMAIN), port);
        assert!(
            sees("a", 9080) && !sees("b", 9080),
            "its own listener, and no other"
        );
        assert!(!sees("a", 80) && sees("b", 80), "the listener for the rest");
        let own = two.egress_of(9080).unwrap();
        assert_eq!(own.capture, Capture::Bound);
        let port = own.port.as_ref().unwrap();
        assert_eq!(
            (port.protocol, port.bind),
            (Protocol::Http, "127.0.0.1".parse().ok())
        );
        let one = sidecar("egress: [{port: {number: 9080, protocol: HTTP, name: http}, hosts: ['*/*']}]");
        let host = Host::new("a.ns.svc.cluster.local");
        assert!(one.sees("ns", &host, 9080) && !one.sees("ns", &host, 80));
    }

    #[test]
    fn what_is_taken_in() {
        let sidecar = sidecar(
            "ingress:\n\
             - {port: {number: 9080, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:8080', \
             connectionPool: {tcp: {maxConnections: 3}}}\n\
             - {port: {number: 9443, protocol: HTTPS, name: https}, bind: 10.0.0.1, defaultEndpoint: '0.0.0.0:8443', \
             captureMode: IPTABLES, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}\n\
             - {port: {number: 7000, protocol: TCP, name: tcp}, defaultEndpoint: '[::1]:7001'}\n\
             inboundConnectionPool: {http: {http2MaxRequests: 5}}\n\
             outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: way.out, subset: v1, port: {number: 443}}}\n",
        );
        let [http, https, tcp] = &sidecar.ingress[..] else {
            panic!()
        };
        let loopback = |ipv6, port| Some(LocalEndpoint::Loopback { ipv6, port });
        assert_eq!(
            (http.endpoint, tcp.endpoint, https.endpoint),
            (
                loopback(false, 8080),
                loopback(true, 7001),
                Some(LocalEndpoint::Pod { port: 8443 })
            )
        );
        assert_eq!(http.pool.as_ref().and_then(|pool| pool.max_connections), Some(3));
        assert_eq!(
            (https.bind, https.capture),
            ("10.0.0.1".parse().ok(), Capture::Redirected)
        );
        assert_eq!(
            https.tls.as_ref().unwrap().files,
            [("/c".to_owned(), "/k".to_owned())]
        );
        assert_eq!(
            sidecar.inbound_pool.as_ref().and_then(|pool| pool.max_requests),
            Some(5)
        );
        let proxy = sidecar.egress_proxy.clone().unwrap();
        assert_eq!(
            (proxy.host.as_str(), proxy.subset.as_deref(), proxy.port),
            ("way.out", Some("v1"), Some(443))
        );
    }
}
