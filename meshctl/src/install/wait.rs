//! Waiting until what was applied works, for a bounded time; and why it does not: of each Deployment the pods that are not
//! ready, with what Kubernetes says about them (image, scheduling, volumes, crashes, probes).

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, LogParams},
};
use serde_json::Value;
use tokio::time::Instant;

use super::{apply, kind::Key};
use crate::{kube_cluster::explain, local::object::text};

const ASK: Duration = Duration::from_millis(300);
/// Pods and events that are told of.
const MAX_TOLD: usize = 5;
/// Of a pod's log, when it is asked why it is not ready.
const LOG_LINES: i64 = 50;

/// Waits for all; an error says what is missing and why.
pub async fn ready(client: &Client, objects: &[&Value], deadline: Instant) -> anyhow::Result<()> {
    let mut left: Vec<Key> = objects
        .iter()
        .map(|object| Key::of(object))
        .filter(is_waited_for)
        .collect();
    loop {
        let mut still = Vec::new();
        let mut reasons = Vec::new();
        for key in left {
            let live = apply::get(client, &key).await?;
            if let Some(reason) = live
                .as_ref()
                .map_or_else(|| Some("it is gone".to_owned()), unready)
            {
                reasons.push(format!("{key}: {reason}"));
                still.push((key, live));
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            for (key, live) in still
                .iter()
                .filter(|(key, _)| key.kind != "CustomResourceDefinition")
            {
                reasons.extend(pods(client, key, live.as_ref()).await);
            }
            anyhow::bail!("not ready in time:\n  {}", reasons.join("\n  "));
        }
        left = still.into_iter().map(|(key, _)| key).collect();
        tokio::time::sleep(ASK).await;
    }
}

fn is_waited_for(key: &Key) -> bool {
    [
        "CustomResourceDefinition",
        "Deployment",
        "DaemonSet",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ]
    .contains(&key.kind.as_str())
}

/// Why an object does not work yet.
pub fn unready(object: &DynamicObject) -> Option<String> {
    let count = |path: &str| object.data.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let kind = object.types.as_ref().map_or("", |types| types.kind.as_str());
    let observed = count("/status/observedGeneration") >= object.metadata.generation.unwrap_or(0);
    let short =
        |have: i64, want: i64, what: &str| (have < want).then(|| format!("{have} of {want} pods are {what}"));
    match kind {
        "Deployment" => {
            let want = object
                .data
                .pointer("/spec/replicas")
                .and_then(Value::as_i64)
                .unwrap_or(1);
            let updated = count("/status/updatedReplicas");
            (!observed)
                .then(|| "not looked at yet".to_owned())
                .or_else(|| short(updated, want, "of the new version"))
                .or_else(|| short(count("/status/availableReplicas"), want, "ready"))
                .or_else(|| {
                    let old = count("/status/replicas") - updated;
                    (old > 0).then(|| format!("{old} pods of the old version are still there"))
                })
        }
        "DaemonSet" => {
            let want = count("/status/desiredNumberScheduled");
            (!observed)
                .then(|| "not looked at yet".to_owned())
                .or_else(|| {
                    short(
                        count("/status/updatedNumberScheduled"),
                        want,
                        "of the new version",
                    )
                })
                .or_else(|| short(count("/status/numberAvailable"), want, "ready"))
        }
        "CustomResourceDefinition" => {
            let conditions = object
                .data
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            let established = conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
            (!established).then(|| "not served yet".to_owned())
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            let hooks = object.data["webhooks"].as_array();
            let bare = hooks
                .into_iter()
                .flatten()
                .filter(|hook| text(hook, "/clientConfig/caBundle").is_empty())
                .count();
            (bare > 0).then(|| format!("{bare} of its webhooks have no caBundle from pilot yet"))
        }
        _ => None,
    }
}

/// What Kubernetes says about the pods of a Deployment or DaemonSet that are not ready. Best effort: it explains an error
/// that there is already.
pub async fn pods(client: &Client, key: &Key, live: Option<&DynamicObject>) -> Vec<String> {
    let labels = live.and_then(|live| live.data.pointer("/spec/selector/matchLabels")?.as_object());
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    if selector.is_empty() {
        return Vec::new();
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let pods = match api
        .list(&ListParams::default().labels(&selector.join(",")).limit(50))
        .await
    {
        Ok(pods) => pods.items,
        Err(error) => return vec![explain(&error, "listing its pods").to_string()],
    };
    let mut told = Vec::new();
    for pod in pods.iter().filter(|pod| !is_ready(pod)).take(MAX_TOLD) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let mut reasons = troubles(pod);
        if reasons.is_empty() {
            reasons = events(client, &key.namespace, "Pod", name).await;
        }
        if reasons.is_empty() {
            reasons.push("its containers run, and its readiness probe does not succeed".to_owned());
        }
        reasons.extend(complaint(&api, name).await);
        told.extend(reasons.into_iter().map(|reason| format!("pod {name}: {reason}")));
        told.push(format!(
            "see: kubectl -n {0} describe pod {name}; kubectl -n {0} logs {name} --all-containers",
            key.namespace
        ));
    }
    if pods.is_empty() {
        let own = key.name.as_str();
        told.extend(events(client, &key.namespace, "ReplicaSet", own).await);
        told.extend(events(client, &key.namespace, &key.kind, own).await);
    }
    told
}

/// The last thing that a pod which runs complains of itself.
async fn complaint(api: &Api<Pod>, name: &str) -> Option<String> {
    let parameters = LogParams {
        tail_lines: Some(LOG_LINES),
        ..LogParams::default()
    };
    let text = api.logs(name, &parameters).await.ok()?;
    let bad = |line: &&str| [" ERROR ", " WARN "].iter().any(|word| line.contains(word));
    text.lines()
        .rev()
        .find(bad)
        .map(|line| format!("it says: {line}"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// From the pod's own status: where it waits, and how its containers ended.
fn troubles(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .filter_map(|condition| condition.message.clone());
    let containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    unscheduled
        .chain(containers.filter_map(trouble))
        .take(MAX_TOLD)
        .collect()
}

fn trouble(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let ended = container
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref())
        .or(state.terminated.as_ref())
        .filter(|ended| ended.exit_code != 0);
    if let Some(ended) = ended {
        let message = ended.message.as_deref().unwrap_or_default().trim();
        let reason = ended.reason.as_deref().unwrap_or("ended");
        return Some(format!(
            "container {} ended with code {} ({reason}) and was restarted {} times {message}",
            container.name, ended.exit_code, container.restart_count
        ));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    // These say only that it begins; events may know why it does not go on.
    if ["", "ContainerCreating", "PodInitializing"].contains(&reason) {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    Some(format!("container {} waits: {reason} {message}", container.name))
}

/// Warnings about one object, newest first. A ReplicaSet is meant by the beginning of its name.
async fn events(client: &Client, namespace: &str, kind: &str, name: &str) -> Vec<String> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let fields = format!("involvedObject.kind={kind},type=Warning");
    let mut events = match api.list(&ListParams::default().fields(&fields).limit(200)).await {
        Ok(events) => events.items,
        Err(_) => return Vec::new(),
    };
    events.retain(|event| {
        let of = event.involved_object.name.as_deref().unwrap_or_default();
        of == name
            || (kind == "ReplicaSet" && of.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
    });
    events.sort_by_key(|event| std::cmp::Reverse(event.last_timestamp.clone()));
    let told = events.iter().map(|event| {
        let reason = event.reason.as_deref().unwrap_or_default();
        format!("{reason}: {}", event.message.as_deref().unwrap_or_default())
    });
    let mut lines: Vec<String> = told.collect();
    lines.dedup();
    lines.truncate(2);
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(object: Value, expect: Option<&str>) {
        let live: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(unready(&live).as_deref(), expect, "{object}");
    }

    #[test]
    fn what_is_ready() {
        let deployment = |status: Value| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "generation": 2},
                "spec": {"replicas": 2}, "status": status})
        };
        check(
            deployment(json!({"observedGeneration": 1})),
            Some("not looked at yet"),
        );
        check(
            deployment(json!({"observedGeneration": 2, "updatedReplicas": 1})),
            Some("1 of 2 pods are of the new version"),
        );
        check(
            deployment(
                json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 1, "replicas": 3}),
            ),
            Some("1 of 2 pods are ready"),
        );
        check(
            deployment(
                json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 3, "replicas": 3}),
            ),
            Some("1 pods of the old version are still there"),
        );
        check(
            deployment(
                json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}),
            ),
            None,
        );
        let hooks = |bundle: &str| {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": "x"}, "webhooks": [{"clientConfig": {"caBundle": bundle}}]})
        };
        check(
            hooks(""),
            Some("1 of its webhooks have no caBundle from pilot yet"),
        );
        check(hooks("QQ=="), None);
    }

    #[test]
    fn pods_say_why() {
        let pod = |container: Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {
                "containerStatuses": [container]}}))
            .unwrap()
        };
        let of = |state: Value| json!({"name": "pilot", "image": "i", "imageID": "", "ready": false, "restartCount": 3, "state": state});
        let told = troubles(&pod(of(
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
        )));
        assert_eq!(told, ["container pilot waits: ImagePullBackOff no such image"]);
        assert!(troubles(&pod(of(json!({"waiting": {"reason": "ContainerCreating"}})))).is_empty());
        let mut ended = of(json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        ended["lastState"] = json!({"terminated": {"exitCode": 2, "reason": "Error"}});
        assert!(troubles(&pod(ended))[0].starts_with("container pilot ended with code 2 (Error)"));
    }
}
