//! Objects and logs of a Kubernetes cluster, for commands that look at what is there. Bounds: 500 objects in one answer,
//! [`MOST`] of one kind; logs of 4 MiB.

use anyhow::bail;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, ListParams, LogParams},
};
use mesh_proto::kube::Kind;
use serde_json::Value;

use crate::{kube_cluster::explain, local::object};

const PAGE: u32 = 500;
/// More objects of one kind than these are not a mesh that one command should read.
const MOST: usize = 200_000;
const MAX_LOG: i64 = 4 << 20;

/// Objects of a kind; an empty namespace or name means all. A kind that the cluster does not serve has none.
pub async fn list(client: &Client, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<Vec<Value>> {
    // An older installation may serve an older version only.
    for version in kind.versions() {
        match list_version(client, kind, version, namespace, name).await {
            Err(Error::Api(status)) if status.code == 404 => {}
            Ok(objects) if objects.len() >= MOST => {
                bail!(
                    "there are {MOST} {} and more; name a namespace with -n",
                    kind.plural()
                )
            }
            Ok(objects) => return Ok(objects),
            Err(error) => {
                let place = match namespace {
                    "" => "all namespaces".to_owned(),
                    namespace => format!("namespace {namespace}"),
                };
                return Err(explain(&error, &format!("reading {} of {place}", kind.plural())));
            }
        }
    }
    Ok(Vec::new())
}

async fn list_version(
    client: &Client,
    kind: Kind,
    version: &str,
    namespace: &str,
    name: &str,
) -> Result<Vec<Value>, Error> {
    let api_version = match kind.group() {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    let resource = ApiResource {
        group: kind.group().to_owned(),
        version: version.to_owned(),
        api_version: api_version.clone(),
        kind: kind.as_str().to_owned(),
        plural: kind.plural().to_owned(),
    };
    let api: Api<DynamicObject> = match namespace {
        namespace if kind.is_namespaced() && !namespace.is_empty() => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        _ => Api::all_with(client.clone(), &resource),
    };
    let mut parameters = ListParams::default().limit(PAGE);
    if !name.is_empty() {
        parameters = parameters.fields(&format!("metadata.name={name}"));
    }
    let mut found = Vec::new();
    loop {
        let page = api.list(&parameters).await?;
        for mut object in page.items {
            // Items of a list do not say what they are; who wrote which field is of no interest here.
            object.types = Some(kube::core::TypeMeta {
                api_version: api_version.clone(),
                kind: kind.as_str().to_owned(),
            });
            object.metadata.managed_fields = None;
            found.push(serde_json::to_value(object).map_err(Error::SerdeError)?);
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() && found.len() < MOST => {
                parameters = parameters.continue_token(&token);
            }
            _ => return Ok(found),
        }
    }
}

/// The last lines that a container wrote.
pub async fn logs(client: &Client, pod: &Value, container: &str, lines: usize) -> anyhow::Result<String> {
    let (namespace, name) = (
        object::text(pod, "/metadata/namespace"),
        object::text(pod, "/metadata/name"),
    );
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let parameters = LogParams {
        container: Some(container.to_owned()),
        tail_lines: i64::try_from(lines).ok(),
        limit_bytes: Some(MAX_LOG),
        ..LogParams::default()
    };
    api.logs(name, &parameters).await.map_err(|error| {
        explain(
            &error,
            &format!("reading the log of {namespace}/{name}, container {container}"),
        )
    })
}
