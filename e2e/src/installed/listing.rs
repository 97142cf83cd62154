//! Every object of a cluster, by name: what is there that was not there before.

use super::{Installed, PATIENCE};
use crate::process::run;
use anyhow::Context;
use std::collections::BTreeSet;

/// Kinds whose objects come and go by themselves, or are only another view of others.
const RESTLESS: [&str; 7] = [
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "endpointslices.discovery.k8s.io",
    "endpoints",
    "pods.metrics.k8s.io",
    "nodes.metrics.k8s.io",
];

/// Kind, namespace and name of everything; of what belongs to something, that one's name instead of its own: a pod that is
/// replaced has another name, and is no other thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(BTreeSet<String>);

impl Listing {
    pub fn take(mesh: &Installed) -> anyhow::Result<Self> {
        let kinds = mesh.kubectl_ok(&["api-resources", "--verbs=list", "-o", "name"])?;
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !RESTLESS.contains(kind)).collect();
        let format = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,\
                      OWNER:.metadata.ownerReferences[0].name";
        let list = kinds.join(",");
        let line = mesh.kubectl([
            "get",
            &list,
            "-A",
            "--ignore-not-found",
            "--no-headers",
            "-o",
            format,
        ]);
        let said = run(line, None, PATIENCE)?.ok().context("listing everything")?;
        let lines = said.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [kind, namespace, name, "<none>"] => Some(format!("{kind} {namespace} {name}")),
                [kind, namespace, _, owner] => Some(format!("{kind} {namespace} of {owner}")),
                _ => None,
            }
        });
        Ok(Self(lines.collect()))
    }

    /// What of it has the mesh's names.
    pub fn of_the_mesh(&self) -> Vec<String> {
        let ours = ["istio", "gossamer"];
        let found = self
            .0
            .iter()
            .filter(|line| ours.iter().any(|name| line.contains(name)));
        found.cloned().collect()
    }

    /// What is here and was not in the other.
    pub fn beyond(&self, other: &Self) -> Vec<String> {
        self.0.difference(&other.0).cloned().collect()
    }
}
