//! DestinationRules for hosts that nobody has (IST0174), and subsets that no pod is in (IST0173).

use mesh_proto::finding::{self, Finding};

use super::{Scene, listed, references};
use crate::model::{DestinationPolicy, Host, Labels, Selector, Service};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    if scene.registry.services().next().is_none() {
        return;
    }
    for policy in scene.world.destination_policies.values() {
        let mut report = scene.report(&policy.origin);
        match find(scene, &policy.host, &policy.origin.namespace) {
            None => {
                let hint = references::similar(scene, &policy.host)
                    .map(|host| format!("; did you mean {host}?"))
                    .unwrap_or_default();
                report.add(
                    finding::UNKNOWN_DESTINATION_HOST,
                    "spec.host",
                    format!(
                        "there is no service {} that namespace {} can see, so this rule has no effect{hint}",
                        policy.host, policy.origin.namespace
                    ),
                );
            }
            Some(service) if !policy.host.is_wildcard() => {
                for (i, labels) in empty(scene, policy, service) {
                    let name = policy.subsets.get(i).map_or("", |subset| subset.name.as_str());
                    report.add(
                        finding::SUBSET_SELECTS_NO_PODS,
                        format!("spec.subsets[{i}].labels"),
                        format!(
                            "no pod of {} has the labels {}, so requests to subset {name} get 503",
                            policy.host,
                            listed(&labels)
                        ),
                    );
                }
            }
            Some(_) => {}
        }
        findings.append(&mut report.findings);
    }
}

/// A rule may be for a wildcard that covers services, as well as for one that a wildcard ServiceEntry covers.
fn find<'a>(scene: &Scene<'a>, host: &Host, viewer: &str) -> Option<&'a Service> {
    references::find(scene, host, viewer).or_else(|| {
        let mut services = scene.registry.services().map(AsRef::as_ref);
        services.find(|service| {
            host.covers(&service.host) && service.visibility.allows(&service.namespace, viewer)
        })
    })
}

/// Subsets without a pod, by position, with the labels they would need. Only what can be known is said: where the
/// service's pods are not known at all, its subsets are not judged.
fn empty(scene: &Scene<'_>, policy: &DestinationPolicy, service: &Service) -> Vec<(usize, Labels)> {
    let known: Vec<&Labels> = match &service.selector {
        Some(selector) => scene
            .pod_labels(Some(&service.namespace))
            .filter(|labels| selector.matches(labels))
            .collect(),
        None => scene
            .registry
            .all_endpoints(&service.key())
            .into_iter()
            .flat_map(|ports| ports.values())
            .flat_map(|endpoints| endpoints.iter())
            .map(|endpoint| endpoint.labels.as_ref())
            .collect(),
    };
    // Without a selector and endpoints nobody knows who answers.
    if known.is_empty() && (service.selector.is_none() || !scene.knows_pods()) {
        return Vec::new();
    }
    let subsets = policy.subsets.iter().enumerate();
    subsets
        .map(|(i, subset)| (i, judged(&subset.labels)))
        .filter(|(_, labels)| {
            let selector = Selector(labels.clone());
            !known.iter().any(|pod| selector.matches(pod))
        })
        .collect()
}

/// Labels of places come from the node, not from the pod.
fn judged(labels: &Labels) -> Labels {
    let of_place = |key: &str| key.starts_with("topology.") || key == "kubernetes.io/hostname";
    labels
        .iter()
        .filter(|(key, _)| !of_place(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
