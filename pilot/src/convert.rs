//! From the API's objects to the model: one file per kind. A conversion never fails: what is wrong is a finding, and an
//! object with an error has no new meaning (the caller keeps the last good one).
//!
//! Names are resolved here (`reviews` in namespace `default` becomes `reviews.default.svc.cluster.local`), defaults of the
//! mesh's settings are filled in, deprecated forms become the current ones.

use std::sync::Arc;

use mesh_proto::{
    finding::{Finding, Report},
    kube::{
        Kind, Manifest, Object, ObjectMeta, decode,
        networking::{
            DestinationRule, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
        },
        security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication},
        telemetry::Telemetry,
    },
    names,
    validate::{self, Validate},
};

use crate::model::{Item, MeshConfig, Origin, ProxySettings, Visibility};

mod authorization_policy;
pub mod canonical;
mod destination_rule;
mod endpoint_slice;
mod gateway;
mod namespace;
mod node;
mod peer_authentication;
mod pod;
mod proxy_config;
mod request_authentication;
mod secret;
mod service;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;
mod workload_entry;

pub use pod::workload_name;

/// What an object means.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    Item(Item),
    /// Nothing to the model (such as a Deployment, or a pod that has ended).
    Nothing,
    /// It has an error: the last good meaning stays.
    Invalid,
}

/// What counts in place of an object with an error that never had a good meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Instead {
    pub item: Option<Item>,
    /// Says so.
    pub finding: Finding,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    pub meaning: Meaning,
    pub findings: Vec<Finding>,
    /// Only for kinds that must not fail open.
    pub instead: Option<Instead>,
}

impl Converted {
    fn new(meaning: Meaning, findings: Vec<Finding>) -> Self {
        Self {
            meaning,
            findings,
            instead: None,
        }
    }
}

/// What one object means, given the settings of the mesh.
pub fn convert(manifest: &Manifest, mesh: &MeshConfig) -> Converted {
    let mut converted = meaning(manifest, mesh);
    for finding in validate::annotations::check(manifest) {
        if !converted.findings.contains(&finding) {
            converted.findings.push(finding);
        }
    }
    converted
}

/// The good ones among the ProxyConfigs in these objects, for who injects without a pilot.
pub fn proxy_settings<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Vec<Arc<ProxySettings>> {
    let proxies = manifests
        .into_iter()
        .filter(|manifest| manifest.kind == Kind::ProxyConfig);
    let mesh = MeshConfig::default();
    proxies
        .filter_map(|manifest| match meaning(manifest, &mesh).meaning {
            Meaning::Item(Item::ProxySettings(settings)) => Some(settings),
            _ => None,
        })
        .collect()
}

fn meaning(manifest: &Manifest, mesh: &MeshConfig) -> Converted {
    match manifest.kind {
        Kind::Namespace => core(manifest, namespace::convert),
        Kind::Node => core(manifest, node::convert),
        Kind::Service => core(manifest, |object, origin, report| {
            service::convert(object, origin, mesh, report)
        }),
        Kind::EndpointSlice => core(manifest, endpoint_slice::convert),
        Kind::Pod => core(manifest, pod::convert),
        Kind::Secret => core(manifest, secret::convert),
        Kind::ConfigMap if validate::is_mesh_config(manifest) => {
            let (config, findings) = validate::mesh_config(manifest);
            let meaning = config.map_or(Meaning::Invalid, |config| {
                Meaning::Item(Item::Mesh(Arc::new(config)))
            });
            Converted::new(meaning, findings)
        }
        Kind::VirtualService => resource::<VirtualService>(manifest, |object, origin| {
            Item::VirtualService(Arc::new(virtual_service::convert(object, origin, mesh)))
        }),
        Kind::DestinationRule => resource::<DestinationRule>(manifest, |object, origin| {
            Item::DestinationPolicy(Arc::new(destination_rule::convert(object, origin, mesh)))
        }),
        Kind::Gateway => resource::<Gateway>(manifest, |object, origin| {
            Item::Gateway(Arc::new(gateway::convert(object, origin)))
        }),
        Kind::ServiceEntry => resource::<ServiceEntry>(manifest, |object, origin| {
            Item::ServiceEntry(Arc::new(service_entry::convert(object, origin, mesh)))
        }),
        Kind::WorkloadEntry => resource::<WorkloadEntry>(manifest, |object, origin| {
            Item::WorkloadEntry(Arc::new(workload_entry::convert(object, origin)))
        }),
        Kind::Sidecar => resource::<Sidecar>(manifest, |object, origin| {
            Item::Sidecar(Arc::new(sidecar::convert(object, origin)))
        }),
        Kind::PeerAuthentication => resource::<PeerAuthentication>(manifest, |object, origin| {
            Item::PeerAuthentication(Arc::new(peer_authentication::convert(object, origin)))
        }),
        Kind::RequestAuthentication => {
            let mut findings = Vec::new();
            let mut converted = resource::<RequestAuthentication>(manifest, |object, origin| {
                findings = request_authentication::unusable(object, manifest);
                Item::RequestAuthentication(Arc::new(request_authentication::convert(object, origin)))
            });
            converted.findings.append(&mut findings);
            converted
        }
        Kind::AuthorizationPolicy => authorization(manifest),
        Kind::Telemetry => resource::<Telemetry>(manifest, |object, origin| {
            Item::Telemetry(Arc::new(telemetry::convert(object, origin)))
        }),
        Kind::ProxyConfig => resource::<ProxyConfig>(manifest, |object, origin| {
            Item::ProxySettings(Arc::new(proxy_config::convert(object, origin)))
        }),
        // Nothing is made of the other kinds of the mesh's API, but whoever writes one is told what is wrong with it.
        kind if kind.is_mesh() => Converted::new(Meaning::Nothing, validate::check(manifest)),
        _ => Converted::new(Meaning::Nothing, Vec::new()),
    }
}

/// An object of the mesh's API: validated, then converted.
fn resource<T: Validate>(manifest: &Manifest, convert: impl FnOnce(&Object<T>, Origin) -> Item) -> Converted {
    let (object, findings) = validate::typed::<T>(manifest);
    let meaning = match &object {
        Some(object) => Meaning::Item(convert(
            object,
            origin(manifest, &object.metadata, manifest.version()),
        )),
        None => Meaning::Invalid,
    };
    Converted::new(meaning, findings)
}

/// One that cannot be read still restricts.
fn authorization(manifest: &Manifest) -> Converted {
    let read = |manifest: &Manifest| {
        resource::<AuthorizationPolicy>(manifest, |object, origin| {
            Item::AuthorizationPolicy(Arc::new(authorization_policy::convert(object, origin)))
        })
    };
    let mut converted = read(manifest);
    if converted.meaning == Meaning::Invalid {
        let rest = |manifest: &Manifest| match read(manifest).meaning {
            Meaning::Item(item) => Some(item),
            _ => None,
        };
        let found = &converted.findings;
        converted.instead = Some(authorization_policy::salvage::salvage(manifest, found, rest));
    }
    converted
}

/// An object of Kubernetes' API: Kubernetes has validated it, but a file has not.
fn core<T>(manifest: &Manifest, convert: impl FnOnce(&T, Origin, &mut Report) -> Option<Item>) -> Converted
where
    T: serde::de::DeserializeOwned + k8s_openapi::Metadata<Ty = ObjectMeta>,
{
    let (object, findings) = decode::core::<T>(manifest);
    let Some(object) = object else {
        return Converted::new(Meaning::Invalid, findings);
    };
    let mut report = Report::new(manifest.object_ref(), manifest.source.clone());
    report.findings = findings;
    // Versions of these kinds concern nobody, and would make equal values differ.
    let item = convert(
        &object,
        origin(manifest, object.metadata(), String::new()),
        &mut report,
    );
    let meaning = match item {
        _ if report.has_error() => Meaning::Invalid,
        Some(item) => Meaning::Item(item),
        None => Meaning::Nothing,
    };
    Converted::new(meaning, report.findings)
}

fn origin(manifest: &Manifest, metadata: &ObjectMeta, version: String) -> Origin {
    Origin {
        kind: manifest.kind,
        namespace: manifest.key.namespace.clone(),
        name: manifest.key.name.clone(),
        version,
        created: metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
    }
}

/// `exportTo`, with the mesh's default where the object says nothing.
fn visibility(export_to: &[String], namespace: &str, default: &[String]) -> Visibility {
    let default = Visibility::new(default.iter().map(String::as_str), namespace, &Visibility::Public);
    Visibility::new(export_to.iter().map(String::as_str), namespace, &default)
}

/// The DNS domain of Services.
const DOMAIN: &str = names::CLUSTER_DOMAIN;

/// A port that `validate` has seen; what is out of range cannot come here and would be 0, which no proxy listens on.
fn port(number: u32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::testing::manifests;

    /// The meaning of the only object in a text; panics if it has none.
    pub fn item(text: &str) -> Item {
        let manifest = manifests(text).remove(0);
        match convert(&manifest, &MeshConfig::default()) {
            Converted {
                meaning: Meaning::Item(item),
                ..
            } => item,
            other => panic!("{other:#?}"),
        }
    }

    fn text(kind: Kind, spec: &str) -> String {
        let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "apiVersion: {}\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec:\n{spec}",
            kind.api_version()
        )
    }

    /// An object of the mesh's API in namespace `ns`, with this spec.
    pub fn of_spec(kind: Kind, spec: &str) -> Item {
        item(&text(kind, spec))
    }

    /// The same, whatever comes of it.
    pub fn converted(kind: Kind, spec: &str) -> Converted {
        let manifest = manifests(&text(kind, spec)).remove(0);
        convert(&manifest, &MeshConfig::default())
    }
}
