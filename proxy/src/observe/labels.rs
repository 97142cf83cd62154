//! The labels of the standard metrics: who talked to whom, about what, how it went. Everything here is plain data;
//! label sets are built once, when an edge (source, destination, service) is first seen, never per request.
//!
//! Claimed and proven are apart: a [`Workload`] is what a peer or the control plane says; a principal is the SPIFFE
//! identity from a verified certificate.

use std::sync::Arc;

use crate::config::{cluster::ServiceName, endpoint::WorkloadName, flag::Flags};

/// The value of a label nobody knows.
pub const UNKNOWN: &str = "unknown";
/// The value of every label of the set that takes what does not fit into the bound.
pub const OTHER: &str = "other";

/// Which of the two proxies counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    Source,
    Destination,
}

impl Reporter {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Who a workload says it is. Empty fields count as unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    pub name: String,
    pub namespace: String,
    pub app: String,
    pub version: String,
    pub canonical_service: String,
    pub canonical_revision: String,
    /// The Kubernetes cluster it lives in.
    pub kube_cluster: String,
}

impl Workload {
    /// From the endpoint metadata `workload;namespace;canonical name;canonical revision;cluster` that pilot sends
    /// (the form Istio gives its Envoys). Missing parts stay empty.
    pub fn from_metadata(text: &str) -> Self {
        let mut parts = text.split(';').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let (name, namespace, canonical_service, canonical_revision, kube_cluster) =
            (next(), next(), next(), next(), next());
        Self {
            app: canonical_service.clone(),
            version: canonical_revision.clone(),
            name,
            namespace,
            canonical_service,
            canonical_revision,
            kube_cluster,
        }
    }

    /// The form [`Workload::from_metadata`] reads.
    pub fn to_metadata(&self) -> String {
        let Self {
            name,
            namespace,
            canonical_service,
            canonical_revision,
            kube_cluster,
            ..
        } = self;
        format!("{name};{namespace};{canonical_service};{canonical_revision};{kube_cluster}")
    }
}

impl From<&WorkloadName> for Workload {
    fn from(name: &WorkloadName) -> Self {
        Self {
            name: name.workload.to_string(),
            namespace: name.namespace.to_string(),
            app: name.canonical_name.to_string(),
            version: name.canonical_revision.to_string(),
            canonical_service: name.canonical_name.to_string(),
            canonical_revision: name.canonical_revision.to_string(),
            kube_cluster: name.cluster.to_string(),
        }
    }
}

/// The service that was asked for.
pub type Service = ServiceName;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestProtocol {
    Http,
    Grpc,
    Tcp,
}

impl RequestProtocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// How the hop was secured. Only the destination knows for certain; the source says `unknown`, as in Istio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    MutualTls,
    None,
    Unknown,
}

impl Security {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::None => "none",
            Self::Unknown => UNKNOWN,
        }
    }
}

/// Everything about a request that is known before its answer. One edge lives as long as a connection or a cluster needs
/// it; equal keys share their cells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    pub reporter: Reporter,
    pub source: Arc<Workload>,
    pub source_principal: Option<Arc<str>>,
    pub destination: Arc<Workload>,
    pub destination_principal: Option<Arc<str>>,
    pub service: Arc<Service>,
    pub protocol: RequestProtocol,
    pub security: Security,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The HTTP status; 0 when the client went away before there was one.
    pub status: u16,
    /// For gRPC.
    pub grpc_status: Option<u32>,
    pub flags: Flags,
}

/// A complete label set of the request metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestKey {
    Set {
        edge: Arc<EdgeKey>,
        outcome: Outcome,
    },
    /// The one set for everything past the bound.
    Other,
}

/// A complete label set of the TCP metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionKey {
    Set { edge: Arc<EdgeKey>, flags: Flags },
    Other,
}

/// A label and its value.
pub type Label = (&'static str, String);

impl EdgeKey {
    /// The labels that an edge fixes, in Istio's order.
    pub fn labels(&self) -> Vec<Label> {
        let mut labels = vec![("reporter", self.reporter.as_str().to_owned())];
        labels.extend(workload_labels(
            SOURCE,
            &self.source,
            self.source_principal.as_deref(),
        ));
        labels.extend(workload_labels(
            DESTINATION,
            &self.destination,
            self.destination_principal.as_deref(),
        ));
        labels.push(("destination_service", known(&self.service.host)));
        labels.push(("destination_service_name", known(&self.service.name)));
        labels.push(("destination_service_namespace", known(&self.service.namespace)));
        labels.push(("request_protocol", self.protocol.as_str().to_owned()));
        labels.push(("connection_security_policy", self.security.as_str().to_owned()));
        labels
    }
}

impl RequestKey {
    pub fn labels(&self) -> Vec<Label> {
        match self {
            Self::Set { edge, outcome } => {
                let mut labels = edge.labels();
                labels.push(("response_code", outcome.status.to_string()));
                labels.push((
                    "grpc_response_status",
                    outcome.grpc_status.map_or(String::new(), |s| s.to_string()),
                ));
                labels.push(("response_flags", outcome.flags.to_string()));
                labels
            }
            Self::Other => {
                let mut labels = other_labels();
                labels.push(("response_code", OTHER.into()));
                labels.push(("grpc_response_status", OTHER.into()));
                labels.push(("response_flags", OTHER.into()));
                labels
            }
        }
    }
}

impl ConnectionKey {
    pub fn labels(&self) -> Vec<Label> {
        let (mut labels, flags) = match self {
            Self::Set { edge, flags } => (edge.labels(), flags.to_string()),
            Self::Other => (other_labels(), OTHER.into()),
        };
        labels.push(("response_flags", flags));
        labels
    }
}

const SOURCE: [&str; 8] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
];
const DESTINATION: [&str; 8] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
];
const EDGE_TAIL: [&str; 5] = [
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "connection_security_policy",
];

fn known(text: &str) -> String {
    if text.is_empty() {
        UNKNOWN.to_owned()
    } else {
        text.to_owned()
    }
}

fn workload_labels(names: [&'static str; 8], workload: &Workload, principal: Option<&str>) -> Vec<Label> {
    let revision = if workload.canonical_revision.is_empty() && !workload.canonical_service.is_empty() {
        "latest".to_owned()
    } else {
        known(&workload.canonical_revision)
    };
    let values = [
        known(&workload.name),
        known(&workload.namespace),
        known(principal.unwrap_or_default()),
        known(&workload.app),
        known(&workload.version),
        known(&workload.canonical_service),
        revision,
        known(&workload.kube_cluster),
    ];
    names.into_iter().zip(values).collect()
}

fn other_labels() -> Vec<Label> {
    std::iter::once("reporter")
        .chain(SOURCE)
        .chain(DESTINATION)
        .chain(EDGE_TAIL)
        .map(|name| (name, OTHER.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_metadata_both_ways() {
        let workload = Workload::from_metadata("reviews-v1;default;reviews;v1;Kubernetes");
        assert_eq!(workload.to_metadata(), "reviews-v1;default;reviews;v1;Kubernetes");
        assert_eq!(
            (workload.app.as_str(), workload.version.as_str()),
            ("reviews", "v1")
        );
        assert_eq!(Workload::from_metadata("").name, "");
    }

    #[test]
    fn the_overflow_set_has_the_same_label_names() {
        let edge = Arc::new(EdgeKey {
            reporter: Reporter::Source,
            source: Arc::default(),
            source_principal: None,
            destination: Arc::default(),
            destination_principal: None,
            service: Arc::default(),
            protocol: RequestProtocol::Http,
            security: Security::Unknown,
        });
        let names = |labels: Vec<Label>| labels.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let set = RequestKey::Set {
            edge: Arc::clone(&edge),
            outcome: Outcome::default(),
        };
        assert_eq!(names(set.labels()), names(RequestKey::Other.labels()));
        let set = ConnectionKey::Set {
            edge,
            flags: Flags::default(),
        };
        assert_eq!(names(set.labels()), names(ConnectionKey::Other.labels()));
    }
}
