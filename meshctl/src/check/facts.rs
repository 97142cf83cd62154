//! What `meshctl check` knows: gathered once, each part with its own error.

use std::collections::BTreeMap;

use mesh_pilot::{analyze, ingest::Change};
use mesh_proto::{finding::Finding, kube::Kind, names::port};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    command::proxy_status,
    context::Mesh,
    local::object,
    reach,
    world::{self, Part},
};

/// A part that could be had, or why not.
pub type Known<T> = Result<T, String>;

#[derive(Debug)]
pub struct Facts {
    pub now: OffsetDateTime,
    /// Of this program.
    pub version: String,
    /// The control plane's namespace.
    pub system: String,
    /// Kubernetes, and not this machine.
    pub cluster: bool,
    /// The version of the API server, or of the local mesh's supervisor.
    pub server: Known<String>,
    /// API groups that the cluster serves.
    pub groups: Known<Vec<String>>,
    pub namespaces: Known<Vec<Value>>,
    pub pods: Known<Vec<Value>>,
    pub services: Known<Vec<Value>>,
    pub config_maps: Known<Vec<Value>>,
    pub webhooks: Known<Vec<Value>>,
    /// Pod of the control plane → its version.
    pub versions: BTreeMap<String, Known<String>>,
    /// Rows of pilot's `/debug/syncz`.
    pub proxies: Known<Vec<Value>>,
    pub findings: Known<Vec<Finding>>,
}

impl Facts {
    pub async fn gather(mesh: &Mesh) -> Self {
        let list = async |kind: Kind| told(mesh.objects(kind, "", "").await);
        let pods = list(Kind::Pod).await;
        let mut webhooks = list(Kind::MutatingWebhookConfiguration).await;
        if let (Ok(all), Ok(more)) = (&mut webhooks, list(Kind::ValidatingWebhookConfiguration).await) {
            all.extend(more);
        }
        Self {
            now: OffsetDateTime::now_utc(),
            version: mesh_runtime::build::VERSION.to_owned(),
            system: mesh.system.clone(),
            cluster: mesh.cluster().is_some(),
            server: told(server(mesh).await),
            groups: told(groups(mesh).await),
            namespaces: list(Kind::Namespace).await,
            services: list(Kind::Service).await,
            config_maps: root_maps(mesh).await,
            webhooks,
            versions: versions(mesh).await,
            proxies: told(proxy_status::proxies(mesh).await),
            findings: told(findings(mesh).await),
            pods,
        }
    }

    /// Running pods of a part of the control plane.
    pub fn parts(&self, app: &str) -> Vec<&Value> {
        let pods = self.pods.iter().flatten();
        pods.filter(|pod| {
            object::text(pod, "/metadata/namespace") == self.system && pod["metadata"]["labels"]["app"] == app
        })
        .collect()
    }
}

fn told<T>(result: anyhow::Result<T>) -> Known<T> {
    result.map_err(|error| format!("{error:#}"))
}

async fn server(mesh: &Mesh) -> anyhow::Result<String> {
    if let Some(cluster) = mesh.cluster() {
        let info = cluster
            .client
            .apiserver_version()
            .await
            .map_err(|error| crate::kube_cluster::explain(&error, "asking for the version"))?;
        return Ok(info.git_version);
    }
    match mesh.local() {
        Some(context) => Ok(context.client.status().await?.version),
        None => Ok(String::new()),
    }
}

async fn groups(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let Some(cluster) = mesh.cluster() else {
        return Ok(Vec::new());
    };
    let list = cluster
        .client
        .list_api_groups()
        .await
        .map_err(|error| crate::kube_cluster::explain(&error, "asking for the API groups"))?;
    Ok(list.groups.into_iter().map(|group| group.name).collect())
}

/// The root certificate as every namespace has it.
async fn root_maps(mesh: &Mesh) -> Known<Vec<Value>> {
    told(mesh.objects(Kind::ConfigMap, "", super::identity::ROOT_MAP).await)
}

async fn versions(mesh: &Mesh) -> BTreeMap<String, Known<String>> {
    let mut all = BTreeMap::new();
    for app in super::control_plane::PARTS {
        for pod in mesh.parts(app).await.unwrap_or_default() {
            let name = object::text(&pod, "/metadata/name").to_owned();
            let answer = told(reach::get_json(&mesh.way(&pod), port::CONTROL, "/version").await);
            let version = answer.map(|info| info["version"].as_str().unwrap_or_default().to_owned());
            all.insert(name, version);
        }
    }
    all
}

async fn findings(mesh: &Mesh) -> anyhow::Result<Vec<Finding>> {
    let objects = world::objects(mesh, Part::Analysis).await?;
    let changes = objects
        .into_iter()
        .map(|manifest| Change::Apply(Box::new(manifest)))
        .chain([Change::Synced]);
    Ok(analyze::offline(changes.collect()))
}
