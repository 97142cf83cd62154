//! The configuration as one value: what the workers serve. Immutable; a change makes a new one that shares all that has
//! not changed. Endpoints are not in it: they change more often than all the rest, and have cells of their own.

pub mod check;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use crate::config::{cluster::Cluster, listener::Listener, route::RouteConfig, secret::Secret};

/// Resources of one kind by name.
pub type Table<T> = HashMap<Arc<str>, Arc<T>>;

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub listeners: Table<Listener>,
    pub clusters: Table<Cluster>,
    /// Those that listeners refer to by name.
    pub routes: Table<RouteConfig>,
    pub secrets: Table<Secret>,
    /// Names of listeners by address; those without a socket first, as they are the more specific.
    addresses: HashMap<SocketAddr, Vec<Arc<str>>>,
}

impl Snapshot {
    pub fn new(
        listeners: Table<Listener>,
        clusters: Table<Cluster>,
        routes: Table<RouteConfig>,
        secrets: Table<Secret>,
    ) -> Self {
        let mut addresses: HashMap<SocketAddr, Vec<Arc<str>>> = HashMap::new();
        for listener in listeners.values() {
            addresses
                .entry(listener.address)
                .or_default()
                .push(listener.name.clone());
        }
        for names in addresses.values_mut() {
            names.sort_by_key(|name| {
                (
                    listeners.get(name).is_some_and(|listener| listener.bind),
                    name.clone(),
                )
            });
        }
        Self {
            listeners,
            clusters,
            routes,
            secrets,
            addresses,
        }
    }

    /// The listener for an original destination: of that address, else of its port on any address.
    pub fn listener_for(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let port = destination.port();
        let any: IpAddr = match destination.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // A socket on [::] takes IPv4 too.
        let wider = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        [destination, SocketAddr::new(any, port), wider]
            .iter()
            .find_map(|address| self.at(address))
    }

    fn at(&self, address: &SocketAddr) -> Option<&Arc<Listener>> {
        self.addresses
            .get(address)?
            .iter()
            .find_map(|name| self.listeners.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::testing::listener;

    #[test]
    fn an_original_destination_finds_its_listener() {
        let echo = r#"filter_chains: [{filters: [{name: e, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}]"#;
        let listeners = [("out", "0.0.0.0", 15001), ("any", "0.0.0.0", 9080), ("vip", "10.96.0.5", 9080), ("six", "::", 70)]
            .map(|(name, address, port)| {
                let yaml = format!(
                    "{{name: {name}, bind_to_port: {}, address: {{socket_address: {{address: '{address}', port_value: {port}}}}}, {echo}}}",
                    name == "out"
                );
                (Arc::from(name), Arc::new(listener(&yaml)))
            });
        let snapshot = Snapshot::new(listeners.into(), Table::new(), Table::new(), Table::new());
        for (destination, expect) in [
            ("10.96.0.5:9080", Some("vip")),
            ("10.96.0.6:9080", Some("any")),
            ("[fd00::1]:70", Some("six")),
            ("10.96.0.6:70", Some("six")),
            ("[fd00::1]:9080", None),
            ("10.96.0.6:81", None),
        ] {
            let found = snapshot
                .listener_for(destination.parse().unwrap())
                .map(|listener| &*listener.name);
            assert_eq!(found, expect, "{destination}");
        }
    }
}
