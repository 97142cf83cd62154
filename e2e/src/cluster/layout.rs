//! A cluster in one look: its folder, the names of its namespaces, its addresses. A cluster is its folder; two folders are two
//! clusters that never meet, because the name of everything that is not a file is made from the folder's path.
//!
//! Machines: `control` has etcd, the API server and the controllers; `node-1`, `node-2`, … are Kubernetes nodes. Each is a
//! network namespace with a process namespace and a mount namespace of its own (see `machine`).

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

pub const DEFAULT_DIR: &str = "/var/lib/gossamer-cluster";
pub const CONTROL: &str = "control";
/// As many nodes as the plan of addresses has room for; a machine for tests is full long before.
pub const MAX_NODES: u8 = 8;

/// The network between the machines, on a bridge inside the control machine. All these addresses exist only inside the
/// cluster's own namespaces.
pub const CONTROL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 1);
pub const POD_RANGE: &str = "10.244.0.0/16";
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The first address of the service range is the API server's own Service, always.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const API_PORT: u16 = 6443;
/// Everything in a network namespace of this project's clusters begins so.
const PREFIX: &str = "meshkube";

/// What a cluster was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub nodes: u8,
    /// The port of 127.0.0.1 that leads to the API server.
    pub api_port: u16,
}

#[derive(Clone, Debug)]
pub struct Layout {
    pub dir: PathBuf,
    tag: String,
}

/// FNV-1a: names must come out the same for every build of this program.
fn stable_hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

impl Layout {
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| format!("{} is no path", dir.display()))?;
        // A folder reached by two paths is one cluster. Its parent is there also when the folder itself is not.
        let dir = match (dir.parent().map(Path::canonicalize), dir.file_name()) {
            (Some(Ok(parent)), Some(name)) => parent.join(name),
            _ => dir,
        };
        ensure!(
            dir.parent().is_some() && !dir.starts_with("/run") && !dir.starts_with("/var/log"),
            "the folder of a cluster cannot be {}: the machines have their own /run and /var/log",
            dir.display()
        );
        let tag = format!("{PREFIX}-{:08x}", stable_hash(&dir.to_string_lossy()));
        Ok(Self { dir, tag })
    }

    /// What every namespace and cgroup of this cluster is called by.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    pub fn namespace(&self, machine: &str) -> String {
        format!("{}-{machine}", self.tag)
    }

    pub fn owns_namespace(&self, name: &str) -> bool {
        name.strip_prefix(&self.tag)
            .is_some_and(|rest| rest.starts_with('-'))
    }

    /// Written when the cluster is being made; a folder without it is nobody's to remove.
    pub fn shape_file(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    pub fn shape(&self) -> anyhow::Result<Shape> {
        let path = self.shape_file();
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "no cluster is in {} (`mesh-cluster up --dir {0}` starts one)",
                self.dir.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// What `kubectl` remembers of the API: it would else go into the user's home.
    pub fn kubectl_cache(&self) -> PathBuf {
        self.dir.join("kubectl-cache")
    }

    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    pub fn machine(&self, name: &str) -> Machine {
        Machine {
            name: name.to_owned(),
            namespace: self.namespace(name),
            dir: self.dir.join(name),
        }
    }

    /// The pid of the process that carries connections from the host to the API server.
    pub fn relay_pid(&self) -> PathBuf {
        self.dir.join("relay.pid")
    }

    /// Everything that a cluster puts into its folder.
    pub fn owned(&self) -> Vec<PathBuf> {
        let mut owned: Vec<PathBuf> = ["pki", CONTROL].iter().map(|name| self.dir.join(name)).collect();
        owned.extend((1..=MAX_NODES).map(|index| self.dir.join(node_name(index))));
        owned.extend([
            self.kubeconfig(),
            self.kubectl_cache(),
            self.relay_pid(),
            self.dir.join("relay.log"),
            self.shape_file(),
        ]);
        owned
    }
}

/// The files of one machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub name: String,
    pub namespace: String,
    pub dir: PathBuf,
}

impl Machine {
    /// The pid, as the host counts, of the machine's first process.
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// There when the machine is set up.
    pub fn ready(&self) -> PathBuf {
        self.dir.join("ready")
    }

    /// What runs on it; see `machine::Program`.
    pub fn programs(&self) -> PathBuf {
        self.dir.join("programs.json")
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// While this file is there, the program does not run.
    pub fn hold(&self, program: &str) -> PathBuf {
        self.dir.join("hold").join(program)
    }

    /// While this file is there, the program runs; in it is the pid as the machine counts.
    pub fn running(&self, program: &str) -> PathBuf {
        self.dir.join("running").join(program)
    }

    /// A file of its configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join("etc").join(name)
    }
}

pub fn node_name(index: u8) -> String {
    format!("node-{index}")
}

pub fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 250, 0, 10 + index)
}

pub fn pod_range(index: u8) -> String {
    format!("10.244.{index}.0/24")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_folders_share_no_name() {
        let (one, two) = (
            Layout::new(Path::new("/var/lib/one")).unwrap(),
            Layout::new(Path::new("/var/lib/two")).unwrap(),
        );
        assert_ne!(one.tag(), two.tag());
        assert!(one.owns_namespace(&one.namespace(CONTROL)));
        assert!(!one.owns_namespace(&two.namespace(CONTROL)));
        // The local platform of meshctl removes what begins with its own name.
        assert!(!one.tag().starts_with("gossamer"));
        // An interface and a socket's path have little room.
        assert!(one.namespace("node-1").len() < 32);
    }

    #[test]
    fn a_folder_where_machines_have_their_own_is_refused() {
        let error = Layout::new(Path::new("/run/x")).unwrap_err().to_string();
        assert!(error.contains("cannot be /run/x"), "{error}");
    }
}
