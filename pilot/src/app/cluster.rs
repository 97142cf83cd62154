//! What pilot does only on Kubernetes: watch it, answer its webhooks, take part in the election, write back.

use std::sync::Arc;

use kube::Client;
use mesh_runtime::{
    apiserver,
    drain::Drain,
    leader::{self, Leadership},
    ready::Gate,
    tls::IdentityCell,
};
use tokio::sync::mpsc;

use super::listen;
use crate::{
    error::Error,
    ingest::{Change, kube as source},
    inject,
    push::Hub,
    settings::Settings,
    status,
    webhook::{self, cert, inject::Injector, validate::Validator, values},
};

/// Who keeps the webhooks of a revision.
const WEBHOOKS: &str = "pilot-leader";
/// Who writes the status of objects, which all revisions share.
const STATUS: &str = "pilot-status-leader";

pub struct Cluster {
    client: Client,
    board: source::Board,
}

impl Cluster {
    /// Begins to watch.
    pub async fn connect(
        settings: &Settings,
        drain: &Drain,
    ) -> Result<(mpsc::Receiver<Vec<Change>>, Self), Error> {
        let client = apiserver::client(settings.kubeconfig.as_deref()).await?;
        let (changes, board) = source::watch(&client, &settings.installation(), drain);
        Ok((changes, Self { client, board }))
    }

    /// How the watches are doing.
    pub fn board(&self) -> &source::Board {
        &self.board
    }

    /// Starts everything else, once the cluster is known. The gate opens when Kubernetes can ask. To be waited for
    /// before the process ends: see [`Leadership::ended`].
    pub async fn start(
        self,
        settings: &Settings,
        hub: &Arc<Hub>,
        cell: &IdentityCell,
        listening: Gate,
        drain: &Drain,
    ) -> Result<Vec<Leadership>, Error> {
        let place = settings.installation();
        let base = injection(settings);
        let values = values::watch(self.client.clone(), &place, base, drain.clone());
        let router = webhook::router(
            Injector::new(hub.clone(), values, self.client.clone()),
            Validator::new(hub.metrics.clone()),
        );
        let listener = listen(settings.webhook_address, "webhook server", "--webhook-address").await?;
        let (cell, task) = (cell.clone(), drain.clone());
        tokio::spawn({
            let cell = cell.clone();
            async move {
                // Without a certificate a handshake fails, and Kubernetes asks only an endpoint that is ready, which needs
                // the certificate too.
                listening.open();
                if let Err(error) = webhook::serve(listener, &cell, router, task).await {
                    tracing::error!(%error, "webhooks ended");
                }
            }
        });
        // Each revision has webhooks of its own, and so a leader of its own for them.
        let own = self.elect(&settings.namespace, place.named(WEBHOOKS), drain);
        let mut all = vec![own.clone()];
        spawn(
            cert::keep(self.client.clone(), settings.webhooks(), cell, own),
            drain,
        );
        if settings.write_status {
            let shared = self.elect(&settings.namespace, STATUS.to_owned(), drain);
            all.push(shared.clone());
            spawn(status::writer::write(self.client, hub.clone(), shared), drain);
        }
        Ok(all)
    }

    fn elect(&self, namespace: &str, lease: String, drain: &Drain) -> Leadership {
        leader::elect(
            self.client.clone(),
            leader::Settings::new(namespace, lease),
            drain.clone(),
        )
    }
}

/// Until the drain.
fn spawn(task: impl Future<Output = ()> + Send + 'static, drain: &Drain) {
    let drain = drain.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = task => {}
            () = drain.drained() => {}
        }
    });
}

/// What counts for all pods where the installation's ConfigMap says nothing.
fn injection(settings: &Settings) -> inject::Settings {
    let place = settings.installation();
    let own = format!(
        "{}.{}.svc:{}",
        place.named("pilot"),
        settings.namespace,
        settings.xds_address.port()
    );
    inject::Settings {
        revision: place.revision,
        // The API server has chosen by the webhook's selectors, which know the tags.
        any_revision: true,
        cluster_id: settings.cluster_id.clone(),
        rewrite_probes: true,
        image_pull_policy: Some("IfNotPresent".to_owned()),
        discovery_address: Some(own),
        ..inject::Settings::default()
    }
}
