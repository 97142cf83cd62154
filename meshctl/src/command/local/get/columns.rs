//! The columns of each kind, as kubectl has them. Pure, but for the clock that ages are counted by.

use mesh_proto::finding::{Finding, Level};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    local::{moment, object::Kind},
    output::Format,
};

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn age(object: &Value) -> String {
    let written = object["metadata"]["creationTimestamp"]
        .as_str()
        .unwrap_or_default();
    moment::seconds_since(written, OffsetDateTime::now_utc()).map_or_else(|| "-".into(), moment::age)
}

fn text(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn words(object: &Value, pointer: &str) -> String {
    let words: Vec<&str> = list(object, pointer).filter_map(Value::as_str).collect();
    if words.is_empty() {
        String::new()
    } else {
        format!("[{}]", words.join(","))
    }
}

/// A row whose cells follow the heading of [`heading`].
pub fn cells(kind: &Kind, object: &Value, format: Format, findings: Option<&[&Finding]>) -> Vec<String> {
    let mut cells = match kind.kind {
        "Pod" => return pod(object, format),
        "Service" => service(object, format),
        "Deployment" => deployment(object),
        "ReplicaSet" => ["/spec/replicas", "/status/replicas", "/status/readyReplicas"]
            .iter()
            .map(|pointer| number(object, pointer).to_string())
            .collect(),
        "Namespace" => vec![match object["status"]["phase"].as_str() {
            Some(phase) => phase.to_owned(),
            None => "Active".into(),
        }],
        "ConfigMap" => vec![
            object["data"]
                .as_object()
                .map_or(0, serde_json::Map::len)
                .to_string(),
        ],
        "Secret" => {
            let count = object["data"].as_object().map_or(0, serde_json::Map::len);
            vec![text(object, "/type"), count.to_string()]
        }
        "EndpointSlice" => slice(object),
        "VirtualService" => vec![words(object, "/spec/gateways"), words(object, "/spec/hosts")],
        "DestinationRule" => vec![text(object, "/spec/host")],
        "ServiceEntry" => {
            vec![
                words(object, "/spec/hosts"),
                text(object, "/spec/location"),
                text(object, "/spec/resolution"),
            ]
        }
        "PeerAuthentication" => vec![text(object, "/spec/mtls/mode")],
        "AuthorizationPolicy" => vec![match text(object, "/spec/action").as_str() {
            "" => "ALLOW".into(),
            action => action.to_owned(),
        }],
        _ => Vec::new(),
    };
    cells.insert(0, name(object).to_owned());
    if kind.mesh {
        cells.push(verdict(findings));
    }
    cells.push(age(object));
    cells
}

pub fn heading(kind: &Kind, format: Format) -> Vec<&'static str> {
    let own: &[&str] = match kind.kind {
        "Pod" => return pod_heading(format),
        "Service" if format == Format::Wide => &["TYPE", "CLUSTER-IP", "PORT(S)", "SELECTOR"],
        "Service" => &["TYPE", "CLUSTER-IP", "PORT(S)"],
        "Deployment" => &["READY", "UP-TO-DATE", "AVAILABLE"],
        "ReplicaSet" => &["DESIRED", "CURRENT", "READY"],
        "Namespace" => &["STATUS"],
        "ConfigMap" => &["DATA"],
        "Secret" => &["TYPE", "DATA"],
        "EndpointSlice" => &["ADDRESSTYPE", "PORTS", "ENDPOINTS"],
        "VirtualService" => &["GATEWAYS", "HOSTS"],
        "DestinationRule" => &["HOST"],
        "ServiceEntry" => &["HOSTS", "LOCATION", "RESOLUTION"],
        "PeerAuthentication" => &["MODE"],
        "AuthorizationPolicy" => &["ACTION"],
        _ => &[],
    };
    let findings: &[&str] = if kind.mesh { &["FINDINGS"] } else { &[] };
    [&["NAME"], own, findings, &["AGE"]].concat()
}

/// What pilot thinks of an object: in effect, in effect with remarks, or not taken.
fn verdict(findings: Option<&[&Finding]>) -> String {
    let Some(findings) = findings else {
        return "unknown (pilot does not answer)".into();
    };
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let words: Vec<String> = [(Level::Error, "error"), (Level::Warning, "warning")]
        .into_iter()
        .filter(|(level, _)| count(*level) > 0)
        .map(|(level, word)| match count(level) {
            1 => format!("1 {word}"),
            n => format!("{n} {word}s"),
        })
        .collect();
    if words.is_empty() {
        "none".into()
    } else {
        words.join(", ")
    }
}

pub fn pod_heading(format: Format) -> Vec<&'static str> {
    let mut heading = vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
    if format == Format::Wide {
        heading.extend(["IP", "NODE", "MESSAGE"]);
    }
    heading
}

pub fn pod(object: &Value, format: Format) -> Vec<String> {
    let serving: Vec<&Value> = list(object, "/status/containerStatuses")
        .chain(sidecars(object))
        .collect();
    let total = list(object, "/spec/containers").count() + sidecar_names(object).len();
    let ready = serving
        .iter()
        .filter(|container| container["ready"] == true)
        .count();
    let restarts: u64 = serving
        .iter()
        .map(|container| number(container, "/restartCount"))
        .sum();
    let (status, message) = pod_status(object);
    let mut cells = vec![
        name(object).to_owned(),
        format!("{ready}/{total}"),
        status,
        restarts.to_string(),
        age(object),
    ];
    if format == Format::Wide {
        cells.extend([
            text(object, "/status/podIP"),
            text(object, "/spec/nodeName"),
            message,
        ]);
    }
    cells
}

fn sidecar_names(object: &Value) -> Vec<&str> {
    list(object, "/spec/initContainers")
        .filter(|container| container["restartPolicy"] == "Always")
        .filter_map(|container| container["name"].as_str())
        .collect()
}

fn sidecars(object: &Value) -> Vec<&Value> {
    let names = sidecar_names(object);
    list(object, "/status/initContainerStatuses")
        .filter(|status| status["name"].as_str().is_some_and(|name| names.contains(&name)))
        .collect()
}

/// One word for how a pod is, and the message behind it: kubectl's rules.
pub fn pod_status(object: &Value) -> (String, String) {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return ("Terminating".into(), String::new());
    }
    let reason = text(object, "/status/reason");
    if !reason.is_empty() {
        return (reason, text(object, "/status/message"));
    }
    let names = sidecar_names(object);
    let init: Vec<&Value> = list(object, "/status/initContainerStatuses").collect();
    for (index, container) in init.iter().enumerate() {
        let sidecar = container["name"]
            .as_str()
            .is_some_and(|name| names.contains(&name));
        let done = if sidecar {
            container["started"] == true
        } else {
            number(container, "/state/terminated/exitCode") == 0
                && container["state"]["terminated"].is_object()
        };
        if done {
            continue;
        }
        let (word, message) = container_status(container);
        return match word.as_str() {
            "PodInitializing" | "Running" => (format!("Init:{index}/{}", init.len()), message),
            _ => (format!("Init:{word}"), message),
        };
    }
    for container in list(object, "/status/containerStatuses") {
        let (word, message) = container_status(container);
        if word != "Running" && word != "Completed" {
            return (word, message);
        }
    }
    match text(object, "/status/phase").as_str() {
        "Succeeded" => ("Completed".into(), String::new()),
        phase => (phase.to_owned(), String::new()),
    }
}

fn container_status(container: &Value) -> (String, String) {
    let state = &container["state"];
    if let Some(waiting) = state.get("waiting") {
        let word = match text(waiting, "/reason").as_str() {
            "" => "ContainerCreating".into(),
            reason => reason.to_owned(),
        };
        return (word, text(waiting, "/message"));
    }
    match state.get("terminated") {
        Some(ended) => (
            text(ended, "/reason"),
            format!("exit code {} {}", ended["exitCode"], text(ended, "/message"))
                .trim()
                .to_owned(),
        ),
        None => ("Running".into(), String::new()),
    }
}

fn service(object: &Value, format: Format) -> Vec<String> {
    let port = |port: &Value| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP"));
    let ports: Vec<String> = list(object, "/spec/ports").map(port).collect();
    let address = match text(object, "/spec/clusterIP").as_str() {
        "" => "<none>".into(),
        address => address.to_owned(),
    };
    let mut cells = vec![text(object, "/spec/type"), address, ports.join(",")];
    if format == Format::Wide {
        let selector = object
            .pointer("/spec/selector")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let pairs: Vec<String> = selector
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        cells.push(if pairs.is_empty() {
            "<none>".into()
        } else {
            pairs.join(",")
        });
    }
    cells
}

fn deployment(object: &Value) -> Vec<String> {
    let wanted = object
        .pointer("/spec/replicas")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    vec![
        format!("{}/{wanted}", number(object, "/status/readyReplicas")),
        number(object, "/status/updatedReplicas").to_string(),
        number(object, "/status/availableReplicas").to_string(),
    ]
}

fn slice(object: &Value) -> Vec<String> {
    let ports: Vec<String> = list(object, "/ports")
        .map(|port| port["port"].to_string())
        .collect();
    let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
    let addresses: Vec<&str> = list(object, "/endpoints")
        .filter(ready)
        .filter_map(|endpoint| endpoint["addresses"][0].as_str())
        .collect();
    let none = |text: String| {
        if text.is_empty() {
            "<none>".to_owned()
        } else {
            text
        }
    };
    vec![
        text(object, "/addressType"),
        none(ports.join(",")),
        none(addresses.join(",")),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_has_as_many_cells_as_headings() {
        for kind in crate::local::object::KINDS {
            for format in [Format::Table, Format::Wide] {
                let cells = cells(kind, &json!({"metadata": {"name": "x"}}), format, Some(&[]));
                assert_eq!(cells.len(), heading(kind, format).len(), "{}", kind.kind);
            }
        }
    }

    #[test]
    fn words_for_pods() {
        let check = |status: Value, expect: &str| {
            let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "p", "restartPolicy": "Always"}]});
            let pod = json!({"metadata": {"name": "x"}, "spec": spec, "status": status});
            assert_eq!(pod_status(&pod).0, expect, "{pod}");
        };
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let proxy = |started: bool| json!({"name": "p", "state": {"running": {}}, "started": started, "ready": started});
        let main = |state: Value| json!([{"name": "a", "state": state}]);
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        check(
            json!({"initContainerStatuses": [{"name": "i", "state": waiting("PodInitializing")}]}),
            "Init:0/1",
        );
        check(
            json!({"initContainerStatuses": [{"name": "i", "state": waiting("CrashLoopBackOff")}]}),
            "Init:CrashLoopBackOff",
        );
        check(json!({"initContainerStatuses": [done, proxy(false)]}), "Init:1/2");
        check(
            json!({"initContainerStatuses": [done, proxy(true)], "containerStatuses": main(waiting("ImageNotFound"))}),
            "ImageNotFound",
        );
        check(
            json!({"initContainerStatuses": [done, proxy(true)], "containerStatuses": main(json!({"running": {}})), "phase": "Running"}),
            "Running",
        );
        check(
            json!({"containerStatuses": main(json!({"terminated": {"exitCode": 0, "reason": "Completed"}})), "phase": "Succeeded"}),
            "Completed",
        );
        check(
            json!({"containerStatuses": main(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), "phase": "Failed"}),
            "Error",
        );
    }

    #[test]
    fn findings_in_a_word() {
        let finding = |level: Level| {
            let object = mesh_proto::finding::ObjectRef::new("VirtualService", "default", "x");
            Finding::new(mesh_proto::finding::CODES[0], object, "", "").level(level)
        };
        let (error, warning) = (finding(Level::Error), finding(Level::Warning));
        assert_eq!(verdict(Some(&[])), "none");
        assert_eq!(
            verdict(Some(&[&error, &warning, &warning])),
            "1 error, 2 warnings"
        );
        assert!(verdict(None).starts_with("unknown"));
    }
}
