//! VirtualServices by the place where they apply, oldest first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::delegate;
use crate::model::{GatewayRef, Host, VirtualService, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    by_gateway: BTreeMap<GatewayRef, Vec<Arc<VirtualService>>>,
    /// Places in the list of the mesh, of those that name a host in full, and of those that name a pattern.
    exact: HashMap<Host, Vec<usize>>,
    patterns: Vec<usize>,
    label_keys: BTreeSet<String>,
}

impl Routes {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for route in &delegate::merged(&world.virtual_services) {
            for gateway in &route.gateways {
                index
                    .by_gateway
                    .entry(gateway.clone())
                    .or_default()
                    .push(route.clone());
            }
            index.label_keys.extend(label_keys(route).cloned());
        }
        for routes in index.by_gateway.values_mut() {
            routes.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        }
        let mesh = index.by_gateway.get(&GatewayRef::Mesh);
        for (place, route) in mesh.into_iter().flatten().enumerate() {
            let (patterns, exact): (Vec<&Host>, Vec<&Host>) =
                route.hosts.iter().partition(|host| host.is_wildcard());
            if !patterns.is_empty() {
                index.patterns.push(place);
            }
            for host in exact {
                index.exact.entry(host.clone()).or_default().push(place);
            }
        }
        index
    }

    pub fn at(&self, gateway: &GatewayRef) -> &[Arc<VirtualService>] {
        self.by_gateway.get(gateway).map_or(&[], Vec::as_slice)
    }

    /// Those of the mesh that can be about a host, oldest first.
    pub fn about(&self, host: &Host) -> impl Iterator<Item = &Arc<VirtualService>> {
        let exact = self.exact.get(host).into_iter().flatten();
        let places: BTreeSet<usize> = exact.chain(&self.patterns).copied().collect();
        let all = self.at(&GatewayRef::Mesh);
        places.into_iter().filter_map(|place| all.get(place))
    }

    /// The hosts of those of the mesh that are not the same in both.
    pub fn changed_hosts(&self, before: &Self) -> BTreeSet<Host> {
        let by_name = |routes: &Self| -> BTreeMap<(String, String), Arc<VirtualService>> {
            let all = routes.at(&GatewayRef::Mesh).iter();
            all.map(|own| {
                (
                    (own.origin.namespace.clone(), own.origin.name.clone()),
                    own.clone(),
                )
            })
            .collect()
        };
        let (before, after) = (by_name(before), by_name(self));
        let differ = |(key, own): &(&(String, String), &Arc<VirtualService>),
                      others: &BTreeMap<(String, String), Arc<VirtualService>>| {
            others
                .get(*key)
                .is_none_or(|other| !Arc::ptr_eq(own, other) && *own != other)
        };
        let gone = before.iter().filter(|own| differ(own, &after));
        let new = after.iter().filter(|own| differ(own, &before));
        gone.chain(new)
            .flat_map(|(_, own)| own.hosts.iter().cloned())
            .collect()
    }

    /// The labels of clients that conditions look at.
    pub fn label_keys(&self) -> &BTreeSet<String> {
        &self.label_keys
    }
}

fn label_keys(route: &VirtualService) -> impl Iterator<Item = &String> {
    let http = route.http.iter().flat_map(|own| &own.matches);
    let tls = route.tls.iter().flat_map(|own| &own.matches);
    let tcp = route.tcp.iter().flat_map(|own| &own.matches);
    http.flat_map(|own| own.source_labels.keys())
        .chain(tls.flat_map(|own| own.source_labels.keys()))
        .chain(tcp.flat_map(|own| own.source_labels.keys()))
}

/// What VirtualServices say about connections: everything in them except the rules for requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connections(Vec<VirtualService>);

impl Connections {
    pub fn new(world: &World) -> Self {
        let without_requests = |route: &Arc<VirtualService>| {
            let mut route = VirtualService {
                http: Vec::new(),
                ..VirtualService::clone(route)
            };
            if route.tls.is_empty() && route.tcp.is_empty() {
                // The version is that of its rules for requests alone. The object stays: it may stand before another one.
                route.origin.version.clear();
            }
            route
        };
        Self(world.virtual_services.values().map(without_requests).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        snapshot::Snapshot,
        testing::{SERVICES, snapshot},
    };

    fn with(hosts: &str, rules: &str) -> Snapshot {
        snapshot(&format!(
            "{SERVICES}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: r, namespace: default}}\nspec: {{hosts: [{hosts}], {rules}}}\n"
        ))
    }

    #[test]
    fn what_is_about_a_host_is_found_by_name_and_by_pattern() {
        let check = |hosts: &str, expect: usize| {
            let snapshot = with(hosts, "http: [{route: [{destination: {host: ratings}}]}]");
            let host = Host::new("reviews.default.svc.cluster.local");
            assert_eq!(snapshot.routes.about(&host).count(), expect, "{hosts}");
        };
        check("reviews", 1);
        check("ratings", 0);
        check("'*.default.svc.cluster.local', reviews", 1);
        check("'*.org'", 1);
    }

    #[test]
    fn rules_for_requests_say_nothing_about_connections() {
        let connections = |rules: &str| Connections::clone(&with("redis", rules).connections);
        let http = |timeout: &str| {
            format!("http: [{{timeout: {timeout}, route: [{{destination: {{host: ratings}}}}]}}]")
        };
        assert_eq!(connections(&http("1s")), connections(&http("2s")));
        let tcp = |host: &str| format!("tcp: [{{route: [{{destination: {{host: {host}}}}}]}}]");
        assert_ne!(connections(&tcp("redis")), connections(&tcp("peers")));
        assert_ne!(
            connections(&http("1s")),
            Connections::default(),
            "the object itself counts"
        );
    }

    #[test]
    fn hosts_of_changed_rules() {
        let of = |timeout: &str| {
            let route =
                format!("http: [{{timeout: {timeout}, route: [{{destination: {{host: ratings}}}}]}}]");
            with("reviews, ratings", &route)
        };
        let changed = |a: &Snapshot, b: &Snapshot| a.routes.changed_hosts(&b.routes).len();
        assert_eq!(changed(&of("1s"), &of("1s")), 0);
        assert_eq!(changed(&of("1s"), &of("2s")), 2);
        assert_eq!(changed(&of("1s"), &snapshot(SERVICES)), 2, "it is new");
        assert_eq!(changed(&snapshot(SERVICES), &of("1s")), 2, "it is gone");
    }

    #[test]
    fn conditions_name_the_labels_they_look_at() {
        let snapshot = with(
            "reviews",
            "http: [{match: [{sourceLabels: {app: a}}], route: [{destination: {host: ratings}}]}]",
        );
        assert_eq!(snapshot.routes.label_keys().iter().collect::<Vec<_>>(), ["app"]);
    }
}
