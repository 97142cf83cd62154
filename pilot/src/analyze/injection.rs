//! Namespaces and pods without sidecars (IST0102, IST0103, IST0123), and applications that run as the proxy's user
//! (IST0144).

use k8s_openapi::api::core::v1::Pod;
use mesh_proto::{
    finding::{self, Finding},
    kube::decode,
    names::{PROXY_UID, label},
};

use super::{Scene, is_system};
use crate::{
    inject::{Settings, decide},
    model::{Kind, Labels, Workload},
};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for namespace in scene
        .world
        .namespaces
        .values()
        .filter(|namespace| !is_system(&namespace.name))
    {
        let mut report = scene.report(&namespace.origin);
        let injection = namespace.labels.contains_key(label::INJECTION);
        let revision = namespace.labels.contains_key(label::REVISION);
        if injection && revision {
            let text = format!(
                "has both {} and {}; the first one counts",
                label::INJECTION,
                label::REVISION
            );
            report.add(finding::MULTIPLE_INJECTION_LABELS, "metadata.labels", text);
        }
        if !injection && !revision {
            let text = format!(
                "pods of this namespace get no sidecar unless they ask for one; label it {0}=enabled, or {0}=disabled to \
                 say that this is meant",
                label::INJECTION
            );
            report.add(finding::NAMESPACE_NOT_INJECTED, "metadata.labels", text);
        }
        findings.append(&mut report.findings);
    }
    for workload in scene
        .world
        .workloads
        .values()
        .filter(|workload| !is_system(&workload.namespace))
    {
        pod(scene, workload, findings);
    }
}

fn pod(scene: &Scene<'_>, workload: &Workload, findings: &mut Vec<Finding>) {
    let Some(manifest) = scene.store.manifest(Kind::Pod, &workload.origin.key()) else {
        return;
    };
    let (Some(pod), _) = decode::core::<Pod>(manifest) else {
        return;
    };
    let mut report = scene.report(&workload.origin);
    let none = Labels::new();
    let namespace = scene
        .world
        .namespaces
        .values()
        .find(|namespace| namespace.name == workload.namespace);
    let labels = namespace.map_or(&none, |namespace| &namespace.labels);
    // It would get a sidecar if it were made now.
    let wanted = decide::decide(&pod, labels, &Settings::default()) == Ok(None);
    if wanted && !workload.has_proxy {
        let text = "should have a sidecar and has none, so its traffic is neither encrypted nor controlled; it was \
                    started before that was asked for: restart it";
        report.add(finding::POD_MISSING_PROXY, "", text);
    }
    let spec = pod.spec.unwrap_or_default();
    let reserved = i64::from(PROXY_UID);
    let pod_wide = spec.security_context.and_then(|context| context.run_as_user);
    for (i, one) in spec.containers.iter().enumerate() {
        let own = one
            .security_context
            .as_ref()
            .and_then(|context| context.run_as_user);
        if own.or(pod_wide) == Some(reserved) && one.name != mesh_proto::names::container::PROXY {
            let text =
                format!("user {reserved} is the proxy's; what runs as it is not redirected into the mesh");
            report.add(
                finding::INVALID_APPLICATION_UID,
                format!("spec.containers[{i}].securityContext.runAsUser"),
                text,
            );
        }
    }
    findings.append(&mut report.findings);
}
