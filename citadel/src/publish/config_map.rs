//! Keeps the trusted roots in the ConfigMap `istio-ca-root-cert` of every namespace, where pods mount it from. Only the
//! replica that leads writes; what was deleted or changed by others is put back at once, a new namespace has it at once.
//!
//! From: the authority, a watch of namespaces (metadata only), a watch of these ConfigMaps. Bounds: one write at a time,
//! each at most [`CALL`]; failed ones wait for each other, with growing pauses. Rights: `list, watch` on
//! `namespaces`; `get, list, watch, patch` on `configmaps` of that name; `create` on `configmaps`.

use std::{sync::Arc, time::Duration, time::SystemTime};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client, Error, ResourceExt,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use mesh_runtime::{apiserver, backoff::Backoff, drain::Drain, leader::Leadership, tls};
use rustls_pki_types::CertificateDer;

use super::plan::Plan;
use crate::{authority::Authority, bundle, metrics::Metrics};

/// As Istio calls it; the injector mounts it by this name.
pub const NAME: &str = "istio-ca-root-cert";
pub const KEY: &str = "root-cert.pem";
/// By this label everything of the mesh is found when it is uninstalled.
const LABEL: &str = "istio.io/config";
const MANAGER: &str = "mesh-citadel";
const CALL: Duration = Duration::from_secs(10);

/// The roots that were published in a namespace before; none if there is no such ConfigMap yet.
pub async fn published(client: &Client, namespace: &str) -> Vec<CertificateDer<'static>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match tokio::time::timeout(CALL, api.get_opt(NAME)).await {
        Ok(Ok(map)) => map
            .and_then(|map| map.data?.remove(KEY))
            .and_then(|pem| tls::read_certificates(pem.as_bytes()).ok())
            .unwrap_or_default(),
        Ok(Err(error)) => {
            let doing = format!("reading ConfigMap {namespace}/{NAME}");
            tracing::warn!("{}", apiserver::explain(&error, &doing));
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// Publishes whenever this replica leads, until the drain.
pub async fn run(
    client: Client,
    authority: Arc<Authority>,
    leadership: Leadership,
    metrics: Metrics,
    drain: Drain,
) {
    let term = || term(client.clone(), authority.clone(), metrics.clone());
    tokio::select! {
        () = leadership.while_leading(term) => {}
        () = drain.drained() => {}
    }
}

type Watched<K> = Result<Event<K>, watcher::Error>;

/// One term of office.
async fn term(client: Client, authority: Arc<Authority>, metrics: Metrics) {
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut namespaces = std::pin::pin!(watcher(namespaces, watcher::Config::default()).default_backoff());
    let mut maps = std::pin::pin!(watcher(maps, only).default_backoff());
    let mut changes = authority.changes();
    let mut publisher = Publisher::new(client, metrics);
    loop {
        publisher.roots(bundle::to_pem(&authority.roots(SystemTime::now())));
        tokio::select! {
            biased;
            Some(event) = namespaces.next() => publisher.namespace(event),
            Some(event) = maps.next() => publisher.map(event),
            Ok(()) = changes.changed() => {}
            () = publisher.work() => {}
        }
    }
}

struct Publisher {
    client: Client,
    metrics: Metrics,
    plan: Plan,
    content: String,
    /// Both lists were read once: before, everything would seem to be missing.
    listed: [bool; 2],
    backoff: Backoff,
    said: Option<String>,
}

impl Publisher {
    fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            client,
            metrics,
            plan: Plan::default(),
            content: String::new(),
            listed: [false; 2],
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            said: None,
        }
    }

    fn roots(&mut self, content: String) {
        self.plan.want(&content);
        self.content = content;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.namespaces.set(count(self.plan.namespaces()));
        self.metrics.unpublished.set(count(self.plan.behind()));
    }

    fn namespace(&mut self, event: Watched<PartialObjectMeta<Namespace>>) {
        match event {
            Ok(Event::Init) => self.plan.forget_namespaces(),
            Ok(Event::Apply(namespace) | Event::InitApply(namespace)) => {
                let stays = namespace.metadata.deletion_timestamp.is_none();
                self.plan.namespace(&namespace.name_any(), stays);
            }
            Ok(Event::Delete(namespace)) => self.plan.namespace(&namespace.name_any(), false),
            Ok(Event::InitDone) => self.listed[0] = true,
            Err(error) => self.watch_failed(&error, "watching namespaces"),
        }
    }

    fn map(&mut self, event: Watched<ConfigMap>) {
        match event {
            Ok(Event::Init) => self.plan.forget_maps(),
            Ok(Event::Apply(map) | Event::InitApply(map)) => {
                let content = map.data.as_ref().and_then(|data| data.get(KEY));
                let namespace = map.namespace().unwrap_or_default();
                self.plan.map(&namespace, content.map(String::as_str));
            }
            Ok(Event::Delete(map)) => self.plan.map(&map.namespace().unwrap_or_default(), None),
            Ok(Event::InitDone) => self.listed[1] = true,
            Err(error) => self.watch_failed(&error, "watching ConfigMaps istio-ca-root-cert"),
        }
    }

    fn watch_failed(&mut self, error: &watcher::Error, doing: &str) {
        if let Some(text) = apiserver::explain_watch(error, doing) {
            self.say(text);
        }
    }

    /// One write, or a pause. It may be dropped at any await: what was written is seen by the watch.
    async fn work(&mut self) {
        if self.listed != [true; 2] {
            return std::future::pending().await;
        }
        let Some(namespace) = self.plan.next().map(str::to_owned) else {
            if self.plan.behind() == 0 {
                self.said = None;
                return std::future::pending().await;
            }
            let pause = self.backoff.next(rand::random());
            tokio::time::sleep(pause).await;
            self.plan.again();
            return;
        };
        let doing = format!("writing ConfigMap {namespace}/{NAME}");
        match tokio::time::timeout(CALL, self.write(&namespace)).await {
            Ok(Ok(())) => {
                tracing::debug!(namespace, "trusted roots published");
                self.plan.written(&namespace);
                self.backoff.reset();
            }
            // It went away meanwhile, or is about to: the watch will say so.
            Ok(Err(error)) if gone(&error) => self.plan.namespace(&namespace, false),
            Ok(Err(error)) => {
                self.say(apiserver::explain(&error, &doing));
                self.plan.failed(&namespace);
            }
            Err(_) => {
                self.say(format!("{doing}: the API server did not answer within {CALL:?}"));
                self.plan.failed(&namespace);
            }
        }
    }

    async fn write(&self, namespace: &str) -> Result<(), Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let map = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": namespace, "labels": {LABEL: "true"}},
            "data": {KEY: self.content},
        });
        let apply = PatchParams::apply(MANAGER).force();
        api.patch(NAME, &apply, &Patch::Apply(&map)).await.map(drop)
    }

    /// Each trouble is logged once.
    fn say(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            tracing::error!("{text}; pods of namespaces without it cannot start");
            self.said = Some(text);
        }
    }
}

/// The namespace does not exist any more, or nothing may be made in it any more.
fn gone(error: &Error) -> bool {
    match error {
        Error::Api(status) if status.code == 404 => true,
        Error::Api(status) if status.code == 403 => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            causes
                .into_iter()
                .any(|cause| cause.reason == "NamespaceTerminating")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_goes_is_no_failure() {
        for (status, expect) in [
            (serde_json::json!({"code": 404, "reason": "NotFound"}), true),
            (
                serde_json::json!({"code": 403, "reason": "Forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}),
                true,
            ),
            (serde_json::json!({"code": 403, "reason": "Forbidden"}), false),
            (serde_json::json!({"code": 500}), false),
        ] {
            let error = Error::Api(Box::new(serde_json::from_value(status.clone()).unwrap()));
            assert_eq!(gone(&error), expect, "{status}");
        }
    }
}
