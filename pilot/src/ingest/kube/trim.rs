//! What pilot keeps of an object. Pure. What is never read is dropped before anything is stored: a pod shrinks to a tenth,
//! and no environment, no argument and no foreign Secret stays in pilot's memory.

use kube::core::DynamicObject;
use mesh_proto::kube::{Kind, ObjectMeta};
use serde_json::{Map, Value, json};

/// Keys of a Secret that may belong to a gateway's credential.
const CREDENTIAL: [&str; 7] = ["tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert"];
/// Without one of these a Secret is no credential.
const CERTIFICATES: [&str; 4] = ["tls.crt", "ca.crt", "cert", "cacert"];
const CONTAINER: [&str; 5] = ["name", "image", "ports", "restartPolicy", "securityContext"];

/// The object as it is kept; `None`: nothing of it is of use. `api_version` is that of the listing, whose items do not
/// name it.
pub fn keep(kind: Kind, api_version: &str, object: DynamicObject) -> Option<Value> {
    let Value::Object(mut data) = object.data else {
        return None;
    };
    match kind {
        Kind::Pod => pod(&mut data)?,
        // Labels are all that counts.
        Kind::Namespace | Kind::Node => data.clear(),
        Kind::Secret => secret(&mut data)?,
        Kind::ConfigMap => {
            pick(&mut data, &["data"]);
            if let Some(data) = data.get_mut("data") {
                pick_value(data, &["mesh"]);
            }
        }
        Kind::EndpointSlice => pick(&mut data, &["addressType", "ports", "endpoints"]),
        _ => {
            data.remove("status");
        }
    }
    let mut value = Map::new();
    value.insert("apiVersion".into(), api_version.into());
    value.insert("kind".into(), kind.as_str().into());
    let metadata = serde_json::to_value(metadata(kind, object.metadata)).ok()?;
    value.insert("metadata".into(), metadata);
    data.remove("apiVersion");
    data.remove("kind");
    value.append(&mut data);
    Some(Value::Object(value))
}

/// Names, labels, times, and annotations that mean something to the mesh.
fn metadata(kind: Kind, metadata: ObjectMeta) -> ObjectMeta {
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| {
        let domain = name.split_once('/').map_or("", |(domain, _)| domain);
        domain == "istio.io" || domain.ends_with(".istio.io")
    });
    let pod = kind == Kind::Pod;
    // Versions of Kubernetes' own kinds concern nobody, and change with every heartbeat.
    let versioned = kind.is_mesh();
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        labels: metadata.labels,
        annotations: (!annotations.is_empty()).then_some(annotations),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        generate_name: metadata.generate_name.filter(|_| pod),
        owner_references: metadata.owner_references.filter(|_| pod),
        resource_version: metadata.resource_version.filter(|_| versioned),
        generation: metadata.generation.filter(|_| versioned),
        ..ObjectMeta::default()
    }
}

/// `None` for a pod that has ended.
fn pod(data: &mut Map<String, Value>) -> Option<()> {
    let phase = data
        .get("status")
        .and_then(|status| status.get("phase"))
        .and_then(Value::as_str);
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    pick(data, &["spec", "status"]);
    if let Some(spec) = data.get_mut("spec") {
        pick_value(
            spec,
            &[
                "containers",
                "initContainers",
                "serviceAccountName",
                "serviceAccount",
                "hostNetwork",
                "hostname",
                "subdomain",
                "nodeName",
                "securityContext",
            ],
        );
        for group in ["containers", "initContainers"] {
            for container in spec
                .get_mut(group)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                pick_value(container, &CONTAINER);
            }
        }
    }
    if let Some(status) = data.get_mut("status") {
        pick_value(status, &["phase", "podIP", "podIPs", "conditions"]);
        let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
        if let Some(conditions) = conditions {
            conditions.retain(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"));
            for condition in conditions {
                pick_value(condition, &["type", "status"]);
            }
        }
    }
    Some(())
}

/// `None` for one that cannot be a credential.
fn secret(data: &mut Map<String, Value>) -> Option<()> {
    pick(data, &["type", "data"]);
    pick_value(data.get_mut("data")?, &CREDENTIAL);
    let declared = data.get("type").and_then(Value::as_str) == Some("kubernetes.io/tls");
    let content = data.get("data")?;
    (declared || CERTIFICATES.iter().any(|name| content.get(*name).is_some())).then_some(())
}

fn pick(map: &mut Map<String, Value>, fields: &[&str]) {
    map.retain(|name, _| fields.contains(&name.as_str()));
}

fn pick_value(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(map) => pick(map, fields),
        other => *other = json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(kind: Kind, text: &str) -> Option<Value> {
        let object: DynamicObject = serde_saphyr::from_str(text).expect(text);
        keep(kind, &kind.api_version(), object)
    }

    #[test]
    fn a_pod_keeps_what_is_read() {
        let text = "metadata: {name: a, namespace: ns, resourceVersion: '7', labels: {app: a}, uid: u, \
             managedFields: [{manager: x}], annotations: {a/b: c, sidecar.istio.io/inject: 'true'}}\n\
             spec: {nodeName: n1, volumes: [{name: v}], containers: [{name: c, image: i, env: [{name: PASSWORD, value: x}], \
             args: [y], ports: [{containerPort: 1}]}]}\n\
             status: {phase: Running, podIP: 10.0.0.1, hostIP: 1.2.3.4, conditions: \
             [{type: Ready, status: 'True', lastProbeTime: null}, {type: Initialized, status: 'True'}]}\n";
        let expect = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "ns", "labels": {"app": "a"},
                "annotations": {"sidecar.istio.io/inject": "true"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert_eq!(kept(Kind::Pod, text), Some(expect));
        assert_eq!(kept(Kind::Pod, &text.replace("Running", "Succeeded")), None);
    }

    #[test]
    fn secrets() {
        let secret = |kind: &str, data: &str| {
            let text = format!("metadata: {{name: a}}\ntype: {kind}\ndata: {{{data}}}\n");
            kept(Kind::Secret, &text).map(|value| value["data"].clone())
        };
        assert_eq!(
            secret("kubernetes.io/tls", "tls.crt: YQ==, tls.key: YQ==, other: YQ=="),
            Some(json!({"tls.crt": "YQ==", "tls.key": "YQ=="}))
        );
        assert_eq!(secret("Opaque", "cacert: YQ=="), Some(json!({"cacert": "YQ=="})));
        // The root of the mesh itself.
        assert_eq!(
            secret("istio.io/ca-root", "ca-cert.pem: YQ==, ca-key.pem: YQ=="),
            None
        );
        assert_eq!(secret("Opaque", "password: YQ=="), None);
    }

    #[test]
    fn the_meshs_kinds_lose_only_their_status() {
        let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
            metadata: {name: a, namespace: ns, resourceVersion: '7', generation: 2, annotations: {kubectl.kubernetes.io/x: y}}\n\
            spec: {hosts: [a]}\nstatus: {conditions: []}\n";
        let expect = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "a", "namespace": "ns", "resourceVersion": "7", "generation": 2},
            "spec": {"hosts": ["a"]},
        });
        assert_eq!(kept(Kind::VirtualService, text), Some(expect));
        let config = "metadata: {name: istio}\ndata: {mesh: x, meshNetworks: y}\n";
        assert_eq!(
            kept(Kind::ConfigMap, config).map(|value| value["data"].clone()),
            Some(json!({"mesh": "x"}))
        );
    }
}
