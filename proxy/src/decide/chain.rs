//! Which filter chain takes a connection? Envoy's rule
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/listener/v3/listener_components.proto#config-listener-v3-filterchainmatch>):
//! the criteria are asked in a fixed order, at each the most specific value that fits wins, and there is no way back:
//! if the winners of one criterion fail a later one, a less specific chain does not get its turn.
//!
//! So each chain has a row of scores, one per criterion, that ends at the first criterion it fails; the largest row in
//! lexical order wins, and if that row ends with a failure, no chain does. One pass, nothing allocated.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::config::{
    chain::{Chain, ChainMatch, ServerName, SourceType, Transport},
    listener::Listener,
};

/// What is known of a connection before its chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ChainFacts<'a> {
    /// After redirection is undone.
    pub destination: SocketAddr,
    /// After a PROXY protocol header.
    pub source: SocketAddr,
    /// The peer of the socket.
    pub direct_source: IpAddr,
    pub server_name: Option<&'a str>,
    pub transport: Transport,
    /// Offered by ALPN, or sniffed.
    pub application_protocols: &'a [&'a [u8]],
}

const CRITERIA: usize = 9;
/// Per criterion: 0 fails, 1 is no condition, more is more specific.
type Row = [u16; CRITERIA];

/// The chain for this connection: by its match, else the default chain.
pub fn chain<'a>(listener: &'a Listener, facts: &ChainFacts<'_>) -> Option<&'a Arc<Chain>> {
    let mut best: Option<(Row, &Arc<Chain>)> = None;
    for chain in &listener.chains {
        let row = score(&chain.matches, facts);
        if best.as_ref().is_none_or(|(top, _)| row > *top) {
            best = Some((row, chain));
        }
    }
    match best {
        Some((row, chain)) if !row.contains(&0) => Some(chain),
        _ => listener.default_chain.as_ref(),
    }
}

fn score(rule: &ChainMatch, facts: &ChainFacts<'_>) -> Row {
    let mut row = [0; CRITERIA];
    for (n, place) in row.iter_mut().enumerate() {
        *place = criterion(n, rule, facts);
        if *place == 0 {
            break;
        }
    }
    row
}

fn criterion(n: usize, rule: &ChainMatch, facts: &ChainFacts<'_>) -> u16 {
    match n {
        0 => condition(rule.destination_port.map(|port| port == facts.destination.port())),
        1 => networks(&rule.destination, facts.destination.ip()),
        2 => server_name(&rule.server_names, facts.server_name),
        3 => condition(rule.transport.map(|transport| transport == facts.transport)),
        4 => protocols(&rule.application_protocols, facts.application_protocols),
        5 => networks(&rule.direct_source, facts.direct_source),
        6 => source_type(rule.source_type, facts),
        7 => networks(&rule.source, facts.source.ip()),
        _ => condition(
            (!rule.source_ports.is_empty()).then(|| rule.source_ports.contains(&facts.source.port())),
        ),
    }
}

fn condition(holds: Option<bool>) -> u16 {
    match holds {
        None => 1,
        Some(true) => 2,
        Some(false) => 0,
    }
}

fn networks(rule: &[IpNet], address: IpAddr) -> u16 {
    if rule.is_empty() {
        return 1;
    }
    let address = address.to_canonical();
    rule.iter()
        .filter(|network| network.contains(&address))
        .map(|network| u16::from(network.prefix_len()) + 2)
        .max()
        .unwrap_or(0)
}

fn server_name(rule: &[ServerName], name: Option<&str>) -> u16 {
    if rule.is_empty() {
        return 1;
    }
    let Some(name) = name else { return 0 };
    let fits = |rule: &ServerName| match rule {
        ServerName::Exact(want) if want.eq_ignore_ascii_case(name) => u16::MAX,
        ServerName::Suffix(want)
            if name.len() > want.len()
                && name.as_bytes()[name.len() - want.len()..].eq_ignore_ascii_case(want.as_bytes()) =>
        {
            // Longer is more specific; a server name has at most 255 bytes.
            want.len() as u16 + 2
        }
        _ => 0,
    };
    rule.iter().map(fits).max().unwrap_or(0)
}

fn protocols(rule: &[Box<[u8]>], offered: &[&[u8]]) -> u16 {
    if rule.is_empty() {
        return 1;
    }
    // The first protocol that the client offers and any chain names decides; earlier is better.
    let place = offered
        .iter()
        .position(|offer| rule.iter().any(|want| **want == **offer));
    place.map_or(0, |place| u16::MAX - place.min(1000) as u16)
}

fn source_type(rule: SourceType, facts: &ChainFacts<'_>) -> u16 {
    let source = facts.source.ip().to_canonical();
    let local = source.is_loopback() || source == facts.destination.ip().to_canonical();
    match rule {
        SourceType::Any => 1,
        SourceType::SameIpOrLoopback => condition(Some(local)),
        SourceType::External => condition(Some(!local)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        chain::Terminal,
        listener::{Direction, Inspect},
    };

    fn named(name: &str, matches: ChainMatch) -> Arc<Chain> {
        Arc::new(Chain {
            name: name.into(),
            matches,
            tls: None,
            handshake_timeout: None,
            filters: Vec::new(),
            terminal: Terminal::Echo,
        })
    }

    fn listener(chains: Vec<Arc<Chain>>, default: bool) -> Listener {
        Listener {
            name: "l".into(),
            address: ([0, 0, 0, 0], 15006).into(),
            bind: true,
            use_original_dst: false,
            direction: Direction::Inbound,
            inspect: Inspect::default(),
            inspect_timeout: None,
            continue_on_timeout: true,
            chains,
            default_chain: default.then(|| named("default", ChainMatch::default())),
            access_log: Vec::new(),
            buffer_limit: 1 << 20,
            backlog: 128,
            transparent: false,
            freebind: false,
            keepalive: None,
        }
    }

    fn facts<'a>(
        port: u16,
        name: Option<&'a str>,
        transport: Transport,
        alpn: &'a [&'a [u8]],
    ) -> ChainFacts<'a> {
        ChainFacts {
            destination: ([10, 0, 0, 2], port).into(),
            source: ([10, 0, 0, 1], 4000).into(),
            direct_source: [10, 0, 0, 1].into(),
            server_name: name,
            transport,
            application_protocols: alpn,
        }
    }

    fn check(listener: &Listener, facts: &ChainFacts<'_>, expect: Option<&str>) {
        assert_eq!(
            chain(listener, facts).map(|chain| &*chain.name),
            expect,
            "{facts:?}"
        );
    }

    #[test]
    fn as_an_inbound_listener_asks() {
        let port = |port, transport, alpn: &[&str]| ChainMatch {
            destination_port: Some(port),
            transport,
            application_protocols: alpn.iter().map(|text| text.as_bytes().into()).collect(),
            ..ChainMatch::default()
        };
        let listener = listener(
            vec![
                named(
                    "mtls-http",
                    port(9080, Some(Transport::Tls), &["istio-http/1.1", "istio-h2"]),
                ),
                named("mtls-tcp", port(9080, Some(Transport::Tls), &["istio"])),
                named("tls", port(9080, Some(Transport::Tls), &[])),
                named(
                    "plain-http",
                    port(9080, Some(Transport::Raw), &["http/1.1", "h2c"]),
                ),
                named("plain", port(9080, Some(Transport::Raw), &[])),
                named("pass", ChainMatch::default()),
            ],
            true,
        );
        let tls = Transport::Tls;
        check(
            &listener,
            &facts(9080, Some("x"), tls, &[b"istio-http/1.1", b"http/1.1"]),
            Some("mtls-http"),
        );
        check(
            &listener,
            &facts(9080, Some("x"), tls, &[b"http/1.1"]),
            Some("tls"),
        );
        check(
            &listener,
            &facts(9080, Some("x"), tls, &[b"istio"]),
            Some("mtls-tcp"),
        );
        check(
            &listener,
            &facts(9080, None, Transport::Raw, &[b"http/1.1"]),
            Some("plain-http"),
        );
        check(&listener, &facts(9080, None, Transport::Raw, &[]), Some("plain"));
        check(&listener, &facts(9999, None, Transport::Raw, &[]), Some("pass"));
    }

    #[test]
    fn there_is_no_way_back() {
        let listener = listener(
            vec![
                named(
                    "port and name",
                    ChainMatch {
                        destination_port: Some(443),
                        server_names: vec![ServerName::Exact("a.com".into())],
                        ..ChainMatch::default()
                    },
                ),
                named("any", ChainMatch::default()),
            ],
            true,
        );
        check(
            &listener,
            &facts(443, Some("a.com"), Transport::Tls, &[]),
            Some("port and name"),
        );
        check(
            &listener,
            &facts(443, Some("b.com"), Transport::Tls, &[]),
            Some("default"),
        );
        check(
            &listener,
            &facts(80, Some("b.com"), Transport::Tls, &[]),
            Some("any"),
        );
    }

    #[test]
    fn server_names_and_networks_by_specificity() {
        let name = |name| ChainMatch {
            server_names: vec![name],
            ..ChainMatch::default()
        };
        let listener1 = listener(
            vec![
                named("suffix", name(ServerName::Suffix(".com".into()))),
                named("longer", name(ServerName::Suffix(".a.com".into()))),
                named("exact", name(ServerName::Exact("www.a.com".into()))),
            ],
            false,
        );
        for (sni, expect) in [
            (Some("www.a.com"), Some("exact")),
            (Some("WWW.A.com"), Some("exact")),
            (Some("b.a.com"), Some("longer")),
            (Some("b.com"), Some("suffix")),
            (Some("b.org"), None),
            (None, None),
        ] {
            check(&listener1, &facts(443, sni, Transport::Tls, &[]), expect);
        }
        let network = |text: &str| ChainMatch {
            destination: vec![text.parse().unwrap()],
            ..ChainMatch::default()
        };
        let listener2 = listener(
            vec![
                named("/8", network("10.0.0.0/8")),
                named("/24", network("10.0.0.0/24")),
            ],
            false,
        );
        check(&listener2, &facts(443, None, Transport::Raw, &[]), Some("/24"));
    }

    #[test]
    fn source_types() {
        let kind = |source_type| ChainMatch {
            source_type,
            ..ChainMatch::default()
        };
        let listener = listener(
            vec![
                named("local", kind(SourceType::SameIpOrLoopback)),
                named("external", kind(SourceType::External)),
            ],
            false,
        );
        let from = |ip: [u8; 4]| ChainFacts {
            source: (ip, 1).into(),
            ..facts(80, None, Transport::Raw, &[])
        };
        check(&listener, &from([127, 0, 0, 1]), Some("local"));
        check(&listener, &from([10, 0, 0, 2]), Some("local"));
        check(&listener, &from([10, 0, 0, 9]), Some("external"));
    }
}
