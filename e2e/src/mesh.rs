//! A real mesh for the tests: `meshctl local up` with the binaries of this build, Bookinfo and the test application in it, and
//! what tests do to it: apply, delete, run commands in pods, wait until the proxies have acknowledged.
//!
//! Its state lies under `target/e2e/`; a mesh that an earlier run left there is taken down first. The port of the gateway is one
//! that is free.

use crate::{
    need,
    process::{Background, Outcome, command, eventually, last, run},
    run::Fixture,
    site::Site,
};
use anyhow::{Context, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// No single command takes longer, unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The pods of the mesh are ready within this, even on a busy machine with debug binaries.
pub const READY: Duration = Duration::from_secs(120);

/// Namespace of the test application.
pub const APP_NAMESPACE: &str = "e2e";
pub const APP_IMAGE: &str = "gossamer/e2e-app";
pub const APP: &str = include_str!("../manifests/app.yaml");
pub const BOOKINFO_NAMESPACE: &str = include_str!("../manifests/default-namespace.yaml");

pub struct Mesh {
    meshctl: PathBuf,
    /// The test application as a program of the host.
    pub app: PathBuf,
    pub dir: PathBuf,
    pub gateway_port: u16,
    /// Where pods find programs: as here, and Envoy.
    path: String,
    runtime: tokio::runtime::Runtime,
    stopped: bool,
    /// One mesh of this kind at a time; the lock goes with the process.
    _lock: Flock<File>,
}

impl Mesh {
    /// Everything there, nothing running: what an earlier run left is taken down.
    pub fn prepare() -> anyhow::Result<Self> {
        need::root()?;
        for (program, package) in [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("nsenter", "util-linux"),
            ("curl", "curl"),
        ] {
            need::program(program, package)?;
        }
        for binary in [
            "mesh-proxy",
            "mesh-pilot",
            "mesh-citadel",
            "mesh-telemetry",
            "bookinfo",
        ] {
            need::binary(binary)?;
        }
        let folder = need::binaries()?
            .parent()
            .context("target/debug has no parent")?
            .join("e2e");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = lock(&folder.join("lock"))?;
        let mesh = Self {
            meshctl: need::binary("meshctl")?,
            app: need::binary("mesh-e2e-app")?,
            dir: folder.join("mesh"),
            gateway_port: free_port()?,
            path: format!(
                "{}:{}",
                std::env::var("PATH").context("PATH is not set")?,
                need::envoy()?
                    .parent()
                    .context("Envoy lies in no folder")?
                    .display()
            ),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?,
            stopped: false,
            _lock: lock,
        };
        mesh.ctl(&["local", "down"])?;
        Ok(mesh)
    }

    pub fn up(&self) -> anyhow::Result<()> {
        let image = format!("{APP_IMAGE}={}", self.app.display());
        let port = self.gateway_port.to_string();
        self.ctl_within(
            &["local", "up", "--gateway-port", &port, "--image", &image],
            Duration::from_secs(180),
        )?
        .ok()?;
        Ok(())
    }

    /// Where screenshots, captures and diagnoses go.
    pub fn artifacts(&self) -> PathBuf {
        self.dir.with_file_name("artifacts")
    }

    pub fn ctl_within(&self, arguments: &[&str], limit: Duration) -> anyhow::Result<Outcome> {
        run(self.command(arguments), None, limit)
    }

    /// `meshctl` with arguments, which must succeed.
    pub fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.ctl_within(arguments, PATIENCE)?.ok()
    }

    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command(&self.meshctl, arguments);
        command.env("GOSSAMER_DIR", &self.dir);
        command.env("PATH", &self.path);
        command
    }

    /// `meshctl local apply -f -`.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        run(self.command(&["local", "apply", "-f", "-"]), Some(yaml), PATIENCE)?.ok()
    }

    /// What `apply` says, whether it likes it or not.
    pub fn try_apply(&self, yaml: &str) -> anyhow::Result<Outcome> {
        run(self.command(&["local", "apply", "-f", "-"]), Some(yaml), PATIENCE)
    }

    /// Applies a file of the repository.
    pub fn apply_file(&self, file: &str) -> anyhow::Result<String> {
        self.ctl(&["local", "apply", "-f", &path(file)?])
    }

    pub fn delete(&self, yaml: &str) -> anyhow::Result<()> {
        let arguments = ["local", "delete", "--ignore-not-found", "-f", "-"];
        run(self.command(&arguments), Some(yaml), PATIENCE)?.ok()?;
        self.settled_deletion(yaml)
    }

    /// Applies, and waits until every proxy has acknowledged each object as it now is.
    pub fn apply_acked(&self, yaml: &str) -> anyhow::Result<()> {
        self.apply(yaml)?;
        self.settled(yaml)
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let text = self.ctl(&["local", "get", kind, name, "-n", namespace, "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("{kind} {namespace}/{name} is no JSON: {text}"))
    }

    /// All objects of a kind in all namespaces.
    pub fn all(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let text = self.ctl(&["local", "get", kind, "-A", "-o", "json"])?;
        let list: Value = serde_json::from_str(&text).with_context(|| format!("{kind}: no JSON: {text}"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The pods of an app that are not on their way out.
    pub fn pods(&self, namespace: &str, app: &str) -> anyhow::Result<Vec<Value>> {
        let mut pods = self.all("pods")?;
        pods.retain(|pod| {
            pod["metadata"]["namespace"] == namespace
                && pod["metadata"]["labels"]["app"] == app
                && pod["metadata"]["deletionTimestamp"].is_null()
        });
        Ok(pods)
    }

    /// The name of the one pod of an app.
    pub fn pod(&self, namespace: &str, app: &str) -> anyhow::Result<String> {
        let pods = self.pods(namespace, app)?;
        let names: Vec<&str> = pods
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .collect();
        let name = names
            .first()
            .with_context(|| format!("no pod of {app} in {namespace}"))?;
        Ok((*name).to_owned())
    }

    pub fn pod_address(&self, namespace: &str, app: &str) -> anyhow::Result<String> {
        let pods = self.pods(namespace, app)?;
        let address = pods.first().and_then(|pod| pod["status"]["podIP"].as_str());
        Ok(address
            .with_context(|| format!("no pod of {app} in {namespace} has an address"))?
            .to_owned())
    }

    fn exec_command(
        &self,
        namespace: &str,
        app: &str,
        container: &str,
        words: &[&str],
        stdin: bool,
    ) -> std::process::Command {
        let pod = format!("deployment/{app}");
        let mut arguments = vec!["local", "exec", &pod, "-n", namespace, "-c", container];
        if stdin {
            arguments.push("-i");
        }
        arguments.push("--");
        arguments.extend(words);
        self.command(&arguments)
    }

    /// Runs a command beside a container of an app's pod.
    pub fn exec(
        &self,
        namespace: &str,
        app: &str,
        container: &str,
        words: &[&str],
    ) -> anyhow::Result<Outcome> {
        run(
            self.exec_command(namespace, app, container, words, false),
            None,
            Duration::from_secs(240),
        )
    }

    /// Runs the test application in one of its client pods and reads its report.
    pub fn client<R: DeserializeOwned>(&self, pod: &str, arguments: &[&str]) -> anyhow::Result<R> {
        let text = self.try_client(pod, arguments)?.ok()?;
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("{arguments:?} printed no report: {text}"))
    }

    pub fn try_client(&self, pod: &str, arguments: &[&str]) -> anyhow::Result<Outcome> {
        let app = self.app.display().to_string();
        let words: Vec<&str> = std::iter::once(app.as_str())
            .chain(arguments.iter().copied())
            .collect();
        self.exec(APP_NAMESPACE, pod, "app", &words)
    }

    /// Starts the test application in a client pod, to end when `finish` is called.
    pub fn client_in_background(&self, pod: &str, arguments: &[&str]) -> anyhow::Result<Background> {
        let app = self.app.display().to_string();
        let words: Vec<&str> = std::iter::once(app.as_str())
            .chain(arguments.iter().copied())
            .collect();
        Background::start(self.exec_command(APP_NAMESPACE, pod, "app", &words, true))
    }

    /// A page of the proxy beside an app.
    pub fn proxy_page(&self, namespace: &str, app: &str, path: &str) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:15000{path}");
        self.exec(
            namespace,
            app,
            mesh_proto::names::container::PROXY,
            &["curl", "-sS", "--fail", "-m", "10", &url],
        )?
        .ok()
    }

    /// A page of the control plane's, asked from within its pod.
    pub fn control_page(&self, part: &str, port: u16, path: &str) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{port}{path}");
        let pod = format!("deployment/{part}");
        let arguments = [
            "local",
            "exec",
            &pod,
            "-n",
            "istio-system",
            "--",
            "curl",
            "-sS",
            "-m",
            "10",
            &url,
        ];
        self.ctl(&arguments)
    }

    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<String> {
        self.ctl(&["local", "logs", pod, "-n", namespace, "-c", container])
    }

    /// The network namespace that joins the pods.
    pub fn node_namespace(&self) -> anyhow::Result<String> {
        let text = self.ctl_within(&["local", "status"], PATIENCE)?.stdout;
        let name = text
            .lines()
            .find_map(|line| line.strip_prefix("network")?.trim().strip_prefix("namespace "));
        Ok(name
            .with_context(|| format!("no network namespace in `meshctl local status`: {text}"))?
            .trim()
            .to_owned())
    }

    /// What the names of this mesh's network namespaces begin with.
    pub fn prefix(&self) -> anyhow::Result<String> {
        let node = self.node_namespace()?;
        Ok(node
            .strip_suffix("node")
            .with_context(|| format!("{node} does not end in node"))?
            .to_owned())
    }

    fn keep_logs(&self, folder: &Path) {
        for pod in self.all("pods").unwrap_or_default() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (name, namespace) = (
                text(&pod["metadata"]["name"]),
                text(&pod["metadata"]["namespace"]),
            );
            let lists = [&pod["spec"]["containers"], &pod["spec"]["initContainers"]];
            for container in lists.into_iter().filter_map(Value::as_array).flatten() {
                let container = text(&container["name"]);
                if let Ok(log) = self.logs(&namespace, &name, &container) {
                    let _ = std::fs::write(
                        folder.join(format!("{name}.{container}.log")),
                        last(&log, 1 << 20),
                    );
                }
            }
        }
    }

    /// What every test finds.
    fn base(&self) -> anyhow::Result<()> {
        self.apply(BOOKINFO_NAMESPACE)?;
        self.apply_file("samples/bookinfo/bookinfo.yaml")?;
        self.apply_file("samples/bookinfo/networking/bookinfo-gateway.yaml")?;
        self.apply_file("samples/bookinfo/networking/destination-rule-all.yaml")?;
        self.apply(APP)?;
        Ok(())
    }
}

impl Site for Mesh {
    fn gateway(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.gateway_port).into()
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
            let deployments = self.all("deployments")?;
            let waiting: Vec<String> = deployments
                .iter()
                .filter(|object| !is_complete(object))
                .map(describe)
                .collect();
            ensure!(
                waiting.is_empty(),
                "waiting for deployments {}",
                waiting.join(", ")
            );
            let pods = self.all("pods")?;
            let waiting: Vec<String> = pods.iter().filter(|pod| !is_ready(pod)).map(describe).collect();
            ensure!(
                waiting.is_empty() && !pods.is_empty(),
                "waiting for pods {}",
                waiting.join(", ")
            );
            Ok(())
        })
    }
}

impl Fixture for Mesh {
    const SUITE: &str = "local";

    fn start() -> anyhow::Result<Self> {
        let mesh = Self::prepare()?;
        mesh.up()?;
        mesh.base()?;
        mesh.wait_ready()?;
        Ok(mesh)
    }

    fn diagnose(&self, test: &str) -> String {
        let folder = self.artifacts().join(test.replace(['/', ':'], "-"));
        let _ = std::fs::create_dir_all(&folder);
        let mut said: BTreeMap<&str, String> = BTreeMap::new();
        let questions: [(&str, &[&str]); 4] = [
            ("pods", &["local", "get", "pods", "-A"]),
            (
                "objects",
                &[
                    "local",
                    "get",
                    "virtualservice,destinationrule,peerauthentication,authorizationpolicy",
                    "-A",
                ],
            ),
            ("proxy-status", &["proxy-status"]),
            ("analyze", &["analyze"]),
        ];
        for (name, arguments) in questions {
            let outcome = self.ctl_within(arguments, Duration::from_secs(10));
            said.insert(
                name,
                outcome.map_or_else(|error| format!("{error:#}"), |outcome| outcome.said()),
            );
        }
        for (name, text) in &said {
            let _ = std::fs::write(folder.join(name), text);
        }
        self.keep_logs(&folder);
        let shown = |name: &str| last(said.get(name).map_or("", String::as_str), 3000).to_owned();
        format!(
            "more in {}\n{}\n{}",
            folder.display(),
            shown("pods"),
            shown("proxy-status")
        )
    }

    fn reset(&mut self) -> anyhow::Result<()> {
        if self.node_namespace().is_err() {
            self.up()?;
        }
        for namespace in ["default", APP_NAMESPACE] {
            for kind in [
                "virtualservice",
                "authorizationpolicy",
                "peerauthentication",
                "serviceentry",
            ] {
                self.ctl(&[
                    "local",
                    "delete",
                    kind,
                    "--all",
                    "-n",
                    namespace,
                    "--ignore-not-found",
                ])?;
            }
        }
        for part in ["citadel", "pilot", "telemetry"] {
            self.ctl(&[
                "local",
                "scale",
                &format!("deployment/{part}"),
                "--replicas",
                "1",
                "-n",
                "istio-system",
            ])?;
        }
        self.base()?;
        self.wait_ready()
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.stopped = true;
        self.ctl(&["local", "down"]).map(drop)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !self.stopped {
            let _ = self.ctl(&["local", "down"]);
        }
    }
}

/// Waits for another run of these tests to end.
fn lock(path: &Path) -> anyhow::Result<Flock<File>> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, _)) => {
            eprintln!("waiting: another run of the tests holds {}", path.display());
            Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, error)| anyhow::anyhow!("{}: {error}", path.display()))
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on now.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// A file of the repository, as an argument.
pub fn path(file: &str) -> anyhow::Result<String> {
    let path = need::repository().join(file);
    ensure!(path.exists(), "{} is not there", path.display());
    Ok(path.display().to_string())
}

pub fn read(file: &str) -> anyhow::Result<String> {
    let path = path(file)?;
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Has the controller seen this Deployment as it is, and are all of its pods there?
pub fn is_complete(deployment: &Value) -> bool {
    let (status, wanted) = (
        &deployment["status"],
        deployment["spec"]["replicas"].as_u64().unwrap_or(1),
    );
    let count = |field: &str| status[field].as_u64().unwrap_or_default();
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|field| count(field) == wanted)
}

pub fn describe(pod: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{}/{}",
        text(&pod["metadata"]["namespace"]),
        text(&pod["metadata"]["name"])
    )
}
