//! The status of a pod, composed from what its containers are doing, in the words of Kubernetes. Pure.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::local::{netns, platform::NODE_ADDRESS};

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, runs as long as the pod.
    Sidecar,
    Main,
}

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub reason: String,
    pub message: String,
    pub started: String,
    pub finished: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Waiting { reason: String, message: String },
    Running { since: String },
    Ended(Ended),
}

/// One container as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub role: Role,
    pub state: State,
    pub last: Option<Ended>,
    pub restarts: u32,
    /// Its startup probe passed.
    pub started: bool,
    pub ready: bool,
    pub pid: Option<i32>,
}

impl Container {
    pub fn new(name: &str, image: &str, role: Role) -> Self {
        Self {
            name: name.into(),
            image: image.into(),
            role,
            state: State::Waiting {
                reason: "PodInitializing".into(),
                message: String::new(),
            },
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            pid: None,
        }
    }

    fn done(&self) -> bool {
        matches!(&self.state, State::Ended(ended) if ended.code == 0)
    }
}

/// The whole pod as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub address: Option<Ipv4Addr>,
    pub started: String,
    pub containers: Vec<Container>,
    /// It ran to its end: did every container succeed?
    pub finished: Option<bool>,
    /// Why it cannot even begin.
    pub trouble: Option<(String, String)>,
}

impl Standing {
    pub fn initialized(&self) -> bool {
        self.containers.iter().all(|container| match container.role {
            Role::Init => container.done(),
            Role::Sidecar => container.started,
            Role::Main => true,
        })
    }

    pub fn ready(&self) -> bool {
        let serving = |container: &&Container| container.role != Role::Init;
        self.finished.is_none()
            && self.initialized()
            && self.containers.iter().filter(serving).all(|c| c.ready)
    }

    fn phase(&self) -> &'static str {
        let begun = |container: &Container| {
            !matches!(container.state, State::Waiting { .. }) || container.last.is_some()
        };
        match self.finished {
            Some(true) => "Succeeded",
            Some(false) => "Failed",
            None if self.containers.iter().filter(|c| c.role == Role::Main).all(begun) => "Running",
            None => "Pending",
        }
    }
}

/// The status object. `before` is the status so far: conditions keep the time of their last change.
pub fn compose(standing: &Standing, before: &Value, now: &str) -> Value {
    let condition = |kind: &str, holds: bool, trouble: Option<(&str, &str)>| {
        let status = if holds { "True" } else { "False" };
        let old = before["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|old| old["type"] == kind);
        let since = match old {
            Some(old) if old["status"] == status => old["lastTransitionTime"].clone(),
            _ => now.into(),
        };
        let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since});
        if let Some((reason, message)) = trouble.filter(|_| !holds) {
            condition["reason"] = reason.into();
            condition["message"] = message.into();
        }
        condition
    };
    let not_ready: Vec<&str> = standing
        .containers
        .iter()
        .filter(|container| container.role != Role::Init && !container.ready)
        .map(|container| container.name.as_str())
        .collect();
    let message = format!("containers with unready status: [{}]", not_ready.join(" "));
    let unready = Some(("ContainersNotReady", message.as_str()));
    let (ready, initialized) = (standing.ready(), standing.initialized());
    let trouble = standing
        .trouble
        .as_ref()
        .map(|(reason, message)| (reason.as_str(), message.as_str()));
    let mut status = json!({
        "phase": standing.phase(),
        "hostIP": NODE_ADDRESS,
        "startTime": standing.started,
        "conditions": [
            condition("PodScheduled", true, None),
            condition("Initialized", initialized, trouble.or(Some(("ContainersNotInitialized", "")))),
            condition("ContainersReady", ready, unready),
            condition("Ready", ready, unready),
        ],
        "containerStatuses": list(standing, |role| role == Role::Main),
    });
    let init = list(standing, |role| role != Role::Main);
    if !init.is_empty() {
        status["initContainerStatuses"] = init.into();
    }
    if let Some(address) = standing.address {
        status["podIP"] = address.to_string().into();
        status["podIPs"] = json!([{"ip": address}, {"ip": netns::address_v6(address)}]);
    }
    if let Some((reason, message)) = trouble {
        status["reason"] = reason.into();
        status["message"] = message.into();
    }
    status
}

fn list(standing: &Standing, wanted: impl Fn(Role) -> bool) -> Vec<Value> {
    standing
        .containers
        .iter()
        .filter(|container| wanted(container.role))
        .map(one)
        .collect()
}

fn one(container: &Container) -> Value {
    let last = container
        .last
        .as_ref()
        .map_or_else(|| json!({}), |ended| json!({"terminated": terminated(ended)}));
    json!({
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "ready": container.ready || (container.role == Role::Init && container.done()),
        "started": container.started,
        "restartCount": container.restarts,
        "state": match &container.state {
            State::Waiting { reason, message } if message.is_empty() => json!({"waiting": {"reason": reason}}),
            State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
            State::Running { since } => json!({"running": {"startedAt": since}}),
            State::Ended(ended) => json!({"terminated": terminated(ended)}),
        },
        "lastState": last,
    })
}

fn terminated(ended: &Ended) -> Value {
    json!({
        "exitCode": ended.code,
        "reason": ended.reason,
        "message": ended.message,
        "startedAt": ended.started,
        "finishedAt": ended.finished,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(name: &str, role: Role, ready: bool) -> Container {
        let state = State::Running { since: "t".into() };
        Container {
            state,
            started: true,
            ready,
            pid: Some(1),
            ..Container::new(name, "i", role)
        }
    }

    fn ended(name: &str, role: Role, code: i32) -> Container {
        let ended = Ended {
            code,
            reason: "x".into(),
            message: String::new(),
            started: "t".into(),
            finished: "t".into(),
        };
        Container {
            state: State::Ended(ended),
            ..Container::new(name, "i", role)
        }
    }

    fn check(containers: Vec<Container>, finished: Option<bool>, phase: &str, ready: bool) {
        let standing = Standing {
            containers,
            finished,
            ..Standing::default()
        };
        let status = compose(&standing, &Value::Null, "now");
        assert_eq!(
            (status["phase"].as_str(), standing.ready()),
            (Some(phase), ready),
            "{status}"
        );
    }

    #[test]
    fn phases() {
        check(vec![Container::new("a", "i", Role::Main)], None, "Pending", false);
        check(vec![running("a", Role::Main, false)], None, "Running", false);
        check(vec![running("a", Role::Main, true)], None, "Running", true);
        check(
            vec![ended("i", Role::Init, 0), running("a", Role::Main, true)],
            None,
            "Running",
            true,
        );
        check(
            vec![ended("i", Role::Init, 1), Container::new("a", "i", Role::Main)],
            None,
            "Pending",
            false,
        );
        check(
            vec![running("p", Role::Sidecar, false), running("a", Role::Main, true)],
            None,
            "Running",
            false,
        );
        check(vec![ended("a", Role::Main, 0)], Some(true), "Succeeded", false);
        check(vec![ended("a", Role::Main, 1)], Some(false), "Failed", false);
    }

    #[test]
    fn conditions_keep_their_time() {
        let standing = Standing {
            containers: vec![running("a", Role::Main, true)],
            ..Standing::default()
        };
        let first = compose(&standing, &Value::Null, "1");
        let second = compose(&standing, &first, "2");
        assert_eq!(first, second);
        let mut worse = standing;
        worse.containers[0].ready = false;
        let third = compose(&worse, &second, "3");
        assert_eq!(third["conditions"][3]["lastTransitionTime"], "3");
        assert_eq!(third["conditions"][1]["lastTransitionTime"], "1");
        assert_eq!(
            third["conditions"][3]["message"],
            "containers with unready status: [a]"
        );
    }
}
