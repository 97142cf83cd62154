//! Who a proxy says it is, in the form that Istio's proxies use: the node id `kind~ip~pod.namespace~domain` and the
//! metadata beside it. These are *claims*; pilot holds them against the certificate of the connection.

use std::{collections::BTreeMap, fmt, str::FromStr};

use envoy_types::pb::{
    envoy::config::core::v3 as core,
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};
use serde::{Deserialize, Serialize};

/// What a proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// Beside one workload.
    Sidecar,
    /// A gateway.
    Router,
}

impl NodeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// The node id: `sidecar~10.244.0.7~reviews-v1-0.default~default.svc.cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeId {
    pub kind: NodeKind,
    pub ip: String,
    pub pod: String,
    pub namespace: String,
    /// DNS suffix of short names, such as `default.svc.cluster.local`.
    pub domain: String,
}

impl NodeId {
    /// How people name a proxy: `reviews-v1-0.default`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.pod, self.namespace)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}~{}~{}.{}~{}",
            self.kind.as_str(),
            self.ip,
            self.pod,
            self.namespace,
            self.domain
        )
    }
}

/// Why a node id was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node id {0:?} is not kind~ip~pod.namespace~domain with kind sidecar or router")]
pub struct NodeIdError(String);

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || NodeIdError(text.to_owned());
        let parts: Vec<&str> = text.split('~').collect();
        let [kind, ip, name, domain] = parts[..] else {
            return Err(error());
        };
        let kind = match kind {
            "sidecar" => NodeKind::Sidecar,
            "router" => NodeKind::Router,
            _ => return Err(error()),
        };
        // A namespace has no dot, a pod's name may have.
        let (pod, namespace) = name.rsplit_once('.').ok_or_else(error)?;
        if pod.is_empty() || namespace.is_empty() {
            return Err(error());
        }
        Ok(Self {
            kind,
            ip: ip.into(),
            pod: pod.into(),
            namespace: namespace.into(),
            domain: domain.into(),
        })
    }
}

/// The metadata beside the node id, under the keys that Istio's proxies send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
pub struct NodeMetadata {
    /// The pod's name.
    pub name: String,
    pub namespace: String,
    pub service_account: String,
    pub workload_name: String,
    pub cluster_id: String,
    pub mesh_id: String,
    pub labels: BTreeMap<String, String>,
    #[serde(rename = "INSTANCE_IPS")]
    pub instance_ips: String,
    pub istio_version: String,
    /// "true" where the proxy answers DNS and wants the name table.
    pub dns_capture: String,
    /// `REDIRECT`, or `NONE` where nothing is redirected to the proxy.
    pub interception_mode: String,
    /// "gossamer" for our own proxy, else empty (a stock Envoy).
    pub generator: String,
    /// A proxy that keeps its certificate in files names them here (a stock Envoy without an agent).
    pub tls_client_cert_chain: String,
    pub tls_client_key: String,
    pub tls_client_root_cert: String,
}

impl NodeMetadata {
    /// As the protobuf struct of an xDS node. Empty fields are left out.
    pub fn to_struct(&self) -> Struct {
        let mut fields: std::collections::HashMap<String, Value> = std::collections::HashMap::new();
        if let Ok(serde_json::Value::Object(map)) = serde_json::to_value(self) {
            for (key, value) in map {
                if value.as_str() == Some("") || value.as_object().is_some_and(serde_json::Map::is_empty) {
                    continue;
                }
                fields.insert(key, to_proto(value));
            }
        }
        Struct {
            fields: fields.into_iter().collect(),
        }
    }

    /// From an xDS node. Unknown keys are ignored, a known key of another type counts as absent.
    pub fn from_node(node: &core::Node) -> Self {
        let Some(metadata) = &node.metadata else {
            return Self::default();
        };
        let mut map = serde_json::Map::new();
        for (key, value) in &metadata.fields {
            let json = to_json(value);
            if json.is_string() || (key == "LABELS" && json.is_object()) {
                map.insert(key.clone(), json);
            }
        }
        if let Some(serde_json::Value::Object(labels)) = map.get_mut("LABELS") {
            labels.retain(|_, value| value.is_string());
        }
        serde_json::from_value(serde_json::Value::Object(map)).unwrap_or_default()
    }
}

/// JSON to the protobuf `Value` (<https://protobuf.dev/reference/protobuf/google.protobuf/#value>).
pub fn to_proto(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(b) => Kind::BoolValue(b),
        serde_json::Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        serde_json::Value::String(s) => Kind::StringValue(s),
        serde_json::Value::Array(a) => Kind::ListValue(ListValue {
            values: a.into_iter().map(to_proto).collect(),
        }),
        serde_json::Value::Object(o) => Kind::StructValue(Struct {
            fields: o.into_iter().map(|(k, v)| (k, to_proto(v))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// The protobuf `Value` to JSON.
pub fn to_json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(b)) => (*b).into(),
        Some(Kind::NumberValue(n)) => (*n).into(),
        Some(Kind::StringValue(s)) => s.as_str().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_json).collect(),
        Some(Kind::StructValue(s)) => {
            serde_json::Value::Object(s.fields.iter().map(|(k, v)| (k.clone(), to_json(v))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_round_trip() {
        let text = "sidecar~10.244.0.7~reviews-v1.x.default~default.svc.cluster.local";
        let id: NodeId = text.parse().unwrap();
        assert_eq!(
            (id.pod.as_str(), id.namespace.as_str()),
            ("reviews-v1.x", "default")
        );
        assert_eq!(id.to_string(), text);
        for bad in [
            "",
            "sidecar~1~a~d",
            "proxy~1~a.b~d",
            "sidecar~1~.b~d",
            "sidecar~1~a.b~c~d",
        ] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_round_trip() {
        let metadata = NodeMetadata {
            namespace: "default".into(),
            labels: [("app".to_owned(), "reviews".to_owned())].into(),
            ..NodeMetadata::default()
        };
        let node = core::Node {
            metadata: Some(metadata.to_struct()),
            ..core::Node::default()
        };
        assert_eq!(NodeMetadata::from_node(&node), metadata);
    }
}
