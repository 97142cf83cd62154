//! Sidecar injection: a pod becomes a pod with a proxy in it. Pure: the admission webhook, `meshctl kube-inject` and
//! `meshctl local` call the same function.
//!
//! | Module | |
//! | --- | --- |
//! | [`decide`] | does this pod get a proxy, by which template, and if not, why |
//! | [`wishes`] | what the pod's annotations ask for |
//! | [`template`] | what is added |
//! | [`overlay`] | a container of the user's (`image: auto`) over ours |
//! | [`probes`] | probes of the application, asked by the proxy |
//! | [`again`] | a pod that was injected already and has been changed since |
//! | [`values`] | what an installation decides for all pods |
//! | [`patch`] | the difference as an RFC 6902 patch, for the webhook |
//!
//! What it promises: the same pod gives the same result; an injected pod is left as it is; redirection is set up before
//! any container of the user's starts, the proxy is ready before them (a native sidecar with a startup probe) and
//! outlives them, so that Jobs end. (`holdApplicationUntilProxyStarts` is therefore always the case.) A pod that asks for
//! something that cannot be done is refused with a finding, never half done.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::LabelSelector};
use mesh_proto::{
    finding::{self, Finding, ObjectRef},
    mesh::{MeshConfig, ProxyConfig},
    names::{self, annotation, image},
};

use crate::model::{Labels, ProxySettings, proxy_settings::Chosen};

mod again;
pub mod decide;
mod overlay;
pub mod patch;
mod probes;
mod template;
pub mod values;
mod wishes;

use decide::Decision;
pub use decide::Reason;

/// What an installation decides for all pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// With its tag.
    pub proxy_image: String,
    /// `Always`, `IfNotPresent`, `Never`; `None` leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    pub image_pull_secrets: Vec<String>,
    /// This control plane's revision, as `istio.io/rev` names it.
    pub revision: String,
    /// Whoever asks has chosen by revision already (the API server, by the webhook's selectors): a label with another
    /// revision is a tag for this one.
    pub any_revision: bool,
    /// Namespaces without any label get sidecars.
    pub enable_by_default: bool,
    /// Pods that never, or always, get one when neither they nor their namespace say anything else.
    pub never: Vec<LabelSelector>,
    pub always: Vec<LabelSelector>,
    /// Annotations of every injected pod.
    pub annotations: BTreeMap<String, String>,
    /// The proxy answers DNS.
    pub dns_capture: bool,
    /// The application's probes are asked by the proxy, which the kubelet can reach without a certificate. Off where the
    /// kubelet asks from inside of the pod.
    pub rewrite_probes: bool,
    pub cluster_id: String,
    pub network: String,
    pub log_level: String,
    /// Where pilot is, if the mesh's settings do not say.
    pub discovery_address: Option<String>,
    pub redirection: Redirection,
    pub resources: Resources,
}

// A selector is made of texts, so equality is what `Eq` wants, although the type of the API does not say so.
impl Eq for Settings {}

/// What is redirected where a pod does not say: ports and ranges between commas, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    pub include_inbound_ports: String,
    pub exclude_inbound_ports: String,
    pub include_outbound_ranges: String,
    pub exclude_outbound_ranges: String,
    pub include_outbound_ports: String,
    pub exclude_outbound_ports: String,
}

impl Default for Redirection {
    fn default() -> Self {
        Self {
            include_inbound_ports: "*".to_owned(),
            exclude_inbound_ports: String::new(),
            include_outbound_ranges: "*".to_owned(),
            exclude_outbound_ranges: String::new(),
            include_outbound_ports: String::new(),
            exclude_outbound_ports: String::new(),
        }
    }
}

/// What the proxy asks of its node, as Kubernetes' quantities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    pub cpu: Option<String>,
    pub memory: Option<String>,
    pub cpu_limit: Option<String>,
    pub memory_limit: Option<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: Some("10m".to_owned()),
            memory: Some("32Mi".to_owned()),
            cpu_limit: None,
            memory_limit: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_image: format!("{}:{}", image::PROXY, mesh_runtime::build::VERSION),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            revision: names::DEFAULT_REVISION.to_owned(),
            any_revision: false,
            enable_by_default: false,
            never: Vec::new(),
            always: Vec::new(),
            annotations: BTreeMap::new(),
            dns_capture: true,
            rewrite_probes: false,
            cluster_id: "Kubernetes".to_owned(),
            network: String::new(),
            log_level: "info".to_owned(),
            discovery_address: None,
            redirection: Redirection::default(),
            resources: Resources::default(),
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

/// A pod as it should run, with all the ProxyConfigs there are. Its namespace must be set in its metadata.
pub fn inject<'a>(
    pod: &Pod,
    namespace_labels: &Labels,
    mesh: &MeshConfig,
    proxies: impl IntoIterator<Item = &'a Arc<ProxySettings>>,
    settings: &Settings,
) -> Outcome {
    let object = object_ref(pod);
    let no_labels = Labels::new();
    let chosen = Chosen::new(
        proxies,
        &mesh.root_namespace,
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.labels.as_ref().unwrap_or(&no_labels),
    );
    match outcome(pod, namespace_labels, mesh, chosen, settings, &object) {
        Ok(outcome) => outcome,
        Err(refusal) => Outcome::Refused(Box::new(Finding::new(
            finding::INJECTION_REFUSED,
            object,
            refusal.path,
            refusal.text,
        ))),
    }
}

fn outcome(
    pod: &Pod,
    namespace_labels: &Labels,
    mesh: &MeshConfig,
    chosen: Chosen<'_>,
    settings: &Settings,
    object: &ObjectRef,
) -> Result<Outcome, Refusal> {
    let role = match decide::decide(pod, namespace_labels, mesh.system_namespace(), settings)? {
        Decision::Skip(reason) => return Ok(Outcome::Skipped(reason)),
        Decision::Again => {
            let status_port = proxy_config(pod, mesh, chosen, settings, object)?.status_port;
            return Ok(match again::again(pod, settings, status_port) {
                Some(pod) => Outcome::Injected(Box::new(pod)),
                None => Outcome::Skipped(Reason::AlreadyInjected),
            });
        }
        Decision::Inject(role) => role,
    };
    let mut wishes = wishes::Wishes::read(pod, settings)?;
    let config = proxy_config(pod, mesh, chosen, settings, object)?;
    if annotated(pod, annotation::PROXY_IMAGE).is_none() {
        wishes.image = of_type(&wishes.image, &config.image.image_type);
    }
    let template = template::Template {
        role,
        mesh,
        config: &config,
        settings,
        wishes: &wishes,
    };
    Ok(Outcome::Injected(Box::new(template.apply(pod)?)))
}

/// The settings of the pod's proxy: the mesh's; over them the ProxyConfigs of the root namespace and of its own; over them
/// its annotation; over it the ProxyConfig that selects it.
fn proxy_config(
    pod: &Pod,
    mesh: &MeshConfig,
    chosen: Chosen<'_>,
    settings: &Settings,
    object: &ObjectRef,
) -> Result<ProxyConfig, Refusal> {
    let mut base = mesh.default_config.clone();
    if let Some(own) = &settings.discovery_address
        && base.discovery_address == ProxyConfig::default().discovery_address
    {
        base.discovery_address.clone_from(own);
    }
    chosen.under(&mut base);
    if let Some(text) = annotated(pod, annotation::PROXY_CONFIG) {
        base = base.overridden(text, object).map_err(|problem| Refusal {
            path: problem.path,
            text: problem.text,
        })?;
    }
    chosen.above(&mut base);
    Ok(base)
}

/// The image of this type, which is the ending of its tag. An image that is named by its digest is what it is.
fn of_type(image: &str, kind: &str) -> String {
    if kind.is_empty() || image.contains('@') {
        return image.to_owned();
    }
    // A colon before the last `/` is that of a registry's port.
    let (name, tag) = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    };
    let mut plain = tag;
    for known in ["-distroless", "-debug"] {
        plain = plain.strip_suffix(known).unwrap_or(plain);
    }
    match kind {
        "default" => format!("{name}:{plain}"),
        other => format!("{name}:{plain}-{other}"),
    }
}

fn annotated<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn labelled<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// A field of a pod that cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub path: String,
    pub text: String,
}

impl Refusal {
    fn annotation(name: &str, text: impl Into<String>) -> Self {
        Self {
            path: format!("metadata.annotations[{name}]"),
            text: text.into(),
        }
    }
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

#[cfg(test)]
mod proxy_config_tests;
