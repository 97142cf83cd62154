//! Services for clients without a sidecar: a netfilter table inside the node namespace that sends a connection to a
//! service's address to one of its ready endpoints, chosen at random. Pure text from plain data; the text replaces the
//! table whole and at once. Established connections stay where they are.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::platform::SERVICE_RANGE;

/// One port of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    pub address: Ipv4Addr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    pub port: u16,
    /// Ready endpoints. None: connections are refused.
    pub endpoints: Vec<(Ipv4Addr, u16)>,
}

/// The table, in nft's language.
pub fn table(ports: &[ServicePort]) -> String {
    let live: Vec<&ServicePort> = ports.iter().filter(|port| !port.endpoints.is_empty()).collect();
    let mut text = String::from("table ip gossamer {}\ndelete table ip gossamer\ntable ip gossamer {\n");
    let mut rows = Vec::with_capacity(live.len());
    for (index, port) in live.iter().enumerate() {
        let choices: Vec<String> = port
            .endpoints
            .iter()
            .enumerate()
            .map(|(choice, (address, target))| format!("{choice} : {address} . {target}"))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  chain service-{index} {{\n    meta l4proto {} dnat ip addr . port to numgen random mod {} map {{ {} }}\n  }}",
            port.protocol,
            choices.len(),
            choices.join(", ")
        );
        rows.push(format!(
            "{} . {} . {} : goto service-{index}",
            port.address, port.protocol, port.port
        ));
    }
    let lookup = if rows.is_empty() {
        String::new()
    } else {
        format!(
            "    ip daddr . meta l4proto . th dport vmap {{ {} }}\n",
            rows.join(", ")
        )
    };
    let _ = write!(
        text,
        "  chain services {{\n{lookup}  }}\n\
         \x20 chain prerouting {{\n    type nat hook prerouting priority -100;\n    jump services\n  }}\n\
         \x20 chain output {{\n    type nat hook output priority -100;\n    jump services\n  }}\n\
         \x20 chain refused {{\n    type filter hook prerouting priority -50;\n\
         \x20   ip daddr {SERVICE_RANGE} meta l4proto tcp reject with tcp reset\n\
         \x20   ip daddr {SERVICE_RANGE} reject with icmp type port-unreachable\n  }}\n"
    );
    text.push_str(&hairpin(&live));
    text.push_str("}\n");
    text
}

/// A pod that reaches itself through a service must see another source than itself, or it would answer itself directly.
fn hairpin(live: &[&ServicePort]) -> String {
    let mut addresses: Vec<Ipv4Addr> = live
        .iter()
        .flat_map(|port| port.endpoints.iter().map(|(a, _)| *a))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = addresses
        .iter()
        .map(|address| format!("{address} . {address}"))
        .collect();
    format!(
        "  chain hairpin {{\n    type nat hook postrouting priority 100;\n    \
         ct status dnat ip saddr . ip daddr {{ {} }} masquerade\n  }}\n",
        pairs.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(endpoints: &[u8]) -> ServicePort {
        ServicePort {
            address: Ipv4Addr::new(10, 96, 0, 10),
            protocol: "tcp",
            port: 80,
            endpoints: endpoints
                .iter()
                .map(|last| (Ipv4Addr::new(10, 244, 0, *last), 8080))
                .collect(),
        }
    }

    #[test]
    fn a_service_is_a_random_choice() {
        let text = table(&[port(&[2, 3])]);
        for expect in [
            "10.96.0.10 . tcp . 80 : goto service-0",
            "meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.0.2 . 8080, 1 : 10.244.0.3 . 8080 }",
            "10.244.0.2 . 10.244.0.2, 10.244.0.3 . 10.244.0.3",
        ] {
            assert!(text.contains(expect), "{expect} in\n{text}");
        }
    }

    #[test]
    fn without_endpoints_only_the_refusal_stays() {
        let text = table(&[port(&[])]);
        assert!(
            !text.contains("dnat") && !text.contains("vmap") && !text.contains("masquerade"),
            "{text}"
        );
        assert!(text.contains("reject with tcp reset"));
    }
}
