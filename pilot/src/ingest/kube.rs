//! Objects from a Kubernetes API server: the source of production.
//!
//! One task per kind ([`feed`]) lists and watches by the `kube` crate and tells what changed as the file source does;
//! the [`ledger`] of a kind knows what was told, so that a new listing (after `410 Gone`, or a restart of the API server)
//! tells only differences, and a server that is away deletes nothing. [`trim`] drops what is never read before anything
//! is kept. The [`Board`] knows how each kind is doing: when pilot is ready, and what the page `/debug/sources` shows.
//!
//! A kind whose definition (CRD) is missing has no objects; it is looked for again, and does not hold pilot up. A kind
//! that may not be read holds pilot up where a mesh without it would be wrong ([`wanted::Wanted::essential`]). Each
//! trouble is said once, with what to do, and once more when it is over.
//!
//! Bounds: [`BATCHES`] batches of at most [`feed::CHUNK`] changes wait for the reader; then the watches wait. Per object
//! the ledger keeps a hash. Pages of 500 objects are listed at a time.
//!
//! # Rights
//!
//! What pilot's service account needs, and nothing else. Without the optional ones pilot works and says what is missing.
//!
//! | API group | Resources | Verbs | Scope | For |
//! | --- | --- | --- | --- | --- |
//! | (core) | `namespaces`, `services`, `pods` | list, watch | cluster | discovery, injection |
//! | (core) | `nodes` | list, watch | cluster | zones; optional |
//! | (core) | `secrets` | list, watch | cluster | certificates of gateways; optional |
//! | `discovery.k8s.io` | `endpointslices` | list, watch | cluster | discovery |
//! | `networking.istio.io`, `security.istio.io`, `telemetry.istio.io`, `extensions.istio.io` | all kinds | get, list, watch | cluster | configuration |
//! | the same | all kinds, `/status` | patch | cluster | status conditions; optional |
//! | `admissionregistration.k8s.io` | `mutatingwebhookconfigurations`, `validatingwebhookconfigurations` | list, watch, patch | cluster | `caBundle` |
//! | (core) | `configmaps` | list, watch | system namespace | settings of the mesh and of injection |
//! | `coordination.k8s.io` | `leases` | get, create, update | system namespace | which replica writes |
//!
//! Which kinds are served, and whether the server is ready, is asked at `/apis/…` and `/readyz`; Kubernetes lets every
//! authenticated account see those.

use kube::Client;
use mesh_proto::{
    kube::ObjectKey,
    names::{self, MESH_CONFIG_MAP},
};
use mesh_runtime::drain::Drain;
use tokio::sync::mpsc;

use super::Change;

pub mod board;
mod discover;
mod feed;
mod ledger;
pub mod trim;
mod trouble;
pub mod wanted;

pub use board::Board;
pub use discover::resource;
pub use trouble::Trouble;

/// Batches that wait for the reader.
const BATCHES: usize = 64;

/// Which installation of the mesh is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the control plane lives.
    pub namespace: String,
    /// `default`, or the name of a revision.
    pub revision: String,
}

impl Settings {
    /// `istio`; of a revision, `istio-<revision>`.
    pub fn named(&self, base: &str) -> String {
        if self.revision == names::DEFAULT_REVISION {
            base.to_owned()
        } else {
            format!("{base}-{}", self.revision)
        }
    }

    /// The ConfigMap with the settings of the mesh.
    pub fn mesh_config(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, self.named(MESH_CONFIG_MAP))
    }
}

/// Watches until the drain, or until the receiver is dropped.
pub fn watch(client: &Client, settings: &Settings, drain: &Drain) -> (mpsc::Receiver<Vec<Change>>, Board) {
    let (out, batches) = mpsc::channel(BATCHES);
    let wanted = wanted::all(settings);
    let board = Board::new(&wanted);
    for one in wanted {
        let feed = feed::Feed::new(client.clone(), one, out.clone(), board.clone());
        let drain = drain.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = feed.run() => {}
                () = drain.drained() => {}
            }
        });
    }
    (batches, board)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_revisions() {
        let settings = |revision: &str| Settings {
            namespace: "istio-system".into(),
            revision: revision.into(),
        };
        assert_eq!(
            settings("default").mesh_config(),
            ObjectKey::new("istio-system", "istio")
        );
        assert_eq!(settings("canary").named("pilot"), "pilot-canary");
    }
}
