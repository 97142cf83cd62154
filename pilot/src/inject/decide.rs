//! Does a pod get a sidecar?
//!
//! As in Istio (<https://istio.io/latest/docs/ops/configuration/mesh/injection-concepts/>): a namespace or a pod that
//! says no is left alone; else one of them must say yes. A pod's label counts more than its annotation, a namespace's
//! `istio-injection` more than its `istio.io/rev`.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use mesh_proto::names::{SYSTEM_NAMESPACE, annotation, container, label, port};

use super::{Refusal, Settings};
use crate::model::Labels;

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    HostNetwork,
    /// The mesh's own namespace, or one of Kubernetes'.
    SystemNamespace(String),
    /// It has the proxy already.
    AlreadyInjected,
    /// Its label or annotation says no.
    PodDisabled,
    NamespaceDisabled,
    /// Nobody says yes.
    NotEnabled,
    /// Another control plane's.
    OtherRevision(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str(
                "the pod uses the host's network, where redirection would catch the whole machine",
            ),
            Self::SystemNamespace(namespace) => write!(f, "namespace {namespace} never gets sidecars"),
            Self::AlreadyInjected => write!(f, "the pod already has a container {}", container::PROXY),
            Self::PodDisabled => write!(f, "the pod's {} is \"false\"", label::INJECT),
            Self::NamespaceDisabled => write!(f, "the namespace has the label {}=disabled", label::INJECTION),
            Self::NotEnabled => {
                write!(
                    f,
                    "neither the namespace (label {}=enabled) nor the pod (label {}: \"true\") asks for a sidecar",
                    label::INJECTION,
                    label::INJECT
                )
            }
            Self::OtherRevision(revision) => {
                write!(
                    f,
                    "{}={revision} is served by another control plane",
                    label::REVISION
                )
            }
        }
    }
}

/// Namespaces that never get sidecars.
const SYSTEM_NAMESPACES: [&str; 4] = [SYSTEM_NAMESPACE, "kube-system", "kube-public", "kube-node-lease"];
/// Ports of the proxy's own.
const OWN_PORTS: [u16; 8] = [
    port::OUTBOUND,
    port::INBOUND,
    port::HBONE,
    port::ADMIN,
    port::METRICS,
    port::HEALTH,
    port::DNS,
    port::STATS,
];

/// `Ok(None)`: it gets one.
pub fn decide(pod: &Pod, namespace_labels: &Labels, settings: &Settings) -> Result<Option<Reason>, Refusal> {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return Ok(Some(Reason::HostNetwork));
    }
    if SYSTEM_NAMESPACES.contains(&namespace) {
        return Ok(Some(Reason::SystemNamespace(namespace.to_owned())));
    }
    let pod_says = pod_policy(pod)?;
    if pod_says == Some(false) {
        return Ok(Some(Reason::PodDisabled));
    }
    let namespace_says = match namespace_policy(namespace_labels, settings) {
        Namespace::Disabled => return Ok(Some(Reason::NamespaceDisabled)),
        Namespace::Other(revision) => return Ok(Some(Reason::OtherRevision(revision))),
        Namespace::Enabled => true,
        Namespace::Silent => {
            let revision = pod
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(label::REVISION));
            match revision {
                Some(revision) if *revision != settings.revision => {
                    return Ok(Some(Reason::OtherRevision(revision.clone())));
                }
                Some(_) => true,
                None => settings.enable_by_default,
            }
        }
    };
    if !namespace_says && pod_says != Some(true) {
        return Ok(Some(Reason::NotEnabled));
    }
    if has_proxy(pod)? {
        return Ok(Some(Reason::AlreadyInjected));
    }
    fits(pod)?;
    Ok(None)
}

enum Namespace {
    Enabled,
    Disabled,
    Silent,
    Other(String),
}

fn namespace_policy(labels: &Labels, settings: &Settings) -> Namespace {
    match (
        labels.get(label::INJECTION).map(String::as_str),
        labels.get(label::REVISION),
    ) {
        (Some("enabled"), _) => Namespace::Enabled,
        (Some("disabled"), _) => Namespace::Disabled,
        (_, Some(revision)) if *revision == settings.revision => Namespace::Enabled,
        (_, Some(revision)) => Namespace::Other(revision.clone()),
        (_, None) => Namespace::Silent,
    }
}

fn pod_policy(pod: &Pod) -> Result<Option<bool>, Refusal> {
    let label = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(label::INJECT));
    let annotation = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(annotation::INJECT));
    let (field, name, value) = match (label, annotation) {
        (Some(value), _) => ("labels", label::INJECT, value),
        (None, Some(value)) => ("annotations", annotation::INJECT, value),
        (None, None) => return Ok(None),
    };
    match value.as_str() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        other => Err(Refusal {
            path: format!("metadata.{field}[{name}]"),
            text: format!("{other:?} must be \"true\" or \"false\""),
        }),
    }
}

/// Is the proxy there? A placeholder for it cannot be filled.
fn has_proxy(pod: &Pod) -> Result<bool, Refusal> {
    let Some(spec) = &pod.spec else { return Ok(false) };
    let groups = [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ];
    let found = groups.into_iter().find_map(|(group, containers)| {
        let position = containers?.iter().position(|one| one.name == container::PROXY)?;
        Some((group, position, containers?.get(position)?))
    });
    match found {
        Some((group, i, proxy)) if proxy.image.as_deref() == Some("auto") => Err(Refusal {
            path: format!("spec.{group}[{i}].image"),
            text: format!(
                "a container {} of the pod's own with image: auto cannot be filled in by this mesh; leave it out and use \
                 annotations",
                container::PROXY
            ),
        }),
        found => Ok(found.is_some()),
    }
}

/// Nothing of the pod's may stand where the proxy has to.
fn fits(pod: &Pod) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else {
        return Err(Refusal {
            path: "spec".into(),
            text: "the pod has no spec".into(),
        });
    };
    let groups = [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ];
    for (group, containers) in groups {
        for (i, one) in containers.into_iter().flatten().enumerate() {
            if one.name == container::INIT {
                let text = format!("the name {} is the mesh's; rename the container", container::INIT);
                return Err(Refusal {
                    path: format!("spec.{group}[{i}].name"),
                    text,
                });
            }
            for (j, declared) in one.ports.iter().flatten().enumerate() {
                if u16::try_from(declared.container_port).is_ok_and(|number| OWN_PORTS.contains(&number)) {
                    return Err(Refusal {
                        path: format!("spec.{group}[{i}].ports[{j}].containerPort"),
                        text: format!(
                            "{} is the proxy's own port; the application needs another",
                            declared.container_port
                        ),
                    });
                }
            }
        }
    }
    Ok(())
}
