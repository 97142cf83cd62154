//! Which mesh a command speaks to, and how it finds objects and pods in it. Two kinds of mesh look the same from here: the
//! one on this machine ([`Context`], one for each state folder) and one on Kubernetes.
//!
//! Which one is meant: `--dir` (or `GOSSAMER_DIR`) names a local mesh; `--kubeconfig`, `--context` or `KUBECONFIG` name a
//! cluster; without any of these it is the local mesh if one is running, else the cluster of `~/.kube/config` or of the pod
//! that this runs in.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_proto::{kube::Kind, names};
use serde_json::Value;

use crate::{
    kube_cluster::{self, KubeCluster},
    local::{
        client::Client,
        control::Selection,
        node, object,
        platform::{DEFAULT_DIR, Layout},
    },
    reach::Way,
};

mod cluster;

const DEFAULT_NAMESPACE: &str = "default";

/// The flags that say which mesh is meant, and where in it.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// State folder of the local mesh [default: /var/lib/gossamer]
    #[arg(long, global = true, env = "GOSSAMER_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Kubeconfig of the cluster [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(short = 'c', long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace of what is named without one
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Namespace of the control plane
    #[arg(
        short = 'i',
        long = "istioNamespace",
        visible_alias = "istio-namespace",
        global = true,
        value_name = "NAMESPACE",
        default_value = names::SYSTEM_NAMESPACE
    )]
    pub istio_namespace: String,
}

impl Target {
    /// The cluster that is meant, local meshes aside.
    pub async fn cluster(&self) -> anyhow::Result<KubeCluster> {
        kube_cluster::connect(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }

    /// Is a cluster meant, and not a local mesh?
    fn means_cluster(&self) -> bool {
        let variable = || std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
        if self.kubeconfig.is_some() || self.context.is_some() {
            return true;
        }
        if self.dir.is_some() {
            return false;
        }
        variable() || (!self.local_runs() && kube_cluster::is_configured(None))
    }

    fn local_runs(&self) -> bool {
        layout(self.dir.as_deref()).is_ok_and(|layout| node::is_running(&layout))
    }

    /// Is any mesh named, or running?
    pub fn is_known(&self) -> bool {
        self.means_cluster() || self.dir.is_some() || self.local_runs()
    }
}

/// A mesh of either kind.
#[derive(Clone, Debug)]
pub struct Mesh {
    place: Place,
    /// Of what is named without one.
    pub namespace: String,
    /// Of the control plane.
    pub system: String,
}

#[derive(Clone, Debug)]
enum Place {
    Local(Context),
    Kubernetes(Box<KubeCluster>),
}

impl Mesh {
    pub async fn find(target: &Target) -> anyhow::Result<Self> {
        let (place, namespace) = if target.means_cluster() {
            let cluster = target.cluster().await?;
            let namespace = cluster.namespace.clone();
            (Place::Kubernetes(Box::new(cluster)), namespace)
        } else {
            if !target.is_known() {
                bail!(
                    "no mesh is known: no local mesh is running in {DEFAULT_DIR} (`meshctl local up` starts one, --dir \
                     names another folder), and neither --kubeconfig nor $KUBECONFIG nor ~/.kube/config names a cluster"
                );
            }
            (
                Place::Local(Context::find(target.dir.as_deref())?),
                DEFAULT_NAMESPACE.to_owned(),
            )
        };
        Ok(Self {
            place,
            namespace: target.namespace.clone().unwrap_or(namespace),
            system: target.istio_namespace.clone(),
        })
    }

    /// The local mesh, if it is one.
    pub fn local(&self) -> Option<&Context> {
        match &self.place {
            Place::Local(context) => Some(context),
            Place::Kubernetes(_) => None,
        }
    }

    pub fn cluster(&self) -> Option<&KubeCluster> {
        match &self.place {
            Place::Local(_) => None,
            Place::Kubernetes(cluster) => Some(cluster),
        }
    }

    /// Objects of a kind; an empty namespace or name means all of them. A kind that the mesh's platform does not have is
    /// none, not an error.
    pub async fn objects(&self, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<Vec<Value>> {
        match &self.place {
            Place::Kubernetes(cluster) => cluster::list(&cluster.client, kind, namespace, name).await,
            Place::Local(context) => {
                let word = match kind.group() {
                    "" => kind.lower(),
                    group => format!("{}.{group}", kind.lower()),
                };
                match object::Kind::by_word(&word) {
                    Some(_) => context.objects(&word, namespace, name).await,
                    None => Ok(Vec::new()),
                }
            }
        }
    }

    /// A pod by what people write: its name, `name.namespace`, `namespace/name`, `deployment/name`, or the beginning of
    /// its name when only one pod has it.
    pub async fn pod(&self, written: &str) -> anyhow::Result<Value> {
        let mut pods = Vec::new();
        match &self.place {
            Place::Local(_) => pods = self.objects(Kind::Pod, "", "").await?,
            // A cluster may have many pods: only those of namespaces that can be meant are asked for.
            Place::Kubernetes(_) => {
                for namespace in namespaces_of(written, &self.namespace) {
                    pods.extend(self.objects(Kind::Pod, namespace, "").await?);
                }
            }
        }
        pick(pods, written, &self.namespace).with_context(|| format!("in {self}"))
    }

    /// The running pods of a part of the control plane, such as `pilot`.
    pub async fn parts(&self, app: &str) -> anyhow::Result<Vec<Value>> {
        let mut pods = self.objects(Kind::Pod, &self.system, "").await?;
        pods.retain(|pod| is_part(pod, app));
        if pods.is_empty() {
            bail!(
                "no pod of {app} is running in namespace {} of {self}; is the mesh installed (`meshctl install`, or `meshctl \
                 local up` on this machine)?",
                self.system
            );
        }
        Ok(pods)
    }

    /// The way to the ports of a pod.
    pub fn way(&self, pod: &Value) -> Way {
        match &self.place {
            Place::Local(context) => Way::Network(context.network(pod)),
            Place::Kubernetes(cluster) => Way::forward(
                cluster.client.clone(),
                object::text(pod, "/metadata/namespace"),
                object::text(pod, "/metadata/name"),
            ),
        }
    }

    /// The last lines that a container wrote.
    pub async fn logs(&self, pod: &Value, container: &str, lines: usize) -> anyhow::Result<String> {
        match &self.place {
            Place::Local(context) => context.logs(pod, container, lines),
            Place::Kubernetes(cluster) => cluster::logs(&cluster.client, pod, container, lines).await,
        }
    }
}

/// `the local mesh in /var/lib/gossamer`, `https://10.0.0.1:6443 (context admin)`
impl std::fmt::Display for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Local(context) => write!(f, "the local mesh in {}", context.client.layout.dir.display()),
            Place::Kubernetes(cluster) => cluster.fmt(f),
        }
    }
}

/// A way to the mesh on this machine.
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

    /// As [`Mesh::pod`].
    pub async fn pod(&self, written: &str, namespace: &str) -> anyhow::Result<Value> {
        let all = self.objects("pod", "", "").await?;
        pick(all, written, namespace).context("see `meshctl local get pods -A`")
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

    /// As [`Mesh::parts`].
    pub async fn parts(&self, app: &str) -> anyhow::Result<Vec<Value>> {
        let mut pods = self.objects("pod", names::SYSTEM_NAMESPACE, "").await?;
        pods.retain(|pod| is_part(pod, app));
        if pods.is_empty() {
            bail!("no pod of {app} is running in this mesh; see `meshctl local get pods -A`");
        }
        Ok(pods)
    }

    fn logs(&self, pod: &Value, container: &str, lines: usize) -> anyhow::Result<String> {
        let text = |field| object::text(pod, field);
        let folder = self
            .client
            .layout
            .pod(text("/metadata/namespace"), text("/metadata/name"));
        let path = crate::local::pod::log::path(&folder, container);
        let written = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let written = String::from_utf8_lossy(&written);
        let skip = written.lines().count().saturating_sub(lines);
        Ok(written
            .lines()
            .skip(skip)
            .map(|line| format!("{line}\n"))
            .collect())
    }
}

fn is_part(pod: &Value, app: &str) -> bool {
    pod["metadata"]["labels"]["app"] == app
        && pod["status"]["phase"] == "Running"
        && pod["metadata"]["deletionTimestamp"].is_null()
}

pub fn layout(dir: Option<&Path>) -> anyhow::Result<Layout> {
    let dir = dir.map_or_else(|| PathBuf::from(DEFAULT_DIR), Path::to_owned);
    Layout::new(&dir).with_context(|| format!("{} is no folder's name", dir.display()))
}

/// Kinds before a `/` that stand for pods of a workload.
const OWNERS: [&str; 9] = [
    "deployment",
    "deployments",
    "deploy",
    "statefulset",
    "statefulsets",
    "sts",
    "daemonset",
    "daemonsets",
    "ds",
];

/// Namespaces that can be meant by what people write for a pod.
fn namespaces_of<'a>(written: &'a str, namespace: &'a str) -> Vec<&'a str> {
    let mut all = vec![namespace];
    match written.split_once('/') {
        Some((kind, name)) if OWNERS.contains(&kind) || ["pod", "pods", "po"].contains(&kind) => {
            all.extend(name.rsplit_once('.').map(|(_, namespace)| namespace));
        }
        Some((namespace, _)) => all = vec![namespace],
        None => all.extend(written.rsplit_once('.').map(|(_, namespace)| namespace)),
    }
    all.dedup();
    all
}

fn pick(all: Vec<Value>, written: &str, namespace: &str) -> anyhow::Result<Value> {
    let (name, namespace, of) = match written.split_once('/') {
        Some((kind, name)) if OWNERS.contains(&kind) => (name, namespace, true),
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
        [] => bail!("there is no pod {written:?} in namespace {namespace}; name another namespace with -n"),
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
        check("deploy/reviews-v2.default", Some("reviews-v2-abc-12345"));
        check("other/redis", Some("redis"));
        check("redis.other", Some("redis"));
        check("reviews", None);
        check("redis", None);
    }

    #[test]
    fn namespaces_that_can_be_meant() {
        for (written, expect) in [
            ("a", &["default"][..]),
            ("a.other", &["default", "other"]),
            ("other/a", &["other"]),
            ("deploy/a", &["default"]),
            ("deploy/a.other", &["default", "other"]),
        ] {
            assert_eq!(namespaces_of(written, "default"), expect, "{written}");
        }
    }
}
