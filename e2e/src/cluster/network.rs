//! The cluster's network: a namespace per machine, joined by a bridge inside the control machine's, and routes. The host's own
//! interfaces, routes and filters are not touched, and nothing of the cluster can reach anything outside of it: there is no way
//! out of the control machine, which answers "unreachable" at once.
//!
//! ```text
//!   control  10.250.0.1   bridge "machines" ── veth ── eth0  node-1  10.250.0.11 ── pods 10.244.1.0/24
//!                                           ── veth ── eth0  node-2  10.250.0.12 ── pods 10.244.2.0/24
//! ```
//!
//! Pods are joined to their node by CNI's `ptp` plugin and not by `bridge`: with a veth to the node per pod every packet between
//! pods is routed by the node, so that the translation of a Service's address is always undone on the way back, also between two
//! pods of one node, which over a bridge would depend on a setting of the kernel (`bridge-nf-call-iptables`).
//!
//! The control machine reaches pods (webhooks) and, by way of the first node, Services (for `forward`).

use super::layout::{CONTROL, CONTROL_ADDRESS, Layout, SERVICE_RANGE, node_address, node_name, pod_range};
use crate::process::{command, run};
use serde_json::{Value, json};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

const FOLDER: &str = "/run/netns";
/// No `ip` takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the namespaces, the wires and the routes.
pub fn create(layout: &Layout, nodes: u8) -> anyhow::Result<()> {
    let control = layout.namespace(CONTROL);
    ip(&["netns", "add", &control], "")?;
    for index in 1..=nodes {
        ip(&["netns", "add", &layout.namespace(&node_name(index))], "")?;
    }
    ip(
        &["-netns", &control, "-batch", "-"],
        &control_script(layout, nodes),
    )?;
    for index in 1..=nodes {
        let namespace = layout.namespace(&node_name(index));
        ip(&["-netns", &namespace, "-batch", "-"], &node_script(index, nodes))?;
    }
    Ok(())
}

fn control_script(layout: &Layout, nodes: u8) -> String {
    // The address of the bridge is fixed: it would else be that of one of its ports, and change.
    let mut script = format!(
        "link set lo up\n\
         link add machines address 02:00:0a:fa:00:01 type bridge\n\
         link set machines up\n\
         addr add {CONTROL_ADDRESS}/24 dev machines\n"
    );
    for index in 1..=nodes {
        let (name, address) = (node_name(index), node_address(index));
        let namespace = layout.namespace(&name);
        script += &format!(
            "link add {name} type veth peer name eth0 netns {namespace}\n\
             link set {name} master machines up\n\
             route add {} via {address}\n",
            pod_range(index)
        );
    }
    script + &format!("route add {SERVICE_RANGE} via {}\n", node_address(1))
}

fn node_script(index: u8, nodes: u8) -> String {
    let mut script = format!(
        "link set lo up\n\
         link set eth0 up\n\
         addr add {}/24 dev eth0\n\
         route add default via {CONTROL_ADDRESS}\n",
        node_address(index)
    );
    for other in (1..=nodes).filter(|other| *other != index) {
        script += &format!("route add {} via {}\n", pod_range(other), node_address(other));
    }
    script
}

/// How containerd joins a pod to its node.
pub fn pod_network(index: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": pod_range(index) }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// The cluster's namespaces that are there.
pub fn namespaces(layout: &Layout) -> Vec<String> {
    let entries = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| layout.owns_namespace(name))
        .collect();
    names.sort();
    names
}

/// The processes whose network namespace this is, as the host counts them. Those of pods have another one; they end with the
/// first process of their machine.
pub fn members(namespace: &str) -> Vec<i32> {
    let Ok(own) = std::fs::metadata(path(namespace)) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let theirs = std::fs::metadata(entry.path().join("ns/net")).ok()?;
            ((theirs.dev(), theirs.ino()) == (own.dev(), own.ino())).then_some(pid)
        })
        .collect()
}

pub fn remove(namespace: &str) -> anyhow::Result<()> {
    ip(&["netns", "delete", namespace], "")
}

pub fn path(namespace: &str) -> PathBuf {
    Path::new(FOLDER).join(namespace)
}

fn ip(arguments: &[&str], script: &str) -> anyhow::Result<()> {
    run(command("ip", arguments), Some(script), PATIENCE)?.ok()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_the_way_to_every_other_nodes_pods() {
        let script = node_script(2, 3);
        assert!(
            script.contains("route add 10.244.1.0/24 via 10.250.0.11\n"),
            "{script}"
        );
        assert!(
            script.contains("route add 10.244.3.0/24 via 10.250.0.13\n"),
            "{script}"
        );
        assert!(!script.contains("10.244.2.0/24"), "{script}");
    }
}
