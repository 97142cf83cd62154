//! The supervisor's own API, on a Unix socket that only root can open: what `meshctl` asks of a running mesh. JSON in,
//! JSON out; an error is a sentence. Bound: 64 MiB for a request.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh_proto::{finding::Finding, kube::Manifest, validate};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::{
    admission,
    controller::{delete_pod, namespace::FIRST},
    enter, images, injection,
    merge::{self, LAST_APPLIED},
    moment,
    node::Node,
    object::{self, Key, Kind, key_of},
    pod::hook,
    store::Change,
};

const MAX_REQUEST: usize = 64 << 20;

/// How the node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub dir: String,
    pub pid: u32,
    pub started: String,
    pub gateway_port: Option<u16>,
    pub node_namespace: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ApplyRequest {
    pub objects: Vec<Sourced>,
    /// Where objects go that name no namespace.
    pub namespace: String,
}

/// An object and where it was written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sourced {
    pub object: Value,
    pub source: String,
}

/// What became of one object.
#[derive(Debug, Serialize, Deserialize)]
pub struct Applied {
    /// `deployment.apps/reviews-v1`
    pub name: String,
    pub change: Option<Change>,
    pub error: Option<String>,
    pub findings: Vec<Finding>,
}

/// Names objects: of a kind, perhaps of a namespace, perhaps one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Selection {
    /// Any word for the kind.
    pub kind: String,
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub name: String,
    /// Seconds; for pods that are deleted.
    #[serde(default)]
    pub grace: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PatchRequest {
    pub selection: Selection,
    /// A merge patch (RFC 7386).
    pub patch: Value,
}

/// Which container `exec` is to enter.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecQuery {
    pub namespace: String,
    pub pod: String,
    #[serde(default)]
    pub container: String,
}

/// What it takes to run a program beside a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecAnswer {
    pub spec: enter::Spec,
    pub pid: i32,
}

/// A refusal, as a sentence.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, text.into())
}

fn missing(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, text.into())
}

type Answer<T> = Result<Json<T>, Refusal>;

/// Serves until dropped.
pub async fn serve(node: Arc<Node>, socket: UnixListener) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/apply", post(apply))
        .route("/v1/objects", get(objects))
        .route("/v1/delete", post(delete))
        .route("/v1/patch", post(patch))
        .route("/v1/images", post(add_images))
        .route("/v1/exec", get(exec))
        .route("/v1/shutdown", post(shutdown))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(node);
    if let Err(error) = axum::serve(socket, router).await {
        tracing::error!(%error, "control socket");
    }
}

async fn status(State(node): State<Arc<Node>>) -> Json<Status> {
    Json(Status {
        version: mesh_runtime::build::VERSION.to_owned(),
        dir: node.layout.dir.display().to_string(),
        pid: std::process::id(),
        started: node.started.clone(),
        gateway_port: node.options.gateway_port,
        node_namespace: node.layout.node_namespace(),
    })
}

async fn apply(State(node): State<Arc<Node>>, Json(request): Json<ApplyRequest>) -> Json<Vec<Applied>> {
    let mut results = Vec::with_capacity(request.objects.len());
    for Sourced { object, source } in request.objects {
        let findings = findings(&object, &source);
        let (name, result) = apply_one(&node, &object, &request.namespace);
        let (change, error) = match result {
            Ok(change) => (Some(change), None),
            Err(text) => (None, Some(format!("{source}: {text}"))),
        };
        results.push(Applied {
            name,
            change,
            error,
            findings,
        });
    }
    Json(results)
}

/// What is wrong with an object alone. It is stored nevertheless: pilot keeps the last good version of it in effect.
fn findings(object: &Value, source: &str) -> Vec<Finding> {
    match Manifest::read(object.clone(), Some(source.to_owned())) {
        Ok(manifest) => validate::check(&manifest),
        // What the mesh does not know by name is told by the store.
        Err(_) => Vec::new(),
    }
}

fn apply_one(node: &Node, manifest: &Value, namespace: &str) -> (String, Result<Change, String>) {
    let key = match key_of(manifest, namespace) {
        Ok(key) => key,
        Err(error) => {
            let kind = object::text(manifest, "/kind").to_ascii_lowercase();
            return (
                format!("{kind}/{}", object::text(manifest, "/metadata/name")),
                Err(error.to_string()),
            );
        }
    };
    (key.to_string(), store_one(node, &key, manifest))
}

fn store_one(node: &Node, key: &Key, manifest: &Value) -> Result<Change, String> {
    if key.kind.namespaced {
        let namespace = node.store.get(&Key::new("Namespace", "", &key.namespace));
        let leaving = |namespace: &Value| !object::text(namespace, "/metadata/deletionTimestamp").is_empty();
        match namespace {
            None => {
                return Err(format!(
                    "namespace {:?} is not there; apply it first",
                    key.namespace
                ));
            }
            Some(namespace) if leaving(&namespace) => {
                return Err(format!("namespace {:?} is being deleted", key.namespace));
            }
            Some(_) => {}
        }
    }
    let live = node.store.get(key);
    let object = merge::apply(key, live.as_deref(), manifest);
    admission::check(key.kind.kind, &object).map_err(|why| format!("{key}: {why}"))?;
    if key.kind.kind == "Pod" {
        return match live {
            None => injection::admit(&node.store, object).and_then(|pod| {
                node.store
                    .create(key, pod)
                    .map(|_| Change::Created)
                    .map_err(|e| e.to_string())
            }),
            Some(live) => replace_pod(node, key, &live, &object),
        };
    }
    node.store.put(key, object).map_err(|error| error.to_string())
}

/// A pod's spec never changes; its labels and annotations may.
fn replace_pod(node: &Node, key: &Key, live: &Value, wanted: &Value) -> Result<Change, String> {
    let written = |object: &Value| -> Value {
        let text = object["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .unwrap_or_default();
        serde_json::from_str::<Value>(text)
            .map(|manifest| manifest["spec"].clone())
            .unwrap_or_default()
    };
    if written(live) != written(wanted) {
        return Err(format!(
            "the spec of {key} cannot change while it exists; delete it first"
        ));
    }
    node.store
        .update(key, |pod| {
            for field in ["labels", "annotations"] {
                for (name, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
                    if !pod["metadata"][field].is_object() {
                        object::set_metadata(pod, field, json!({}));
                    }
                    pod["metadata"][field][name] = value.clone();
                }
            }
        })
        .map_err(|error| error.to_string())
}

fn kind_of(word: &str) -> Result<&'static Kind, Refusal> {
    Kind::by_word(word).ok_or_else(|| bad(format!("{word:?} is no kind of the local platform")))
}

/// All objects of a kind, of one namespace when it is named, or one.
async fn objects(State(node): State<Arc<Node>>, Query(selection): Query<Selection>) -> Answer<Vec<Value>> {
    let kind = kind_of(&selection.kind)?;
    let wanted = |key: &Key| {
        (selection.namespace.is_empty() || !kind.namespaced || key.namespace == selection.namespace)
            && (selection.name.is_empty() || key.name == selection.name)
    };
    let found: Vec<Value> = node
        .store
        .list(kind)
        .into_iter()
        .filter(|(key, _)| wanted(key))
        .map(|(_, object)| (*object).clone())
        .collect();
    if found.is_empty() && !selection.name.is_empty() {
        return Err(missing(format!(
            "{}/{} is not there",
            kind.full_name(),
            selection.name
        )));
    }
    Ok(Json(found))
}

async fn delete(State(node): State<Arc<Node>>, Json(selection): Json<Selection>) -> Answer<Value> {
    let kind = kind_of(&selection.kind)?;
    let namespace = if kind.namespaced {
        selection.namespace.as_str()
    } else {
        ""
    };
    let key = Key {
        kind,
        namespace: namespace.to_owned(),
        name: selection.name.clone(),
    };
    if node.store.get(&key).is_none() {
        return Err(missing(format!("{key} is not there")));
    }
    let failed =
        |error: super::store::StoreError| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    match kind.kind {
        "Namespace" => delete_namespace(&node, &key).map_err(bad)?,
        "Pod" => delete_pod(&node.store, &key, selection.grace).map_err(failed)?,
        _ => {
            node.store.remove(&key).map_err(failed)?;
        }
    }
    Ok(Json(json!({"deleted": key.to_string()})))
}

/// Everything in it goes first; the controllers remove the namespace when it is empty.
fn delete_namespace(node: &Node, key: &Key) -> Result<(), String> {
    if FIRST.contains(&key.name.as_str()) {
        return Err(format!(
            "namespace {:?} is part of the platform and stays",
            key.name
        ));
    }
    let mark = node.store.update(key, |namespace| {
        object::set_metadata(namespace, "deletionTimestamp", moment::now().into());
        namespace["status"] = json!({"phase": "Terminating"});
    });
    mark.map_err(|error| error.to_string())?;
    for inside in node.store.keys_in(&key.name) {
        let result = match inside.kind.kind {
            "Pod" => delete_pod(&node.store, &inside, None),
            _ => node.store.remove(&inside).map(drop),
        };
        result.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn patch(State(node): State<Arc<Node>>, Json(request): Json<PatchRequest>) -> Answer<Value> {
    let PatchRequest { selection, patch } = request;
    let kind = kind_of(&selection.kind)?;
    let namespace = if kind.namespaced {
        selection.namespace.as_str()
    } else {
        ""
    };
    let key = Key {
        kind,
        namespace: namespace.to_owned(),
        name: selection.name,
    };
    if let Some(live) = node.store.get(&key) {
        let mut wanted = (*live).clone();
        merge_patch(&mut wanted, &patch);
        admission::check(kind.kind, &wanted).map_err(|why| bad(format!("{key}: {why}")))?;
    }
    let change = node
        .store
        .update(&key, |object| merge_patch(object, &patch))
        .map_err(|error| missing(error.to_string()))?;
    Ok(Json(json!({"change": change})))
}

/// RFC 7386.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            if let Some(map) = target.as_object_mut() {
                map.remove(name);
            }
        } else {
            merge_patch(&mut target[name], value);
        }
    }
}

async fn add_images(State(node): State<Arc<Node>>, Json(rows): Json<images::Table>) -> Answer<Value> {
    images::add(&node.layout.images(), &rows).map_err(|error| bad(error.to_string()))?;
    Ok(Json(json!({"added": rows.len()})))
}

async fn exec(State(node): State<Arc<Node>>, Query(query): Query<ExecQuery>) -> Answer<ExecAnswer> {
    let key = Key::new("Pod", &query.namespace, &query.pod);
    let pod = node
        .store
        .get(&key)
        .ok_or_else(|| missing(format!("{key} is not there")))?;
    let list = |pointer: &str| {
        pod.pointer(pointer)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let name = if query.container.is_empty() {
        let first = list("/spec/containers")
            .first()
            .and_then(|c| c["name"].as_str())
            .map(ToOwned::to_owned);
        first.ok_or_else(|| bad(format!("{key} has no containers")))?
    } else {
        query.container
    };
    let known: Vec<Value> = [list("/spec/containers"), list("/spec/initContainers")].concat();
    if !known.iter().any(|container| container["name"] == name.as_str()) {
        let names: Vec<&str> = known
            .iter()
            .filter_map(|container| container["name"].as_str())
            .collect();
        return Err(missing(format!(
            "{key} has no container {name:?}; it has: {}",
            names.join(", ")
        )));
    }
    let file = node
        .layout
        .pod(&key.namespace, &key.name)
        .join(format!("{name}.json"));
    let text =
        std::fs::read(&file).map_err(|_| bad(format!("container {name:?} of {key} has not been started")))?;
    let spec: enter::Spec = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let pid = node.processes.get(&spec.name);
    let pid = pid.ok_or_else(|| bad(format!("container {name:?} of {key} is not running")))?;
    let spec = hook::beside(spec, pid, &["true".to_owned()]).map_err(bad)?;
    Ok(Json(ExecAnswer { spec, pid }))
}

async fn shutdown(State(node): State<Arc<Node>>) -> Json<Value> {
    node.close();
    Json(json!({"closing": true}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patches() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge_patch(&mut object, &json!({"a": {"b": null, "e": {"f": 3}}, "d": [2]}));
        assert_eq!(object, json!({"a": {"c": 2, "e": {"f": 3}}, "d": [2]}));
    }
}
