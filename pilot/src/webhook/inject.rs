//! `/inject`: a pod, before Kubernetes stores it. The decision and the sidecar are [`crate::inject`]'s; this module knows
//! where its inputs come from.
//!
//! The namespace's labels come from what pilot watches. The API server calls only for pods that its own selectors have
//! chosen, so where our knowledge says no, it may be older than the API server's: then the namespace is read anew.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, api::ListParams};
use mesh_proto::{kube::ObjectKey, mesh::MeshConfig};
use mesh_runtime::apiserver;
use serde_json::Value;
use tokio::sync::watch;

use super::review::{Answer, Request};
use crate::{
    inject::{self, Outcome, Reason, Settings, patch},
    model::{Labels, ProxySettings, Table},
    push::Hub,
};

/// How long reading a namespace may take: the API server is waiting for us.
const READ: Duration = Duration::from_secs(3);

pub struct Injector {
    hub: Arc<Hub>,
    settings: watch::Receiver<Arc<Settings>>,
    client: Client,
}

impl Injector {
    pub fn new(hub: Arc<Hub>, settings: watch::Receiver<Arc<Settings>>, client: Client) -> Self {
        Self {
            hub,
            settings,
            client,
        }
    }

    pub async fn answer(&self, request: Request) -> Answer {
        let (answer, outcome) = self.judge(&request).await;
        self.hub.metrics.injected(outcome).inc();
        answer
    }

    async fn judge(&self, request: &Request) -> (Answer, &'static str) {
        if request.operation != "CREATE" && !request.operation.is_empty() {
            return (Answer::allow(request), "skipped");
        }
        let mut pod: Pod = match serde_json::from_value(request.object.clone()) {
            Ok(pod) => pod,
            Err(error) => {
                let text = format!("no sidecar can be injected into what is no pod: {error}");
                return (Answer::deny(request, text), "refused");
            }
        };
        // At admission a pod may not name its namespace yet.
        let before = pod.clone();
        pod.metadata.namespace = Some(request.namespace.clone());
        let (mesh, proxies) = self.mesh();
        let settings = self.settings.borrow().clone();
        let known = self.known_labels(&request.namespace);
        let mut outcome =
            known.map(|labels| inject::inject(&pod, &labels, &mesh, proxies.values(), &settings));
        if outcome.as_ref().is_none_or(by_namespace) {
            outcome = match self.read_labels(&request.namespace).await {
                Ok(labels) => Some(inject::inject(&pod, &labels, &mesh, proxies.values(), &settings)),
                Err(problem) if outcome.is_none() => return (Answer::fail(request, problem), "failed"),
                Err(_) => outcome,
            };
        }
        let name = || {
            let metadata = &pod.metadata;
            let name = metadata.name.as_ref().or(metadata.generate_name.as_ref());
            format!("{}/{}", request.namespace, name.map_or("", String::as_str))
        };
        match outcome {
            Some(Outcome::Injected(mut after)) => {
                after.metadata.namespace.clone_from(&before.metadata.namespace);
                tracing::debug!(pod = name(), "injected");
                match operations(&before, &after) {
                    Ok(operations) => (Answer::patch(request, operations), "injected"),
                    Err(error) => (Answer::fail(request, error.to_string()), "failed"),
                }
            }
            Some(Outcome::Refused(finding)) => {
                tracing::info!(pod = name(), %finding, "refused");
                (Answer::deny(request, finding.to_string()), "refused")
            }
            Some(Outcome::Skipped(reason)) => {
                tracing::info!(pod = name(), %reason, "no sidecar");
                // Whoever asked for a sidecar should hear why there is none.
                let surprising = matches!(reason, Reason::HostNetwork);
                let warning = surprising.then(|| format!("no sidecar: {reason}"));
                (Answer::allow(request).warn(warning), "skipped")
            }
            None => (Answer::allow(request), "skipped"),
        }
    }

    fn mesh(&self) -> (Arc<MeshConfig>, Table<ProxySettings>) {
        self.hub.with_store(|store| {
            let world = store.world();
            (world.mesh.clone(), world.proxy_settings.clone())
        })
    }

    fn known_labels(&self, namespace: &str) -> Option<Labels> {
        let key = ObjectKey::new("", namespace);
        self.hub.with_store(|store| {
            let known = store.world().namespaces.get(&key);
            known.map(|namespace| namespace.labels.clone())
        })
    }

    async fn read_labels(&self, namespace: &str) -> Result<Labels, String> {
        let doing = format!("reading Namespace {namespace}");
        let api: Api<Namespace> = Api::all(self.client.clone());
        // A list of one: whoever watches may list, so it takes no right of its own.
        let only = ListParams::default().fields(&format!("metadata.name={namespace}"));
        match tokio::time::timeout(READ, api.list_metadata(&only)).await {
            Ok(Ok(found)) => match found.items.into_iter().next() {
                Some(found) => Ok(found.metadata.labels.unwrap_or_default()),
                None => Err(format!("{doing}: it is not there")),
            },
            Ok(Err(error)) => Err(apiserver::explain(&error, &doing)),
            Err(_) => Err(format!("{doing}: no answer within {READ:?}")),
        }
    }
}

/// Did the namespace's labels decide?
fn by_namespace(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Skipped(Reason::NotEnabled | Reason::NamespaceDisabled | Reason::OtherRevision(_))
    )
}

/// Both sides have gone through the same types: a field that we do not know is in neither of them, and stays as it is.
fn operations(before: &Pod, after: &Pod) -> Result<Vec<Value>, serde_json::Error> {
    Ok(patch::patch(
        &serde_json::to_value(before)?,
        &serde_json::to_value(after)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, testing::changes};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde_json::json;

    /// An injector that knows a labelled namespace, and whose API server is not there.
    fn injector() -> Injector {
        let hub = Hub::new(0, Metrics::default());
        hub.apply(changes(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: meshed, labels: {istio-injection: enabled}}\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {name: plain}\n",
        ));
        let away = kube::Config::new("http://127.0.0.1:9".parse().expect("a URL"));
        let client = Client::try_from(away).expect("a client");
        let (sender, settings) = watch::channel(Arc::new(Settings::default()));
        drop(sender);
        Injector::new(Arc::new(hub), settings, client)
    }

    async fn ask(namespace: &str, spec: Value) -> Value {
        let request = Request {
            uid: "u".into(),
            operation: "CREATE".into(),
            namespace: namespace.into(),
            object: json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "a-", "creationTimestamp": null},
                "spec": spec}),
            ..Request::default()
        };
        serde_json::to_value(injector().answer(request).await).expect("JSON")["response"].clone()
    }

    #[tokio::test]
    async fn answers() {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let containers = json!({"containers": [{"name": "a", "image": "i", "unknownField": 1}]});
        let injected = ask("meshed", containers.clone()).await;
        assert_eq!(injected["allowed"], true);
        let patch = injected["patch"].as_str().expect("a patch");
        let patch = STANDARD.decode(patch).expect("base64");
        let patch: Vec<Value> = serde_json::from_slice(&patch).expect("a patch");
        // Nothing of the user's is replaced or removed.
        assert!(
            patch.iter().all(|operation| operation["op"] == "add"),
            "{patch:#?}"
        );
        assert!(
            patch
                .iter()
                .any(|operation| operation["path"] == "/spec/initContainers")
        );
        assert!(
            !patch
                .iter()
                .any(|operation| operation["path"] == "/metadata/namespace")
        );

        // No label, and nobody who knows better.
        let skipped = ask("plain", containers.clone()).await;
        assert_eq!(skipped, json!({"uid": "u", "allowed": true}));
        // Unknown, and it cannot be read: a pod without its sidecar must not start.
        let failed = ask("new", containers).await;
        assert_eq!(
            (&failed["allowed"], &failed["status"]["code"]),
            (&json!(false), &json!(500))
        );
        let host = ask(
            "meshed",
            json!({"hostNetwork": true, "containers": [{"name": "a"}]}),
        )
        .await;
        assert!(
            host["warnings"][0]
                .as_str()
                .is_some_and(|text| text.contains("host's network"))
        );
        let refused = ask("meshed", json!({"containers": [{"name": "istio-init"}]})).await;
        let message = refused["status"]["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("GSM0005") && message.contains("spec.containers[0].name"),
            "{message}"
        );
    }
}
