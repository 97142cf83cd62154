//! Does a pod get a proxy, and which one?
//!
//! As in Istio (<https://istio.io/latest/docs/ops/configuration/mesh/injection-concepts/>): a namespace or a pod that
//! says no is left alone; else one of them must say yes. A pod's label counts more than its annotation, a namespace's
//! `istio-injection` more than its `istio.io/rev`. A gateway asks for itself, by label and annotation; it may therefore
//! live in the mesh's own namespace, where nothing else ever gets a proxy.

use std::fmt;

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use mesh_proto::names::{DEFAULT_REVISION, annotation, container, label, port};

use super::{Refusal, Settings, annotated, labelled};
use crate::model::Labels;

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Inject(Role),
    /// We have injected it before; somebody may have changed it since.
    Again,
    Skip(Reason),
}

/// What the proxy is for: Istio's templates of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Sidecar,
    Gateway,
}

/// A container with this image asks to be completed.
pub const AUTO: &str = "auto";

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
    /// The installation's `neverInjectSelector` says no.
    NeverSelected,
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
            Self::NeverSelected => f.write_str("the installation's neverInjectSelector selects the pod"),
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

/// Kubernetes' own namespaces, which never get sidecars.
const KUBERNETES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
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

/// `system` is the namespace of the control plane.
pub fn decide(
    pod: &Pod,
    namespace_labels: &Labels,
    system: &str,
    settings: &Settings,
) -> Result<Decision, Refusal> {
    let skip = |reason: Reason| Ok(Decision::Skip(reason));
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return skip(Reason::HostNetwork);
    }
    let pod_says = pod_policy(pod)?;
    let asks_for_gateway = pod_says == Some(true) && role(pod) == Ok(Role::Gateway);
    if KUBERNETES.contains(&namespace) || (namespace == system && !asks_for_gateway) {
        return skip(Reason::SystemNamespace(namespace.to_owned()));
    }
    if pod_says == Some(false) {
        return skip(Reason::PodDisabled);
    }
    let wanted = match namespace_policy(namespace_labels, settings) {
        Namespace::Disabled => return skip(Reason::NamespaceDisabled),
        Namespace::Other(revision) => return skip(Reason::OtherRevision(revision)),
        Namespace::Enabled => true,
        Namespace::Silent => match labelled(pod, label::REVISION) {
            Some(revision) if !settings.any_revision && *revision != settings.revision => {
                return skip(Reason::OtherRevision(revision.to_owned()));
            }
            Some(_) => true,
            None => settings.enable_by_default,
        },
    };
    if pod_says.is_none() && selected(&settings.never, pod) {
        return skip(Reason::NeverSelected);
    }
    if !wanted && pod_says != Some(true) && !selected(&settings.always, pod) {
        return skip(Reason::NotEnabled);
    }
    if let Some((_, _, proxy)) = proxy_of(pod)
        && proxy.image.as_deref() != Some(AUTO)
    {
        let ours = annotated(pod, annotation::STATUS).is_some();
        return if ours {
            Ok(Decision::Again)
        } else {
            skip(Reason::AlreadyInjected)
        };
    }
    let role = role(pod)?;
    if role == Role::Sidecar {
        fits(pod)?;
    }
    Ok(Decision::Inject(role))
}

/// Istio's `inject.istio.io/templates`; of its templates this mesh has two.
fn role(pod: &Pod) -> Result<Role, Refusal> {
    let Some(text) = annotated(pod, annotation::TEMPLATES) else {
        return Ok(Role::Sidecar);
    };
    let names: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    match names[..] {
        [] | ["sidecar"] => Ok(Role::Sidecar),
        ["gateway"] => Ok(Role::Gateway),
        _ => Err(Refusal::annotation(
            annotation::TEMPLATES,
            format!(
                "{text:?}: this mesh has the templates \"sidecar\" and \"gateway\", one for a pod; what a template of your own \
                 would add can stand in the pod itself, in a container {} with image: auto",
                container::PROXY
            ),
        )),
    }
}

fn selected(selectors: &[LabelSelector], pod: &Pod) -> bool {
    let none = Labels::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    selectors.iter().any(|selector| matches(selector, labels))
}

/// As the API does; a selector without any condition selects nothing here, because it would decide for every pod.
fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let exact = selector.match_labels.iter().flatten();
    let rules = selector.match_expressions.iter().flatten();
    if exact.clone().next().is_none() && rules.clone().next().is_none() {
        return false;
    }
    exact.clone().all(|(key, value)| labels.get(key) == Some(value))
        && rules.clone().all(|rule| {
            let value = labels.get(&rule.key);
            let listed = value.is_some_and(|value| rule.values.iter().flatten().any(|one| one == value));
            match rule.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
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
        (Some("disabled"), _) => Namespace::Disabled,
        // This label is the default control plane's.
        (Some("enabled"), _) if settings.any_revision || settings.revision == DEFAULT_REVISION => {
            Namespace::Enabled
        }
        (Some("enabled"), _) => Namespace::Other(DEFAULT_REVISION.to_owned()),
        (_, Some(revision)) if settings.any_revision || *revision == settings.revision => Namespace::Enabled,
        (_, Some(revision)) => Namespace::Other(revision.clone()),
        (_, None) => Namespace::Silent,
    }
}

fn pod_policy(pod: &Pod) -> Result<Option<bool>, Refusal> {
    let (label, annotation) = (labelled(pod, label::INJECT), annotated(pod, annotation::INJECT));
    let (field, name, value) = match (label, annotation) {
        (Some(value), _) => ("labels", label::INJECT, value),
        (None, Some(value)) => ("annotations", annotation::INJECT, value),
        (None, None) => return Ok(None),
    };
    match value {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        other => Err(Refusal {
            path: format!("metadata.{field}[{name}]"),
            text: format!("{other:?} must be \"true\" or \"false\""),
        }),
    }
}

/// The pod's own proxy: the list it is in, its place, and it.
pub fn proxy_of(pod: &Pod) -> Option<(&'static str, usize, &Container)> {
    let spec = pod.spec.as_ref()?;
    let groups = [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ];
    groups.into_iter().find_map(|(group, containers)| {
        let containers = containers?;
        let position = containers.iter().position(|one| one.name == container::PROXY)?;
        Some((group, position, &containers[position]))
    })
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
            if one.name == container::PROXY {
                continue;
            }
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
