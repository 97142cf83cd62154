//! Everything that is to be in the cluster, from values: the charts rendered, cut into groups that stand for themselves and
//! are applied one after the other. Pure.
//!
//! Citadel and telemetry are there once for all revisions, and so are gateways; pilot is there once for each.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use mesh_proto::{
    finding::{ObjectRef, Report},
    mesh::MeshConfig,
};
use serde_json::Value;

use super::{
    chart::{BASE, CONTROL, GATEWAY},
    render::{Release, render},
    values::Values,
};
use crate::local::manifest::Document;

/// A group's name and place: they are applied in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// Kinds and roles for people.
    Base,
    /// citadel or telemetry.
    Shared(String),
    Pilot,
    /// The API server's ways to pilot: when pilot is ready.
    Webhooks,
    Gateway(String),
}

impl Component {
    /// The value of the label on each of its objects.
    pub fn label(&self) -> &str {
        match self {
            Self::Base => "base",
            Self::Shared(name) | Self::Gateway(name) => name,
            Self::Pilot => "pilot",
            Self::Webhooks => "webhooks",
        }
    }

    /// There once, whoever installed it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_) | Self::Gateway(_))
    }
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base => f.write_str("kinds and roles"),
            Self::Gateway(name) => write!(f, "gateway {name}"),
            other => f.write_str(other.label()),
        }
    }
}

/// What is to be there.
#[derive(Clone, Debug)]
pub struct Plan {
    pub values: Values,
    pub namespace: String,
    pub groups: BTreeMap<Component, Vec<Value>>,
    /// What the mesh's settings hold that has no effect.
    pub warnings: Vec<String>,
}

impl Plan {
    pub fn new(values: Values, namespace: &str) -> anyhow::Result<Self> {
        let mut plan = Self {
            warnings: Vec::new(),
            namespace: namespace.to_owned(),
            groups: BTreeMap::new(),
            values,
        };
        let control = plan.values.of(&CONTROL)?;
        plan.warnings = settings(&control["meshConfig"])?;
        for document in render(
            &BASE,
            &plan.values.of(&BASE)?,
            Release {
                name: "base",
                namespace,
            },
        )? {
            plan.add(Component::Base, document);
        }
        for document in render(
            &CONTROL,
            &control,
            Release {
                name: "control",
                namespace,
            },
        )? {
            let component = component(&document.object);
            plan.add(component, document);
        }
        for name in plan
            .values
            .gateways()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
        {
            let values = plan.values.of_gateway(&name)?;
            for document in render(
                &GATEWAY,
                &values,
                Release {
                    name: &name,
                    namespace,
                },
            )? {
                plan.add(Component::Gateway(name.clone()), document);
            }
        }
        for objects in plan.groups.values_mut() {
            objects.sort_by_key(order);
        }
        Ok(plan)
    }

    fn add(&mut self, component: Component, document: Document) {
        self.groups.entry(component).or_default().push(document.object);
    }

    /// "default" where there is no other name.
    pub fn revision(&self) -> &str {
        match self.values.revision() {
            "" => "default",
            name => name,
        }
    }

    /// Every object in the order in which it is applied.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.groups.values().flatten()
    }
}

fn component(object: &Value) -> Component {
    if object["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("WebhookConfiguration"))
    {
        return Component::Webhooks;
    }
    match object["metadata"]["labels"]["app"].as_str() {
        Some(app @ ("citadel" | "telemetry")) => Component::Shared(app.to_owned()),
        _ => Component::Pilot,
    }
}

/// What others need comes first.
fn order(object: &Value) -> usize {
    const KINDS: [&str; 11] = [
        "CustomResourceDefinition",
        "ServiceAccount",
        "Secret",
        "ConfigMap",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "PodDisruptionBudget",
        "Service",
        "Deployment",
    ];
    let kind = object["kind"].as_str().unwrap_or_default();
    KINDS
        .iter()
        .position(|known| *known == kind)
        .unwrap_or(KINDS.len())
}

/// The mesh's settings are read as pilot reads them: what makes no sense stops here.
fn settings(config: &Value) -> anyhow::Result<Vec<String>> {
    let text = serde_json::to_string(config).context("meshConfig")?;
    let mut report = Report::new(ObjectRef::new("ConfigMap", "", "istio"), None);
    let config = MeshConfig::parse(&text, &mut report);
    let told: Vec<String> = report
        .findings
        .iter()
        .map(|finding| {
            format!(
                "{}: {}",
                finding.path.replace("data.mesh", "meshConfig"),
                finding.text
            )
        })
        .collect();
    match config {
        Some(_) => Ok(told),
        None => Err(anyhow!("{}", told.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::values::Sources;

    fn plan(set: &[&str]) -> anyhow::Result<Plan> {
        let sources = Sources {
            set: set.iter().map(|one| (*one).to_owned()).collect(),
            ..Sources::default()
        };
        Plan::new(sources.read(None)?, "istio-system")
    }

    fn names(plan: &Plan, component: &Component) -> Vec<String> {
        let of = |object: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
        };
        plan.groups.get(component).into_iter().flatten().map(of).collect()
    }

    #[test]
    fn groups_and_their_order() {
        let plan = plan(&[]).unwrap();
        let groups: Vec<&str> = plan.groups.keys().map(Component::label).collect();
        assert_eq!(
            groups,
            [
                "base",
                "citadel",
                "telemetry",
                "pilot",
                "webhooks",
                "istio-ingressgateway"
            ]
        );
        assert_eq!(
            names(&plan, &Component::Webhooks),
            [
                "MutatingWebhookConfiguration/istio-sidecar-injector",
                "ValidatingWebhookConfiguration/istio-validator-istio-system"
            ]
        );
        assert_eq!(
            names(&plan, &Component::Pilot),
            [
                "ServiceAccount/pilot",
                "ConfigMap/istio",
                "ConfigMap/istio-sidecar-injector",
                "ClusterRole/pilot-istio-system",
                "ClusterRoleBinding/pilot-istio-system",
                "Role/pilot",
                "RoleBinding/pilot",
                "Service/pilot",
                "Deployment/pilot",
                "HorizontalPodAutoscaler/pilot"
            ]
        );
        assert!(
            names(&plan, &Component::Base)
                .iter()
                .filter(|name| name.starts_with("CustomR"))
                .count()
                >= 14
        );
    }

    #[test]
    fn a_revision_is_beside_the_others() {
        let plan = plan(&["revision=canary", "revisionTags={stable}"]).unwrap();
        assert_eq!(plan.revision(), "canary");
        let own = [Component::Pilot, Component::Webhooks];
        for name in own.iter().flat_map(|component| names(&plan, component)) {
            assert!(
                name.contains("-canary") || name.ends_with("/istio-revision-tag-stable"),
                "{name}"
            );
        }
    }

    #[test]
    fn the_mesh_s_settings_are_read() {
        let told = plan(&["meshConfig.accessLogFiel=x"]).unwrap().warnings;
        assert!(
            told.len() == 1 && told[0].starts_with("meshConfig.accessLogFiel"),
            "{told:?}"
        );
        let error = plan(&["meshConfig.accessLogEncoding=XML"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("meshConfig.accessLogEncoding"), "{error}");
    }
}
