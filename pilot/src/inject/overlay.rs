//! A container that the user wrote (`name: istio-proxy`, `image: auto`) over the one that we would add. Pure. What the
//! user says counts; lists whose entries have a key are merged by it.

use k8s_openapi::api::core::v1::Container;
use serde_json::{Map, Value};

use super::{Refusal, decide::AUTO};

/// Lists of a container, and what tells their entries apart.
const KEYS: [(&str, &str); 4] = [
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
];
/// What makes sense only as a whole.
const WHOLE: [&str; 4] = ["startupProbe", "livenessProbe", "readinessProbe", "lifecycle"];

/// `path` is where the user's stands.
pub fn container(ours: &Container, users: &Container, path: &str) -> Result<Container, Refusal> {
    let wrong = |error: serde_json::Error| Refusal {
        path: path.to_owned(),
        text: format!("it cannot be completed: {error}"),
    };
    let mut base = serde_json::to_value(ours).map_err(wrong)?;
    let mut over = serde_json::to_value(users).map_err(wrong)?;
    if let (Value::Object(base), Value::Object(over)) = (&mut base, &mut over) {
        if over.get("image").and_then(Value::as_str) == Some(AUTO) {
            over.remove("image");
            // For an image without a tag the API server has written this before anybody is asked.
            if over.get("imagePullPolicy").and_then(Value::as_str) == Some("Always") {
                over.remove("imagePullPolicy");
            }
        }
        // Where the proxy stands is ours to say.
        over.remove("restartPolicy");
        lay(base, over);
    }
    serde_json::from_value(base).map_err(wrong)
}

fn lay(base: &mut Map<String, Value>, over: &mut Map<String, Value>) {
    for (name, value) in std::mem::take(over) {
        let key = KEYS.iter().find(|(list, _)| *list == name).map(|(_, key)| *key);
        match (base.get_mut(&name), value, key) {
            (Some(Value::Array(known)), Value::Array(more), Some(key)) => merge(known, more, key),
            (Some(Value::Object(known)), Value::Object(mut more), _) if !WHOLE.contains(&name.as_str()) => {
                lay(known, &mut more);
            }
            (_, value, _) => {
                base.insert(name, value);
            }
        }
    }
}

fn merge(known: &mut Vec<Value>, more: Vec<Value>, key: &str) {
    for entry in more {
        match known.iter_mut().find(|one| one.get(key) == entry.get(key)) {
            Some(same) => *same = entry,
            None => known.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_fields_count() {
        let read = |text: &str| -> Container { serde_saphyr::from_str(text).expect(text) };
        let ours = read(
            "{name: istio-proxy, image: p, args: [proxy], env: [{name: A, value: '1'}, {name: B, value: '1'}], \
             securityContext: {runAsUser: 1337, privileged: false}, readinessProbe: {httpGet: {port: 1}}, \
             resources: {requests: {cpu: 10m, memory: 32Mi}}}",
        );
        let users = read(
            "{name: istio-proxy, image: auto, imagePullPolicy: Always, env: [{name: B, value: '2'}, {name: C, value: '2'}], \
             securityContext: {runAsUser: 0}, readinessProbe: {tcpSocket: {port: 2}}, resources: {requests: {cpu: '1'}}, \
             ports: [{containerPort: 8080}]}",
        );
        let expect = read(
            "{name: istio-proxy, image: p, args: [proxy], env: [{name: A, value: '1'}, {name: B, value: '2'}, {name: C, value: '2'}], \
             securityContext: {runAsUser: 0, privileged: false}, readinessProbe: {tcpSocket: {port: 2}}, \
             resources: {requests: {cpu: '1', memory: 32Mi}}, ports: [{containerPort: 8080}]}",
        );
        assert_eq!(container(&ours, &users, "spec.containers[0]"), Ok(expect));
        let own = read("{name: istio-proxy, image: mine}");
        assert_eq!(
            container(&ours, &own, "").map(|container| container.image),
            Ok(Some("mine".into()))
        );
    }
}
