//! WorkloadEntry (alone and as an endpoint of a ServiceEntry) and WorkloadGroup alone.

use std::net::IpAddr;

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{
        Object,
        networking::{HttpProbe, ReadinessProbe, WorkloadEntry, WorkloadGroup},
    },
};

impl Validate for WorkloadEntry {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        match (self.address.as_str(), self.network.as_str()) {
            ("", "") => report.error("spec.address", "a WorkloadEntry needs an address"),
            ("", network) => report.warn(
                "spec.address",
                format!("there is none, so the workload can be reached only through a gateway of network {network:?}"),
            ),
            (address, _) => check_address(address, "spec.address", report),
        }
        entry_fields(self, "spec", report);
    }
}

fn check_address(address: &str, path: &str, report: &mut Report) {
    if let Some(socket) = address.strip_prefix("unix://") {
        unix_socket(socket, path, report);
    } else if address.parse::<IpAddr>().is_err() {
        field::host(address, path, false, report);
    }
}

/// What stands behind `unix://`.
pub(super) fn unix_socket(socket: &str, path: &str, report: &mut Report) {
    if !socket.starts_with(['/', '@']) || socket.len() < 2 {
        report.error(path, "a Unix socket needs an absolute path, or @ and a name");
    } else if socket.ends_with('/') {
        report.error(path, "a Unix socket is no folder");
    }
}

/// What entries have in common, wherever they stand.
pub(super) fn entry_fields(entry: &WorkloadEntry, at: &str, report: &mut Report) {
    if entry.address.starts_with("unix://") && !entry.ports.is_empty() {
        report.error(format!("{at}.ports"), "a Unix socket has no ports");
    }
    for (name, port) in &entry.ports {
        let path = format!("{at}.ports.{name}");
        field::port_name(name, &path, report);
        field::port(*port, &path, report);
    }
    field::labels(&entry.labels, &format!("{at}.labels"), report);
}

impl Validate for WorkloadGroup {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        match &self.template {
            None => report.error("spec.template", "a WorkloadGroup needs a template; {} will do"),
            Some(template) => {
                if !template.address.is_empty() {
                    check_address(&template.address, "spec.template.address", report);
                }
                entry_fields(template, "spec.template", report);
            }
        }
        if let Some(metadata) = &self.metadata {
            field::labels(&metadata.labels, "spec.metadata.labels", report);
        }
        if let Some(probe) = &self.probe {
            check_probe(probe, report);
        }
    }
}

fn check_probe(probe: &ReadinessProbe, report: &mut Report) {
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, number) in numbers {
        if number < 0 {
            report.error(format!("spec.probe.{name}"), format!("{number} is below 0"));
        }
    }
    let methods = [
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("exec", probe.exec.is_some()),
        ("grpc", probe.grpc.is_some()),
    ];
    field::at_most_one(&methods, "spec.probe", report);
    if !methods.iter().any(|(_, said)| *said) {
        report.error("spec.probe", "must say httpGet, tcpSocket, exec or grpc");
    }
    if let Some(http) = &probe.http_get {
        http_probe(http, report);
    }
    if let Some(tcp) = &probe.tcp_socket {
        field::port(tcp.port, "spec.probe.tcpSocket.port", report);
    }
    if probe.exec.as_ref().is_some_and(|exec| exec.command.is_empty()) {
        report.error("spec.probe.exec.command", "must name a program");
    }
    if let Some(grpc) = &probe.grpc {
        field::port(grpc.port, "spec.probe.grpc.port", report);
    }
}

fn http_probe(probe: &HttpProbe, report: &mut Report) {
    field::port(probe.port, "spec.probe.httpGet.port", report);
    if !matches!(probe.scheme.as_str(), "" | "HTTP" | "HTTPS") {
        report.error("spec.probe.httpGet.scheme", "must be HTTP or HTTPS");
    }
    for (i, header) in probe.http_headers.iter().enumerate() {
        let path = format!("spec.probe.httpGet.httpHeaders[{i}].name");
        field::header_name(&header.name, &path, false, report);
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn entries() {
        let check = |spec: &str, found: &[&str]| expect(Kind::WorkloadEntry, spec, found);
        check(
            "address: 10.0.0.1\nports: {http: 80}\nlabels: {app: a}\nweight: 3",
            &[],
        );
        check("address: vm-1.example.com", &[]);
        check("address: unix:///run/a.sock", &[]);
        check("address: unix://@a", &[]);
        check("labels: {a: b}", &["Error spec.address"]);
        check("network: vms", &["Warning spec.address"]);
        check("address: '*.a'", &["Error spec.address"]);
        check("address: unix://run", &["Error spec.address"]);
        check("address: unix:///run/", &["Error spec.address"]);
        check("address: unix:///run/a\nports: {http: 80}", &["Error spec.ports"]);
        check(
            "address: 1.2.3.4\nports: {http: 0, a_b: 80}",
            &["Error spec.ports.a_b", "Error spec.ports.http"],
        );
        check("address: 1.2.3.4\nweight: -1", &["Error spec.weight"]);
    }

    #[test]
    fn groups() {
        const PLANNED: &str = "Warning spec";
        let check = |spec: &str, found: &[&str]| {
            let mut expected = found.to_vec();
            expected.push(PLANNED);
            expect(Kind::WorkloadGroup, spec, &expected);
        };
        check("template: {}", &[]);
        check("metadata: {labels: {a: b}}", &["Error spec.template"]);
        check(
            "template: {ports: {http: 70000}}\nmetadata: {labels: {'a*': b}}",
            &["Error spec.template.ports.http", "Error spec.metadata.labels.a*"],
        );
        let probe = |probe: &str, found: &[&str]| check(&format!("template: {{}}\nprobe: {probe}"), found);
        probe("{httpGet: {port: 80, path: /ready}}", &[]);
        probe("{exec: {command: [/bin/true]}, periodSeconds: 5}", &[]);
        probe(
            "{periodSeconds: -1}",
            &["Error spec.probe.periodSeconds", "Error spec.probe"],
        );
        probe(
            "{httpGet: {port: 0, scheme: ftp}, tcpSocket: {port: 80}}",
            &[
                "Error spec.probe",
                "Error spec.probe.httpGet.port",
                "Error spec.probe.httpGet.scheme",
            ],
        );
        probe("{exec: {command: []}}", &["Error spec.probe.exec.command"]);
        probe("{grpc: {service: a}}", &["Error spec.probe.grpc.port"]);
    }
}
