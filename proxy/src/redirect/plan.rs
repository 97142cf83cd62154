//! The ruleset, as text for `nft`. Pure.
//!
//! In order, for what leaves a local process (`output`):
//!
//! 1. what the proxy sends to the application (from 127.0.0.6 or ::6 over `lo`) passes;
//! 2. what the proxy sends to the pod's own address (the application called a service and got itself) goes to the
//!    inbound port, so that inbound policy holds there too;
//! 3. everything else of the proxy passes;
//! 4. excluded ports pass; DNS goes to the proxy's DNS server; other traffic over `lo` and excluded ranges pass;
//! 5. included TCP goes to the outbound port.
//!
//! What comes in from outside (`prerouting`) goes to the inbound port, but for the proxy's own ports and excluded ones.
//!
//! DNS over UDP needs two conntrack zones: the application's query (which is redirected) and the proxy's own onward
//! query can have the same addresses and ports, and one table could not hold both.

use std::{fmt::Write, net::IpAddr};

use ipnet::IpNet;

/// The table that holds all rules.
pub const TABLE: &str = "inet gossamer";

/// Which ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    Only(Vec<u16>),
}

/// Which address ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    All,
    Only(Vec<IpNet>),
}

/// What to redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub outbound_port: u16,
    pub inbound_port: u16,
    pub tunnel_port: u16,
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
    pub inbound_ports: Selection,
    pub exclude_inbound_ports: Vec<u16>,
    pub outbound_ranges: Ranges,
    pub exclude_outbound_ranges: Vec<IpNet>,
    pub outbound_ports: Vec<u16>,
    pub exclude_outbound_ports: Vec<u16>,
    pub exclude_interfaces: Vec<String>,
    /// `None`: DNS is left alone. The resolvers whose queries are redirected; empty for all.
    pub dns: Option<Vec<IpAddr>>,
    pub dns_port: u16,
}

/// The whole ruleset: replaces the table in one transaction, whether it was there or not.
pub fn plan(settings: &Settings) -> String {
    let mut text = removal();
    line(&mut text, 0, &format!("table {TABLE} {{"));
    chain(
        &mut text,
        "output",
        "type nat hook output priority -100; policy accept;",
        &output(settings),
    );
    chain(
        &mut text,
        "prerouting",
        "type nat hook prerouting priority -100; policy accept;",
        &prerouting(settings),
    );
    if settings.dns.is_some() {
        chain(
            &mut text,
            "zones_output",
            "type filter hook output priority -300; policy accept;",
            &zones(settings),
        );
        let replies = ["udp sport 53 ct zone set 1".to_owned()];
        chain(
            &mut text,
            "zones_input",
            "type filter hook prerouting priority -300; policy accept;",
            &replies,
        );
    }
    line(&mut text, 0, "}");
    text
}

/// Removes the table. Declaring it first makes this right when there is none.
pub fn removal() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

fn line(text: &mut String, depth: usize, content: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:indent$}{content}", "", indent = depth * 4);
}

fn chain(text: &mut String, name: &str, header: &str, rules: &[String]) {
    line(text, 1, &format!("chain {name} {{"));
    line(text, 2, header);
    for rule in rules {
        line(text, 2, rule);
    }
    line(text, 1, "}");
}

fn set<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    format!("{{ {} }}", items.join(", "))
}

/// The proxy's processes, as match expressions: by user and by group.
fn proxy(settings: &Settings) -> Vec<String> {
    let mut owners = Vec::new();
    if !settings.uids.is_empty() {
        owners.push(format!("meta skuid {}", set(&settings.uids)));
    }
    if !settings.gids.is_empty() {
        owners.push(format!("meta skgid {}", set(&settings.gids)));
    }
    owners
}

/// Matches for these networks: `ip daddr { … }` and `ip6 daddr { … }`, as far as there are any.
fn destinations(nets: &[IpNet]) -> Vec<String> {
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = IpNet::aggregate(&nets.to_vec())
        .into_iter()
        .partition(|net| net.addr().is_ipv4());
    let family =
        |name: &str, nets: Vec<IpNet>| (!nets.is_empty()).then(|| format!("{name} daddr {}", set(&nets)));
    family("ip", v4).into_iter().chain(family("ip6", v6)).collect()
}

fn resolvers(addresses: &[IpAddr]) -> Vec<String> {
    if addresses.is_empty() {
        return vec![String::new()];
    }
    let nets: Vec<IpNet> = addresses.iter().copied().map(IpNet::from).collect();
    destinations(&nets)
        .into_iter()
        .map(|matches| matches + " ")
        .collect()
}

fn output(settings: &Settings) -> Vec<String> {
    let mut rules = vec![
        "oifname \"lo\" ip saddr 127.0.0.6 accept".to_owned(),
        "oifname \"lo\" ip6 saddr ::6 accept".to_owned(),
    ];
    if !settings.exclude_interfaces.is_empty() {
        rules.push(format!("oifname {} accept", quoted(&settings.exclude_interfaces)));
    }
    let mut direct = vec![settings.tunnel_port];
    direct.extend(settings.dns.is_some().then_some(53));
    for owner in proxy(settings) {
        for own_address in ["ip daddr != 127.0.0.1", "ip6 daddr != ::1"] {
            let ports = set(&direct);
            let port = settings.inbound_port;
            rules.push(format!(
                "oifname \"lo\" {own_address} tcp dport != {ports} {owner} redirect to :{port}"
            ));
        }
    }
    rules.extend(proxy(settings).into_iter().map(|owner| format!("{owner} accept")));
    if !settings.exclude_outbound_ports.is_empty() {
        rules.push(format!(
            "tcp dport {} accept",
            set(&settings.exclude_outbound_ports)
        ));
        if settings.exclude_outbound_ports.contains(&53) {
            rules.push("udp dport 53 accept".to_owned());
        }
    }
    if let Some(addresses) = &settings.dns {
        let port = settings.dns_port;
        for resolver in resolvers(addresses) {
            rules.push(format!("{resolver}udp dport 53 redirect to :{port}"));
            rules.push(format!("{resolver}tcp dport 53 redirect to :{port}"));
        }
    }
    rules.push("oifname \"lo\" accept".to_owned());
    rules.extend(
        destinations(&settings.exclude_outbound_ranges)
            .into_iter()
            .map(|nets| format!("{nets} accept")),
    );
    let port = settings.outbound_port;
    if !settings.outbound_ports.is_empty() {
        rules.push(format!(
            "tcp dport {} redirect to :{port}",
            set(&settings.outbound_ports)
        ));
    }
    match &settings.outbound_ranges {
        Ranges::All => rules.push(format!("meta l4proto tcp redirect to :{port}")),
        Ranges::Only(nets) => {
            rules.extend(
                destinations(nets)
                    .into_iter()
                    .map(|nets| format!("{nets} meta l4proto tcp redirect to :{port}")),
            );
        }
    }
    rules
}

fn prerouting(settings: &Settings) -> Vec<String> {
    let mut rules = Vec::new();
    if !settings.exclude_interfaces.is_empty() {
        rules.push(format!("iifname {} accept", quoted(&settings.exclude_interfaces)));
    }
    let mut direct = vec![settings.tunnel_port];
    direct.extend(&settings.exclude_inbound_ports);
    direct.sort_unstable();
    direct.dedup();
    rules.push(format!("tcp dport {} accept", set(&direct)));
    let port = settings.inbound_port;
    match &settings.inbound_ports {
        Selection::All => rules.push(format!("meta l4proto tcp redirect to :{port}")),
        Selection::Only(ports) if ports.is_empty() => {}
        Selection::Only(ports) => rules.push(format!("tcp dport {} redirect to :{port}", set(ports))),
    }
    rules
}

/// Zone 1: the proxy and the world. Zone 2: the application and the proxy.
fn zones(settings: &Settings) -> Vec<String> {
    let mut rules = Vec::new();
    for owner in proxy(settings) {
        rules.push(format!(
            "udp sport {} {owner} ct zone set 2 accept",
            settings.dns_port
        ));
        rules.push(format!("udp dport 53 {owner} ct zone set 1 accept"));
    }
    for resolver in resolvers(settings.dns.as_deref().unwrap_or_default()) {
        rules.push(format!("{resolver}udp dport 53 ct zone set 2"));
    }
    rules
}

fn quoted(names: &[String]) -> String {
    set(&names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>())
}
