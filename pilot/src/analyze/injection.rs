//! Namespaces and pods without sidecars (IST0102, IST0103, IST0123, IST0148), with sidecars of another version (IST0158),
//! and applications that run as the proxy's user (IST0144).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use mesh_proto::{
    finding::{self, Finding, Report},
    kube::decode,
    names::{PROXY_UID, container, label},
};

use super::{Scene, installed, is_system};
use crate::{
    inject::{
        Reason,
        decide::{self, Decision},
    },
    model::{Kind, Labels, Namespace, Workload},
};

/// A pod's own choice of the proxy's image.
const OWN_IMAGE: &str = "sidecar.istio.io/proxyImage";

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for namespace in scene
        .world
        .namespaces
        .values()
        .filter(|namespace| !is_system(&namespace.name))
    {
        let mut report = scene.report(&namespace.origin);
        labels(scene, namespace, &mut report);
        findings.append(&mut report.findings);
    }
    let mut outdated: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for workload in scene
        .world
        .workloads
        .values()
        .filter(|workload| !is_system(&workload.namespace))
    {
        let manifest = scene.store.manifest(Kind::Pod, &workload.origin.key());
        let Some(pod) = manifest.and_then(|manifest| decode::core::<Pod>(manifest).0) else {
            continue;
        };
        let mut report = scene.report(&workload.origin);
        one(scene, workload, &pod, &mut report);
        findings.append(&mut report.findings);
        if is_outdated(scene, workload, &pod) {
            outdated
                .entry(&workload.namespace)
                .or_default()
                .push(&workload.name);
        }
    }
    for (namespace, pods) in outdated {
        images(scene, namespace, &pods, findings);
    }
    for template in scene
        .templates
        .iter()
        .filter(|template| !is_system(&template.namespace))
    {
        let mut report = template.report();
        if let Some(spec) = &template.pod.spec {
            user(spec, &format!("{}.spec", template.path), &mut report);
        }
        findings.append(&mut report.findings);
    }
}

/// Would a new pod like this get a proxy?
pub(super) fn wanted(scene: &Scene<'_>, pod: &Pod) -> bool {
    matches!(decided(scene, pod), Some(Decision::Inject(_)))
}

/// Is it in the mesh: with a proxy, or would it get one? Where namespaces are not known, anything may be.
pub(super) fn in_mesh(scene: &Scene<'_>, pod: &Pod) -> bool {
    match decided(scene, pod) {
        Some(Decision::Skip(Reason::NotEnabled)) => !scene.knows_namespaces(),
        Some(Decision::Skip(reason)) => reason == Reason::AlreadyInjected,
        decision => decision.is_some(),
    }
}

/// The injector's decision; `None` where it refuses.
fn decided(scene: &Scene<'_>, pod: &Pod) -> Option<Decision> {
    let none = Labels::new();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = scene.namespace_labels(namespace).unwrap_or(&none);
    let revision = labels
        .get(label::REVISION)
        .map_or(installed::DEFAULT_REVISION, String::as_str);
    let settings = installed::settings(&scene.installed, revision);
    decide::decide(pod, labels, scene.world.mesh.system_namespace(), &settings).ok()
}

fn labels(scene: &Scene<'_>, namespace: &Namespace, report: &mut Report) {
    let injection = namespace.labels.get(label::INJECTION);
    let revision = namespace.labels.get(label::REVISION);
    // `disabled` beside a revision is clear enough.
    if injection.is_some_and(|value| value == "enabled") && revision.is_some() {
        let text = format!(
            "has both {} and {}; the first one counts",
            label::INJECTION,
            label::REVISION
        );
        report.add(finding::MULTIPLE_INJECTION_LABELS, "metadata.labels", text);
    }
    if injection.is_some() || revision.is_some() {
        return;
    }
    let by_default = scene
        .installed
        .get(installed::DEFAULT_REVISION)
        .is_some_and(|installed| installed.settings.enable_by_default);
    if by_default {
        let text = format!(
            "pods of this namespace get sidecars, because the mesh was installed with enableNamespacesByDefault; label it \
             {}=disabled if they are to have none",
            label::INJECTION
        );
        report.add(finding::INJECTED_BY_DEFAULT, "metadata.labels", text);
    } else {
        let text = format!(
            "pods of this namespace get no sidecar unless they ask for one; label it {0}=enabled, or {0}=disabled to say \
             that this is meant",
            label::INJECTION
        );
        report.add(finding::NAMESPACE_NOT_INJECTED, "metadata.labels", text);
    }
}

fn one(scene: &Scene<'_>, workload: &Workload, pod: &Pod, report: &mut Report) {
    // It would get a sidecar if it were made now.
    if !workload.has_proxy && wanted(scene, pod) {
        let text = "should have a sidecar and has none, so its traffic is neither encrypted nor controlled; it was \
                    started before that was asked for: restart it";
        report.add(finding::POD_MISSING_PROXY, "", text);
    }
    if let Some(spec) = &pod.spec {
        user(spec, "spec", report);
    }
}

fn user(spec: &PodSpec, at: &str, report: &mut Report) {
    let reserved = i64::from(PROXY_UID);
    let pod_wide = spec
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user);
    for (i, one) in spec.containers.iter().enumerate() {
        let own = one
            .security_context
            .as_ref()
            .and_then(|context| context.run_as_user);
        if own.or(pod_wide) == Some(reserved) && one.name != container::PROXY {
            let text =
                format!("user {reserved} is the proxy's; what runs as it is not redirected into the mesh");
            report.add(
                finding::INVALID_APPLICATION_UID,
                format!("{at}.containers[{i}].securityContext.runAsUser"),
                text,
            );
        }
    }
}

/// The image that new pods of a namespace get, as far as the installation says.
fn image<'a>(scene: &'a Scene<'_>, namespace: &str) -> Option<&'a str> {
    let labels = scene.namespace_labels(namespace)?;
    let injection = labels.get(label::INJECTION).map(String::as_str);
    let revision = match (injection, labels.get(label::REVISION)) {
        (Some("enabled"), _) => installed::DEFAULT_REVISION,
        (None, Some(revision)) => revision,
        _ => return None,
    };
    let installed = scene.installed.get(revision)?;
    installed
        .says_image
        .then_some(installed.settings.proxy_image.as_str())
}

fn is_outdated(scene: &Scene<'_>, workload: &Workload, pod: &Pod) -> bool {
    let Some(expected) = image(scene, &workload.namespace) else {
        return false;
    };
    let own = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(OWN_IMAGE));
    let containers = pod.spec.iter().flat_map(|spec| {
        let first = spec.init_containers.iter().flatten();
        first.chain(&spec.containers)
    });
    let proxy = containers.into_iter().find(|one| one.name == container::PROXY);
    !own && proxy.is_some_and(|proxy| proxy.image.as_deref() != Some(expected))
}

/// More pods than these are only counted.
const PODS_SHOWN: usize = 10;

fn images(scene: &Scene<'_>, namespace: &str, pods: &[&str], findings: &mut Vec<Finding>) {
    let Some(known) = scene.world.namespaces.values().find(|one| one.name == namespace) else {
        return;
    };
    let shown = pods
        .iter()
        .take(PODS_SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let more = match pods.len().saturating_sub(PODS_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let mut report = scene.report(&known.origin);
    report.add(
        finding::PROXY_IMAGE_MISMATCH,
        "",
        format!(
            "{shown}{more}: the proxy is not {}, which new pods of this namespace get; restart them to bring them in step",
            image(scene, namespace).unwrap_or_default()
        ),
    );
    findings.append(&mut report.findings);
}
