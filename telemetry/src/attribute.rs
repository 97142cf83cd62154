//! What a report says about the two ends of a request: workloads, service, reporter. Read from the metadata that our
//! proxies add to an access-log entry, or from the names in it that every Envoy of this mesh has. Pure.

use mesh_proto::pb::google::protobuf::{Struct, value::Kind};

/// The value that proxies give to what they do not know.
pub const UNKNOWN: &str = "unknown";

/// Which of the two proxies of a request reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// One end of a request. Empty text is "not known".
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    pub name: Box<str>,
    pub namespace: Box<str>,
    pub app: Box<str>,
    /// The SPIFFE id of a verified certificate.
    pub principal: Box<str>,
    pub gateway: bool,
}

impl Workload {
    pub fn is_known(&self) -> bool {
        !self.name.is_empty()
    }
}

/// The text at this key; empty when absent, of another type, or "unknown".
pub fn text<'a>(fields: Option<&'a Struct>, key: &str) -> &'a str {
    match fields
        .and_then(|fields| fields.fields.get(key))
        .and_then(|value| value.kind.as_ref())
    {
        Some(Kind::StringValue(text)) if text != UNKNOWN => text,
        _ => "",
    }
}

/// The count at this key, as a number or as digits; 0 when absent.
pub fn count(fields: Option<&Struct>, key: &str) -> u64 {
    match fields
        .and_then(|fields| fields.fields.get(key))
        .and_then(|value| value.kind.as_ref())
    {
        // A cast from a float saturates, and makes nothing of what is no number.
        Some(Kind::NumberValue(number)) => *number as u64,
        Some(Kind::StringValue(text)) => text.parse().unwrap_or(0),
        _ => 0,
    }
}

/// What a cluster's name says: `outbound|9080|v1|reviews.default.svc.cluster.local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterName<'a> {
    pub direction: Reporter,
    /// The service; empty for inbound clusters.
    pub host: &'a str,
}

pub fn cluster_name(name: &str) -> Option<ClusterName<'_>> {
    use mesh_proto::names::cluster::{BLACK_HOLE, INBOUND_PASSTHROUGH, PASSTHROUGH};
    if name == INBOUND_PASSTHROUGH {
        return Some(ClusterName {
            direction: Reporter::Destination,
            host: "",
        });
    }
    if name == PASSTHROUGH || name == BLACK_HOLE {
        return Some(ClusterName {
            direction: Reporter::Source,
            host: name,
        });
    }
    let mut parts = name.splitn(4, '|');
    let direction = match parts.next() {
        Some("outbound") => Reporter::Source,
        Some("inbound") => Reporter::Destination,
        _ => return None,
    };
    let host = parts.nth(2)?;
    Some(ClusterName { direction, host })
}

/// `reviews.default.svc.cluster.local` → `("reviews", "default")`; nothing for hosts outside the mesh.
pub fn service_parts(host: &str) -> Option<(&str, &str)> {
    let (name, rest) = host.split_once('.')?;
    let (namespace, rest) = rest.split_once('.')?;
    (rest == "svc" || rest.starts_with("svc.")).then_some((name, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::node::to_proto;

    fn fields(json: serde_json::Value) -> Struct {
        match to_proto(json).kind {
            Some(Kind::StructValue(fields)) => fields,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn metadata() {
        let fields = fields(serde_json::json!({"a": "x", "b": "unknown", "c": 3, "d": "7", "e": -1}));
        let all = Some(&fields);
        assert_eq!(
            (text(all, "a"), text(all, "b"), text(all, "c"), text(None, "a")),
            ("x", "", "", "")
        );
        assert_eq!(
            (count(all, "c"), count(all, "d"), count(all, "a"), count(all, "e")),
            (3, 7, 0, 0)
        );
    }

    #[test]
    fn cluster_names() {
        for (name, expect) in [
            (
                "outbound|9080|v1|reviews.default.svc.cluster.local",
                Some((Reporter::Source, "reviews.default.svc.cluster.local")),
            ),
            (
                "outbound|80||example.com",
                Some((Reporter::Source, "example.com")),
            ),
            ("inbound|9080||", Some((Reporter::Destination, ""))),
            ("InboundPassthroughCluster", Some((Reporter::Destination, ""))),
            (
                "PassthroughCluster",
                Some((Reporter::Source, "PassthroughCluster")),
            ),
            ("outbound|9080", None),
            ("my_cluster", None),
            ("", None),
        ] {
            let found = cluster_name(name).map(|name| (name.direction, name.host));
            assert_eq!(found, expect, "{name}");
        }
    }

    #[test]
    fn services() {
        assert_eq!(
            service_parts("reviews.default.svc.cluster.local"),
            Some(("reviews", "default"))
        );
        assert_eq!(service_parts("reviews.default.svc"), Some(("reviews", "default")));
        assert_eq!(service_parts("www.example.com"), None);
        assert_eq!(service_parts("localhost"), None);
    }
}
