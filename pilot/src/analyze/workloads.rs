//! Services that do not fit together over the same workload: one port with two transports (IST0116), one port of the pods
//! under two numbers (IST0137); and proxies whose image nobody fills in (IST0146, IST0147).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, Service},
    apimachinery::pkg::util::intstr::IntOrString,
};
use mesh_proto::{
    finding::{self, Finding},
    kube::decode,
    names::{container, label},
};

use super::{Scene, injection, report_of, templates::Template};
use crate::{
    inject::decide,
    model::{Kind, Labels, Selector},
};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let services = services(scene);
    for template in &scene.templates {
        let mut report = template.report();
        if injection::in_mesh(scene, &template.pod) {
            let selecting = selecting(&services, template);
            transports(&selecting, &mut report);
            targets(&selecting, &mut report);
        }
        if let Some(path) = template.pod.spec.as_ref().and_then(auto_image)
            && !injection::wanted(scene, &template.pod)
        {
            report.add(
                finding::IMAGE_AUTO_UNINJECTED_TEMPLATE,
                format!("{}.{path}", template.path),
                format!(
                    "the injector is to fill in this image, but neither the namespace (label {}=enabled) nor the pods \
                     (label {}: \"true\") ask for it",
                    label::INJECTION,
                    label::INJECT
                ),
            );
        }
        findings.append(&mut report.findings);
    }
    for manifest in scene.written(Kind::Pod) {
        let spec = manifest
            .value
            .get("spec")
            .cloned()
            .and_then(|spec| serde_json::from_value::<PodSpec>(spec).ok());
        if let Some(path) = spec.as_ref().and_then(auto_image) {
            let mut report = report_of(manifest);
            report.add(
                finding::IMAGE_AUTO_UNINJECTED_POD,
                path,
                "the injector was to fill in this image and did not; the pod cannot start: label its namespace or the pod \
                 for injection, then make it again",
            );
            findings.append(&mut report.findings);
        }
    }
}

/// A Service with what is needed of it.
struct Selecting {
    namespace: String,
    name: String,
    selector: Selector,
    /// Number, transport, target.
    ports: Vec<(i32, String, String)>,
}

fn services(scene: &Scene<'_>) -> Vec<Selecting> {
    let read = |manifest: &mesh_proto::kube::Manifest| {
        let (service, _) = decode::core::<Service>(manifest);
        let spec = service?.spec?;
        let selector = Selector(spec.selector.filter(|selector| !selector.is_empty())?);
        let ports = spec.ports.unwrap_or_default().into_iter().map(|port| {
            let target = match port.target_port {
                Some(IntOrString::Int(number)) if number != 0 => number.to_string(),
                Some(IntOrString::String(name)) if !name.is_empty() => name,
                _ => port.port.to_string(),
            };
            (port.port, port.protocol.unwrap_or_else(|| "TCP".into()), target)
        });
        Some(Selecting {
            namespace: manifest.key.namespace.clone(),
            name: manifest.key.name.clone(),
            selector,
            ports: ports.collect(),
        })
    };
    scene.written(Kind::Service).filter_map(read).collect()
}

fn selecting<'a>(services: &'a [Selecting], template: &Template) -> Vec<&'a Selecting> {
    let none = Labels::new();
    let labels = template.labels().unwrap_or(&none);
    services
        .iter()
        .filter(|service| service.namespace == template.namespace && service.selector.matches(labels))
        .collect()
}

fn transports(services: &[&Selecting], report: &mut finding::Report) {
    let mut by_port: BTreeMap<i32, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for service in services {
        for (port, transport, _) in &service.ports {
            by_port
                .entry(*port)
                .or_default()
                .entry(transport)
                .or_default()
                .insert(&service.name);
        }
    }
    for (port, transports) in by_port {
        let names: BTreeSet<&str> = transports.values().flatten().copied().collect();
        // One Service may well offer both, as DNS does.
        if transports.len() > 1 && names.len() > 1 {
            let transports: Vec<&str> = transports.into_keys().collect();
            let text = format!(
                "Services {} lead to these pods by port {port} with different protocols ({})",
                names.into_iter().collect::<Vec<_>>().join(", "),
                transports.join(", ")
            );
            report.add(finding::MULTIPLE_SERVICES_ONE_PORT, "metadata.name", text);
        }
    }
}

fn targets(services: &[&Selecting], report: &mut finding::Report) {
    let mut by_target: BTreeMap<(&str, &str), BTreeMap<i32, BTreeSet<&str>>> = BTreeMap::new();
    for service in services {
        for (port, transport, target) in &service.ports {
            by_target
                .entry((target, transport))
                .or_default()
                .entry(*port)
                .or_default()
                .insert(&service.name);
        }
    }
    for ((target, _), ports) in by_target {
        let names: BTreeSet<&str> = ports.values().flatten().copied().collect();
        if ports.len() > 1 && names.len() > 1 {
            let ports: Vec<String> = ports.keys().map(ToString::to_string).collect();
            let text = format!(
                "Services {} lead to port {target} of these pods from different ports ({}): what arrives there cannot be \
                 told apart",
                names.into_iter().collect::<Vec<_>>().join(", "),
                ports.join(", ")
            );
            report.add(finding::CONFLICTING_SERVICE_PORTS, "metadata.name", text);
        }
    }
}

/// The path of the proxy's image, if it is `auto`.
fn auto_image(spec: &PodSpec) -> Option<String> {
    let groups: [(&str, &[Container]); 2] = [
        ("containers", &spec.containers),
        (
            "initContainers",
            spec.init_containers.as_deref().unwrap_or_default(),
        ),
    ];
    groups.into_iter().find_map(|(group, containers)| {
        let i = containers
            .iter()
            .position(|one| one.name == container::PROXY && one.image.as_deref() == Some(decide::AUTO))?;
        Some(format!("spec.{group}[{i}].image"))
    })
}
