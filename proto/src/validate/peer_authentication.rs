//! PeerAuthentication alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{Object, security::PeerAuthentication},
};

impl Validate for PeerAuthentication {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        let selects = self
            .selector
            .as_ref()
            .is_some_and(|selector| !selector.match_labels.is_empty());
        if let Some(selector) = &self.selector {
            field::labels(&selector.match_labels, "spec.selector.matchLabels", report);
        }
        for port in self.port_level_mtls.keys() {
            if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                report.error(
                    format!("spec.portLevelMtls.{port}"),
                    format!("{port:?} is not a port (1 to 65535)"),
                );
            }
        }
        if !self.port_level_mtls.is_empty() && !selects {
            report.error(
                "spec.portLevelMtls",
                "ports belong to workloads: add a selector with matchLabels",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn policies() {
        let check = |spec: &str, found: &[&str]| expect(Kind::PeerAuthentication, spec, found);
        check("mtls: {mode: STRICT}", &[]);
        check(
            "selector: {matchLabels: {app: a}}\nportLevelMtls: {80: {mode: DISABLE}}",
            &[],
        );
        check(
            "portLevelMtls: {80: {mode: DISABLE}}",
            &["Error spec.portLevelMtls"],
        );
        check(
            "selector: {matchLabels: {app: a}}\nportLevelMtls: {http: {mode: DISABLE}}",
            &["Error spec.portLevelMtls.http"],
        );
        check("mtls: {mode: strict}", &["Error spec.mtls.mode"]);
        check("mtls: {mod: STRICT}", &["Error spec.mtls.mod"]);
    }
}
