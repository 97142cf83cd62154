//! In which version a kind is served, if it is.

use kube::{Client, Error, core::ApiResource};
use mesh_proto::kube::Kind;
use mesh_runtime::apiserver;

/// The resource to ask for. `None`: the kind is not defined in this cluster.
pub async fn served(client: &Client, kind: Kind) -> Result<Option<ApiResource>, Error> {
    if !kind.is_mesh() {
        // Kubernetes' own kinds are always there.
        return Ok(kind.versions().first().map(|version| resource(kind, version)));
    }
    if let Some(found) = look(client, kind).await? {
        return Ok(Some(found));
    }
    // A server that has just started does not serve custom kinds yet. Only one that calls itself ready is believed.
    let request = http::Request::get("/readyz")
        .body(Vec::new())
        .map_err(Error::HttpError)?;
    match client.request_text(request).await {
        Err(error) if apiserver::code(&error) != Some(403) => Err(error),
        _ => look(client, kind).await,
    }
}

/// The first of our versions that is served.
async fn look(client: &Client, kind: Kind) -> Result<Option<ApiResource>, Error> {
    for version in kind.versions() {
        match client
            .list_api_group_resources(&format!("{}/{version}", kind.group()))
            .await
        {
            Ok(list) if list.resources.iter().any(|served| served.name == kind.plural()) => {
                return Ok(Some(resource(kind, version)));
            }
            Ok(_) => {}
            Err(error) if apiserver::is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// How the `kube` crate names a kind.
pub fn resource(kind: Kind, version: &str) -> ApiResource {
    let group = kind.group();
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.as_str().to_owned(),
        plural: kind.plural().to_owned(),
    }
}
