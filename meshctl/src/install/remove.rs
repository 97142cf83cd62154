//! Taking the mesh away: what leads to it first (webhooks, so that nothing waits for a pilot that is gone), what others stand
//! on last. Parts that other revisions share are handed over to one of them.
//!
//! Without `purge` stay what is not only ours: kinds with the users' objects, the root of trust that running sidecars hold,
//! the namespace. With it nothing is left.

use std::collections::BTreeSet;

use anyhow::bail;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
};
use mesh_proto::names;

use super::{
    apply::{self, BASE_OWNER, label},
    kind::{Key, Kind},
    prune,
};
use crate::{kube_cluster::explain, output};

/// The label on every ConfigMap with the root that citadel publishes.
const ROOT_LABEL: &str = "istio.io/config=true";
const ROOT_NAME: &str = "istio-ca-root-cert";
/// Namespaces and pods that are looked at, of a revision that goes.
const MAX_USERS: u32 = 500;
const ROOT_SECRET: &str = "istio-ca-secret";

/// What is to go.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    pub keys: Vec<Key>,
    /// Shared objects, and the revision that gets them.
    pub handed: Vec<(Key, String)>,
    /// Said at the end.
    pub stays: Vec<String>,
    /// The namespace, when it was made here and goes too.
    pub namespace: Option<Key>,
}

/// One revision, or all of them.
pub async fn plan(
    client: &Client,
    namespace: &str,
    revision: Option<&str>,
    purge: bool,
) -> anyhow::Result<Removal> {
    let there = prune::owners(client).await?;
    let leaving: Vec<&String> = match revision {
        Some(name) if !there.contains(name) => {
            let names: Vec<&str> = there.iter().map(String::as_str).collect();
            bail!(
                "revision {name} is not installed here; there are: {}",
                names.join(", ")
            );
        }
        Some(name) => there.iter().filter(|known| *known == name).collect(),
        None => there.iter().collect(),
    };
    elsewhere(client, namespace, &leaving).await?;
    let heir = there.iter().find(|name| !leaving.contains(name));
    let mut removal = Removal::default();
    for owner in &leaving {
        for (key, component) in prune::of_owner(client, owner).await? {
            let shared = !["pilot", "webhooks", "record", ""].contains(&component.as_str());
            match heir {
                Some(heir) if shared => {
                    if key.kind == "Deployment" && !["citadel", "telemetry"].contains(&component.as_str()) {
                        removal.stays.push(format!(
                            "gateway {component}, which still asks for revision {owner}: let {heir} take it by meshctl \
                             install --revision {heir} --set gateways.{component}.enabled=true (and its other values)"
                        ));
                    }
                    removal.handed.push((key, heir.clone()));
                }
                _ => removal.keys.push(key),
            }
        }
        let suffix = if owner.as_str() == "default" {
            String::new()
        } else {
            format!("-{owner}")
        };
        removal
            .add(client, "Lease", namespace, &format!("pilot-leader{suffix}"))
            .await?;
    }
    if heir.is_none() {
        removal.shared_state(client, namespace, purge).await?;
    }
    // Kinds in the order of the table.
    let place = |key: &Key| super::kind::KINDS.iter().position(|kind| kind.kind == key.kind);
    removal.keys.sort_by_key(place);
    removal.keys.dedup();
    Ok(removal)
}

/// Refuses what would take apart a mesh whose namespace was not named.
async fn elsewhere(client: &Client, namespace: &str, leaving: &[&String]) -> anyhow::Result<()> {
    for owner in leaving {
        let all = prune::of_owner(client, owner).await?;
        let pilot = all
            .iter()
            .find(|(key, component)| key.kind == "Deployment" && component == "pilot");
        if let Some((key, _)) = pilot
            && key.namespace != namespace
        {
            bail!(
                "revision {owner} of the mesh is in namespace {0}, not in {namespace}: name it with -i {0}",
                key.namespace
            );
        }
    }
    Ok(())
}

/// Who would be left without a control plane: namespaces that ask for a revision, and how many pods it serves.
pub async fn users(client: &Client, revision: &str) -> anyhow::Result<Option<String>> {
    let all = ListParams::default().limit(MAX_USERS);
    let labelled = |label: String| {
        let (all, api): (_, Api<Namespace>) = (all.clone().labels(&label), Api::all(client.clone()));
        async move { api.list_metadata(&all).await }
    };
    let doing = format!("looking for what uses revision {revision}");
    let mut asking = BTreeSet::new();
    let mut labels = vec![format!("{}={revision}", names::label::REVISION)];
    if revision == names::DEFAULT_REVISION {
        labels.push(format!("{}=enabled", names::label::INJECTION));
    }
    for label in labels {
        let found = labelled(label).await.map_err(|error| explain(&error, &doing))?;
        asking.extend(found.items.iter().map(ResourceExt::name_any));
    }
    let pods: Api<Pod> = Api::all(client.clone());
    let label = format!("{}={revision}", names::label::REVISION);
    let pods = pods
        .list_metadata(&all.labels(&label))
        .await
        .map_err(|error| explain(&error, &doing))?;
    let more = pods.metadata.remaining_item_count.unwrap_or(0);
    let count = pods.items.len() as i64 + more;
    if count == 0 && asking.is_empty() {
        return Ok(None);
    }
    let asking: Vec<String> = asking.into_iter().collect();
    Ok(Some(format!(
        "{count} pods have sidecars or gateways of revision {revision}, and these namespaces ask for it: {}",
        if asking.is_empty() {
            "none".to_owned()
        } else {
            asking.join(", ")
        }
    )))
}

impl Removal {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.handed.is_empty() && self.namespace.is_none()
    }

    async fn add(&mut self, client: &Client, kind: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        let key = Key::new(kind, namespace, name);
        if apply::get(client, &key).await?.is_some() {
            self.keys.push(key);
        }
        Ok(())
    }

    /// What belongs to no revision: it goes with the last one.
    async fn shared_state(&mut self, client: &Client, namespace: &str, purge: bool) -> anyhow::Result<()> {
        for (key, _) in prune::of_owner(client, BASE_OWNER).await? {
            if purge || key.kind != "CustomResourceDefinition" {
                self.keys.push(key);
            }
        }
        for lease in ["pilot-leader", "pilot-status-leader", "citadel-leader"] {
            self.add(client, "Lease", namespace, lease).await?;
        }
        if !purge {
            self.stays = vec![
                "kinds of the mesh, with all their objects".to_owned(),
                format!(
                    "Secret {namespace}/{ROOT_SECRET} and the ConfigMaps {ROOT_NAME}: running sidecars trust them"
                ),
                format!("namespace {namespace}"),
            ];
            return Ok(());
        }
        self.crds_of_ours(client).await?;
        self.add(client, "Secret", namespace, ROOT_SECRET).await?;
        if let Some(kind) = Kind::by_name("ConfigMap") {
            let roots = prune::list(client, kind, ROOT_LABEL).await?;
            let roots = roots.iter().map(|root| prune::key(kind, root));
            self.keys.extend(roots.filter(|key| key.name == ROOT_NAME));
        }
        let key = Key::new("Namespace", "", namespace);
        let live = apply::get(client, &key).await?;
        if live.as_ref().is_some_and(made_here) {
            self.namespace = Some(key);
        } else if live.is_some() {
            self.stays = vec![format!("namespace {namespace}, which was there before")];
        }
        Ok(())
    }

    /// Kinds that Helm's `crds/` brought carry no label of ours; a purge takes them by their groups and their mark.
    async fn crds_of_ours(&mut self, client: &Client) -> anyhow::Result<()> {
        let Some(kind) = Kind::by_name("CustomResourceDefinition") else {
            return Ok(());
        };
        for object in prune::list(client, kind, "app.kubernetes.io/part-of=gossamer").await? {
            let key = prune::key(kind, &object);
            if !self.keys.contains(&key) && apply::stranger(&object).is_none() {
                self.keys.push(key);
            }
        }
        Ok(())
    }
}

fn made_here(live: &DynamicObject) -> bool {
    let labels = live.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(label::CREATED))
        .is_some_and(|value| value == "true")
}

/// Does it, and waits until everything is gone. Citadel publishes its root until it is gone itself: that is looked for again
/// at the end.
pub async fn carry_out(client: &Client, removal: &Removal) -> anyhow::Result<()> {
    for (key, heir) in &removal.handed {
        prune::hand_over(client, key, heir).await?;
    }
    if let Some((_, heir)) = removal.handed.first() {
        output::line(&format!(
            "✔ {} shared objects now belong to revision {heir}",
            removal.handed.len()
        ));
    }
    let published = |key: &&Key| {
        key.kind == "ConfigMap" && key.name == ROOT_NAME || key.kind == "Secret" || key.kind == "Lease"
    };
    let (last, first): (Vec<&Key>, Vec<&Key>) = removal.keys.iter().partition(published);
    gone(client, &first, "objects").await?;
    pods_gone(client, &first).await?;
    gone(client, &last, "published roots, secrets and leases").await?;
    if let Some(namespace) = &removal.namespace {
        gone(client, &[namespace], "namespace").await?;
    }
    Ok(())
}

async fn gone(client: &Client, keys: &[&Key], what: &str) -> anyhow::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    for key in keys {
        prune::delete(client, key).await?;
    }
    let keys: Vec<Key> = keys.iter().map(|key| (*key).clone()).collect();
    let left = prune::wait_gone(client, &keys).await?;
    if let Some(first) = left.first() {
        bail!(
            "{} of {} {what} are still there, {first} among them; something holds them (finalizers?): kubectl get {} {} -o yaml",
            left.len(),
            keys.len(),
            first.kind.to_lowercase(),
            first.name
        );
    }
    output::line(&format!("✔ {} {what} removed", keys.len()));
    Ok(())
}

/// The pods of removed Deployments live on for their grace period, citadel's among them.
async fn pods_gone(client: &Client, removed: &[&Key]) -> anyhow::Result<()> {
    use k8s_openapi::api::core::v1::Pod;
    use kube::{Api, api::ListParams};
    let Some(citadel) = removed
        .iter()
        .find(|key| key.kind == "Deployment" && key.name == "citadel")
    else {
        return Ok(());
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), &citadel.namespace);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let pods = api.list(&ListParams::default().labels("app=citadel")).await;
        let count = pods
            .map_err(|error| explain(&error, "listing citadel's pods"))?
            .items
            .len();
        if count == 0 {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!(
                "{count} pods of citadel do not end; see: kubectl -n {} get pods -l app=citadel",
                citadel.namespace
            );
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}
