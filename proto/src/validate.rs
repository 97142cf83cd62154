//! What is wrong with one object alone. The webhook, pilot and `meshctl analyze` all ask here, so that an object that is
//! taken in one place is not refused in another. What is wrong *between* objects is pilot's `analyze`.
//!
//! An error means that the object is not taken and its last good version stays in effect; a warning means that it is
//! taken, but a part of it has no effect or is doubtful.

use crate::{
    finding::{Finding, Report},
    kube::{
        Kind, Manifest, Object, Resource, decode,
        extension::{TrafficExtension, WasmPlugin},
        networking::{
            DestinationRule, EnvoyFilter, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService,
            WorkloadEntry, WorkloadGroup,
        },
        security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication},
        support,
        telemetry::Telemetry,
    },
    mesh::MeshConfig,
    names,
};

pub mod annotations;
mod authorization_policy;
mod destination_rule;
mod envoy_filter;
mod extension;
pub mod field;
mod gateway;
mod peer_authentication;
mod proxy_config;
mod request_authentication;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;
mod workload;

pub use authorization_policy::CONDITIONS;
pub use virtual_service::GRPC_STATUSES;

/// A kind whose objects can be judged alone.
pub trait Validate: Resource {
    fn validate(&self, object: &Object<Self>, report: &mut Report);
}

/// The typed object, if it has no error, and everything found.
pub fn typed<T: Validate>(manifest: &Manifest) -> (Option<Object<T>>, Vec<Finding>) {
    let (object, mut findings) = decode::resource::<T>(manifest);
    if let Some(object) = &object {
        let mut report = Report::new(manifest.object_ref(), manifest.source.clone());
        object.spec.validate(object, &mut report);
        support::check(manifest, &mut report);
        findings.append(&mut report.findings);
    }
    let good = !findings.iter().any(Finding::is_error);
    (object.filter(|_| good), findings)
}

/// Everything that is wrong with an object alone.
pub fn check(manifest: &Manifest) -> Vec<Finding> {
    let mut findings = match manifest.kind {
        Kind::VirtualService => typed::<VirtualService>(manifest).1,
        Kind::DestinationRule => typed::<DestinationRule>(manifest).1,
        Kind::Gateway => typed::<Gateway>(manifest).1,
        Kind::ServiceEntry => typed::<ServiceEntry>(manifest).1,
        Kind::WorkloadEntry => typed::<WorkloadEntry>(manifest).1,
        Kind::WorkloadGroup => typed::<WorkloadGroup>(manifest).1,
        Kind::Sidecar => typed::<Sidecar>(manifest).1,
        Kind::ProxyConfig => typed::<ProxyConfig>(manifest).1,
        Kind::EnvoyFilter => typed::<EnvoyFilter>(manifest).1,
        Kind::PeerAuthentication => typed::<PeerAuthentication>(manifest).1,
        Kind::RequestAuthentication => typed::<RequestAuthentication>(manifest).1,
        Kind::AuthorizationPolicy => typed::<AuthorizationPolicy>(manifest).1,
        Kind::Telemetry => typed::<Telemetry>(manifest).1,
        Kind::WasmPlugin => typed::<WasmPlugin>(manifest).1,
        Kind::TrafficExtension => typed::<TrafficExtension>(manifest).1,
        Kind::ConfigMap if is_mesh_config(manifest) => mesh_config(manifest).1,
        _ => Vec::new(),
    };
    findings.append(&mut annotations::check(manifest));
    findings
}

/// The ConfigMap that holds the settings of the mesh.
pub fn is_mesh_config(manifest: &Manifest) -> bool {
    manifest.kind == Kind::ConfigMap
        && manifest.key.namespace == names::SYSTEM_NAMESPACE
        && manifest.key.name == names::MESH_CONFIG_MAP
}

/// The settings of the mesh, if they can be read.
pub fn mesh_config(manifest: &Manifest) -> (Option<MeshConfig>, Vec<Finding>) {
    let mut report = Report::new(manifest.object_ref(), manifest.source.clone());
    let text = manifest
        .value
        .pointer("/data/mesh")
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default();
    let config = MeshConfig::parse(text, &mut report);
    (config, report.findings)
}

#[cfg(test)]
pub(crate) mod testing {
    //! `check(spec, expect)` for every kind.

    use super::*;

    /// Findings of an object with this spec (YAML), as `Level path`.
    pub fn found(kind: Kind, spec: &str) -> Vec<String> {
        let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
        let text = format!(
            "apiVersion: {}\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec:\n{indented}",
            kind.api_version()
        );
        let (manifests, findings) = crate::kube::yaml::manifests(&text, "f");
        assert_eq!(findings, vec![], "{text}");
        check(&manifests[0])
            .iter()
            .map(|finding| format!("{} {}", finding.level, finding.path))
            .collect()
    }

    /// The findings must be these.
    pub fn expect(kind: Kind, spec: &str, expect: &[&str]) {
        assert_eq!(found(kind, spec), expect, "{spec}");
    }
}
