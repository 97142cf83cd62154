//! A filter chain: when it is chosen, how it is secured, what ends it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ipnet::IpNet;

use super::{filter::NetworkRbac, hcm::Hcm, log::AccessLog, transport::DownstreamTls};

#[derive(Clone, Debug)]
pub struct Chain {
    pub name: Arc<str>,
    pub matches: ChainMatch,
    pub tls: Option<Arc<DownstreamTls>>,
    /// For the TLS handshake; `None` is for ever.
    pub handshake_timeout: Option<Duration>,
    /// Network filters before the terminal one, in order.
    pub filters: Vec<NetworkFilter>,
    pub terminal: Terminal,
}

#[derive(Clone, Debug)]
pub enum NetworkFilter {
    Rbac(Arc<NetworkRbac>),
}

#[derive(Clone, Debug)]
pub enum Terminal {
    Tcp(Arc<TcpProxy>),
    Http(Arc<Hcm>),
    /// Sends every byte back.
    Echo,
    /// Sends these bytes and closes.
    Direct(Bytes),
}

/// When a chain is chosen. An empty criterion says nothing. `decide::chain` knows the precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    pub destination_port: Option<u16>,
    pub destination: Vec<IpNet>,
    pub server_names: Vec<ServerName>,
    pub transport: Option<Transport>,
    /// As in ALPN, or as sniffed: `http/1.1`, `http/1.0`, `h2c`.
    pub application_protocols: Vec<Box<[u8]>>,
    pub direct_source: Vec<IpNet>,
    pub source_type: SourceType,
    pub source: Vec<IpNet>,
    pub source_ports: Vec<u16>,
}

/// A server name, lower-cased.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerName {
    Exact(Box<str>),
    /// `*.example.com`, kept as `.example.com`.
    Suffix(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Raw,
    Tls,
}

impl Transport {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw_buffer",
            Self::Tls => "tls",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

/// Copies bytes between a connection and an upstream.
#[derive(Clone, Debug)]
pub struct TcpProxy {
    pub stat_prefix: Arc<str>,
    pub clusters: TcpClusters,
    /// `None`: never.
    pub idle_timeout: Option<Duration>,
    pub max_duration: Option<Duration>,
    /// At least 1.
    pub connect_attempts: u32,
    /// Keep one source address on one upstream (ring hash, maglev).
    pub hash_source_ip: bool,
    /// The endpoint is asked for a way to somewhere else.
    pub tunnel: Option<Tunnel>,
    pub access_log: Vec<Arc<AccessLog>>,
    /// A log line also when the upstream connection stands.
    pub log_on_connect: bool,
    /// A log line at this interval during the connection.
    pub log_interval: Option<Duration>,
}

/// What an HTTP proxy is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// `host:port` of the other end.
    pub authority: Box<str>,
    /// By POST to `path`, not CONNECT.
    pub post: bool,
    pub path: Box<str>,
}

#[derive(Clone, Debug)]
pub enum TcpClusters {
    Single(Arc<str>),
    /// Name and weight; `total` is the sum of the weights, never 0.
    Weighted {
        choices: Vec<(Arc<str>, u32)>,
        total: u64,
    },
}

impl TcpClusters {
    /// The cluster for this random number.
    pub fn pick(&self, random: u64) -> &Arc<str> {
        match self {
            Self::Single(name) => name,
            Self::Weighted { choices, total } => {
                let mut at = random % total;
                for (name, weight) in choices {
                    let weight = u64::from(*weight);
                    if at < weight {
                        return name;
                    }
                    at -= weight;
                }
                // The weights sum up to the total, so the loop has returned.
                &choices[0].0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept() {
        let clusters = TcpClusters::Weighted {
            choices: vec![("a".into(), 1), ("b".into(), 0), ("c".into(), 3)],
            total: 4,
        };
        let picks: String = (0..8).map(|n| &**clusters.pick(n)).collect();
        assert_eq!(picks, "acccaccc");
    }
}
