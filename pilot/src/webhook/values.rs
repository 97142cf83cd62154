//! What an installation decides for all injected pods: the key `values` of the ConfigMap `istio-sidecar-injector`, which
//! the chart writes from its own values, under Istio's names. Watched: a change counts for the next pod. Without the
//! ConfigMap the defaults count; with one that cannot be read the last good settings stay.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, runtime::watcher::watch_object};
use mesh_proto::names::INJECTION_CONFIG_MAP;
use mesh_runtime::{apiserver, backoff::Backoff, drain::Drain};
use tokio::sync::watch;

use crate::{
    ingest::kube as source,
    inject::{Settings, values},
};

const KEY: &str = "values";
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The settings now and later; `base` is what counts where the ConfigMap says nothing.
pub fn watch(
    client: Client,
    place: &source::Settings,
    base: Settings,
    drain: Drain,
) -> watch::Receiver<Arc<Settings>> {
    let (out, settings) = watch::channel(Arc::new(base.clone()));
    let name = place.named(INJECTION_CONFIG_MAP);
    let api = Api::namespaced(client, &place.namespace);
    tokio::spawn(async move {
        tokio::select! {
            () = follow(api, name, base, out) => {}
            () = drain.drained() => {}
        }
    });
    settings
}

async fn follow(api: Api<ConfigMap>, name: String, base: Settings, out: watch::Sender<Arc<Settings>>) {
    let mut objects = pin!(watch_object(api, &name));
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    // Each trouble is said once: that it cannot be watched, and that what it says cannot be read.
    let (mut away, mut wrong) = (false, String::new());
    while let Some(next) = objects.next().await {
        let map = match next {
            Ok(map) => map,
            Err(error) => {
                let text = apiserver::explain_watch(&error, &format!("watching ConfigMap {name}"));
                if let Some(text) = text.filter(|_| !std::mem::replace(&mut away, true)) {
                    tracing::warn!("{text}; the last settings of injection stay");
                }
                tokio::time::sleep(backoff.next(rand::random())).await;
                continue;
            }
        };
        backoff.reset();
        away = false;
        let text = map.and_then(|map| map.data?.remove(KEY));
        match values::read(text.as_deref(), &base) {
            Ok(fresh) => drop(out.send_if_modified(|known| {
                let changed = **known != fresh;
                if changed {
                    tracing::info!(image = fresh.proxy_image, "settings of injection");
                    *known = Arc::new(fresh);
                }
                changed
            })),
            Err(problem) if problem != wrong => {
                tracing::warn!(
                    "ConfigMap {name}, data.{KEY}: {problem}; the last settings of injection stay"
                );
                wrong = problem;
            }
            Err(_) => {}
        }
    }
}
