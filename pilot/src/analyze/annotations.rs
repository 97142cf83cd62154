//! Annotations that still work, but have successors (IST0135). Whether an annotation is known at all, and stands where it
//! has an effect, is judged with each object alone (`mesh_proto::validate::annotations`).

use mesh_proto::{
    finding::{self, Finding, Report},
    names::{annotation, label},
};

use super::{Scene, report_of};
use crate::model::{Kind, Labels};

/// Deprecated annotation → what to use.
const SUCCESSORS: &[(&str, &str)] = &[
    (
        annotation::INJECT,
        "use the label sidecar.istio.io/inject of the pod, which the webhook's selector can see",
    ),
    (
        "alpha.istio.io/kubernetes-serviceaccounts",
        "the accounts of a Service's pods are known without it; remove it",
    ),
    (
        "alpha.istio.io/canonical-serviceaccounts",
        "the accounts of a Service's pods are known without it; remove it",
    ),
    (
        "sidecar.istio.io/discoveryAddress",
        "set discoveryAddress in the annotation proxy.istio.io/config",
    ),
    (
        "sidecar.istio.io/statsInclusionPrefixes",
        "set proxyStatsMatcher in the annotation proxy.istio.io/config",
    ),
    (
        "sidecar.istio.io/statsInclusionSuffixes",
        "set proxyStatsMatcher in the annotation proxy.istio.io/config",
    ),
    (
        "sidecar.istio.io/statsInclusionRegexps",
        "set proxyStatsMatcher in the annotation proxy.istio.io/config",
    ),
    (
        "traffic.sidecar.istio.io/kubevirtInterfaces",
        "use istio.io/reroute-virtual-interfaces",
    ),
];

/// Kinds whose own annotations are read.
const KINDS: [Kind; 3] = [Kind::Pod, Kind::Service, Kind::Namespace];

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for kind in KINDS {
        for manifest in scene.written(kind) {
            let mut report = report_of(manifest);
            for (name, _) in manifest.annotations() {
                // The label counts, and is there: the annotation is only a remainder.
                let harmless = name == annotation::INJECT && manifest.meta("labels", label::INJECT).is_some();
                if !harmless {
                    tell(name, "metadata.annotations", &mut report);
                }
            }
            findings.append(&mut report.findings);
        }
    }
    for template in &scene.templates {
        let mut report = template.report();
        let none = Labels::new();
        let annotations = template.pod.metadata.annotations.as_ref().unwrap_or(&none);
        for name in annotations.keys() {
            let labelled = template
                .labels()
                .is_some_and(|labels| labels.contains_key(label::INJECT));
            if !(name == annotation::INJECT && labelled) {
                tell(
                    name,
                    &format!("{}.metadata.annotations", template.path),
                    &mut report,
                );
            }
        }
        findings.append(&mut report.findings);
    }
}

fn tell(name: &str, at: &str, report: &mut Report) {
    if let Some((_, instead)) = SUCCESSORS.iter().find(|(known, _)| *known == name) {
        report.add(
            finding::DEPRECATED_ANNOTATION,
            format!("{at}[{name}]"),
            format!("{name} still works, but {instead}"),
        );
    }
}
