//! The mesh on a real Kubernetes for the tests: a cluster, `meshctl install`, Bookinfo by `kubectl apply`, and the test
//! application; and what tests do there. It knows the mesh only as its users do: `kubectl`, `meshctl`, and pages.
//!
//! The cluster is the one that the environment's `KUBECONFIG` names, if it names one; then the images of `make images` must be
//! there already, and what halts a part of Kubernetes fails and says so, unless it is one of `mesh-cluster`. Else it is made for
//! the tests, in `target/e2e/kubernetes`, and taken down at the end. Nothing of the mesh may be there before, and nothing is
//! afterwards.

mod listing;

use crate::{
    cluster::{Cluster, Forward, Options, image},
    mesh::{self, APP, READY, is_ready, path, read},
    need,
    process::{Background, Outcome, command, eventually, last, run},
    run::Fixture,
    settle::{Object, objects},
    site::Site,
};
use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

pub use listing::Listing;

/// No single command takes longer, unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(240);
pub const SYSTEM: &str = mesh_proto::names::SYSTEM_NAMESPACE;
pub const GATEWAY: &str = "istio-ingressgateway";
/// The label of namespaces that tests make, and by which they go.
pub const MADE: (&str, &str) = ("e2e.gossamer.dev/made", "true");
/// Kinds that tests apply, and that a reset takes away.
const RULES: &str = "virtualservices,destinationrules,gateways.networking.istio.io,serviceentries,sidecars,\
    peerauthentications,requestauthentications,authorizationpolicies,telemetries";

pub struct Installed {
    /// Where it runs, if it is one of ours.
    cluster: Option<Cluster>,
    /// Was it made for the tests?
    made: bool,
    kubeconfig: PathBuf,
    programs: PathBuf,
    meshctl: PathBuf,
    way_in: Option<WayIn>,
    runtime: tokio::runtime::Runtime,
    /// What was in the cluster before the mesh.
    pub before: Listing,
    stopped: bool,
}

struct WayIn {
    address: SocketAddr,
    _open: Open,
}

/// What keeps the way open.
enum Open {
    Relay { _relay: Forward },
    Forward { _kubectl: Background },
}

impl Installed {
    /// A cluster, and nothing of the mesh in it.
    pub fn empty() -> anyhow::Result<Self> {
        let folder = folder()?;
        let named = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty());
        let made = named.is_none();
        let (cluster, kubeconfig) = match named {
            Some(path) => {
                let path = PathBuf::from(path);
                let dir = path.parent().context("KUBECONFIG lies in no folder")?;
                (Cluster::open(dir).ok(), path)
            }
            None => {
                let cluster = own(&folder)?;
                let kubeconfig = cluster.kubeconfig();
                (Some(cluster), kubeconfig)
            }
        };
        let mut mesh = Self {
            cluster,
            made,
            kubeconfig,
            programs: need::kubernetes()?,
            meshctl: need::binary("meshctl")?,
            way_in: None,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?,
            before: Listing::default(),
            stopped: false,
        };
        mesh.before = Listing::take(&mesh)?;
        let ours = mesh.before.of_the_mesh();
        ensure!(
            ours.is_empty(),
            "a mesh, or a part of one, is in the cluster already ({}); `meshctl uninstall --purge` takes it out",
            ours.join(", ")
        );
        Ok(mesh)
    }

    /// The cluster as a machine, for tests that halt a part of it.
    pub fn machines(&self) -> anyhow::Result<&Cluster> {
        self.cluster.as_ref().context(
            "this test works on the machines themselves, which it can only do in a cluster of `mesh-cluster`: unset KUBECONFIG",
        )
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The node names.
    pub fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = self.list("nodes", None)?;
        Ok(nodes.iter().map(|node| text(&node["metadata"]["name"])).collect())
    }

    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut line = command(self.programs.join("kubectl"), arguments);
        line.env("KUBECONFIG", &self.kubeconfig);
        line
    }

    /// `kubectl`, which must succeed; what it printed.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.kubectl(arguments), None, PATIENCE)?.ok()
    }

    /// `kubectl`, whether it succeeds or not.
    pub fn kubectl_said(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        run(self.kubectl(arguments), None, PATIENCE)
    }

    pub fn meshctl<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut line = command(&self.meshctl, arguments);
        // What is needed lies in the cluster; a mesh on this machine is another one.
        line.env("KUBECONFIG", &self.kubeconfig)
            .env_remove("GOSSAMER_DIR");
        line
    }

    /// `meshctl`, which must succeed; what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.meshctl(arguments), None, PATIENCE)?.ok()
    }

    /// `meshctl`, whether it succeeds or not.
    pub fn ctl_said(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        run(self.meshctl(arguments), None, PATIENCE)
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.try_apply(yaml)?.ok()
    }

    /// What `kubectl apply` says, whether it likes it or not.
    pub fn try_apply(&self, yaml: &str) -> anyhow::Result<Outcome> {
        run(self.kubectl(["apply", "-f", "-"]), Some(yaml), PATIENCE)
    }

    /// Applies, and waits until every proxy has acknowledged each object as it now is.
    pub fn apply_acked(&self, yaml: &str) -> anyhow::Result<()> {
        let said = self.apply(yaml)?;
        // What is as it was has been waited for.
        objects(yaml)?
            .iter()
            .filter(|object| !is_unchanged(&said, object))
            .try_for_each(|object| self.wait_for("distribution", object))
    }

    /// Deletes, and waits until every proxy has forgotten each object.
    pub fn delete(&self, yaml: &str) -> anyhow::Result<()> {
        let line = self.kubectl(["delete", "--ignore-not-found", "-f", "-"]);
        run(line, Some(yaml), PATIENCE)?.ok()?;
        objects(yaml)?
            .iter()
            .try_for_each(|object| self.wait_for("delete", object))
    }

    fn wait_for(&self, condition: &str, object: &Object) -> anyhow::Result<()> {
        let wanted = format!("--for={condition}");
        let (kind, namespace, name) = (&object.kind, &object.namespace, &object.name);
        self.ctl(&["wait", &wanted, kind, name, "-n", namespace, "--timeout", "60s"])?;
        Ok(())
    }

    /// All objects of a kind, in one namespace or in all.
    pub fn list(&self, kind: &str, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let mut line = vec!["get", kind, "-o", "json"];
        match namespace {
            Some(name) => line.extend(["-n", name]),
            None => line.push("-A"),
        }
        let list = self.json(&line)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// What `kubectl` prints, as JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl_ok(arguments)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`kubectl {}` printed no JSON", arguments.join(" ")))
    }

    /// The pods with a label that are not on their way out.
    pub fn pods(&self, namespace: &str, selector: &str) -> anyhow::Result<Vec<Value>> {
        let list = self.json(&["get", "pods", "-n", namespace, "-l", selector, "-o", "json"])?;
        let mut pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }

    /// Restarts a workload and waits until its pods are new.
    pub fn roll(&self, namespace: &str, workload: &str) -> anyhow::Result<()> {
        self.kubectl_ok(&["rollout", "restart", workload, "-n", namespace])?;
        self.rolled_out(namespace, workload)
    }

    pub fn rolled_out(&self, namespace: &str, workload: &str) -> anyhow::Result<()> {
        self.kubectl_ok(&[
            "rollout",
            "status",
            workload,
            "-n",
            namespace,
            "--timeout",
            "200s",
        ])?;
        Ok(())
    }

    /// Runs the test application in a pod of a Deployment of `e2e` and reads its report.
    pub fn client<R: DeserializeOwned>(&self, deployment: &str, arguments: &[&str]) -> anyhow::Result<R> {
        let text = run(self.client_command(deployment, arguments), None, PATIENCE)?.ok()?;
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("{arguments:?} printed no report: {text}"))
    }

    /// The same, to run beside the test; with `--until-stdin-ends` it ends when it is told to.
    pub fn client_command(&self, deployment: &str, arguments: &[&str]) -> Command {
        let pod = format!("deployment/{deployment}");
        let head = [
            "exec",
            "-i",
            "-n",
            mesh::APP_NAMESPACE,
            &pod,
            "-c",
            "app",
            "--",
            "mesh-e2e-app",
        ];
        self.kubectl(head.iter().chain(arguments))
    }

    /// Opens a way to the ingress gateway, in place of an earlier one.
    pub fn open_gateway(&mut self) -> anyhow::Result<()> {
        self.way_in = None;
        self.way_in = Some(match &self.cluster {
            Some(cluster) => {
                let relay = cluster.forward(&format!("{SYSTEM}/{GATEWAY}:80"))?;
                WayIn {
                    address: relay.address,
                    _open: Open::Relay { _relay: relay },
                }
            }
            None => self.forwarded(&format!("service/{GATEWAY}"), 80)?,
        });
        Ok(())
    }

    fn forwarded(&self, target: &str, port: u16) -> anyhow::Result<WayIn> {
        let here = mesh::free_port()?;
        let ports = format!("{here}:{port}");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, here));
        let kubectl = Background::start(self.kubectl(["port-forward", "-n", SYSTEM, target, &ports]))?;
        eventually(Duration::from_secs(20), "port-forward", || {
            std::net::TcpStream::connect(address).map_err(Into::into)
        })?;
        Ok(WayIn {
            address,
            _open: Open::Forward { _kubectl: kubectl },
        })
    }

    /// What the README says, word by word; how long it took until the page was there.
    pub fn install(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        self.ctl(&["install", "-y", "--profile", "demo"])?;
        self.kubectl_ok(&[
            "label",
            "namespace",
            "default",
            "istio-injection=enabled",
            "--overwrite",
        ])?;
        self.bookinfo()?;
        self.wait_ready()?;
        self.open_gateway()?;
        eventually(READY, "the page through the ingress gateway", || {
            let page = self.page("/productpage", &[])?;
            ensure!(page.status == 200, "{}", page.shown());
            Ok(())
        })?;
        Ok(begin.elapsed())
    }

    fn bookinfo(&self) -> anyhow::Result<()> {
        for file in [
            "bookinfo.yaml",
            "networking/bookinfo-gateway.yaml",
            "networking/destination-rule-all.yaml",
        ] {
            self.kubectl_ok(&["apply", "-f", &path(&format!("samples/bookinfo/{file}"))?])?;
        }
        Ok(())
    }

    fn keep_logs(&self, folder: &Path) {
        for pod in self.list("pods", None).unwrap_or_default() {
            let (name, namespace) = (
                text(&pod["metadata"]["name"]),
                text(&pod["metadata"]["namespace"]),
            );
            let line = [
                "logs",
                "-n",
                &namespace,
                &name,
                "--all-containers",
                "--prefix",
                "--tail=2000",
            ];
            if let Ok(log) = self.kubectl_said(&line) {
                let _ = std::fs::write(folder.join(format!("{namespace}.{name}.log")), log.said());
            }
        }
    }
}

impl Site for Installed {
    fn gateway(&self) -> SocketAddr {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.way_in.as_ref().map_or(nowhere, |way| way.address)
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    fn apply_file_acked(&self, file: &str) -> anyhow::Result<()> {
        self.apply_acked(&read(file)?)
    }

    fn delete_file(&self, file: &str) -> anyhow::Result<()> {
        self.delete(&read(file)?)
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        eventually(READY, "all pods ready", || {
            let deployments = self.list("deployments", None)?;
            let mut waiting: Vec<String> = deployments
                .iter()
                .filter(|object| !mesh::is_complete(object))
                .map(mesh::describe)
                .collect();
            let pods = self.list("pods", None)?;
            let unready = pods
                .iter()
                .filter(|pod| !is_ready(pod) && pod["status"]["phase"] != "Succeeded");
            waiting.extend(unready.map(mesh::describe));
            ensure!(
                waiting.is_empty() && !pods.is_empty(),
                "waiting for {}",
                waiting.join(", ")
            );
            Ok(())
        })
    }
}

impl Fixture for Installed {
    const SUITE: &str = "kubernetes";

    fn start() -> anyhow::Result<Self> {
        let mut mesh = Self::empty()?;
        let took = mesh
            .install()
            .map_err(|error| error.context(mesh.diagnose("install")))?;
        println!("from `meshctl install` to the page: {:.1} s", took.as_secs_f64());
        mesh.apply(APP)?;
        mesh.wait_ready()?;
        Ok(mesh)
    }

    fn diagnose(&self, test: &str) -> String {
        let Ok(folder) = folder().map(|folder| folder.join("artifacts").join(test.replace(['/', ':'], "-")))
        else {
            return String::new();
        };
        let _ = std::fs::create_dir_all(&folder);
        let kept = |name: &str, outcome: anyhow::Result<Outcome>| {
            let said = outcome.map_or_else(|error| format!("{error:#}"), |outcome| outcome.said());
            let _ = std::fs::write(folder.join(name), &said);
            said
        };
        let pods = kept("pods", self.kubectl_said(&["get", "pods", "-A", "-o", "wide"]));
        let _ = kept("events", self.kubectl_said(&["get", "events", "-A"]));
        let _ = kept("rules", self.kubectl_said(&["get", RULES, "-A", "-o", "yaml"]));
        let status = kept("proxy-status", self.ctl_said(&["proxy-status"]));
        let _ = kept("analyze", self.ctl_said(&["analyze", "-A"]));
        self.keep_logs(&folder);
        if let Some(cluster) = &self.cluster {
            let _ = std::fs::write(folder.join("cluster"), cluster.diagnose());
        }
        format!(
            "more in {}\n{}\n{}",
            folder.display(),
            last(&pods, 4000),
            last(&status, 2000)
        )
    }

    fn reset(&mut self) -> anyhow::Result<()> {
        if let Some(cluster) = &self.cluster {
            cluster.resume("control", "kube-apiserver")?;
            eventually(READY, "the API server is there", || {
                self.kubectl_ok(&["get", "--raw", "/readyz"])
            })?;
        }
        for node in self.nodes()? {
            self.kubectl_ok(&["uncordon", &node])?;
        }
        let kind = "crd/virtualservices.networking.istio.io";
        if !self
            .kubectl_ok(&["get", kind, "--ignore-not-found", "-o", "name"])?
            .is_empty()
        {
            for namespace in ["default", mesh::APP_NAMESPACE] {
                self.kubectl_ok(&["delete", RULES, "--all", "-n", namespace, "--ignore-not-found"])?;
            }
        }
        // Also where a test had taken it out.
        self.install()?;
        self.apply(APP)?;
        self.wait_ready()
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.stopped = true;
        self.way_in = None;
        match self.cluster.take() {
            Some(cluster) if self.made => cluster.stop(),
            _ => self.leave(),
        }
    }
}

impl Installed {
    /// Takes everything of ours out of a cluster that was there before.
    pub fn leave(&self) -> anyhow::Result<()> {
        let quietly = |arguments: &[&str]| self.kubectl_ok(arguments).map(drop);
        quietly(&["delete", "namespace", mesh::APP_NAMESPACE, "--ignore-not-found"])?;
        let made = format!("{}={}", MADE.0, MADE.1);
        quietly(&["delete", "namespace", "--ignore-not-found", "-l", &made])?;
        let sample = path("samples/bookinfo/bookinfo.yaml")?;
        quietly(&["delete", "--ignore-not-found", "-f", &sample])?;
        quietly(&["label", "namespace", "default", "istio-injection-"])?;
        self.ctl(&["uninstall", "-y", "--purge"]).map(drop)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if !self.stopped && !self.made {
            let _ = self.leave();
        }
    }
}

/// A cluster for these tests, in place of one that an earlier run was killed with.
fn own(folder: &Path) -> anyhow::Result<Cluster> {
    let dir = folder.join("cluster");
    Cluster::remove(&dir)?;
    let binaries = need::binaries()?;
    let images: anyhow::Result<Vec<_>> = image::PROJECT
        .iter()
        .map(|recipe| image::build(recipe, &binaries))
        .collect();
    let options = Options {
        dir,
        nodes: 2,
        api_port: None,
        images: images?,
    };
    Cluster::start(&options, &|text| println!("{text}"))
}

fn folder() -> anyhow::Result<PathBuf> {
    Ok(need::binaries()?.with_file_name("e2e").join("kubernetes"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Does `kubectl apply` say so of it? It does not say the namespace: then of all that are called so.
fn is_unchanged(said: &str, object: &Object) -> bool {
    let (kind, name) = (
        format!("{}.", object.kind.to_lowercase()),
        format!("/{} ", object.name),
    );
    let mut lines = said
        .lines()
        .filter(|line| line.starts_with(&kind) && line.contains(&name))
        .peekable();
    lines.peek().is_some() && lines.all(|line| line.ends_with(" unchanged"))
}

/// The YAML of a namespace with a label, as tests make them.
pub fn namespace(name: &str, label: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{{label}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_left_as_it_was_is_known() {
        let said = "virtualservice.networking.istio.io/a configured\nvirtualservice.networking.istio.io/ab unchanged\n\
                    destinationrule.networking.istio.io/a unchanged\n";
        let check = |kind: &str, name: &str, expect: bool| {
            let yaml =
                format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n");
            let objects = objects(&yaml).unwrap();
            assert_eq!(is_unchanged(said, &objects[0]), expect, "{kind} {name}");
        };
        check("VirtualService", "a", false);
        check("VirtualService", "ab", true);
        check("DestinationRule", "a", true);
        check("DestinationRule", "b", false);
    }
}
