//! ServiceEntry alone.

use std::net::IpAddr;

use super::{Validate, field, workload};
use crate::{
    finding::Report,
    kube::{
        Object,
        networking::{EntryResolution, ServiceEntry, WorkloadEntry},
    },
};

/// What a port may speak.
pub(super) const PROTOCOLS: [&str; 11] = [
    "HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TCP", "TLS", "MONGO", "MYSQL", "REDIS", "UDP",
];

impl Validate for ServiceEntry {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if self.hosts.is_empty() {
            report.error("spec.hosts", "a ServiceEntry needs at least one host");
        }
        for (i, host) in self.hosts.iter().enumerate() {
            let path = format!("spec.hosts[{i}]");
            field::host(host, &path, true, report);
            if host == "*" {
                report.error(path, "'*' would take all traffic; name a domain");
            }
        }
        for (i, address) in self.addresses.iter().enumerate() {
            let path = format!("spec.addresses[{i}]");
            field::address_range(address, &path, report);
            if address.contains('/')
                && !matches!(self.resolution, EntryResolution::None | EntryResolution::Static)
            {
                report.error(path, "ranges are possible only with resolution NONE or STATIC");
            }
        }
        ports(self, report);
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            check_endpoint(endpoint, self.resolution, &format!("spec.endpoints[{i}]"), report);
        }
        resolution(self, report);
        if self.workload_selector.is_some() && !self.endpoints.is_empty() {
            report.error("spec.workloadSelector", "cannot stand beside endpoints");
        }
        if let Some(selector) = &self.workload_selector {
            field::labels(&selector.labels, "spec.workloadSelector.labels", report);
        }
        field::export_to(&self.export_to, "spec.exportTo", report);
    }
}

fn ports(entry: &ServiceEntry, report: &mut Report) {
    if entry.ports.is_empty() {
        report.warn(
            "spec.ports",
            "there is none, so nothing can be reached by these hosts",
        );
    }
    for (i, port) in entry.ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        field::port(port.number, &format!("{at}.number"), report);
        if let Some(target) = port.target_port {
            field::port(target, &format!("{at}.targetPort"), report);
        }
        if port.name.is_empty() {
            report.error(format!("{at}.name"), "a port needs a name");
        }
        if !port.protocol.is_empty() && !PROTOCOLS.contains(&port.protocol.to_ascii_uppercase().as_str()) {
            report.error(
                format!("{at}.protocol"),
                format!("{:?} is not one of {}", port.protocol, PROTOCOLS.join(", ")),
            );
        }
        let earlier = &entry.ports[..i];
        if earlier.iter().any(|other| other.name == port.name) {
            report.error(
                format!("{at}.name"),
                format!("port {:?} is there twice", port.name),
            );
        }
        if earlier.iter().any(|other| other.number == port.number) {
            report.error(
                format!("{at}.number"),
                format!("port {} is there twice", port.number),
            );
        }
    }
}

fn resolution(entry: &ServiceEntry, report: &mut Report) {
    let wildcard = entry.hosts.iter().any(|host| host.starts_with('*'));
    match entry.resolution {
        EntryResolution::None => {
            if !entry.endpoints.is_empty() {
                report.error(
                    "spec.endpoints",
                    "with resolution NONE the client's own destination is used; use STATIC or DNS",
                );
            }
        }
        EntryResolution::Static => {
            if entry.endpoints.is_empty() && entry.workload_selector.is_none() {
                report.warn(
                    "spec.endpoints",
                    "resolution STATIC has no endpoints, so every request fails",
                );
            }
        }
        EntryResolution::Dns | EntryResolution::DnsRoundRobin => {
            if entry.endpoints.is_empty() && wildcard {
                report.error(
                    "spec.hosts",
                    "a wildcard cannot be resolved; give endpoints, or use resolution NONE",
                );
            }
            if entry.resolution == EntryResolution::DnsRoundRobin && entry.endpoints.len() > 1 {
                report.error("spec.endpoints", "DNS_ROUND_ROBIN takes one endpoint");
            }
        }
        EntryResolution::DynamicDns => report.refuse_unsupported(
            "spec.resolution",
            "DYNAMIC_DNS is not supported by this mesh yet; use DNS with hosts without wildcard, or NONE",
        ),
    }
}

fn check_endpoint(endpoint: &WorkloadEntry, resolution: EntryResolution, at: &str, report: &mut Report) {
    let path = format!("{at}.address");
    let address = endpoint.address.as_str();
    if let Some(socket) = address.strip_prefix("unix://") {
        workload::unix_socket(socket, &path, report);
        if resolution != EntryResolution::Static {
            report.error(&path, "a Unix socket needs resolution STATIC");
        }
    } else if address.is_empty() && !endpoint.network.is_empty() {
        // Reached through that network's gateway.
    } else if resolution == EntryResolution::Static {
        if address.parse::<IpAddr>().is_err() {
            report.error(
                &path,
                format!("{address:?} is not an address; names need resolution DNS"),
            );
        }
    } else if address.parse::<IpAddr>().is_err() {
        field::host(address, &path, false, report);
    }
    workload::entry_fields(endpoint, at, report);
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    fn check(spec: &str, found: &[&str]) {
        expect(
            Kind::ServiceEntry,
            &format!("ports: [{{number: 80, name: http, protocol: HTTP}}]\n{spec}"),
            found,
        );
    }

    #[test]
    fn entries() {
        check("hosts: [a.example.com]\nresolution: DNS", &[]);
        check("hosts: []", &["Error spec.hosts"]);
        check("hosts: ['*']", &["Error spec.hosts[0]"]);
        check("hosts: ['*.a']\nresolution: DNS", &["Error spec.hosts"]);
        check("hosts: ['*.a']\nresolution: NONE", &[]);
        check("hosts: [a]\nresolution: STATIC", &["Warning spec.endpoints"]);
        check(
            "hosts: [a]\nresolution: STATIC\nendpoints: [{address: b.c}]",
            &["Error spec.endpoints[0].address"],
        );
        check(
            "hosts: [a]\nresolution: NONE\nendpoints: [{address: 1.2.3.4}]",
            &["Error spec.endpoints"],
        );
        check("hosts: [a]\nresolution: DYNAMIC_DNS", &["Error spec.resolution"]);
        check(
            "hosts: [a]\naddresses: [10.0.0.0/33]",
            &["Error spec.addresses[0]"],
        );
        check(
            "hosts: [a]\nresolution: STATIC\nendpoints: [{address: 1.2.3.4, ports: {http: 0}}]",
            &["Error spec.endpoints[0].ports.http"],
        );
        expect(
            Kind::ServiceEntry,
            "hosts: [a]\nports: [{number: 80, name: a}, {number: 80, name: a}]",
            &["Error spec.ports[1].name", "Error spec.ports[1].number"],
        );
        check(
            "hosts: [a.b]\nresolution: DNS\naddresses: [10.0.0.0/8]",
            &["Error spec.addresses[0]"],
        );
        check(
            "hosts: [a]\nresolution: STATIC\nendpoints: [{network: vms}, {address: unix:///a}]",
            &[],
        );
    }
}
