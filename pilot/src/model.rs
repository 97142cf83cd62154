//! The meaning of the configuration: plain values in the middle between the API's objects and xDS.
//!
//! `convert` makes these values from the objects users write; `registry`, `snapshot`, `view` and `generate` read them.
//! Neither a Kubernetes nor an Envoy type appears here, every value is `Eq + Hash` (so that a generator's input can be
//! its own cache key), and every name is already resolved: a destination's host is a full name, a duration is a
//! [`std::time::Duration`], a percentage is a [`Percent`].
//!
//! What a value promises: it was valid when it was made. What it does not promise: that what it refers to exists;
//! that is for the reader to find out (and for `analyze` to tell the user).

use std::fmt;

pub mod authn;
pub mod authz;
pub mod credential;
pub mod endpoint;
pub mod gateway;
pub mod host;
pub mod matching;
pub mod policy;
pub mod port;
pub mod proxy_settings;
pub mod route;
pub mod selector;
pub mod service;
pub mod sidecar;
pub mod telemetry;
pub mod visibility;
pub mod workload;
pub mod world;

pub use authn::{JwtRule, MtlsMode, PeerAuthentication, RequestAuthentication};
pub use authz::{AuthorizationPolicy, PolicyAction};
pub use credential::Credential;
pub use endpoint::{Endpoint, EndpointSlice, Health};
pub use gateway::{Gateway, GatewayRef, Server};
pub use host::Host;
pub use matching::{StringMatch, ValueMatch};
pub use mesh_proto::{
    kube::{Kind, ObjectKey as Key},
    mesh::MeshConfig,
    scalar::Percent,
};
pub use policy::{DestinationPolicy, TrafficPolicy};
pub use port::{Protocol, ServicePort, TargetPort};
pub use proxy_settings::ProxySettings;
pub use route::VirtualService;
pub use selector::{Labels, Selector};
pub use service::{Distribution, Location, Resolution, Service, ServiceEntry, ServiceKey};
pub use sidecar::Sidecar;
pub use telemetry::Telemetry;
pub use visibility::Visibility;
pub use workload::{Namespace, Node, Workload, WorkloadEntry};
pub use world::{Item, Table, World};

/// The object that a value comes from. It travels into xDS, so that an answer of the mesh can name its cause.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    /// `metadata.resourceVersion`, else a hash of the content. Empty for kinds whose version concerns nobody
    /// (pods, endpoint slices), because it would make equal values differ.
    pub version: String,
    /// Seconds since 1970 of `metadata.creationTimestamp`, 0 when unknown: the older object wins a conflict.
    pub created: i64,
}

impl Origin {
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    /// `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`: the form that Istio puts into
    /// the metadata of routes and clusters.
    pub fn config_path(&self) -> String {
        format!(
            "/apis/{}/namespaces/{}/{}/{}",
            self.kind.api_version(),
            self.namespace,
            self.kind.dashed(),
            self.name
        )
    }

    /// Conflicts are settled in this order: older first, then by namespace and name.
    pub fn precedence(&self) -> (i64, &str, &str) {
        (self.created, &self.namespace, &self.name)
    }
}

/// `virtualservice default/reviews`: how replies and logs name an object.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.lower(), self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_names_itself() {
        let origin = Origin {
            kind: Kind::VirtualService,
            namespace: "default".into(),
            name: "reviews".into(),
            version: "7".into(),
            created: 0,
        };
        assert_eq!(origin.to_string(), "virtualservice default/reviews");
        assert_eq!(
            origin.config_path(),
            "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"
        );
    }
}
