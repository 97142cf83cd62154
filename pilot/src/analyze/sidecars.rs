//! Sidecars whose listeners nobody is behind: a port that no service has (IST0133), services that a listener cannot pass
//! on to (IST0133), an egress proxy that does not exist or is not among the hosts (IST0101).

use mesh_proto::finding::{self, Finding, Report};

use super::{Scene, references};
use crate::model::{
    Resolution, Service, Sidecar,
    sidecar::{Capture, Egress},
};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for sidecar in scene.world.sidecars.values() {
        let mut report = scene.report(&sidecar.origin);
        for (i, listener) in sidecar.egress.iter().flatten().enumerate() {
            check_listener(
                scene,
                sidecar,
                listener,
                &format!("spec.egress[{i}]"),
                &mut report,
            );
        }
        egress_proxy(scene, sidecar, &mut report);
        findings.append(&mut report.findings);
    }
}

/// The services whose ports may come by this listener.
fn behind<'a>(
    scene: &'a Scene<'_>,
    sidecar: &'a Sidecar,
    listener: &'a Egress,
) -> impl Iterator<Item = &'a Service> {
    let own = &sidecar.origin.namespace;
    let services = scene.registry.services().map(AsRef::as_ref);
    services.filter(move |service| {
        service.visibility.allows(&service.namespace, own)
            && service.ports.iter().any(|port| {
                sidecar.egress_of(port.number) == Some(listener)
                    && sidecar.sees(&service.namespace, &service.host, port.number)
            })
    })
}

fn check_listener(scene: &Scene<'_>, sidecar: &Sidecar, listener: &Egress, path: &str, report: &mut Report) {
    if let Some(port) = &listener.port
        && !listener.hosts.is_empty()
        && scene.registry.services().next().is_some()
        && behind(scene, sidecar, listener).next().is_none()
    {
        let text = format!(
            "none of the hosts is a service with port {}, so nothing is listened for; the number is that of the service's port",
            port.number
        );
        report.warn(format!("{path}.port.number"), text);
    }
    if listener.capture != Capture::Bound {
        return;
    }
    for service in behind(scene, sidecar, listener).filter(|service| service.resolution == Resolution::None) {
        let text = format!(
            "{} has resolution NONE, so it is reached at the address that a client wants, and with captureMode NONE that is \
             the proxy's own: its traffic is refused; use resolution DNS or STATIC",
            service.host
        );
        report.warn(format!("{path}.captureMode"), text);
    }
}

fn egress_proxy(scene: &Scene<'_>, sidecar: &Sidecar, report: &mut Report) {
    let Some(proxy) = &sidecar.egress_proxy else {
        return;
    };
    const PATH: &str = "spec.outboundTrafficPolicy.egressProxy";
    references::check_destination(scene, &sidecar.origin, proxy, PATH, report);
    let service = references::find(scene, &proxy.host, &sidecar.origin.namespace);
    let (Some(service), Some(port)) = (service, proxy.port) else {
        return;
    };
    if !sidecar.sees(&service.namespace, &service.host, port) {
        let text = format!(
            "no listener in egress has {} among its hosts for port {port}, so unknown traffic gets nowhere; add {}/{}",
            service.host, service.namespace, service.host
        );
        report.add(
            finding::REFERENCED_RESOURCE_NOT_FOUND,
            format!("{PATH}.host"),
            text,
        );
    }
}
