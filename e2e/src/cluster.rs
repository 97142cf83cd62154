//! A real Kubernetes cluster on this machine: etcd, API server, controllers, and nodes with containerd, kubelet and kube-proxy,
//! each machine of it in namespaces of its own. For `mesh-cluster`, which starts one for a person, and for the tests, which own
//! theirs and take it down.
//!
//! - `layout`: names, addresses, files; `pki`: certificates and kubeconfigs; `programs`: what runs where, with which flags;
//! - `network`: namespaces and routes; `machine`: one machine, and its first process; `relay`: from the host into the cluster;
//! - `image`: the images of this project; `clean`: removing all of it; `command`: the command line.
//!
//! Nothing of the host is changed: no interface, no route, no filter, no kernel setting, no file outside of the cluster's folder
//! but the names of its network namespaces. It needs root, cgroups, `overlay` and about 1 GB of memory.

mod clean;
pub mod command;
pub mod image;
pub mod layout;
mod machine;
mod network;
mod pki;
mod programs;
mod relay;
mod start;

use crate::{
    mesh::free_port,
    need,
    process::{Background, Outcome, command as run_command, eventually, last, run},
};
use anyhow::{Context, bail, ensure};
use image::Image;
use layout::{CONTROL, Layout, Machine, Shape, node_name};
use serde_json::Value;
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// No single command takes longer, unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything of the cluster lies here.
    pub dir: PathBuf,
    pub nodes: u8,
    /// The port of 127.0.0.1 for the API server; any that is free, if none is given.
    pub api_port: Option<u16>,
    /// Loaded into every node.
    pub images: Vec<Image>,
}

pub struct Cluster {
    layout: Layout,
    shape: Shape,
    kubernetes: PathBuf,
    /// Take it down when this value goes.
    owned: bool,
}

impl Cluster {
    /// Starts a cluster and waits until its nodes and its DNS are ready. One that runs in the same folder is an error (`remove` it
    /// first); what a dead one left there is removed. It is taken down when the value is dropped, unless it was `left_running`.
    pub fn start(options: &Options, say: &dyn Fn(&str)) -> anyhow::Result<Self> {
        start::start(options, say)
    }

    /// A cluster that was started earlier.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let layout = Layout::new(dir)?;
        Ok(Self {
            shape: layout.shape()?,
            kubernetes: need::kubernetes()?,
            layout,
            owned: false,
        })
    }

    /// Goes on without this process.
    pub fn left_running(mut self) -> Self {
        self.owned = false;
        self
    }

    /// Takes the cluster down; nothing of it is left.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.owned = false;
        clean::everything(&self.layout)
    }

    /// Takes down whatever is in the folder, also half a cluster.
    pub fn remove(dir: &Path) -> anyhow::Result<()> {
        need::root()?;
        clean::everything(&Layout::new(dir)?)
    }

    /// What of a cluster in this folder is there, besides files: namespaces, cgroups, mounts. Empty after `stop`.
    pub fn left(dir: &Path) -> anyhow::Result<Vec<String>> {
        Ok(clean::left(&Layout::new(dir)?))
    }

    /// A file that any client of Kubernetes understands; it may be copied.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    pub fn nodes(&self) -> Vec<String> {
        (1..=self.shape.nodes).map(node_name).collect()
    }

    /// `kubectl`, of the same version, for this cluster.
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut line = run_command(self.kubernetes.join("kubectl"), arguments);
        line.env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.layout.kubectl_cache());
        line
    }

    /// `kubectl`, which must succeed; what it printed.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.kubectl(arguments), None, PATIENCE)?.ok()
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        run(self.kubectl(["apply", "-f", "-"]), Some(yaml), PATIENCE)?.ok()
    }

    /// A command that will run inside a machine: in its network, with its mounts and its processes. `control` is a machine too.
    pub fn node_command<S: AsRef<std::ffi::OsStr>>(
        &self,
        machine: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Command> {
        let pid = self.pid(&self.machine(machine)?)?;
        let mut line = run_command(
            "nsenter",
            ["--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/"],
        );
        line.args(["--target", &pid.to_string(), "--"]).args(arguments);
        Ok(line)
    }

    /// Runs a command inside a machine, to its end.
    pub fn node_exec(&self, machine: &str, arguments: &[&str]) -> anyhow::Result<Outcome> {
        run(self.node_command(machine, arguments)?, None, PATIENCE)
    }

    /// Puts an archive of images into every node.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let loads: Vec<_> = self
                .nodes()
                .into_iter()
                .map(|node| scope.spawn(move || self.load_into(&node, archive)))
                .collect();
            for load in loads {
                load.join()
                    .map_err(|_| anyhow::anyhow!("a load of {} ended early", archive.display()))??;
            }
            Ok(())
        })
    }

    fn load_into(&self, node: &str, archive: &Path) -> anyhow::Result<()> {
        // By standard input: the node may have other files where the archive lies.
        let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
        let mut line = self.node_command(node, ["ctr", "--namespace", "k8s.io", "images", "import", "-"])?;
        let output = line
            .stdin(file)
            .output()
            .context("cannot run nsenter (Debian package util-linux)")?;
        ensure!(
            output.status.success(),
            "{} cannot be loaded into {node}: {}{}",
            archive.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Gives an image that is loaded another name, on every node: two names of one program make two versions of it.
    pub fn tag_image(&self, from: &str, to: &str) -> anyhow::Result<()> {
        for node in self.nodes() {
            let line = [
                "ctr",
                "--namespace",
                "k8s.io",
                "images",
                "tag",
                "--force",
                from,
                to,
            ];
            self.node_exec(&node, &line)?.ok()?;
        }
        Ok(())
    }

    /// Ends a program of a machine and keeps it from being started again: the API server of `control`, a node's kubelet.
    pub fn halt(&self, machine: &str, program: &str) -> anyhow::Result<()> {
        let (machine, running) = self.program(machine, program)?;
        let hold = machine.hold(program);
        std::fs::write(&hold, "").with_context(|| format!("cannot write {}", hold.display()))?;
        eventually(PATIENCE, &format!("{program} ends"), || {
            ensure!(!running.exists(), "{} is there", running.display());
            Ok(())
        })
    }

    /// Starts again what was halted.
    pub fn resume(&self, machine: &str, program: &str) -> anyhow::Result<()> {
        let (machine, running) = self.program(machine, program)?;
        match std::fs::remove_file(machine.hold(program)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{program} cannot be let go"));
            }
            _ => {}
        }
        eventually(PATIENCE, &format!("{program} starts"), || {
            ensure!(running.exists(), "{} is not there", running.display());
            Ok(())
        })
    }

    fn program(&self, machine: &str, program: &str) -> anyhow::Result<(Machine, PathBuf)> {
        let machine = self.machine(machine)?;
        let names: Vec<String> = machine::programs(&machine)?
            .into_iter()
            .map(|program| program.name)
            .collect();
        ensure!(
            names.iter().any(|name| name == program),
            "{} has no program {program}; it has {}",
            machine.name,
            names.join(", ")
        );
        let running = machine.running(program);
        Ok((machine, running))
    }

    fn machine(&self, name: &str) -> anyhow::Result<Machine> {
        let mut names = self.nodes();
        names.push(CONTROL.to_owned());
        ensure!(
            names.iter().any(|known| known == name),
            "there is no machine {name}; there are {}",
            names.join(", ")
        );
        Ok(self.layout.machine(name))
    }

    fn machines(&self) -> Vec<Machine> {
        std::iter::once(CONTROL.to_owned())
            .chain(self.nodes())
            .map(|name| self.layout.machine(&name))
            .collect()
    }

    /// The first process of a machine. Its number is believed only if that process is in the machine's network.
    fn pid(&self, machine: &Machine) -> anyhow::Result<i32> {
        let text = std::fs::read_to_string(machine.pid_file()).unwrap_or_default();
        let pid = text.trim().parse().ok();
        let alive = pid.filter(|pid| network::members(&machine.namespace).contains(pid));
        alive.with_context(|| {
            format!(
                "{} does not run; `mesh-cluster down`, then `up`, gives a new cluster",
                machine.name
            )
        })
    }

    /// A port of 127.0.0.1 that leads to an address in the cluster, until the value is dropped. `target` is `ADDRESS:PORT` (of a
    /// pod, a node, a Service) or `NAMESPACE/SERVICE:PORT`.
    pub fn forward(&self, target: &str) -> anyhow::Result<Forward> {
        let target = self.resolve(target)?;
        let port = free_port()?;
        let mut line = run_command(need::binary("mesh-cluster")?, ["relay", "--dir"]);
        line.arg(&self.layout.dir)
            .args(["--port", &port.to_string(), &target.to_string()]);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut relay = Background::start(line)?;
        let listening = eventually(Duration::from_secs(10), "the relay listens", || {
            ensure!(relay.is_running(), "it has ended");
            TcpStream::connect(address).map_err(Into::into)
        });
        match listening {
            Ok(_) => Ok(Forward {
                address,
                _relay: relay,
            }),
            Err(error) => {
                let said = relay.terminate(Duration::from_secs(5))?.said();
                Err(error.context(said))
            }
        }
    }

    /// The address behind `NAMESPACE/SERVICE:PORT`, where the port is a number or a name; an address is itself.
    fn resolve(&self, target: &str) -> anyhow::Result<SocketAddr> {
        if let Ok(address) = target.parse() {
            return Ok(address);
        }
        let parts = target
            .split_once('/')
            .and_then(|(namespace, rest)| rest.split_once(':').map(|(name, port)| (namespace, name, port)));
        let Some((namespace, name, port)) = parts else {
            bail!("{target:?} is neither ADDRESS:PORT nor NAMESPACE/SERVICE:PORT");
        };
        let text = self.kubectl_ok(&[
            "get",
            "service",
            name,
            "--namespace",
            namespace,
            "--output",
            "json",
        ])?;
        let service: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        service_address(&service, port)
    }

    /// What every program of the cluster said last, for the message of a failure.
    pub fn diagnose(&self) -> String {
        let mut text = String::new();
        for machine in self.machines() {
            let names = machine::programs(&machine).unwrap_or_default();
            let names = names.into_iter().map(|program| program.name);
            for name in names.chain(["machine".to_owned()]) {
                let log = std::fs::read(machine::log_file(&machine, &name)).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                if !log.is_empty() {
                    text += &format!("--- {} on {}\n{}\n", name, machine.name, last(&log, 1500));
                }
            }
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = clean::everything(&self.layout)
        {
            eprintln!(
                "the cluster in {} is not gone: {error:#}",
                self.layout.dir.display()
            );
        }
    }
}

/// A way into the cluster that ends with this value.
pub struct Forward {
    pub address: SocketAddr,
    _relay: Background,
}

fn service_address(service: &Value, port: &str) -> anyhow::Result<SocketAddr> {
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let wanted: Option<u64> = port.parse().ok();
    let number = ports
        .iter()
        .find(|entry| entry["name"] == port || (wanted.is_some() && entry["port"].as_u64() == wanted))
        .and_then(|entry| entry["port"].as_u64())
        .with_context(|| format!("the Service has no port {port}: {}", service["spec"]["ports"]))?;
    let address: Ipv4Addr = service["spec"]["clusterIP"]
        .as_str()
        .unwrap_or_default()
        .parse()
        .context("the Service has no address of its own; give a pod's")?;
    Ok((address, u16::try_from(number)?).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_is_found_by_the_name_or_the_number_of_its_port() {
        let service =
            json!({ "spec": { "clusterIP": "10.96.3.4", "ports": [{ "name": "http", "port": 80 }] } });
        for port in ["http", "80"] {
            let address = service_address(&service, port).unwrap();
            assert_eq!(address.to_string(), "10.96.3.4:80");
        }
        let error = service_address(&service, "443").unwrap_err().to_string();
        assert!(error.contains("no port 443"), "{error}");
        let headless = json!({ "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] } });
        assert!(service_address(&headless, "80").is_err());
    }
}
