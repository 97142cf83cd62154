//! The route tables of a sidecar: one for each port on which some service speaks HTTP (named by the port), and one for
//! each service port whose protocol is not declared (named `host:port`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_proto::names;

use super::{Input, Rest, Rule, Target, VirtualHost, retry, rule};
use crate::{
    model::{
        GatewayRef, Host, Service, VirtualService,
        policy::{Algorithm, HashKey, PortPolicy},
        route::{Destination, HeaderChanges, HttpAction, HttpDestination, HttpMatch, HttpRoute},
    },
    view::View,
};

/// The name of the table of one port whose protocol is not declared.
pub fn auto_name(host: &Host, port: u16) -> String {
    format!("{host}:{port}")
}

pub fn inputs(view: &View<'_>) -> Vec<Input> {
    tables(view, |_| true)
}

/// Only the tables of these ports.
pub fn on_ports(view: &View<'_>, ports: &BTreeSet<u16>) -> Vec<Input> {
    tables(view, |port| ports.contains(&port))
}

/// The ports whose tables can say something else when VirtualServices of these hosts do; `None`: any.
pub fn ports_of<'a>(view: &View<'_>, hosts: impl IntoIterator<Item = &'a Host>) -> Option<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for host in hosts {
        // A name that no service has stands in every table, and a pattern may stand for any service.
        let service = view.service(host).filter(|_| !host.is_wildcard())?;
        ports.extend(service.ports.iter().map(|port| port.number));
    }
    Some(ports)
}

fn tables(view: &View<'_>, wanted: impl Fn(u16) -> bool) -> Vec<Input> {
    let mut by_port: BTreeMap<u16, Vec<&Arc<Service>>> = BTreeMap::new();
    let mut auto: Vec<(u16, &Arc<Service>)> = Vec::new();
    for service in view.services() {
        for port in view.ports(service).filter(|port| wanted(port.number)) {
            let protocol = view.spoken(port);
            if protocol.is_http() {
                by_port.entry(port.number).or_default().push(service);
            } else if protocol.is_auto() {
                auto.push((port.number, service));
            }
        }
    }
    let retries = retry::default(view.mesh());
    let rest = |port: u16| Rest::from(view.unknown_at(view.place(port)));
    let shared = by_port.into_iter().map(|(port, services)| Input {
        name: port.to_string(),
        hosts: hosts(view, port, &services),
        rest: rest(port),
        retries: retries.clone(),
    });
    let single = auto.into_iter().map(|(port, service)| Input {
        name: auto_name(&service.host, port),
        hosts: vec![VirtualHost {
            domains: vec!["*".to_owned()],
            ..of_service(view, port, service, &mut Domains::default())
        }],
        rest: rest(port),
        retries: retries.clone(),
    });
    shared.chain(single).collect()
}

/// The virtual hosts of one port: those of services, then those that only a VirtualService knows.
fn hosts(view: &View<'_>, port: u16, services: &[&Arc<Service>]) -> Vec<VirtualHost> {
    let mut domains = Domains::default();
    // The viewer's own namespace first: its short names win.
    let (own, others): (Vec<_>, Vec<_>) = services
        .iter()
        .partition(|service| service.namespace == view.viewer.namespace);
    let mut hosts: Vec<VirtualHost> = own
        .into_iter()
        .chain(others)
        .map(|service| of_service(view, port, service, &mut domains))
        .filter(|host| !host.domains.is_empty())
        .collect();
    for route in view.routes_at(&GatewayRef::Mesh) {
        for host in route.hosts.iter().filter(|host| view.service(host).is_none()) {
            // A name that covers services was taken into account there; alone it stands for names that no service has.
            let rules = rules(view, route, port, host);
            let taken = domains.take(forms(host, port, &[]));
            if !rules.is_empty() && !taken.is_empty() {
                hosts.push(VirtualHost {
                    name: format!("{host}:{port}"),
                    domains: taken,
                    rules,
                    require_tls: false,
                });
            }
        }
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}

fn of_service(view: &View<'_>, port: u16, service: &Arc<Service>, domains: &mut Domains) -> VirtualHost {
    let host = &service.host;
    let rules = view
        .route_of(host)
        .map(|route| rules(view, route, port, host))
        .unwrap_or_default();
    let mut rules = rules;
    // A rule of a VirtualService whose conditions do not apply here leaves the service as it is.
    if rules.is_empty() {
        rules.push(plain(view, service, port));
    }
    let mut names = short_names(view, service);
    if service.is_headless() {
        // Its pods have names of their own below it.
        let all = names.iter().map(String::as_str).chain([service.host.as_str()]);
        let below: Vec<String> = all.map(|name| format!("*.{name}")).collect();
        names.extend(below);
    }
    names.extend(
        service
            .addresses
            .iter()
            .chain(&service.auto_address)
            .map(|address| match address {
                std::net::IpAddr::V4(v4) => v4.to_string(),
                std::net::IpAddr::V6(v6) => format!("[{v6}]"),
            }),
    );
    VirtualHost {
        name: format!("{host}:{port}"),
        domains: domains.take(forms(host, port, &names)),
        rules,
        require_tls: false,
    }
}

/// Everything goes to the service.
fn plain(view: &View<'_>, service: &Arc<Service>, port: u16) -> Rule {
    let cluster = names::outbound_cluster(port, "", service.host.as_str());
    let destination = Destination {
        host: service.host.clone(),
        subset: None,
        port: Some(port),
    };
    let weighted = HttpDestination {
        destination,
        weight: 0,
        headers: HeaderChanges::default(),
    };
    Rule {
        origin: None,
        hash: hash(view, service, port, None),
        route: HttpRoute {
            name: String::new(),
            delegate: None,
            matches: Vec::new(),
            action: HttpAction::Forward {
                destinations: vec![weighted],
                rewrite: None,
            },
            timeout: None,
            retries: None,
            fault: None,
            mirrors: Vec::new(),
            cors: None,
            headers: HeaderChanges::default(),
        },
        matches: Vec::new(),
        targets: vec![Target {
            cluster,
            weight: 1,
            headers: HeaderChanges::default(),
        }],
        mirrors: Vec::new(),
        operation: format!("{}:{port}/*", service.host),
    }
}

/// The rules of a VirtualService that count for this proxy and port.
fn rules(view: &View<'_>, source: &Arc<VirtualService>, port: u16, host: &Host) -> Vec<Rule> {
    let mut rules = Vec::new();
    for route in &source.http {
        let counts = |wanted: &&HttpMatch| applies(view, wanted, &GatewayRef::Mesh, port);
        let matches: Vec<HttpMatch> = route.matches.iter().filter(counts).cloned().collect();
        if matches.is_empty() && !route.matches.is_empty() {
            continue;
        }
        let rule = resolve(view, source, route, matches, port, host);
        let last = rule::takes_everything(&rule);
        rules.push(rule);
        if last {
            break;
        }
    }
    rules
}

/// Whether a condition's part that is known beforehand holds: who the client is, where it asks.
pub fn applies(view: &View<'_>, wanted: &HttpMatch, gateway: &GatewayRef, port: u16) -> bool {
    let sidecar = *gateway == GatewayRef::Mesh;
    let source = !sidecar
        || (wanted
            .source_labels
            .iter()
            .all(|(key, value)| view.viewer.labels.get(key) == Some(value))
            && wanted
                .source_namespace
                .as_ref()
                .is_none_or(|own| *own == view.viewer.namespace));
    source
        && wanted.port.is_none_or(|own| own == port)
        && (wanted.gateways.is_empty() || wanted.gateways.contains(gateway))
}

/// A rule with its destinations as clusters.
pub fn resolve(
    view: &View<'_>,
    source: &Arc<VirtualService>,
    route: &HttpRoute,
    mut matches: Vec<HttpMatch>,
    port: u16,
    host: &Host,
) -> Rule {
    if view.viewer.ours {
        // Statistics by route are Envoy's alone.
        matches.iter_mut().for_each(|own| own.stat_prefix.clear());
    }
    let (targets, first) = match &route.action {
        HttpAction::Forward { destinations, .. } => {
            let target = |own: &HttpDestination| Target {
                cluster: cluster(view, &own.destination, port),
                weight: own.weight,
                headers: own.headers.clone(),
            };
            (destinations.iter().map(target).collect(), destinations.first())
        }
        HttpAction::Redirect(_) | HttpAction::Respond(_) | HttpAction::Delegate { .. } => (Vec::new(), None),
    };
    let hash = first.and_then(|own| {
        let service = view.service(&own.destination.host)?;
        Some(hash(
            view,
            service,
            port_of(view, &own.destination, port),
            own.destination.subset.as_deref(),
        ))
    });
    Rule {
        origin: Some(route.delegate.clone().unwrap_or_else(|| source.origin.clone())),
        matches,
        targets,
        mirrors: route
            .mirrors
            .iter()
            .map(|m| (cluster(view, &m.destination, port), m.percent))
            .collect(),
        hash: hash.unwrap_or_default(),
        operation: format!("{}:{port}/*", first.map_or(host, |own| &own.destination.host)),
        // Conditions stand in `matches`.
        route: HttpRoute {
            matches: Vec::new(),
            ..route.clone()
        },
    }
}

/// The port that was written; else the only one of the service; else the one the request came for.
fn port_of(view: &View<'_>, destination: &Destination, asked: u16) -> u16 {
    destination.port.unwrap_or_else(
        || match view.service(&destination.host).map(|s| s.ports.as_slice()) {
            Some([only]) => only.number,
            _ => asked,
        },
    )
}

pub fn cluster(view: &View<'_>, destination: &Destination, asked: u16) -> String {
    let port = port_of(view, destination, asked);
    let subset = destination.subset.as_deref().unwrap_or_default();
    names::outbound_cluster(port, subset, destination.host.as_str())
}

/// What is said about connections to a destination.
pub fn policy(view: &View<'_>, destination: &Destination, asked: u16) -> Option<PortPolicy> {
    let rule = view.policy(view.service(&destination.host)?)?;
    Some(rule.effective(port_of(view, destination, asked), destination.subset.as_deref()))
}

/// By what the destination's balancer tells requests apart.
fn hash(view: &View<'_>, service: &Service, port: u16, subset: Option<&str>) -> Vec<HashKey> {
    let policy = view.policy(service).map(|rule| rule.effective(port, subset));
    match policy
        .and_then(|policy| policy.balancer)
        .map(|balancer| balancer.algorithm)
    {
        Some(Algorithm::Hash { on, .. }) => vec![on],
        _ => Vec::new(),
    }
}

/// `reviews` in its own namespace, `reviews.default` and `reviews.default.svc` everywhere.
fn short_names(view: &View<'_>, service: &Service) -> Vec<String> {
    let full = Host::of_service(&service.name, &service.namespace, names::CLUSTER_DOMAIN);
    if service.host != full {
        return Vec::new();
    }
    let (name, namespace) = (&service.name, &service.namespace);
    let mut names = vec![format!("{name}.{namespace}"), format!("{name}.{namespace}.svc")];
    if *namespace == view.viewer.namespace {
        names.push(name.clone());
    }
    names
}

/// Each name as a client writes it: alone and with the port.
fn forms(host: &Host, port: u16, others: &[String]) -> Vec<String> {
    let names = std::iter::once(host.as_str()).chain(others.iter().map(String::as_str));
    names
        .flat_map(|name| {
            let with_port = (name != "*").then(|| format!("{name}:{port}"));
            std::iter::once(name.to_owned()).chain(with_port)
        })
        .collect()
}

/// The names that virtual hosts of one table have already taken: Envoy refuses a name that comes twice.
#[derive(Debug, Default)]
pub struct Domains(BTreeSet<String>);

impl Domains {
    /// Those of `names` that were still free.
    pub fn take(&mut self, names: Vec<String>) -> Vec<String> {
        names
            .into_iter()
            .filter(|name| self.0.insert(name.clone()))
            .collect()
    }
}
