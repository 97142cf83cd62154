//! What the viewer's Sidecar says: which ports of which services it sees, where it listens for them, what happens to
//! traffic for destinations that nobody knows, and what it takes in for its workload.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use mesh_proto::{mesh::OutboundMode, names, node::NodeKind};

use super::{View, Viewer};
use crate::{
    generate::destination::Unknown,
    model::{
        Protocol, Resolution, Service, ServicePort, Sidecar,
        policy::ConnectionPool,
        sidecar::{Capture, Ingress, LocalEndpoint},
    },
    snapshot::Snapshot,
};

/// Where outbound traffic of a port is listened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// `None`: wherever clients want to go on this port.
    pub address: Option<IpAddr>,
    /// The proxy has a socket there; else connections are redirected to it.
    pub bound: bool,
}

/// The address as listeners are named by it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).fmt(f)
    }
}

/// The Sidecar that counts for a viewer: its workload's own, else its namespace's, else the mesh's. Gateways have none.
pub(super) fn sidecar<'a>(viewer: &Viewer, snapshot: &'a Snapshot) -> Option<&'a Arc<Sidecar>> {
    let root = &snapshot.mesh.root_namespace;
    (viewer.kind == NodeKind::Sidecar)
        .then(|| snapshot.sidecars.of(&viewer.namespace, &viewer.labels, root))
        .flatten()
}

/// Is something sent to the pod's own address by name of it?
pub(super) fn wants_address(viewer: &Viewer, snapshot: &Snapshot) -> bool {
    let pod = |ingress: &Ingress| matches!(ingress.endpoint, Some(LocalEndpoint::Pod { .. }));
    sidecar(viewer, snapshot).is_some_and(|sidecar| sidecar.ingress.iter().any(pod))
}

impl<'a> View<'a> {
    /// May any port of the service be seen?
    pub(super) fn sees(&self, service: &Service) -> bool {
        let Some(sidecar) = self.sidecar else { return true };
        let sees = |port: u16| sidecar.sees(&service.namespace, &service.host, port);
        service.ports.iter().any(|port| sees(port.number))
            || (service.ports.is_empty() && sees(0))
            // What carries logs and traces is not part of the application's dependencies.
            || service.host == self.telemetry_host()
    }

    /// The ports of a service that the viewer sees.
    pub fn ports<'s>(&self, service: &'s Service) -> impl Iterator<Item = &'s ServicePort> {
        let all = self.sidecar.is_none_or(|sidecar| sidecar.egress.is_none())
            || service.host == self.telemetry_host();
        service.ports.iter().filter(move |port| {
            all || self.sidecar.is_none_or(|sidecar| {
                sidecar.sees(&service.namespace, &service.host, port.number)
                    // There would be no destination to pass on to but the proxy itself.
                    && !(service.resolution == Resolution::None && self.place(port.number).bound)
            })
        })
    }

    /// What is spoken on a port: what the Sidecar says of its listener, else what the service does.
    pub fn spoken(&self, port: &ServicePort) -> Protocol {
        let listener = self.sidecar.and_then(|sidecar| sidecar.egress_of(port.number));
        listener
            .and_then(|listener| listener.port.as_ref())
            .map_or(port.protocol, |own| own.protocol)
    }

    /// Where the traffic of a port comes to the proxy.
    pub fn place(&self, port: u16) -> Place {
        let Some(listener) = self.sidecar.and_then(|sidecar| sidecar.egress_of(port)) else {
            return Place::default();
        };
        let bound = self.is_bound(listener.capture);
        let bind = listener.port.as_ref().and_then(|own| own.bind);
        let loopback = if self.viewer.ipv6 {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        };
        Place {
            address: bind.or(bound.then_some(loopback)),
            bound,
        }
    }

    pub fn is_bound(&self, capture: Capture) -> bool {
        match capture {
            Capture::Default => !self.viewer.intercepts,
            Capture::Redirected => false,
            Capture::Bound => true,
        }
    }

    /// What happens to traffic whose destination the mesh does not know.
    pub fn unknown(&self) -> Unknown {
        let said = self.sidecar.and_then(|sidecar| sidecar.outbound);
        let mode = said.unwrap_or(self.mesh().outbound_traffic_policy.mode);
        if mode != OutboundMode::AllowAny {
            return Unknown::Block;
        }
        let proxy = self.sidecar.and_then(|sidecar| sidecar.egress_proxy.as_ref());
        proxy.map_or(Unknown::Allow, |proxy| {
            Unknown::Via(names::outbound_cluster(
                proxy.port.unwrap_or_default(),
                proxy.subset.as_deref().unwrap_or_default(),
                proxy.host.as_str(),
            ))
        })
    }

    /// The same for what comes to a listener: on a bound one there is nowhere to let it go but to the proxy itself.
    pub fn unknown_at(&self, place: Place) -> Unknown {
        match self.unknown() {
            Unknown::Allow if place.bound => Unknown::Block,
            other => other,
        }
    }

    /// What the Sidecar lets in; empty: the ports of the workload's services.
    pub fn ingress(&self) -> &'a [Ingress] {
        self.sidecar.map_or(&[], |sidecar| &sidecar.ingress)
    }

    /// Bounds of the workload's ports that have none of their own.
    pub fn inbound_pool(&self) -> Option<&'a ConnectionPool> {
        self.sidecar.and_then(|sidecar| sidecar.inbound_pool.as_ref())
    }
}
