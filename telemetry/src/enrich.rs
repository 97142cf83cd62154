//! From an entry to a record: the reporter's own end is what its certificate proves and its node says, the other end is
//! what the reporter saw; what our proxies put into metadata comes first, what every Envoy sends fills the rest. Pure.
//!
//! A reporter may only speak of itself: an entry whose reporting end is in another namespace, or has another identity,
//! than the certificate of the stream proves, is refused.

use std::time::Duration;

use mesh_proto::{
    identity::SpiffeId,
    names,
    node::{NodeId, NodeKind, NodeMetadata},
    pb::google::protobuf::Struct,
};

use crate::{
    attribute::{self, Reporter, Workload, cluster_name, service_parts, text},
    record::{EdgeKey, Outcome, Protocol, Record},
};

/// Who reports: what its certificate proves, and what it says about itself.
#[derive(Clone, Debug)]
pub struct Reporting {
    pub proven: SpiffeId,
    pub workload: Workload,
    /// Records that this proxy dropped, as its node says.
    pub dropped: u64,
}

/// An entry, before it is known whom it is about.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Metadata under our name.
    pub fields: Option<&'a Struct>,
    pub cluster: &'a str,
    /// URI names of the downstream's verified certificate.
    pub peer_uris: Vec<&'a str>,
    pub protocol: Protocol,
    pub outcome: Outcome,
    pub latency: Option<Duration>,
    /// Bytes from the downstream, and to it.
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// Why an entry is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the entry's own end is not the workload whose certificate opened the stream")]
    Impersonation,
    #[error("neither metadata nor cluster name tell which end reports")]
    NoDirection,
}

impl Refused {
    pub fn word(self) -> &'static str {
        match self {
            Self::Impersonation => "impersonation",
            Self::NoDirection => "no_direction",
        }
    }
}

impl Reporting {
    /// From the node that opens a stream.
    pub fn new(proven: SpiffeId, node_id: &str, metadata: &NodeMetadata, fields: Option<&Struct>) -> Self {
        let id: Option<NodeId> = node_id.parse().ok();
        let pod = id.as_ref().map(|id| id.pod.as_str()).unwrap_or_default();
        let name = first([metadata.workload_name.as_str(), metadata.name.as_str(), pod]);
        let label = |key: &str| metadata.labels.get(key).map(String::as_str).unwrap_or_default();
        use mesh_proto::names::label::{APP, APP_NAME, CANONICAL_NAME};
        let workload = Workload {
            name: name.into(),
            namespace: proven.namespace.as_str().into(),
            app: first([label(CANONICAL_NAME), label(APP_NAME), label(APP)]).into(),
            principal: proven.to_string().into(),
            gateway: id.is_some_and(|id| id.kind == NodeKind::Router),
        };
        Self {
            proven,
            workload,
            dropped: attribute::count(fields, names::metadata::DROPPED),
        }
    }

    pub fn record(&self, entry: Entry<'_>) -> Result<Record, Refused> {
        let cluster = cluster_name(entry.cluster);
        let reporter = match (text(entry.fields, "reporter"), cluster) {
            ("source", _) => Reporter::Source,
            ("destination", _) => Reporter::Destination,
            (_, Some(cluster)) => cluster.direction,
            (_, None) => return Err(Refused::NoDirection),
        };
        let mut source = end(entry.fields, "source");
        let mut destination = end(entry.fields, "destination");
        let host = cluster.map(|cluster| cluster.host).unwrap_or_default();
        let service = first([text(entry.fields, "destination_service"), host]);
        let mtls = match reporter {
            Reporter::Source => {
                self.fill_own(&mut source)?;
                fill_service(&mut destination, service);
                !destination.principal.is_empty()
            }
            Reporter::Destination => {
                self.fill_own(&mut destination)?;
                if source.principal.is_empty() {
                    source.principal = entry.peer_uris.first().copied().unwrap_or_default().into();
                }
                fill_identity(&mut source);
                !source.principal.is_empty()
            }
        };
        let key = EdgeKey {
            reporter,
            source,
            destination,
            service: service.into(),
            protocol: entry.protocol,
        };
        let (outcome, latency) = (entry.outcome, entry.latency);
        Ok(Record {
            key,
            outcome,
            latency,
            mtls,
            sent: entry.request_bytes,
            received: entry.response_bytes,
        })
    }

    fn fill_own(&self, own: &mut Workload) -> Result<(), Refused> {
        let namespace_fits = own.namespace.is_empty() || *own.namespace == *self.proven.namespace;
        let principal_fits = own.principal.is_empty() || own.principal == self.workload.principal;
        if !namespace_fits || !principal_fits {
            return Err(Refused::Impersonation);
        }
        let node = &self.workload;
        if own.name.is_empty() {
            own.name = node.name.clone();
        }
        if own.app.is_empty() {
            own.app = node.app.clone();
        }
        own.namespace = node.namespace.clone();
        own.principal = node.principal.clone();
        own.gateway = node.gateway;
        Ok(())
    }
}

/// One end as our metadata tells it.
fn end(fields: Option<&Struct>, side: &str) -> Workload {
    let text = |what: &str| text(fields, &format!("{side}_{what}"));
    Workload {
        name: text("workload").into(),
        namespace: text("namespace").into(),
        app: text("app").into(),
        principal: text("principal").into(),
        gateway: false,
    }
}

/// What the service's name tells about the workload behind it.
fn fill_service(destination: &mut Workload, service: &str) {
    if let Some((name, namespace)) = service_parts(service) {
        if destination.namespace.is_empty() {
            destination.namespace = namespace.into();
        }
        if destination.app.is_empty() {
            destination.app = name.into();
        }
    }
}

/// What its identity tells about a workload.
fn fill_identity(workload: &mut Workload) {
    if let Ok(id) = workload.principal.parse::<SpiffeId>()
        && workload.namespace.is_empty()
    {
        workload.namespace = id.namespace.into();
    }
}

fn first<const N: usize>(texts: [&str; N]) -> &str {
    texts
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::{node::to_proto, pb::google::protobuf::value::Kind};
    use serde_json::json;

    const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/default/sa/productpage";
    const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn fields(json: serde_json::Value) -> Struct {
        match to_proto(json).kind {
            Some(Kind::StructValue(fields)) => fields,
            other => panic!("{other:?}"),
        }
    }

    fn reporting(id: &str, node: &str) -> Reporting {
        let metadata = NodeMetadata {
            workload_name: "productpage-v1".into(),
            labels: [("app".to_owned(), "productpage".to_owned())].into(),
            ..NodeMetadata::default()
        };
        Reporting::new(id.parse().unwrap(), node, &metadata, None)
    }

    fn entry<'a>(fields: Option<&'a Struct>, cluster: &'a str) -> Entry<'a> {
        Entry {
            fields,
            cluster,
            peer_uris: vec![],
            protocol: Protocol::Http,
            outcome: Outcome {
                status: 200,
                ..Outcome::default()
            },
            latency: None,
            request_bytes: 1,
            response_bytes: 2,
        }
    }

    const NODE: &str = "sidecar~10.0.0.1~productpage-v1-0.default~default.svc.cluster.local";
    const CLUSTER: &str = "outbound|9080|v1|reviews.default.svc.cluster.local";

    #[test]
    fn our_proxy_tells_everything() {
        let fields = fields(json!({
            "reporter": "source", "source_workload": "productpage-v1", "source_namespace": "default",
            "source_app": "productpage", "source_principal": PRODUCTPAGE, "destination_workload": "reviews-v2",
            "destination_namespace": "default", "destination_principal": REVIEWS,
            "destination_service": "reviews.default.svc.cluster.local",
        }));
        let record = reporting(PRODUCTPAGE, NODE)
            .record(entry(Some(&fields), CLUSTER))
            .unwrap();
        let key = &record.key;
        assert_eq!(
            (&*key.source.name, &*key.destination.name),
            ("productpage-v1", "reviews-v2")
        );
        assert_eq!(
            (&*key.destination.app, &*key.service),
            ("reviews", "reviews.default.svc.cluster.local")
        );
        assert!(record.mtls && key.reporter == Reporter::Source && !key.source.gateway);
    }

    #[test]
    fn a_stock_envoy_is_known_by_node_and_cluster() {
        let record = reporting(PRODUCTPAGE, &NODE.replace("sidecar", "router"))
            .record(entry(None, CLUSTER))
            .unwrap();
        let key = record.key;
        assert_eq!(
            (&*key.source.name, &*key.source.principal, key.source.gateway),
            ("productpage-v1", PRODUCTPAGE, true)
        );
        assert_eq!(
            (
                &*key.destination.name,
                &*key.destination.app,
                &*key.destination.namespace
            ),
            ("", "reviews", "default")
        );
        let mut inbound = entry(None, "inbound|9080||");
        inbound.peer_uris = vec![PRODUCTPAGE];
        let record = reporting(REVIEWS, NODE).record(inbound).unwrap();
        assert_eq!(
            (&*record.key.source.principal, &*record.key.source.namespace),
            (PRODUCTPAGE, "default")
        );
        assert!(record.mtls && record.key.reporter == Reporter::Destination);
        let record = reporting(REVIEWS, NODE)
            .record(entry(None, "inbound|9080||"))
            .unwrap();
        assert!(!record.mtls && !record.key.source.is_known());
    }

    #[test]
    fn nobody_speaks_for_others() {
        for wrong in [
            json!({"reporter": "source", "source_namespace": "bank"}),
            json!({"reporter": "source", "source_principal": REVIEWS}),
            json!({"reporter": "destination", "destination_namespace": "bank"}),
        ] {
            let fields = fields(wrong.clone());
            let result = reporting(PRODUCTPAGE, NODE).record(entry(Some(&fields), CLUSTER));
            assert_eq!(result.unwrap_err(), Refused::Impersonation, "{wrong}");
        }
        let result = reporting(PRODUCTPAGE, NODE).record(entry(None, "local_service"));
        assert_eq!(result.unwrap_err(), Refused::NoDirection);
    }

    #[test]
    fn drops_are_read_from_the_node() {
        let fields = fields(json!({"dropped": 12}));
        let metadata = NodeMetadata::default();
        let reporting = Reporting::new(REVIEWS.parse().unwrap(), NODE, &metadata, Some(&fields));
        assert_eq!(reporting.dropped, 12);
        assert_eq!(
            &*reporting.workload.name, "productpage-v1-0",
            "the pod's name, for want of a better"
        );
    }
}
