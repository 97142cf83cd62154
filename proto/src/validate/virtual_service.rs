//! VirtualService alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{
        Object,
        networking::{Destination, VirtualService},
    },
};

mod fault;
mod http;
mod opaque;
mod order;
#[cfg(test)]
mod tests;

/// Names of gRPC's status codes, in the order of their numbers.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What `retryOn` may name besides status codes: Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
pub const RETRY_CONDITIONS: [&str; 17] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "unknown",
];

impl Validate for VirtualService {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        let for_mesh = self.gateways.is_empty() || self.gateways.iter().any(|gateway| gateway == "mesh");
        if self.hosts.is_empty() {
            delegate(self, report);
        }
        for (i, host) in self.hosts.iter().enumerate() {
            let path = format!("spec.hosts[{i}]");
            field::host_or_address(host, &path, report);
            if host == "*" && for_mesh {
                report.error(
                    &path,
                    "'*' is possible only with gateways, not for the mesh's own traffic",
                );
            }
            if self.hosts[..i].contains(host) {
                report.error(path, format!("{host:?} is there twice"));
            }
        }
        gateways(&self.gateways, "spec.gateways", report);
        if self.http.is_empty() && self.tls.is_empty() && self.tcp.is_empty() {
            report.error("spec", "there must be a route under http, tls or tcp");
        }
        field::export_to(&self.export_to, "spec.exportTo", report);
        for (i, route) in self.http.iter().enumerate() {
            http::http_route(route, &format!("spec.http[{i}]"), report);
        }
        for (i, route) in self.tls.iter().enumerate() {
            opaque::tls_route(route, &self.hosts, &format!("spec.tls[{i}]"), report);
        }
        for (i, route) in self.tcp.iter().enumerate() {
            opaque::tcp_route(route, &format!("spec.tcp[{i}]"), report);
        }
        order::check(self, report);
    }
}

/// One without hosts does nothing by itself: others take its HTTP routes over.
fn delegate(service: &VirtualService, report: &mut Report) {
    for (name, said) in [
        ("gateways", !service.gateways.is_empty()),
        ("tls", !service.tls.is_empty()),
        ("tcp", !service.tcp.is_empty()),
    ] {
        if said {
            report.error(
                format!("spec.{name}"),
                "without hosts this is a VirtualService that others delegate HTTP routes to: it has http alone; for any \
                 other use, say hosts",
            );
        }
    }
    for (i, route) in service.http.iter().enumerate() {
        if route.delegate.is_some() {
            report.error(
                format!("spec.http[{i}].delegate"),
                "what is delegated to cannot delegate further",
            );
        }
    }
}

fn gateways(list: &[String], path: &str, report: &mut Report) {
    for (i, gateway) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = match gateway.split_once('/') {
            Some((namespace, name)) if namespace == "." || field::namespace_name(namespace) => name,
            Some(_) => {
                report.error(
                    path,
                    format!("{gateway:?} must be a name, namespace/name or mesh"),
                );
                continue;
            }
            None => gateway,
        };
        field::host(name, &path, false, report);
    }
}

fn destination(destination: &Destination, at: &str, report: &mut Report) {
    let path = format!("{at}.host");
    if destination.host.is_empty() {
        report.error(path, "a destination needs a host");
    } else if destination.host == "*" {
        report.error(path, "'*' is no destination");
    } else {
        field::host_or_address(&destination.host, &path, report);
    }
    if let Some(port) = &destination.port {
        field::port(port.number, &format!("{at}.port.number"), report);
    }
}

fn weights(weights: &[u32], at: &str, report: &mut Report) {
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    if weights.len() > 1 && sum == 0 {
        report.error(at, "the weights of all destinations are 0; one must be greater");
    }
    if sum > u64::from(u32::MAX) {
        report.error(
            at,
            format!("the weights add up to {sum}, which is more than {}", u32::MAX),
        );
    }
}
