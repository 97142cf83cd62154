//! DestinationRules and VirtualServices in words.

use mesh_pilot::model::{
    DestinationPolicy, GatewayRef, Host, Key, Labels, StringMatch, ValueMatch, VirtualService,
    policy::{ClientTlsMode, PortPolicy},
    route::{Destination, HttpAction, HttpMatch, HttpRoute},
};

use super::{Lines, gateways};
use crate::world::Understood;

pub fn destination_rule(policy: &DestinationPolicy, host: &Host, labels: Option<&Labels>, lines: &mut Lines) {
    lines.add(
        0,
        format!(
            "DestinationRule: {} for {:?}",
            name(&policy.origin),
            host.as_str()
        ),
    );
    let inside = |wanted: &Labels| {
        labels.is_some_and(|labels| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
    };
    let (matching, others): (Vec<_>, Vec<_>) =
        policy.subsets.iter().partition(|subset| inside(&subset.labels));
    let names = |subsets: &[&mesh_pilot::model::policy::Subset]| {
        subsets
            .iter()
            .map(|subset| subset.name.as_str())
            .collect::<Vec<_>>()
            .join(",")
    };
    match (labels, matching.is_empty(), others.is_empty()) {
        (_, true, true) => {}
        (None, _, _) => lines.add(1, format!("Subsets: {}", names(&others))),
        (Some(_), true, _) => lines.add(
            1,
            format!(
                "WARNING POD DOES NOT MATCH ANY SUBSETS.  (Non matching subsets {})",
                names(&others)
            ),
        ),
        (Some(_), false, _) => {
            lines.add(1, format!("Matching subsets: {}", names(&matching)));
            if !others.is_empty() {
                lines.add(2, format!("(Non-matching subsets {})", names(&others)));
            }
        }
    }
    let all = settings(&policy.policy.all);
    if all.is_empty() && policy.policy.ports.is_empty() {
        lines.add(1, "No Traffic Policy");
    }
    for setting in all {
        lines.add(1, format!("Traffic Policy {setting}"));
    }
    for (port, own) in &policy.policy.ports {
        lines.add(1, format!("Port {port}:"));
        for setting in settings(own) {
            lines.add(2, setting);
        }
    }
}

fn settings(policy: &PortPolicy) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(tls) = &policy.tls {
        let mode = match tls.mode {
            ClientTlsMode::Disable => "DISABLE",
            ClientTlsMode::Simple => "SIMPLE",
            ClientTlsMode::Mutual => "MUTUAL",
            ClientTlsMode::MeshMutual => "ISTIO_MUTUAL",
        };
        all.push(format!("TLS Mode: {mode}"));
    }
    if policy.balancer.is_some() {
        all.push("load balancer".to_owned());
    }
    if policy.pool.is_some() {
        all.push("connection pool".to_owned());
    }
    if policy.outliers.is_some() {
        all.push("outlier detection".to_owned());
    }
    all
}

fn name(origin: &mesh_pilot::model::Origin) -> String {
    super::dotted(&origin.name, &origin.namespace)
}

/// `subsets`: those that the pod is in; `None` where no pod is meant.
pub fn virtual_service(
    mesh: &Understood,
    route: &VirtualService,
    host: &Host,
    subsets: Option<&[String]>,
    lines: &mut Lines,
) {
    lines.add(0, format!("VirtualService: {}", name(&route.origin)));
    let reaches = |to: &Destination| {
        to.host == *host
            && match (&to.subset, subsets) {
                (Some(subset), Some(own)) => own.contains(subset),
                _ => true,
            }
    };
    let mut elsewhere = 0;
    let mut reached = false;
    for (i, one) in route.http.iter().enumerate() {
        let HttpAction::Forward { destinations, .. } = &one.action else {
            lines.add(
                1,
                format!(
                    "Route {i} answers or redirects without a destination: {}",
                    matching(one)
                ),
            );
            continue;
        };
        let total: u32 = destinations.iter().map(|to| to.weight).sum();
        let here: Vec<_> = destinations
            .iter()
            .filter(|to| reaches(&to.destination))
            .collect();
        elsewhere += destinations.len() - here.len();
        for to in here {
            reached = true;
            let share = match total {
                0 => String::new(),
                total if to.weight == total => String::new(),
                total => format!("Weight {}%  ", u64::from(to.weight) * 100 / u64::from(total)),
            };
            lines.add(1, format!("{share}{}", matching(one)));
        }
        features(one, lines);
    }
    let plain = route.tcp.iter().map(|one| &one.destinations);
    for destinations in plain.chain(route.tls.iter().map(|one| &one.destinations)) {
        let here = destinations.iter().filter(|to| reaches(&to.destination)).count();
        elsewhere += destinations.len() - here;
        if here > 0 {
            reached = true;
            lines.add(1, "Match: TCP or TLS");
        }
    }
    if !reached {
        lines.add(
            1,
            format!(
                "WARNING: No destinations match pod subsets (checked {} HTTP routes)",
                route.http.len()
            ),
        );
    }
    if elsewhere > 0 && reached {
        lines.add(
            1,
            format!("{elsewhere} additional destination(s) that will not reach this pod"),
        );
    }
    exposed(mesh, route, lines);
}

fn features(route: &HttpRoute, lines: &mut Lines) {
    let mut all = Vec::new();
    if let Some(timeout) = route.timeout {
        all.push(format!("timeout {timeout:?}"));
    }
    if route.retries.is_some() {
        all.push("retries".to_owned());
    }
    if route.fault.is_some() {
        all.push("fault injection".to_owned());
    }
    if !route.mirrors.is_empty() {
        all.push("mirrored".to_owned());
    }
    if !all.is_empty() {
        lines.add(2, all.join(", "));
    }
}

/// When a route counts: `Match: /api*, when headers are end-user=jason`, or `all requests`.
fn matching(route: &HttpRoute) -> String {
    if route.matches.is_empty() || route.matches.iter().any(HttpMatch::takes_any_request) {
        return "All requests".to_owned();
    }
    let all: Vec<String> = route.matches.iter().map(one_match).collect();
    format!("Match: {}", all.join(", or "))
}

fn one_match(one: &HttpMatch) -> String {
    let mut parts = Vec::new();
    if let Some(uri) = &one.uri {
        parts.push(text(uri));
    }
    if let Some(method) = &one.method {
        parts.push(format!("method {}", text(method)));
    }
    let value = |rule: &ValueMatch| match rule {
        ValueMatch::Present => "*".to_owned(),
        ValueMatch::Matches(rule) => text(rule),
    };
    let conditions: Vec<String> = one
        .headers
        .iter()
        .map(|(name, rule)| format!("{name}={}", value(rule)))
        .chain(
            one.without_headers
                .iter()
                .map(|(name, rule)| format!("not {name}={}", value(rule))),
        )
        .chain(
            one.query
                .iter()
                .map(|(name, rule)| format!("?{name}={}", value(rule))),
        )
        .collect();
    if !conditions.is_empty() {
        parts.push(format!("when headers are {}", conditions.join("; ")));
    }
    if parts.is_empty() {
        parts.push("some requests".to_owned());
    }
    parts.join(", ")
}

fn text(rule: &StringMatch) -> String {
    match rule {
        StringMatch::Exact(text) => text.clone(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Regex(text) => format!("regex {text}"),
    }
}

/// Where a gateway offers it.
fn exposed(mesh: &Understood, route: &VirtualService, lines: &mut Lines) {
    let known: Vec<String> = gateways(route);
    for key in known {
        let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
        let Some(gateway) = mesh.world().gateways.get(&Key::new(namespace, name)) else {
            lines.add(1, format!("WARNING: its gateway {key} does not exist"));
            continue;
        };
        for server in &gateway.servers {
            let served: Vec<String> = route
                .hosts
                .iter()
                .flat_map(|host| server.admits(&route.origin.namespace, &gateway.origin.namespace, host))
                .map(ToString::to_string)
                .collect();
            if !served.is_empty() {
                let scheme = if server.terminates_tls() { "https" } else { "http" };
                lines.add(
                    0,
                    format!(
                        "Exposed on gateway {key}: {scheme}://{}:{}",
                        served.join(","),
                        server.port
                    ),
                );
            }
        }
    }
    if route.gateways == [GatewayRef::Mesh] {
        lines.add(1, "(for the mesh's own traffic)");
    }
}
