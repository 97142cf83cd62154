//! What a Sidecar says: how much of the mesh a workload's proxy sees.

use super::{Host, Origin, Selector, gateway::HostScope};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sidecar {
    pub origin: Origin,
    /// `None`: every workload of the namespace; in the root namespace, of the mesh.
    pub selector: Option<Selector>,
    /// What may be seen; `None`: nothing is said, so everything that is visible.
    pub egress: Option<Vec<EgressHost>>,
    pub outbound: Option<mesh_proto::mesh::OutboundMode>,
}

impl Sidecar {
    /// May the proxy see this service?
    pub fn sees(&self, service_namespace: &str, host: &Host) -> bool {
        self.egress.as_ref().is_none_or(|hosts| {
            hosts.iter().any(|egress| {
                egress.scope.allows(&self.origin.namespace, service_namespace) && egress.host.overlaps(host)
            })
        })
    }
}

/// `namespace/host`; `~/*` (nothing) makes an empty list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressHost {
    pub scope: HostScope,
    pub host: Host,
}
