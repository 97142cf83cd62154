//! Sidecar alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{Object, networking::Sidecar},
};

impl Validate for Sidecar {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if let Some(selector) = &self.workload_selector {
            field::labels(&selector.labels, "spec.workloadSelector.labels", report);
        }
        if !self.ingress.is_empty() {
            report.unsupported(
                "spec.ingress",
                "has no effect yet; inbound listeners come from the Services",
            );
        }
        if self.inbound_connection_pool.is_some() {
            report.unsupported("spec.inboundConnectionPool", "has no effect yet");
        }
        if self
            .outbound_traffic_policy
            .as_ref()
            .is_some_and(|policy| policy.egress_proxy.is_some())
        {
            report.unsupported("spec.outboundTrafficPolicy.egressProxy", "has no effect yet");
        }
        for (i, egress) in self.egress.iter().enumerate() {
            let at = format!("spec.egress[{i}]");
            if egress.hosts.is_empty() {
                report.error(format!("{at}.hosts"), "needs at least one namespace/host");
            }
            if egress.port.is_some() || !egress.bind.is_empty() || egress.capture_mode.is_some() {
                report.unsupported(
                    &at,
                    "port, bind and captureMode have no effect yet; hosts count for all ports",
                );
            }
            for (j, host) in egress.hosts.iter().enumerate() {
                let path = format!("{at}.hosts[{j}]");
                let Some((namespace, name)) = host.split_once('/') else {
                    report.error(
                        path,
                        format!("{host:?} must be namespace/host, such as ./* or istio-system/*"),
                    );
                    continue;
                };
                if !matches!(namespace, "*" | "." | "~") && !field::namespace_name(namespace) {
                    report.error(
                        &path,
                        format!("{namespace:?} is not a namespace, '.', '*' or '~'"),
                    );
                }
                field::host(name, &path, true, report);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn sidecars() {
        expect(
            Kind::Sidecar,
            "egress: [{hosts: ['./*', 'istio-system/*', '~/*']}]",
            &[],
        );
        expect(
            Kind::Sidecar,
            "egress: [{hosts: [reviews]}, {hosts: []}]",
            &["Error spec.egress[0].hosts[0]", "Error spec.egress[1].hosts"],
        );
        expect(Kind::Sidecar, "ingress: [{}]", &["Warning spec.ingress"]);
    }
}
