//! All objects of a mesh that matter to a question, and pilot's own understanding of them. Secrets are read only where the
//! question is about gateways' certificates, and never leave this process.

use mesh_pilot::{ingest::Change, model::World, registry::Registry, store::Store};
use mesh_proto::kube::{Kind, Manifest};

use crate::context::Mesh;

/// Which kinds are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything that analysis reads.
    Analysis,
    /// What traffic depends on: no Secrets, no workloads but their pods.
    Traffic,
}

impl Part {
    fn takes(self, kind: Kind) -> bool {
        // Jobs and ReplicaSets repeat what pods and Deployments say; Nodes and EndpointSlices are of no interest here.
        let never = [
            Kind::Node,
            Kind::EndpointSlice,
            Kind::ReplicaSet,
            Kind::Job,
            Kind::CronJob,
        ];
        let analysis = [
            Kind::Secret,
            Kind::Deployment,
            Kind::StatefulSet,
            Kind::DaemonSet,
            Kind::MutatingWebhookConfiguration,
            Kind::ValidatingWebhookConfiguration,
        ];
        !never.contains(&kind) && (self == Self::Analysis || !analysis.contains(&kind))
    }
}

/// Objects of all namespaces. ConfigMaps and Secrets other than the mesh's own are dropped at once, but for Secrets that
/// could be a gateway's credential.
pub async fn objects(mesh: &Mesh, part: Part) -> anyhow::Result<Vec<Manifest>> {
    let mut all = Vec::new();
    for kind in Kind::ALL.iter().copied().filter(|kind| part.takes(*kind)) {
        // Of ConfigMaps only the control plane's matter.
        let namespace = match kind {
            Kind::ConfigMap => mesh.system.as_str(),
            _ => "",
        };
        for object in mesh.objects(kind, namespace, "").await? {
            // What pilot could not read it would not act on either.
            if let Ok(manifest) = Manifest::read(object, None)
                && is_wanted(&manifest)
            {
                all.push(manifest);
            }
        }
    }
    Ok(all)
}

fn is_wanted(manifest: &Manifest) -> bool {
    if manifest.kind != Kind::Secret {
        return true;
    }
    let kind = manifest.value["type"].as_str().unwrap_or_default();
    matches!(kind, "kubernetes.io/tls" | "Opaque" | "")
}

/// Objects as pilot understands them.
#[derive(Default)]
pub struct Understood {
    pub store: Store,
    pub registry: Registry,
}

impl Understood {
    pub fn new(manifests: Vec<Manifest>) -> Self {
        let mut understood = Self::default();
        let changes = manifests
            .into_iter()
            .map(|manifest| Change::Apply(Box::new(manifest)))
            .chain([Change::Synced]);
        let applied = understood.store.apply(changes.collect());
        understood
            .registry
            .update(understood.store.world(), &applied.changed);
        understood
    }

    pub fn world(&self) -> &World {
        self.store.world()
    }
}
