//! What a Sidecar says: how much of the mesh a workload's proxy sees, port by port, and what it takes in for its
//! workload.

use std::net::IpAddr;

use mesh_proto::mesh::OutboundMode;

use super::{
    Host, Origin, Protocol, Selector, gateway::HostScope, gateway::ServerTls, policy::ConnectionPool,
    route::Destination,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sidecar {
    pub origin: Origin,
    /// `None`: every workload of the namespace; in the root namespace, of the mesh.
    pub selector: Option<Selector>,
    /// What is taken in for the workload; empty: the ports of its services.
    pub ingress: Vec<Ingress>,
    /// What may be seen; `None`: nothing is said, so everything that is visible.
    pub egress: Option<Vec<Egress>>,
    /// Bounds of every port of the workload that has none of its own.
    pub inbound_pool: Option<ConnectionPool>,
    pub outbound: Option<OutboundMode>,
    /// Where unknown traffic goes in place of its destination; its port is always said.
    pub egress_proxy: Option<Destination>,
}

impl Sidecar {
    /// The listener that counts for a service's port: the one of this port, else the one for all other ports. `None`
    /// where nothing is said about what may be seen, or nothing about this port.
    pub fn egress_of(&self, port: u16) -> Option<&Egress> {
        let all = self.egress.as_ref()?;
        let own = |egress: &&Egress| egress.port.as_ref().is_some_and(|own| own.number == port);
        all.iter()
            .find(own)
            .or_else(|| all.iter().find(|egress| egress.port.is_none()))
    }

    /// May the proxy see this port of the service?
    pub fn sees(&self, service_namespace: &str, host: &Host, port: u16) -> bool {
        self.egress.is_none()
            || self
                .egress_of(port)
                .is_some_and(|egress| egress.admits(&self.origin.namespace, service_namespace, host))
    }
}

/// Hosts that may be reached, on one port or on all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Egress {
    /// `None`: the ports that no other listener is for.
    pub port: Option<EgressPort>,
    pub capture: Capture,
    pub hosts: Vec<EgressHost>,
}

impl Egress {
    fn admits(&self, own: &str, service_namespace: &str, host: &Host) -> bool {
        self.hosts
            .iter()
            .any(|egress| egress.scope.allows(own, service_namespace) && egress.host.overlaps(host))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressPort {
    pub number: u16,
    /// What is spoken there, whatever the services say.
    pub protocol: Protocol,
    /// The one address that is listened for.
    pub bind: Option<IpAddr>,
}

/// `namespace/host`; `~/*` (nothing) makes an empty list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressHost {
    pub scope: HostScope,
    pub host: Host,
}

/// A port that the proxy takes in for its workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ingress {
    pub port: u16,
    pub protocol: Protocol,
    /// Only what comes to this address.
    pub bind: Option<IpAddr>,
    pub capture: Capture,
    /// Where it goes; `None`: to the port that the client wanted.
    pub endpoint: Option<LocalEndpoint>,
    /// Encryption towards clients that are not of the mesh.
    pub tls: Option<ServerTls>,
    pub pool: Option<ConnectionPool>,
}

/// A place in the workload's own pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalEndpoint {
    Loopback {
        ipv6: bool,
        port: u16,
    },
    /// The pod's own address.
    Pod {
        port: u16,
    },
}

/// How traffic gets to a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Capture {
    /// As the pod was set up.
    #[default]
    Default,
    Redirected,
    /// The client connects to the proxy itself, which is bound to the port.
    Bound,
}
