//! Sidecar injection: a pod becomes a pod with a proxy in it. Pure: the admission webhook, `meshctl inject` and
//! `meshctl local` call the same function.
//!
//! | Module | |
//! | --- | --- |
//! | [`decide`] | does this pod get a sidecar, and if not, why |
//! | [`template`] | what is added |
//! | [`patch`] | the difference as an RFC 6902 patch, for the webhook |
//!
//! What it promises: the same pod gives the same result; an injected pod is left as it is; redirection is set up before
//! any container of the user's starts, the proxy is ready before them (a native sidecar with a startup probe) and
//! outlives them. A pod that asks for something that cannot be done is refused with a finding, never half done.

use k8s_openapi::api::core::v1::Pod;
use mesh_proto::{
    finding::{self, Finding, ObjectRef},
    mesh::MeshConfig,
    names::{annotation, image},
};

use crate::model::Labels;

mod annotations;
pub mod decide;
pub mod patch;
mod template;

pub use decide::Reason;

/// What an installation decides for all pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// With its tag.
    pub proxy_image: String,
    /// `Always`, `IfNotPresent`, `Never`; `None` leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// This control plane's revision, as `istio.io/rev` names it.
    pub revision: String,
    /// Namespaces without any label get sidecars.
    pub enable_by_default: bool,
    /// The proxy answers DNS.
    pub dns_capture: bool,
    pub cluster_id: String,
    pub network: String,
    pub log_level: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_image: format!("{}:{}", image::PROXY, mesh_runtime::build::VERSION),
            image_pull_policy: None,
            revision: "default".to_owned(),
            enable_by_default: false,
            dns_capture: true,
            cluster_id: "Kubernetes".to_owned(),
            network: String::new(),
            log_level: "info".to_owned(),
        }
    }
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Injected(Box<Pod>),
    /// It stays as it is.
    Skipped(Reason),
    /// It asks for a sidecar in a way that cannot be fulfilled, and must not start without.
    Refused(Box<Finding>),
}

/// A pod as it should run. Its namespace must be set in its metadata.
pub fn inject(pod: &Pod, namespace_labels: &Labels, mesh: &MeshConfig, settings: &Settings) -> Outcome {
    let object = object_ref(pod);
    let refuse = |path: String, text: String| {
        Outcome::Refused(Box::new(Finding::new(
            finding::INJECTION_REFUSED,
            object.clone(),
            path,
            text,
        )))
    };
    match decide::decide(pod, namespace_labels, settings) {
        Ok(None) => {}
        Ok(Some(reason)) => return Outcome::Skipped(reason),
        Err(refusal) => return refuse(refusal.path, refusal.text),
    }
    let config = match pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(annotation::PROXY_CONFIG))
    {
        None => mesh.default_config.clone(),
        Some(text) => match mesh.default_config.overridden(text, &object) {
            Ok(config) => config,
            Err(problem) => return refuse(problem.path, problem.text),
        },
    };
    match annotations::Traffic::read(pod) {
        Ok(traffic) => {
            let injected = template::Template {
                mesh,
                config: &config,
                settings,
                traffic: &traffic,
            }
            .apply(pod);
            Outcome::Injected(Box::new(injected))
        }
        Err(refusal) => refuse(refusal.path, refusal.text),
    }
}

/// A field of a pod that cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub path: String,
    pub text: String,
}

/// At admission a pod has no name yet, but the beginning of one.
fn object_ref(pod: &Pod) -> ObjectRef {
    let name = pod
        .metadata
        .name
        .clone()
        .or_else(|| pod.metadata.generate_name.clone());
    ObjectRef::new(
        "Pod",
        pod.metadata.namespace.clone().unwrap_or_default(),
        name.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;
