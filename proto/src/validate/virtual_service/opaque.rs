//! TLS and TCP routes of a VirtualService: what is routed without being looked into.

use super::{destination, gateways, weights};
use crate::{
    finding::Report,
    kube::networking::{TcpRoute, TlsRoute, WeightedDestination},
    validate::field,
};

pub(super) fn tls_route(route: &TlsRoute, hosts: &[String], at: &str, report: &mut Report) {
    if route.matches.is_empty() {
        report.error(format!("{at}.match"), "a TLS route needs a match with sniHosts");
    }
    for (i, matched) in route.matches.iter().enumerate() {
        let at = format!("{at}.match[{i}]");
        if matched.sni_hosts.is_empty() {
            report.error(
                format!("{at}.sniHosts"),
                "a TLS match needs at least one server name",
            );
        }
        for (j, sni) in matched.sni_hosts.iter().enumerate() {
            let path = format!("{at}.sniHosts[{j}]");
            field::host(sni, &path, true, report);
            let within = hosts.iter().any(|host| covers(host, sni));
            if !within {
                report.error(path, format!("{sni:?} is not within the VirtualService's hosts"));
            }
        }
        if let Some(port) = matched.port {
            field::port(port, &format!("{at}.port"), report);
        }
        subnets(&matched.destination_subnets, &at, report);
        field::labels(&matched.source_labels, &format!("{at}.sourceLabels"), report);
        gateways(&matched.gateways, &format!("{at}.gateways"), report);
    }
    weighted(&route.route, &format!("{at}.route"), report);
}

/// Does a host of `hosts` (with or without wildcard) stand for this server name?
fn covers(host: &str, sni: &str) -> bool {
    let (host, sni) = (host.to_ascii_lowercase(), sni.to_ascii_lowercase());
    match host.strip_prefix('*') {
        // A short name is the service's; its full name is what clients send.
        None => host == sni || (!host.contains('.') && sni.starts_with(&format!("{host}."))),
        Some(suffix) => sni.ends_with(suffix),
    }
}

pub(super) fn tcp_route(route: &TcpRoute, at: &str, report: &mut Report) {
    for (i, matched) in route.matches.iter().enumerate() {
        let at = format!("{at}.match[{i}]");
        if let Some(port) = matched.port {
            field::port(port, &format!("{at}.port"), report);
        }
        subnets(&matched.destination_subnets, &at, report);
        field::labels(&matched.source_labels, &format!("{at}.sourceLabels"), report);
        gateways(&matched.gateways, &format!("{at}.gateways"), report);
    }
    weighted(&route.route, &format!("{at}.route"), report);
}

fn subnets(list: &[String], at: &str, report: &mut Report) {
    for (i, subnet) in list.iter().enumerate() {
        field::address_range(subnet, &format!("{at}.destinationSubnets[{i}]"), report);
    }
}

fn weighted(list: &[WeightedDestination], at: &str, report: &mut Report) {
    if list.is_empty() {
        report.error(at, "a route needs at least one destination");
    }
    for (i, entry) in list.iter().enumerate() {
        destination(&entry.destination, &format!("{at}[{i}].destination"), report);
    }
    weights(
        &list.iter().map(|entry| entry.weight).collect::<Vec<_>>(),
        at,
        report,
    );
}
