//! A listener: where connections come from and which filter chains may take them.
//! See <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/listener/v3/listener.proto>.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{chain::Chain, log::AccessLog, scalar::Keepalive};

#[derive(Clone, Debug)]
pub struct Listener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// False: no socket; connections come from a listener with `use_original_dst`.
    pub bind: bool,
    /// Hand a connection to the listener of its original destination, if there is one.
    pub use_original_dst: bool,
    pub direction: Direction,
    pub inspect: Inspect,
    /// How long the first bytes may take; `None` is for ever.
    pub inspect_timeout: Option<Duration>,
    /// After that time: go on with what is known (else close).
    pub continue_on_timeout: bool,
    pub chains: Vec<Arc<Chain>>,
    pub default_chain: Option<Arc<Chain>>,
    /// Logs of connections that no chain took.
    pub access_log: Vec<Arc<AccessLog>>,
    /// Bytes buffered per direction and connection.
    pub buffer_limit: usize,
    pub backlog: u32,
    pub transparent: bool,
    pub freebind: bool,
    pub keepalive: Option<Keepalive>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// What is asked about a connection before a chain is chosen (Envoy's listener filters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inspect {
    /// The destination before redirection (`SO_ORIGINAL_DST`).
    pub original_dst: bool,
    /// Peek for a TLS ClientHello: server name and application protocols.
    pub tls: bool,
    /// Peek for HTTP/1.x or HTTP/2.
    pub http: bool,
    /// Read a PROXY protocol header (v1 or v2) and take the source from it.
    pub proxy_protocol: bool,
    /// With `proxy_protocol`: a connection without the header is allowed.
    pub proxy_protocol_optional: bool,
}

impl Inspect {
    /// Must the first bytes be seen before a chain can be chosen?
    pub fn needs_bytes(self) -> bool {
        self.tls || self.http || self.proxy_protocol
    }
}
