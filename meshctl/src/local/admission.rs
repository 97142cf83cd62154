//! What an API server would refuse of Kubernetes' own kinds: a field of the wrong type, a number out of its range. Pure: an object
//! comes in, a sentence with the field's path comes out. The mesh's kinds are judged by `mesh_proto::validate`.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Container, Namespace, Pod, PodSpec, Secret, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeSet, net::IpAddr};

/// More replicas than this are a slip of the finger on one machine.
const MOST_REPLICAS: i32 = 500;
/// RFC 1123, as Kubernetes uses it for names of containers.
const LABEL: usize = 63;

/// `spec.replicas: -1 is not from 0 to 500`, if anything is wrong.
pub fn check(kind: &str, object: &Value) -> Result<(), String> {
    match kind {
        "Deployment" => {
            let spec = typed::<Deployment>(object)?.spec.unwrap_or_default();
            replicas(spec.replicas)?;
            selected(&spec.selector, spec.template.metadata.as_ref())?;
            pod(spec.template.spec.as_ref(), "spec.template.spec")
        }
        "ReplicaSet" => {
            let spec = typed::<ReplicaSet>(object)?.spec.unwrap_or_default();
            replicas(spec.replicas)?;
            let template = spec.template.unwrap_or_default();
            selected(&spec.selector, template.metadata.as_ref())?;
            pod(template.spec.as_ref(), "spec.template.spec")
        }
        "Pod" => pod(typed::<Pod>(object)?.spec.as_ref(), "spec"),
        "Service" => service(&typed::<Service>(object)?),
        "ConfigMap" => typed::<ConfigMap>(object).map(drop),
        "Secret" => typed::<Secret>(object).map(drop),
        "ServiceAccount" => typed::<ServiceAccount>(object).map(drop),
        "Namespace" => typed::<Namespace>(object).map(drop),
        "EndpointSlice" => typed::<EndpointSlice>(object).map(drop),
        _ => Ok(()),
    }
}

fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> Result<T, String> {
    let typed: T = serde_path_to_error::deserialize(object)
        .map_err(|error| format!("{}: {}", error.path(), error.inner()))?;
    let known = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    match unknown(&object["spec"], &known["spec"], "spec") {
        Some(path) => Err(format!("{path}: there is no such field")),
        None => Ok(typed),
    }
}

/// The first field that did not survive: the type has no place for it.
fn unknown(written: &Value, known: &Value, path: &str) -> Option<String> {
    match (written, known) {
        (Value::Object(fields), Value::Object(kept)) => fields.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match kept.get(name) {
                Some(kept) => unknown(value, kept, &path),
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(items), Value::Array(kept)) => {
            let mut pairs = items.iter().zip(kept).enumerate();
            pairs.find_map(|(index, (item, kept))| unknown(item, kept, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

/// A workload must own the pods that it makes, or it would make more and more of them.
fn selected(selector: &LabelSelector, template: Option<&ObjectMeta>) -> Result<(), String> {
    let wanted = selector.match_labels.as_ref().filter(|labels| !labels.is_empty());
    let Some(wanted) = wanted else {
        return Err("spec.selector.matchLabels: it is missing, and says which pods belong to this".into());
    };
    let has = template.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    match wanted.iter().find(|(name, value)| has.get(*name) != Some(value)) {
        Some((name, value)) => Err(format!(
            "spec.template.metadata.labels: {name}: {value} is missing, which spec.selector.matchLabels asks for"
        )),
        None => Ok(()),
    }
}

fn range(path: &str, number: i32, from: i32, to: i32) -> Result<(), String> {
    if (from..=to).contains(&number) {
        return Ok(());
    }
    Err(format!("{path}: {number} is not from {from} to {to}"))
}

fn replicas(number: Option<i32>) -> Result<(), String> {
    range("spec.replicas", number.unwrap_or(1), 0, MOST_REPLICAS)
}

fn service(service: &Service) -> Result<(), String> {
    let Some(spec) = &service.spec else { return Ok(()) };
    if let Some(address) = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None")
    {
        match address.parse::<IpAddr>() {
            Ok(ip) if !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() => {}
            _ => {
                return Err(format!(
                    "spec.clusterIP: {address:?} is no address that a Service can have"
                ));
            }
        }
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if !numbers.insert((port.port, protocol)) {
            return Err(format!("spec.ports[{index}].port: {} is there twice", port.port));
        }
        let name = port.name.as_deref().unwrap_or_default();
        if ports.len() > 1 && !names.insert(name) {
            return Err(format!(
                "spec.ports[{index}].name: of several ports each needs its own"
            ));
        }
        range(&format!("spec.ports[{index}].port"), port.port, 1, 65535)?;
        if let Some(IntOrString::Int(number)) = port.target_port {
            range(&format!("spec.ports[{index}].targetPort"), number, 1, 65535)?;
        }
    }
    Ok(())
}

fn pod(spec: Option<&PodSpec>, path: &str) -> Result<(), String> {
    let spec = spec.ok_or_else(|| format!("{path}: it is missing"))?;
    if spec.containers.is_empty() {
        return Err(format!("{path}.containers: a pod needs at least one"));
    }
    let mut names = BTreeSet::new();
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    for (field, containers) in [("initContainers", inits), ("containers", &spec.containers[..])] {
        for (index, container) in containers.iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            if !is_label(&container.name) {
                return Err(format!(
                    "{path}.name: {:?} is not made of up to {LABEL} small letters, digits and -",
                    container.name
                ));
            }
            if !names.insert(&container.name) {
                return Err(format!("{path}.name: {:?} is there twice", container.name));
            }
            container_ports(container, &path)?;
        }
    }
    Ok(())
}

/// RFC 1123: what files and processes are named by must not be a path.
fn is_label(name: &str) -> bool {
    let edges = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= LABEL
        && edges(name.chars().next())
        && edges(name.chars().last())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn container_ports(container: &Container, path: &str) -> Result<(), String> {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = format!("{path}.ports[{index}].containerPort");
        range(&path, port.container_port, 1, 65535)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str, spec: &str) -> Value {
        let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
        let spec: Value = serde_saphyr::from_str(spec).unwrap();
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec})
    }

    #[test]
    fn what_an_api_server_would_refuse() {
        let cases = [
            (
                "Deployment",
                "{replicas: -1}",
                "spec.replicas: -1 is not from 0 to 500",
            ),
            ("Deployment", "{replicas: 100000}", "spec.replicas: 100000 is not"),
            ("Deployment", "{replicas: two}", "spec.replicas: invalid type"),
            (
                "Deployment",
                "{template: {}}",
                "spec.selector.matchLabels: it is missing",
            ),
            (
                "Deployment",
                "{selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: b}}}}",
                "spec.template.metadata.labels: app: a is missing",
            ),
            (
                "Deployment",
                "{selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}},
                  spec: {containers: [{name: a, ports: [{containerPort: 70000}]}]}}}",
                "spec.template.spec.containers[0].ports[0].containerPort: 70000",
            ),
            (
                "Service",
                "{ports: [{name: a, port: 80}, {name: b, port: 99999}]}",
                "spec.ports[1].port: 99999",
            ),
            (
                "Service",
                "{ports: [{port: 80, targetPort: 0}]}",
                "spec.ports[0].targetPort: 0",
            ),
            (
                "Service",
                "{ports: [{name: a, port: 80}, {name: b, port: 80}]}",
                "spec.ports[1].port: 80 is there",
            ),
            (
                "Service",
                "{ports: [{port: 80}, {port: 81}]}",
                "spec.ports[1].name",
            ),
            ("Service", "{clusterIP: 127.0.0.1}", "spec.clusterIP"),
            ("Service", "{clusterIP: 1.2.3}", "spec.clusterIP"),
            ("Pod", "{containers: none}", "spec.containers: invalid type"),
            ("Pod", "{containers: []}", "spec.containers: a pod needs"),
            (
                "Pod",
                "{contaners: [], containers: [{name: a}]}",
                "spec.contaners: there is no such field",
            ),
            (
                "Pod",
                "{containers: [{name: a, imagee: x}]}",
                "spec.containers[0].imagee: there is no such field",
            ),
            (
                "Pod",
                "{containers: [{name: ../../x}]}",
                "spec.containers[0].name",
            ),
            (
                "Pod",
                "{containers: [{name: a}], initContainers: [{name: a}]}",
                "spec.containers[0].name: \"a\" is there",
            ),
        ];
        for (kind, spec, expected) in cases {
            let error = check(kind, &object(kind, spec)).unwrap_err();
            assert!(error.starts_with(expected), "{kind} {spec}: {error}");
        }
    }

    #[test]
    fn what_an_api_server_takes() {
        for (kind, spec) in [
            (
                "Service",
                "{ports: [{port: 80, targetPort: http}], clusterIP: None, selector: {}}",
            ),
            ("Service", "{type: ExternalName, externalName: a.b}"),
            (
                "Pod",
                "{containers: [{name: a, image: b, env: [], resources: {limits: {cpu: 1}}}], nodeName: null}",
            ),
            ("VirtualService", "1"),
        ] {
            assert_eq!(check(kind, &object(kind, spec)), Ok(()), "{kind} {spec}");
        }
    }
}
