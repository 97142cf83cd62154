//! Gateway alone; `tls` is the TLS of its servers.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{
        Object,
        networking::{Gateway, Server},
    },
};

mod tls;

pub(super) use tls::check_tls;

/// What a server's port may speak.
const PROTOCOLS: [&str; 9] = [
    "HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TCP", "TLS", "MONGO", "REDIS",
];

impl Validate for Gateway {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if self.servers.is_empty() {
            report.error("spec.servers", "a Gateway needs at least one server");
        }
        if self.selector.is_empty() {
            report.warn(
                "spec.selector",
                "without a selector it applies to every gateway workload of the mesh",
            );
        }
        field::labels(&self.selector, "spec.selector", report);
        for (i, server) in self.servers.iter().enumerate() {
            let at = format!("spec.servers[{i}]");
            check_server(server, &at, report);
            let twice =
                !server.name.is_empty() && self.servers[..i].iter().any(|other| other.name == server.name);
            if twice {
                report.error(
                    format!("{at}.name"),
                    format!("server {:?} is there twice", server.name),
                );
            }
            check_beside(&self.servers[..i], server, &at, report);
        }
    }
}

/// What servers of one port must have in common, and what tells ports apart.
fn check_beside(earlier: &[Server], server: &Server, at: &str, report: &mut Report) {
    let Some(port) = &server.port else { return };
    let same_name = |other: &&Server| {
        let other = other.port.as_ref();
        !port.name.is_empty() && other.is_some_and(|other| other.name == port.name)
    };
    if earlier.iter().any(|other| same_name(&other)) {
        report.error(
            format!("{at}.port.name"),
            format!(
                "another server's port has the name {:?} too; each needs its own",
                port.name
            ),
        );
    }
    let other = earlier.iter().find_map(|other| {
        let own = other.port.as_ref()?;
        let conflict = own.number == port.number
            && other.bind == server.bind
            && begins_with(&own.protocol) != begins_with(&port.protocol);
        conflict.then_some(own)
    });
    if let Some(other) = other {
        let (number, own, other) = (port.number, &port.protocol, &other.protocol);
        report.error(
            format!("{at}.port.protocol"),
            format!("port {number} is {other} for another server of this Gateway; it cannot be {own} too"),
        );
    }
}

/// What a client says first: servers can share a port only if that is the same.
fn begins_with(protocol: &str) -> Option<&'static str> {
    match protocol.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => Some("HTTP"),
        "HTTPS" | "TLS" => Some("TLS"),
        "TCP" | "MONGO" | "REDIS" => Some("TCP"),
        _ => None,
    }
}

fn check_server(server: &Server, at: &str, report: &mut Report) {
    let protocol = server
        .port
        .as_ref()
        .map(|port| port.protocol.to_ascii_uppercase())
        .unwrap_or_default();
    match &server.port {
        None => report.error(format!("{at}.port"), "a server needs a port"),
        Some(port) => {
            field::port(port.number, &format!("{at}.port.number"), report);
            if port.name.is_empty() {
                report.error(format!("{at}.port.name"), "a port needs a name");
            }
            if !PROTOCOLS.contains(&protocol.as_str()) {
                report.error(
                    format!("{at}.port.protocol"),
                    format!("{:?} is not one of {}", port.protocol, PROTOCOLS.join(", ")),
                );
            }
        }
    }
    if !server.bind.is_empty() && server.bind.parse::<std::net::IpAddr>().is_err() {
        report.error(
            format!("{at}.bind"),
            format!("{:?} is not an address", server.bind),
        );
    }
    if server.hosts.is_empty() {
        report.error(
            format!("{at}.hosts"),
            "a server needs at least one host; '*' stands for all",
        );
    }
    for (i, host) in server.hosts.iter().enumerate() {
        let path = format!("{at}.hosts[{i}]");
        let name = match host.split_once('/') {
            Some((namespace, name)) => {
                if !matches!(namespace, "*" | ".") && !field::namespace_name(namespace) {
                    report.error(&path, format!("{namespace:?} is not a namespace, '.' or '*'"));
                }
                name
            }
            None => host,
        };
        field::host_or_address(name, &path, report);
    }
    let needs_tls = matches!(protocol.as_str(), "HTTPS" | "TLS");
    match &server.tls {
        None if needs_tls => report.error(
            format!("{at}.tls"),
            format!("a server with protocol {protocol} needs tls"),
        ),
        None => {}
        Some(tls) => {
            if !needs_tls && tls.mode.is_some() {
                report.warn(
                    format!("{at}.tls.mode"),
                    format!("has no effect with protocol {protocol}; use HTTPS or TLS"),
                );
            }
            if tls.https_redirect && protocol != "HTTP" {
                report.warn(
                    format!("{at}.tls.httpsRedirect"),
                    "has an effect only with protocol HTTP",
                );
            }
            check_tls(tls, &protocol, &format!("{at}.tls"), report);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    fn check(server: &str, found: &[&str]) {
        expect(
            Kind::Gateway,
            &format!("selector: {{istio: ingressgateway}}\nservers: [{server}]"),
            found,
        );
    }

    #[test]
    fn servers_that_cannot_stand_beside_each_other() {
        let servers = |second: &str| {
            format!(
                "selector: {{a: b}}\nservers:\n- {{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']}}\n- {second}"
            )
        };
        for (second, found) in [
            (
                "{port: {number: 80, name: grpc, protocol: GRPC}, hosts: ['a.example']}",
                &[][..],
            ),
            (
                "{port: {number: 81, name: http, protocol: HTTP}, hosts: ['*']}",
                &["Error spec.servers[1].port.name"],
            ),
            (
                "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}",
                &["Error spec.servers[1].port.protocol"],
            ),
            (
                "{port: {number: 80, name: tcp, protocol: TCP}, bind: 10.0.0.1, hosts: ['*']}",
                &[],
            ),
        ] {
            expect(Kind::Gateway, &servers(second), found);
        }
    }

    #[test]
    fn servers() {
        check(
            "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}",
            &[],
        );
        check(
            "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['./*.a', 'ns/b', '*/*']}",
            &[],
        );
        check("{hosts: ['*']}", &["Error spec.servers[0].port"]);
        check(
            "{port: {number: 80, name: h, protocol: SPDY}, hosts: []}",
            &[
                "Error spec.servers[0].port.protocol",
                "Error spec.servers[0].hosts",
            ],
        );
        check(
            "{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a]}",
            &["Error spec.servers[0].tls"],
        );
        check(
            "{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a], tls: {mode: SIMPLE}}",
            &["Error spec.servers[0].tls"],
        );
        check(
            "{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a], tls: {mode: SIMPLE, credentialName: c}}",
            &[],
        );
        check(
            "{port: {number: 443, name: h, protocol: TLS}, hosts: [a], tls: {mode: PASSTHROUGH}}",
            &[],
        );
        check(
            "{port: {number: 443, name: h, protocol: TLS}, hosts: [a], tls: {mode: PASSTHROUGH, credentialName: c}}",
            &["Error spec.servers[0].tls"],
        );
        check(
            "{port: {number: 80, name: h, protocol: HTTP}, hosts: [a], tls: {httpsRedirect: true}}",
            &[],
        );
        check(
            "{port: {number: 80, name: h, protocol: HTTP}, hosts: ['A_/b'], bind: here}",
            &["Error spec.servers[0].bind", "Error spec.servers[0].hosts[0]"],
        );
    }
}
