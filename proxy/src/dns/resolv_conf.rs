//! `/etc/resolv.conf` (resolv.conf(5)), as far as the proxy needs it. Pure; what cannot be read is skipped, as the C
//! library does.

use std::{net::IpAddr, time::Duration};

/// The pod's own DNS settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// At most three, as in the C library.
    pub servers: Vec<IpAddr>,
    /// Without trailing dots, lower-case.
    pub search: Vec<String>,
    /// For one try.
    pub timeout: Duration,
    pub attempts: u32,
}

const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 16;

/// Reads the file's text.
pub fn parse(text: &str) -> ResolvConf {
    let mut conf = ResolvConf {
        servers: Vec::new(),
        search: Vec::new(),
        timeout: Duration::from_secs(5),
        attempts: 2,
    };
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                // A link-local address may name its interface; that part is not an address.
                let address = words.next().map(|word| word.split('%').next().unwrap_or(word));
                let address = address.and_then(|word| word.parse::<IpAddr>().ok());
                let room = conf.servers.len() < MAX_SERVERS;
                conf.servers.extend(address.filter(|_| room));
            }
            // The last of `search` and `domain` wins.
            Some("search" | "domain") => {
                let name = |word: &str| word.trim_end_matches('.').to_ascii_lowercase();
                conf.search = words
                    .map(name)
                    .filter(|name| !name.is_empty())
                    .take(MAX_SEARCH)
                    .collect();
            }
            Some("options") => words.for_each(|word| option(&mut conf, word)),
            _ => {}
        }
    }
    conf
}

fn option(conf: &mut ResolvConf, word: &str) {
    let Some((name, value)) = word.split_once(':') else {
        return;
    };
    let Ok(value) = value.parse::<u32>() else { return };
    match name {
        "timeout" => conf.timeout = Duration::from_secs(value.clamp(1, 30).into()),
        "attempts" => conf.attempts = value.clamp(1, 5),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_pod_has_it() {
        let conf = parse(
            "search default.svc.cluster.local svc.cluster.local. Cluster.Local\n\
             nameserver 10.96.0.10 # the cluster's\nnameserver fe80::1%eth0\nnameserver nonsense\n\
             options ndots:5 timeout:1 attempts:9\n",
        );
        assert_eq!(
            conf.servers,
            [
                "10.96.0.10".parse::<IpAddr>().unwrap(),
                "fe80::1".parse().unwrap()
            ]
        );
        assert_eq!(
            conf.search,
            ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        );
        assert_eq!((conf.timeout, conf.attempts), (Duration::from_secs(1), 5));
    }
}
