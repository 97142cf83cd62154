//! What an object is here: a JSON value shaped as Kubernetes shapes it, named by its kind, namespace and name. The table
//! of kinds is the list of everything the local platform takes; a kind that is not in it is refused by name.
//! Pure: no file, no clock.

use std::{cmp::Ordering, fmt};

use serde_json::Value;

/// One kind of object that the platform takes.
#[derive(Debug)]
pub struct Kind {
    pub group: &'static str,
    /// The version that is written when the platform itself makes one.
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub short: &'static [&'static str],
    pub namespaced: bool,
    /// Belongs to the mesh: pilot reads it and may have findings about it.
    pub mesh: bool,
}

const fn core(
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
) -> Kind {
    Kind {
        group: "",
        version: "v1",
        kind,
        plural,
        short,
        namespaced,
        mesh: false,
    }
}

const fn apps(kind: &'static str, plural: &'static str, short: &'static [&'static str]) -> Kind {
    Kind {
        group: "apps",
        version: "v1",
        kind,
        plural,
        short,
        namespaced: true,
        mesh: false,
    }
}

const fn mesh(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
        short,
        namespaced: true,
        mesh: true,
    }
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Every kind, in the order in which `get all` lists them.
pub static KINDS: &[Kind] = &[
    core("Namespace", "namespaces", &["ns"], false),
    core("ServiceAccount", "serviceaccounts", &["sa"], true),
    core("ConfigMap", "configmaps", &["cm"], true),
    core("Secret", "secrets", &[], true),
    core("Service", "services", &["svc"], true),
    core("Pod", "pods", &["po"], true),
    apps("Deployment", "deployments", &["deploy"]),
    apps("ReplicaSet", "replicasets", &["rs"]),
    Kind {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        short: &["eps"],
        namespaced: true,
        mesh: false,
    },
    mesh(NETWORKING, "v1", "VirtualService", "virtualservices", &["vs"]),
    mesh(NETWORKING, "v1", "DestinationRule", "destinationrules", &["dr"]),
    mesh(NETWORKING, "v1", "Gateway", "gateways", &["gw"]),
    mesh(NETWORKING, "v1", "ServiceEntry", "serviceentries", &["se"]),
    mesh(NETWORKING, "v1", "Sidecar", "sidecars", &[]),
    mesh(NETWORKING, "v1", "WorkloadEntry", "workloadentries", &["we"]),
    mesh(NETWORKING, "v1", "WorkloadGroup", "workloadgroups", &["wg"]),
    mesh(NETWORKING, "v1beta1", "ProxyConfig", "proxyconfigs", &[]),
    mesh(NETWORKING, "v1alpha3", "EnvoyFilter", "envoyfilters", &[]),
    mesh(
        SECURITY,
        "v1",
        "PeerAuthentication",
        "peerauthentications",
        &["pa"],
    ),
    mesh(
        SECURITY,
        "v1",
        "RequestAuthentication",
        "requestauthentications",
        &["ra"],
    ),
    mesh(
        SECURITY,
        "v1",
        "AuthorizationPolicy",
        "authorizationpolicies",
        &["ap"],
    ),
    mesh(
        "telemetry.istio.io",
        "v1",
        "Telemetry",
        "telemetries",
        &["telemetry"],
    ),
    mesh(
        "extensions.istio.io",
        "v1alpha1",
        "WasmPlugin",
        "wasmplugins",
        &[],
    ),
    Kind {
        group: GATEWAY_API,
        version: "v1",
        kind: "GatewayClass",
        plural: "gatewayclasses",
        short: &["gc"],
        namespaced: false,
        mesh: true,
    },
    mesh(GATEWAY_API, "v1", "Gateway", "gateways", &["gtw"]),
    mesh(GATEWAY_API, "v1", "HTTPRoute", "httproutes", &[]),
    mesh(GATEWAY_API, "v1", "GRPCRoute", "grpcroutes", &[]),
    mesh(GATEWAY_API, "v1alpha2", "TLSRoute", "tlsroutes", &[]),
    mesh(GATEWAY_API, "v1alpha2", "TCPRoute", "tcproutes", &[]),
    mesh(
        GATEWAY_API,
        "v1beta1",
        "ReferenceGrant",
        "referencegrants",
        &["refgrant"],
    ),
];

impl Kind {
    /// `virtualservice.networking.istio.io`; `service` for the core group. Also the folder's name in the store.
    pub fn full_name(&self) -> String {
        let kind = self.kind.to_ascii_lowercase();
        if self.group.is_empty() {
            kind
        } else {
            format!("{kind}.{}", self.group)
        }
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.into()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// By what people type: kind, plural or short name in any case, with or without the group.
    pub fn by_word(word: &str) -> Option<&'static Self> {
        let word = word.to_ascii_lowercase();
        let (name, group) = word
            .split_once('.')
            .map_or((word.as_str(), None), |(name, group)| (name, Some(group)));
        KINDS.iter().find(|kind| {
            let named =
                name == kind.plural || name == kind.kind.to_ascii_lowercase() || kind.short.contains(&name);
            named
                && group
                    .is_none_or(|group| kind.group == group || kind.group.starts_with(&format!("{group}.")))
        })
    }

    /// By `apiVersion` and `kind` of a manifest.
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Self> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        KINDS
            .iter()
            .find(|candidate| candidate.group == group && candidate.kind == kind)
    }

    /// A kind that the platform itself works with. The names are constants of this crate, and a test asks for each.
    pub fn named(kind: &'static str) -> &'static Self {
        KINDS
            .iter()
            .find(|candidate| candidate.kind == kind)
            .unwrap_or(&KINDS[0])
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.kind) == (other.group, other.kind)
    }
}

impl Eq for Kind {}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.group, self.kind).cmp(&(other.group, other.kind))
    }
}

/// The name of one object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub kind: &'static Kind,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: &'static str, namespace: &str, name: &str) -> Self {
        let kind = Kind::named(kind);
        let namespace = if kind.namespaced { namespace } else { "" };
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Key {
    /// As kubectl names an object: `deployment.apps/reviews-v1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.full_name(), self.name)
    }
}

/// Why a value is no object that the platform takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("{field}: missing; every object needs apiVersion, kind and metadata.name")]
    Missing { field: &'static str },
    #[error("kind {kind} of {api_version} is not one that the local platform takes (it takes: {known})")]
    UnknownKind {
        api_version: String,
        kind: String,
        known: String,
    },
    #[error(
        "metadata.{field}: {value:?} is not a name: use lower-case letters, digits, '-' and '.', at most 253"
    )]
    BadName { field: &'static str, value: String },
}

/// The key of an object; `default_namespace` stands in where a namespaced object names none.
pub fn key_of(object: &Value, default_namespace: &str) -> Result<Key, ObjectError> {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    for (field, value) in [
        ("apiVersion", api_version),
        ("kind", kind),
        ("metadata.name", name),
    ] {
        if value.is_empty() {
            return Err(ObjectError::Missing { field });
        }
    }
    let Some(kind) = Kind::of(api_version, kind) else {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.kind).collect();
        return Err(ObjectError::UnknownKind {
            api_version: api_version.into(),
            kind: kind.into(),
            known: known.join(", "),
        });
    };
    let namespace = match (kind.namespaced, text("/metadata/namespace")) {
        (false, _) => "",
        (true, "") => default_namespace,
        (true, namespace) => namespace,
    };
    for (field, value) in [("name", name), ("namespace", namespace)] {
        if !value.is_empty() && !is_name(value) {
            return Err(ObjectError::BadName {
                field,
                value: value.into(),
            });
        }
    }
    Ok(Key {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// A DNS subdomain name (RFC 1123), which is also a safe file name.
pub fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 253 && text.chars().all(inner) && text.starts_with(edge) && text.ends_with(edge)
}

/// A text field of an object by JSON pointer; empty when absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Sets `metadata.<field>`, making the path where it is missing.
pub fn set_metadata(object: &mut Value, field: &str, value: Value) {
    if !object.is_object() {
        return;
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(serde_json::Map::new());
    }
    metadata[field] = value;
}

/// Do all of the selector's labels stand on the object? An empty selector selects nothing.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(selector) = selector.as_object() else {
        return false;
    };
    !selector.is_empty()
        && selector
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
}

/// A small stable hash (FNV-1a): names made from it are the same in every run and every release.
pub fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_found_by_what_people_type() {
        for (word, kind) in [
            ("po", "Pod"),
            ("pods", "Pod"),
            ("Pod", "Pod"),
            ("deployment.apps", "Deployment"),
            ("vs", "VirtualService"),
            ("virtualservices.networking.istio.io", "VirtualService"),
            ("eps", "EndpointSlice"),
        ] {
            assert_eq!(Kind::by_word(word).unwrap().kind, kind, "{word}");
        }
        assert_eq!(Kind::by_word("gateway").unwrap().group, NETWORKING);
        assert_eq!(Kind::by_word("gtw").unwrap().group, GATEWAY_API);
        assert_eq!(
            Kind::by_word("gateways.gateway.networking.k8s.io").unwrap().group,
            GATEWAY_API
        );
        assert!(Kind::by_word("cronjob").is_none());
    }

    #[test]
    fn named_kinds_exist() {
        for kind in [
            "Namespace",
            "ServiceAccount",
            "ConfigMap",
            "Secret",
            "Service",
            "Pod",
            "Deployment",
            "ReplicaSet",
            "EndpointSlice",
        ] {
            assert_eq!(Kind::named(kind).kind, kind);
        }
    }

    #[test]
    fn key_of_manifest() {
        let reviews = json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "reviews"}});
        let key = key_of(&reviews, "default").unwrap();
        assert_eq!(key.to_string(), "virtualservice.networking.istio.io/reviews");
        assert_eq!(key.namespace, "default");
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}});
        assert_eq!(key_of(&namespace, "default").unwrap().namespace, "");
    }

    #[test]
    fn what_is_no_object_says_why() {
        let check = |object: Value, expect: &str| {
            let error = key_of(&object, "default").unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(json!({"kind": "Pod"}), "apiVersion: missing");
        check(
            json!({"apiVersion": "v1", "kind": "Pod"}),
            "metadata.name: missing",
        );
        check(
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}),
            "kind Job of batch/v1",
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "../x"}}),
            "metadata.name",
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "A"}}),
            "metadata.namespace",
        );
    }

    #[test]
    fn selectors() {
        assert!(selects(
            &json!({"app": "a"}),
            &json!({"app": "a", "version": "v1"})
        ));
        assert!(!selects(&json!({"app": "a"}), &json!({"app": "b"})));
        assert!(!selects(&json!({}), &json!({"app": "b"})));
        assert!(!selects(&Value::Null, &json!({"app": "b"})));
    }
}
