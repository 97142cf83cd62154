//! Pods that are to be: the pod templates of Deployments and their like, so that a folder without any pod can be judged
//! too. A template counts as one pod with the namespace of its workload. A ReplicaSet that a Deployment owns is left out:
//! it repeats the Deployment's.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use mesh_proto::{finding::Report, kube::Manifest};
use serde_json::Value;

use crate::{
    model::{Kind, Labels},
    store::Store,
};

/// A workload that makes pods.
#[derive(Debug)]
pub struct Template {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    source: Option<String>,
    /// As it would be made, without a name of its own.
    pub pod: Pod,
    /// Where the template stands in the object: `spec.template`.
    pub path: &'static str,
}

impl Template {
    pub fn labels(&self) -> Option<&Labels> {
        self.pod.metadata.labels.as_ref()
    }

    pub fn report(&self) -> Report {
        let object = mesh_proto::finding::ObjectRef::new(self.kind.as_str(), &self.namespace, &self.name);
        Report::new(object, self.source.clone())
    }
}

/// Every pod template among the objects.
pub fn templates(store: &Store) -> Vec<Template> {
    store
        .manifests()
        .filter_map(|manifest| template(manifest))
        .collect()
}

fn template(manifest: &Manifest) -> Option<Template> {
    let path = match manifest.kind {
        Kind::CronJob => "spec.jobTemplate.spec.template",
        Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Job => "spec.template",
        Kind::ReplicaSet if !is_owned(&manifest.value) => "spec.template",
        _ => return None,
    };
    let written = manifest.value.pointer(&format!("/{}", path.replace('.', "/")))?;
    let template: PodTemplateSpec = serde_json::from_value(written.clone()).ok()?;
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.namespace = Some(manifest.key.namespace.clone());
    Some(Template {
        kind: manifest.kind,
        namespace: manifest.key.namespace.clone(),
        name: manifest.key.name.clone(),
        source: manifest.source.clone(),
        pod: Pod {
            metadata,
            spec: template.spec,
            status: None,
        },
        path,
    })
}

fn is_owned(object: &Value) -> bool {
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .is_some_and(|owners| !owners.is_empty())
}
