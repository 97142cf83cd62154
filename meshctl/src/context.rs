//! Which mesh a command speaks to, and how it finds pods in it. There is one local mesh for each state folder; without
//! `--dir` (or `GOSSAMER_DIR`) it is the machine's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::local::{
    client::Client,
    control::Selection,
    object,
    platform::{DEFAULT_DIR, Layout},
};

/// A way to the mesh.
#[derive(Clone, Debug)]
pub struct Context {
    pub client: Client,
}

impl Context {
    pub fn find(dir: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(layout(dir)?),
        })
    }

    pub async fn objects(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<Vec<Value>> {
        let selection = Selection {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Selection::default()
        };
        self.client.objects(&selection).await
    }

    /// A pod by what people write: its name, `name.namespace`, `namespace/name`, `deployment/name`, or the beginning of
    /// its name when only one pod has it.
    pub async fn pod(&self, written: &str, namespace: &str) -> anyhow::Result<Value> {
        let all = self.objects("pod", "", "").await?;
        pick(all, written, namespace)
    }

    /// The network namespace of a pod.
    pub fn network(&self, pod: &Value) -> String {
        let text = |field| object::text(pod, field);
        self.client.layout.pod_namespace(
            text("/metadata/namespace"),
            text("/metadata/name"),
            text("/metadata/uid"),
        )
    }

    /// The running pods of the control plane's part, such as `pilot`.
    pub async fn parts(&self, app: &str) -> anyhow::Result<Vec<Value>> {
        let mut pods = self
            .objects("pod", mesh_proto::names::SYSTEM_NAMESPACE, "")
            .await?;
        pods.retain(|pod| pod["metadata"]["labels"]["app"] == app && pod["status"]["phase"] == "Running");
        if pods.is_empty() {
            bail!("no pod of {app} is running in this mesh; see `meshctl local get pods -A`");
        }
        Ok(pods)
    }
}

pub fn layout(dir: Option<&Path>) -> anyhow::Result<Layout> {
    let dir = dir.map_or_else(|| PathBuf::from(DEFAULT_DIR), Path::to_owned);
    Layout::new(&dir).with_context(|| format!("{} is no folder's name", dir.display()))
}

fn pick(all: Vec<Value>, written: &str, namespace: &str) -> anyhow::Result<Value> {
    let (name, namespace, of) = match written.split_once('/') {
        Some((kind, name)) if ["deployment", "deploy", "deployments"].contains(&kind) => {
            (name, namespace, true)
        }
        Some(("pod" | "pods" | "po", name)) => (name, namespace, false),
        Some((namespace, name)) => (name, namespace, false),
        None => (written, namespace, false),
    };
    let is = |pod: &Value, name: &str, namespace: &str| {
        object::text(pod, "/metadata/name") == name && object::text(pod, "/metadata/namespace") == namespace
    };
    let exact = |pod: &&Value| {
        !of && (is(pod, name, namespace) || name.rsplit_once('.').is_some_and(|(name, ns)| is(pod, name, ns)))
    };
    if let Some(pod) = all.iter().find(exact) {
        return Ok(pod.clone());
    }
    // `reviews-v1` or `reviews-v1.default`: a pod of it will do, if there is no choice to make.
    let begins = |pod: &Value, name: &str, namespace: &str| {
        object::text(pod, "/metadata/namespace") == namespace
            && object::text(pod, "/metadata/name")
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('-'))
            && object::text(pod, "/metadata/deletionTimestamp").is_empty()
    };
    let (dotted, dotted_namespace) = name.rsplit_once('.').unwrap_or((name, namespace));
    let near: Vec<&Value> = all
        .iter()
        .filter(|pod| begins(pod, name, namespace) || begins(pod, dotted, dotted_namespace))
        .collect();
    let names: Vec<&str> = near
        .iter()
        .map(|pod| object::text(pod, "/metadata/name"))
        .collect();
    match near[..] {
        [] => bail!("pod {written:?} is not in namespace {namespace}; see `meshctl local get pods -A`"),
        [pod] => Ok(pod.clone()),
        [pod, ..] if of => Ok(pod.clone()),
        _ => bail!(
            "{written:?} could be any of {}; write one of them",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_by_what_people_write() {
        let pod = |namespace: &str, name: &str| json!({"metadata": {"name": name, "namespace": namespace}});
        let all = || {
            vec![
                pod("default", "reviews-v1-abc-12345"),
                pod("default", "reviews-v2-abc-12345"),
                pod("other", "redis"),
            ]
        };
        let check = |written: &str, expect: Option<&str>| {
            let got = pick(all(), written, "default").ok();
            assert_eq!(
                got.as_ref().map(|pod| object::text(pod, "/metadata/name")),
                expect,
                "{written}"
            );
        };
        check("reviews-v1-abc-12345", Some("reviews-v1-abc-12345"));
        check("reviews-v1-abc-12345.default", Some("reviews-v1-abc-12345"));
        check("reviews-v2", Some("reviews-v2-abc-12345"));
        check("reviews-v2.default", Some("reviews-v2-abc-12345"));
        check("deployment/reviews-v2", Some("reviews-v2-abc-12345"));
        check("other/redis", Some("redis"));
        check("redis.other", Some("redis"));
        check("reviews", None);
        check("redis", None);
    }
}
