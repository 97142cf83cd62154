//! The mesh on Kubernetes, put there and taken away.
//!
//! ```text
//!  flags ── values (profile, -f, --set; set) ── schema ── plan ── render (chart) ── groups of objects
//!                                                                                       │
//!      preflight: may this be done here?                    apply ── wait ── prune ── record
//!                                                           remove: and away again
//! ```
//!
//! `helm install` and `meshctl install` have the same charts and give the same objects. What this promises beyond: nothing
//! is changed before the checks pass; groups are applied in the order in which one needs the other, and each is waited for;
//! the same again changes nothing; an upgrade that does not get ready is taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use kube::Client;
use serde_json::Value;
use tokio::time::Instant;

use self::{
    apply::{Change, label},
    kind::Key,
    plan::{Component, Plan},
};
use crate::{local::object::text, output};

pub mod apply;
pub mod chart;
pub mod kind;
pub mod plan;
pub mod preflight;
pub mod prune;
pub mod record;
pub mod remove;
pub mod render;
pub mod schema;
pub mod set;
pub mod values;
pub mod wait;

/// Objects with the labels of their owner, in the order in which they are applied.
pub type Groups = BTreeMap<Component, Vec<Value>>;

/// What an installation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub changes: BTreeMap<Change, usize>,
    pub pruned: usize,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = self
            .changes
            .iter()
            .map(|(change, count)| format!("{count} {change}"))
            .collect();
        if self.pruned > 0 {
            parts.push(format!("{} removed", self.pruned));
        }
        f.write_str(&parts.join(", "))
    }
}

/// What this revision is to bring: all of the plan but the shared parts that another revision has brought, which stay.
pub async fn claim(client: &Client, plan: &Plan) -> anyhow::Result<Groups> {
    let mut groups = Groups::new();
    for (component, objects) in &plan.groups {
        if component.is_shared()
            && let Some(owner) = owner(client, objects).await?
            && owner != plan.revision()
        {
            output::line(&format!("• {component} stays as revision {owner} installed it"));
            continue;
        }
        let objects = objects
            .iter()
            .map(|object| apply::owned(object, component, plan.revision()));
        groups.insert(component.clone(), objects.collect());
    }
    Ok(groups)
}

/// The revision that brought a group, from its workload.
async fn owner(client: &Client, objects: &[Value]) -> anyhow::Result<Option<String>> {
    let workload = objects
        .iter()
        .find(|object| ["Deployment", "DaemonSet"].contains(&text(object, "/kind")));
    let Some(workload) = workload else {
        return Ok(None);
    };
    let live = apply::get(client, &Key::of(workload)).await?;
    Ok(live.and_then(|live| live.metadata.labels?.get(label::OWNER).cloned()))
}

/// Objects of a record, as groups again.
pub fn groups(objects: &[Value]) -> Groups {
    let mut groups = Groups::new();
    for object in objects {
        let name = object["metadata"]["labels"][label::COMPONENT]
            .as_str()
            .unwrap_or_default();
        let component = match name {
            "base" => Component::Base,
            "pilot" => Component::Pilot,
            "webhooks" => Component::Webhooks,
            "citadel" | "telemetry" => Component::Shared(name.to_owned()),
            gateway => Component::Gateway(gateway.to_owned()),
        };
        groups.entry(component).or_default().push(object.clone());
    }
    groups
}

/// Applies all groups, waits for each as far as the next needs it, and for the rest at the end.
pub async fn carry_out(client: &Client, groups: &Groups, timeout: Duration) -> anyhow::Result<Outcome> {
    let deadline = Instant::now() + timeout;
    let mut outcome = Outcome::default();
    let mut later: Vec<(&Component, &Vec<Value>)> = Vec::new();
    for (component, objects) in groups {
        let began = Instant::now();
        let mut changes: BTreeMap<Change, usize> = BTreeMap::new();
        for object in objects {
            let change = match foreign_kind(client, object).await? {
                Some(owner) => {
                    output::line(&format!("• {} belongs to {owner} and stays", Key::of(object)));
                    Change::Unchanged
                }
                None => apply::apply(client, object).await?,
            };
            *changes.entry(change).or_default() += 1;
        }
        let told: Vec<String> = changes
            .iter()
            .map(|(change, count)| format!("{count} {change}"))
            .collect();
        let told = told.join(", ");
        for (change, count) in changes {
            *outcome.changes.entry(change).or_default() += count;
        }
        if matches!(component, Component::Gateway(_)) || component.label() == "telemetry" {
            output::line(&format!("  {component}: {told}"));
            later.push((component, objects));
            continue;
        }
        wait_for(client, component, objects, deadline).await?;
        output::line(&format!(
            "✔ {component}: {told} ({:.1} s)",
            began.elapsed().as_secs_f32()
        ));
    }
    for (component, objects) in later {
        let began = Instant::now();
        wait_for(client, component, objects, deadline).await?;
        output::line(&format!(
            "✔ {component} is ready ({:.1} s)",
            began.elapsed().as_secs_f32()
        ));
    }
    Ok(outcome)
}

async fn wait_for(
    client: &Client,
    component: &Component,
    objects: &[Value],
    deadline: Instant,
) -> anyhow::Result<()> {
    let objects: Vec<&Value> = objects.iter().collect();
    wait::ready(client, &objects, deadline)
        .await
        .with_context(|| format!("{component} is not ready"))
}

/// Kinds that came with another installation's Helm chart serve us as well: they are left alone.
async fn foreign_kind(client: &Client, object: &Value) -> anyhow::Result<Option<String>> {
    if object["kind"] != "CustomResourceDefinition" {
        return Ok(None);
    }
    let live = apply::get(client, &Key::of(object)).await?;
    Ok(live.as_ref().and_then(apply::stranger))
}

/// What the revision brought before and does not want any more.
pub async fn leftovers(client: &Client, groups: &Groups, revision: &str) -> anyhow::Result<Vec<Key>> {
    let wanted: BTreeSet<Key> = groups.values().flatten().map(Key::of).collect();
    let record = record::name(revision);
    let mut left = prune::of_owner(client, revision).await?;
    if groups.contains_key(&Component::Base) {
        let shared = prune::of_owner(client, apply::BASE_OWNER).await?;
        // Kinds hold the users' objects: they go only when they are told to.
        left.extend(
            shared
                .into_iter()
                .filter(|(key, _)| key.kind != "CustomResourceDefinition"),
        );
    }
    left.retain(|(key, _)| !wanted.contains(key) && key.name != record);
    Ok(left.into_iter().map(|(key, _)| key).collect())
}

/// Takes them away; says each.
pub async fn prune_leftovers(client: &Client, groups: &Groups, revision: &str) -> anyhow::Result<usize> {
    let mut count = 0;
    for key in leftovers(client, groups, revision).await? {
        if prune::delete(client, &key).await? {
            output::line(&format!("• removed {key}, which an earlier installation left"));
            count += 1;
        }
    }
    Ok(count)
}

/// The whole way: namespace, groups, leftovers, record.
pub async fn install(
    client: &Client,
    plan: &Plan,
    groups: &Groups,
    timeout: Duration,
) -> anyhow::Result<Outcome> {
    if apply::ensure_namespace(client, &plan.namespace).await? {
        output::line(&format!("✔ namespace {}: created", plan.namespace));
    }
    let mut outcome = carry_out(client, groups, timeout).await?;
    outcome.pruned = prune_leftovers(client, groups, plan.revision()).await?;
    let objects: Vec<Value> = groups.values().flatten().cloned().collect();
    record::write(client, plan, &objects).await?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_s_objects_find_their_groups() {
        let object = |component: &str| {
            json!({"kind": "Service", "metadata": {"name": component,
            "labels": {"install.gossamer.dev/component": component}}})
        };
        let objects: Vec<Value> = ["my-gateway", "webhooks", "pilot", "citadel", "base"]
            .map(object)
            .into();
        let groups = groups(&objects);
        let names: Vec<String> = groups.keys().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "kinds and roles",
                "citadel",
                "pilot",
                "webhooks",
                "gateway my-gateway"
            ]
        );
    }

    #[test]
    fn an_outcome_is_a_sentence() {
        let outcome = Outcome {
            changes: [(Change::Created, 2), (Change::Unchanged, 5)].into(),
            pruned: 1,
        };
        assert_eq!(outcome.to_string(), "2 created, 5 unchanged, 1 removed");
    }
}
