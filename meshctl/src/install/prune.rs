//! What must go: objects that an older version left, a revision that is uninstalled, everything. Found by the labels that
//! `apply` put on them, kind by kind, so nothing is forgotten and nothing of others is touched.

use std::{collections::BTreeSet, time::Duration};

use kube::{
    Client, Error,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{
    apply::{MANAGER, label},
    kind::{KINDS, Key, Kind},
};
use crate::kube_cluster::explain;

/// How long an object may take to be gone.
const GONE: Duration = Duration::from_secs(120);
const ASK: Duration = Duration::from_millis(250);

/// Objects of one owner: with the component that each belongs to.
pub async fn of_owner(client: &Client, owner: &str) -> anyhow::Result<Vec<(Key, String)>> {
    let selector = format!("{}={owner}", label::OWNER);
    let mut all = Vec::new();
    for kind in KINDS {
        for object in list(client, kind, &selector).await? {
            let labels = object.metadata.labels.as_ref();
            let component = labels.and_then(|labels| labels.get(label::COMPONENT)).cloned();
            all.push((key(kind, &object), component.unwrap_or_default()));
        }
    }
    Ok(all)
}

/// Every revision that installed something, from its Deployments.
pub async fn owners(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let mut owners = BTreeSet::new();
    for kind in KINDS
        .iter()
        .filter(|kind| ["Deployment", "ConfigMap"].contains(&kind.kind))
    {
        for object in list(client, kind, label::OWNER).await? {
            let labels = object.metadata.labels.unwrap_or_default();
            owners.extend(labels.get(label::OWNER).cloned());
        }
    }
    owners.remove(super::apply::BASE_OWNER);
    Ok(owners)
}

/// A kind that the cluster does not have has no objects.
pub async fn list(client: &Client, kind: &Kind, selector: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let mut all = Vec::new();
    let mut params = ListParams::default().labels(selector).limit(500);
    loop {
        match kind.api(client, "").list(&params).await {
            Ok(page) => {
                all.extend(page.items);
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params = params.continue_token(&token),
                    None => return Ok(all),
                }
            }
            Err(Error::Api(status)) if status.code == 404 => return Ok(all),
            Err(error) => return Err(explain(&error, &format!("listing {}", kind.plural))),
        }
    }
}

pub fn key(kind: &Kind, object: &DynamicObject) -> Key {
    Key::new(
        kind.kind,
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Deletes one object; one that is not there is gone already.
pub async fn delete(client: &Client, key: &Key) -> anyhow::Result<bool> {
    let Some(kind) = Kind::by_name(&key.kind) else {
        return Ok(false);
    };
    match kind
        .api(client, &key.namespace)
        .delete(&key.name, &DeleteParams::background())
        .await
    {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(explain(&error, &format!("deleting {key}"))),
    }
}

/// Waits until they are gone; gives those that are not.
pub async fn wait_gone(client: &Client, keys: &[Key]) -> anyhow::Result<Vec<Key>> {
    let deadline = tokio::time::Instant::now() + GONE;
    let mut left: Vec<Key> = keys.to_vec();
    loop {
        let mut still = Vec::new();
        for key in left {
            if super::apply::get(client, &key).await?.is_some() {
                still.push(key);
            }
        }
        left = still;
        if left.is_empty() || tokio::time::Instant::now() > deadline {
            return Ok(left);
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Gives an object to another revision, which stays.
pub async fn hand_over(client: &Client, key: &Key, owner: &str) -> anyhow::Result<()> {
    let Some(kind) = Kind::by_name(&key.kind) else {
        return Ok(());
    };
    let patch = json!({"metadata": {"labels": { (label::OWNER): owner }}});
    let how = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    kind.api(client, &key.namespace)
        .patch(&key.name, &how, &Patch::Merge(&patch))
        .await
        .map_err(|error| explain(&error, &format!("handing {key} over to revision {owner}")))?;
    Ok(())
}
