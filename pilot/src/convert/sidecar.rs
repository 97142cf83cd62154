//! Sidecar.

use mesh_proto::kube::{Object, networking as api};

use super::{DOMAIN, gateway::scope};
use crate::model::{Host, Origin, Selector, Sidecar, sidecar::EgressHost};

pub fn convert(object: &Object<api::Sidecar>, origin: Origin) -> Sidecar {
    let spec = &object.spec;
    let selector = spec
        .workload_selector
        .as_ref()
        .filter(|selector| !selector.labels.is_empty());
    let hosts = spec.egress.iter().flat_map(|listener| &listener.hosts);
    let egress = hosts
        .filter_map(|text| egress_host(text, &origin.namespace))
        .collect();
    Sidecar {
        selector: selector.map(|selector| Selector(selector.labels.clone())),
        egress: (!spec.egress.is_empty()).then_some(egress),
        outbound: spec.outbound_traffic_policy.as_ref().map(|policy| policy.mode),
        origin,
    }
}

/// `~/…` stands for nothing.
fn egress_host(text: &str, own: &str) -> Option<EgressHost> {
    let (namespace, host) = text.split_once('/')?;
    let in_namespace = if matches!(namespace, "." | "*") {
        own
    } else {
        namespace
    };
    (namespace != "~").then(|| EgressHost {
        scope: scope(namespace),
        host: Host::resolve(host, in_namespace, DOMAIN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::testing::of_spec,
        model::{Item, Kind},
    };

    #[test]
    fn sidecars() {
        let check = |spec: &str, namespace: &str, host: &str, expect: bool| {
            let Item::Sidecar(sidecar) = of_spec(Kind::Sidecar, spec) else {
                panic!()
            };
            assert_eq!(
                sidecar.sees(namespace, &Host::new(host)),
                expect,
                "{spec} {namespace} {host}"
            );
        };
        check("{}", "x", "a.x.svc.cluster.local", true);
        check("egress: [{hosts: ['./*']}]", "ns", "a.ns.svc.cluster.local", true);
        check("egress: [{hosts: ['./*']}]", "x", "a.x.svc.cluster.local", false);
        check("egress: [{hosts: ['x/a']}]", "x", "a.x.svc.cluster.local", true);
        check("egress: [{hosts: ['x/a']}]", "x", "b.x.svc.cluster.local", false);
        check(
            "egress: [{hosts: ['~/*']}]",
            "ns",
            "a.ns.svc.cluster.local",
            false,
        );
        check("egress: [{hosts: ['*/*.com']}]", "y", "a.com", true);
    }
}
