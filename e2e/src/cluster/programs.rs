//! What runs on each machine, with its command line and its configuration: the same programs, with the same flags, as in any
//! cluster that someone installs by hand. Where a value is not the usual one, the reason stands beside it.
//!
//! Cgroups on a machine like CI's (found by trial): both versions may be mounted beside each other, with the controllers in
//! version 1 (`failCgroupV1: false`), and there may be no systemd (`cgroupDriver: cgroupfs`). The kubelet must not divide the
//! hierarchy into classes of its own (`cgroupsPerQOS: false`, `enforceNodeAllocatable: []`). Root may lack `CAP_SYS_RESOURCE`:
//! nobody can get a negative `oom_score_adj`, nor more than 20,000 open files.

use super::{
    layout::{
        API_PORT, CONTROL, CONTROL_ADDRESS, DNS_SERVICE, Layout, Machine, POD_RANGE, SERVICE_RANGE,
        node_address, node_name,
    },
    machine::{self, Program},
    network,
};
use crate::need;
use anyhow::{Context, ensure};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

pub const PAUSE_IMAGE: &str = "docker.io/gossamer/pause:1";
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// The programs that are not ours.
pub struct Tools {
    /// The folder with Kubernetes, by `make deps-kubernetes`.
    pub kubernetes: PathBuf,
    containerd: PathBuf,
    runc: PathBuf,
    cni: PathBuf,
}

impl Tools {
    pub fn find() -> anyhow::Result<Self> {
        for (program, package) in [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("iptables", "iptables"),
            ("nsenter", "util-linux"),
            ("mount", "mount"),
            ("ctr", "containerd"),
        ] {
            need::program(program, package)?;
        }
        let cni = PathBuf::from("/usr/lib/cni");
        ensure!(
            ["ptp", "host-local", "portmap", "loopback"]
                .iter()
                .all(|plugin| cni.join(plugin).is_file()),
            "the plugins for pods' networks are not in {}: run `make deps-kubernetes`, or `apt-get install \
             containernetworking-plugins`",
            cni.display()
        );
        Ok(Self {
            kubernetes: need::kubernetes()?,
            containerd: need::program("containerd", "containerd")?,
            runc: need::program("runc", "runc")?,
            cni,
        })
    }

    fn program(&self, name: &str, arguments: impl IntoIterator<Item = String>) -> Program {
        let file = self.kubernetes.join(name).display().to_string();
        Program {
            name: name.to_owned(),
            line: std::iter::once(file).chain(arguments).collect(),
        }
    }
}

/// `--name=value` of each pair.
fn flags<V: ToString>(pairs: impl IntoIterator<Item = (&'static str, V)>) -> Vec<String> {
    pairs
        .into_iter()
        .map(|(name, value)| format!("--{name}={}", value.to_string()))
        .collect()
}

/// Writes down what runs on every machine.
pub fn describe(layout: &Layout, tools: &Tools, nodes: u8) -> anyhow::Result<()> {
    let control = layout.machine(CONTROL);
    machine::describe(
        &control,
        &[
            etcd(tools),
            api_server(layout, tools),
            controller_manager(layout, tools),
            scheduler(layout, tools),
        ],
    )?;
    for index in 1..=nodes {
        let node = layout.machine(&node_name(index));
        machine::describe(
            &node,
            &[
                containerd(tools, &node),
                kubelet(layout, tools, &node),
                kube_proxy(tools, &node),
            ],
        )?;
        configure(layout, tools, &node, index)?;
    }
    Ok(())
}

fn etcd(tools: &Tools) -> Program {
    // On loopback of a namespace in which there is nobody else; nothing of it outlives the cluster, so nothing need be on disk.
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    let mut arguments = flags([
        ("data-dir", "/var/lib/etcd"),
        ("listen-client-urls", client),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", "default=http://127.0.0.1:2380"),
        ("log-level", "warn"),
    ]);
    arguments.push("--unsafe-no-fsync".to_owned());
    tools.program("etcd", arguments)
}

fn api_server(layout: &Layout, tools: &Tools) -> Program {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    let address = CONTROL_ADDRESS.to_string();
    let arguments = flags([
        ("advertise-address", address),
        ("secure-port", API_PORT.to_string()),
        ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
        ("service-cluster-ip-range", SERVICE_RANGE.to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("client-ca-file", pki("ca.crt")),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc.cluster.local".to_owned(),
        ),
        ("service-account-key-file", pki("accounts.pub")),
        ("service-account-signing-key-file", pki("accounts.key")),
        // Logs, exec and port-forward: nodes have no names that the control machine could resolve.
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("kubelet-certificate-authority", pki("ca.crt")),
        ("kubelet-client-certificate", pki("apiserver-kubelet-client.crt")),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        // Webhooks are called at their pods' addresses: no kube-proxy is on the control machine.
        ("enable-aggregator-routing", "true".to_owned()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("requestheader-allowed-names", "front-proxy-client".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
        ("proxy-client-cert-file", pki("front-proxy-client.crt")),
        ("proxy-client-key-file", pki("front-proxy-client.key")),
        ("cert-dir", "/run/kube-apiserver".to_owned()),
        ("profiling", "false".to_owned()),
    ]);
    tools.program("kube-apiserver", arguments)
}

fn controller_manager(layout: &Layout, tools: &Tools) -> Program {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    let kubeconfig = pki("controller-manager.kubeconfig");
    let arguments = flags([
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".to_owned()),
        // There is one of it, but this makes it end when the API server is away. If it went on, it would afterwards take every
        // node for dead that it has not heard of meanwhile.
        ("leader-elect", "true".to_owned()),
        ("leader-elect-lease-duration", "10s".to_owned()),
        ("leader-elect-renew-deadline", "8s".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
        ("service-account-private-key-file", pki("accounts.key")),
        ("root-ca-file", pki("ca.crt")),
        ("cluster-signing-cert-file", pki("ca.crt")),
        ("cluster-signing-key-file", pki("ca.key")),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("cert-dir", "/run/kube-controller-manager".to_owned()),
        // The usual place is not below /var.
        ("flex-volume-plugin-dir", "/var/lib/volume-plugins".to_owned()),
        ("profiling", "false".to_owned()),
    ]);
    tools.program("kube-controller-manager", arguments)
}

fn scheduler(layout: &Layout, tools: &Tools) -> Program {
    let kubeconfig = layout.pki().join("scheduler.kubeconfig").display().to_string();
    let arguments = flags([
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".to_owned()),
        // It has no such memory, and waiting for a lease would cost its restart some seconds.
        ("leader-elect", "false".to_owned()),
        ("cert-dir", "/run/kube-scheduler".to_owned()),
        ("profiling", "false".to_owned()),
    ]);
    tools.program("kube-scheduler", arguments)
}

fn containerd(tools: &Tools, node: &Machine) -> Program {
    Program {
        name: "containerd".to_owned(),
        line: vec![
            tools.containerd.display().to_string(),
            "--config".to_owned(),
            node.file("containerd.toml").display().to_string(),
        ],
    }
}

fn kubelet(layout: &Layout, tools: &Tools, node: &Machine) -> Program {
    let name = &node.name;
    let index: u8 = name
        .rsplit('-')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let kubeconfig = layout.pki().join(format!("{name}.kubeconfig"));
    let arguments = flags([
        ("config", node.file("kubelet.json").display().to_string()),
        ("kubeconfig", kubeconfig.display().to_string()),
        ("hostname-override", name.clone()),
        ("node-ip", node_address(index).to_string()),
        // Each node is a zone of its own, so that what goes by zones can be seen.
        (
            "node-labels",
            format!("topology.kubernetes.io/region=region-1,topology.kubernetes.io/zone=zone-{index}"),
        ),
    ]);
    tools.program("kubelet", arguments)
}

fn kube_proxy(tools: &Tools, node: &Machine) -> Program {
    let config = node.file("kube-proxy.json").display().to_string();
    tools.program(
        "kube-proxy",
        flags([("config", config), ("hostname-override", node.name.clone())]),
    )
}

/// Writes the configuration files of a node's programs.
fn configure(layout: &Layout, tools: &Tools, node: &Machine, index: u8) -> anyhow::Result<()> {
    let pki = |file: String| layout.pki().join(file).display().to_string();
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node_address(index).to_string(),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki("ca.crt".to_owned()) },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki(format!("{}.crt", node.name)),
        "tlsPrivateKeyFile": pki(format!("{}.key", node.name)),
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE.to_string()],
        "resolvConf": "",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        // What a process without CAP_SYS_RESOURCE can have.
        "maxOpenFiles": 20000,
        // The disk is the host's, and full or not it is not the pods' fault; and no image could be pulled again.
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" },
        "imageGCHighThresholdPercent": 100,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // A lost node is seen within seconds, and a probe's result is told at once.
        "nodeStatusUpdateFrequency": "5s",
        "healthzBindAddress": "127.0.0.1",
    });
    let proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_RANGE,
        "clientConnection": { "kubeconfig": pki("proxy.kubeconfig".to_owned()) },
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        // The table of connections has the size that the kernel gave it: that is not this namespace's to change.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    });
    let networks = node.file("net.d");
    fs::create_dir_all(&networks).with_context(|| format!("cannot make {}", networks.display()))?;
    keep(
        &networks.join("10-pods.conflist"),
        &format!("{:#}", network::pod_network(index)),
    )?;
    keep(&node.file("kubelet.json"), &format!("{kubelet:#}"))?;
    keep(&node.file("kube-proxy.json"), &format!("{proxy:#}"))?;
    keep(
        &node.file("containerd.toml"),
        &containerd_config(tools, &networks),
    )
}

fn containerd_config(tools: &Tools, networks: &Path) -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # No negative score can be set without CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  # As container engines do today: a pod may open the low ports of its own network and ping.
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"#,
        cni = tools.cni.display(),
        networks = networks.display(),
        runc = tools.runc.display(),
    )
}

fn keep(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
