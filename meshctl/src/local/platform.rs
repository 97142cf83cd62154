//! The local platform in one look: where its state lies, how its namespaces are called, which addresses it uses. A
//! platform is its state folder; two folders are two platforms that never meet, because every name is made from the
//! folder's path.

use std::path::{Path, PathBuf};

use super::object::stable_hash;

/// Where the mesh of this machine lives unless `--dir` says otherwise.
pub const DEFAULT_DIR: &str = "/var/lib/gossamer";
/// Pods get their addresses from here; `.0.1` is the node: gateway, DNS and the source of forwarded connections.
pub const NODE_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 244, 0, 1);
pub const POD_RANGE: &str = "10.244.0.0/16";
/// The same for IPv6 (a unique local range, RFC 4193); the last 16 bits are those of the IPv4 address.
pub const NODE_ADDRESS_V6: &str = "fd00:10:244::1";
/// Cluster addresses of services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
pub const SERVICE_RANGE_FIRST: u32 = u32::from_be_bytes([10, 96, 0, 10]);
pub const SERVICE_RANGE_LAST: u32 = u32::from_be_bytes([10, 96, 255, 254]);
/// The bridge inside the node namespace.
pub const BRIDGE: &str = "gossamer0";
/// How the one node is called in pods.
pub const NODE_NAME: &str = "local";

/// The folders, files and names of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub dir: PathBuf,
    prefix: String,
}

impl Layout {
    pub fn new(dir: &Path) -> std::io::Result<Self> {
        let dir = std::path::absolute(dir)?;
        // A folder reached through two paths is one platform.
        let dir = dir.canonicalize().unwrap_or(dir);
        let default = Path::new(DEFAULT_DIR);
        let prefix = if dir == default || default.canonicalize().is_ok_and(|default| dir == default) {
            "gossamer".to_owned()
        } else {
            format!("gossamer-{:08x}", stable_hash(&dir.to_string_lossy()) as u32)
        };
        Ok(Self { dir, prefix })
    }

    /// The objects, watched by pilot.
    pub fn cluster(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    pub fn images(&self) -> PathBuf {
        self.dir.join("images.yaml")
    }

    /// The issuer's key and its public half, `jwks.json`.
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// Citadel's own state, and the root certificate that it publishes.
    pub fn citadel(&self) -> PathBuf {
        self.dir.join("citadel")
    }

    pub fn pods(&self) -> PathBuf {
        self.dir.join("pods")
    }

    pub fn pod(&self, namespace: &str, name: &str) -> PathBuf {
        self.pods().join(format!("{namespace}_{name}"))
    }

    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub fn socket(&self) -> PathBuf {
        self.run().join("node.sock")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.run().join("node.pid")
    }

    /// Held by the supervisor as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.run().join("lock")
    }

    pub fn node_log(&self) -> PathBuf {
        self.run().join("node.log")
    }

    /// Everything below the folder that is ours, and may be removed by `down`.
    pub fn owned(&self) -> Vec<PathBuf> {
        vec![
            self.cluster(),
            self.pki(),
            self.citadel(),
            self.pods(),
            self.run(),
            self.images(),
        ]
    }

    pub fn node_namespace(&self) -> String {
        format!("{}-node", self.prefix)
    }

    pub fn pod_namespace(&self, namespace: &str, name: &str, uid: &str) -> String {
        format!(
            "{}{:010x}",
            self.pod_prefix(),
            stable_hash(&format!("{namespace}/{name}/{uid}")) & 0xff_ffff_ffff
        )
    }

    fn pod_prefix(&self) -> String {
        format!("{}-pod-", self.prefix)
    }

    /// Is this network namespace one of this platform?
    pub fn owns_namespace(&self, name: &str) -> bool {
        name == self.node_namespace() || name.starts_with(&self.pod_prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_never_own_each_others_namespaces() {
        let default = Layout::new(Path::new(DEFAULT_DIR)).unwrap();
        let other = Layout::new(Path::new("/nowhere/else")).unwrap();
        assert_eq!(default.node_namespace(), "gossamer-node");
        for (a, b) in [(&default, &other), (&other, &default)] {
            for name in [a.node_namespace(), a.pod_namespace("default", "x", "1")] {
                assert!(a.owns_namespace(&name));
                assert!(!b.owns_namespace(&name), "{name}");
            }
        }
        assert!(!default.owns_namespace("node"));
    }

    #[test]
    fn names_are_stable() {
        let layout = Layout::new(Path::new(DEFAULT_DIR)).unwrap();
        assert_eq!(
            layout.pod_namespace("a", "b", "c"),
            layout.pod_namespace("a", "b", "c")
        );
        assert_ne!(
            layout.pod_namespace("a", "b", "c"),
            layout.pod_namespace("a", "b", "d")
        );
    }
}
