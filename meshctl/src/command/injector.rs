//! `meshctl injector list`: which namespaces get sidecars, from which control plane, and whether their pods have them.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use mesh_proto::{
    kube::Kind,
    names::{container, label},
};
use serde_json::{Value, json};

use crate::{
    context::Mesh,
    local::object,
    output::{self, Table},
};

const DEFAULT_REVISION: &str = "default";

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Namespaces and injectors
    List {
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

/// A namespace that asks for sidecars, or has some.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Injected {
    namespace: String,
    /// Whose sidecars new pods get; empty: nobody's.
    revision: String,
    /// Revision of the pods' sidecars → how many.
    pods: BTreeMap<String, usize>,
    /// Pods without one.
    bare: usize,
}

/// A webhook that injects.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Injector {
    name: String,
    revision: String,
    service: String,
    webhooks: usize,
}

pub async fn run(arguments: Arguments, mesh: &Mesh) -> anyhow::Result<i32> {
    let What::List { output } = arguments.what;
    let namespaces = mesh.objects(Kind::Namespace, "", "").await?;
    let pods = mesh.objects(Kind::Pod, "", "").await?;
    let webhooks = mesh.objects(Kind::MutatingWebhookConfiguration, "", "").await?;
    let injected = injected(&namespaces, &pods);
    let injectors = injectors(&webhooks);
    match output {
        Format::Table => output::print(&tables(&injected, &injectors, mesh.local().is_some())),
        Format::Json => output::json(&machine(&injected, &injectors))?,
        Format::Yaml => output::yaml(&machine(&injected, &injectors))?,
    }
    Ok(0)
}

fn injected(namespaces: &[Value], pods: &[Value]) -> Vec<Injected> {
    let mut all = Vec::new();
    for namespace in namespaces {
        let name = object::text(namespace, "/metadata/name");
        let labels = &namespace["metadata"]["labels"];
        let revision = match (
            labels[label::INJECTION].as_str(),
            labels[label::REVISION].as_str(),
        ) {
            (Some("enabled"), _) => DEFAULT_REVISION,
            (Some(_), _) | (None, None) => "",
            (None, Some(revision)) => revision,
        };
        let (mut with, mut bare): (BTreeMap<String, usize>, usize) = (BTreeMap::new(), 0);
        for pod in pods
            .iter()
            .filter(|pod| object::text(pod, "/metadata/namespace") == name)
        {
            match sidecar(pod) {
                Some(revision) => *with.entry(revision).or_default() += 1,
                None if is_ended(pod) => {}
                None => bare += 1,
            }
        }
        if !revision.is_empty() || !with.is_empty() {
            all.push(Injected {
                namespace: name.to_owned(),
                revision: revision.to_owned(),
                pods: with,
                bare,
            });
        }
    }
    all
}

fn is_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&object::text(pod, "/status/phase"))
}

/// The revision of a pod's sidecar, if it has one.
fn sidecar(pod: &Value) -> Option<String> {
    let mut containers = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|group| pod["spec"][group].as_array().into_iter().flatten());
    containers.any(|one| one["name"] == container::PROXY).then(|| {
        pod["metadata"]["labels"][label::REVISION]
            .as_str()
            .unwrap_or(DEFAULT_REVISION)
            .to_owned()
    })
}

fn injectors(webhooks: &[Value]) -> Vec<Injector> {
    let mut all = Vec::new();
    for configuration in webhooks {
        let hooks: Vec<&Value> = configuration["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|hook| {
                hook["name"]
                    .as_str()
                    .is_some_and(|name| name.ends_with("istio.io"))
            })
            .collect();
        let Some(first) = hooks.first() else { continue };
        let config = &first["clientConfig"];
        let service = match config["url"].as_str() {
            Some(url) => url.to_owned(),
            None => format!(
                "{}/{}",
                config["service"]["namespace"].as_str().unwrap_or_default(),
                config["service"]["name"].as_str().unwrap_or_default()
            ),
        };
        all.push(Injector {
            name: object::text(configuration, "/metadata/name").to_owned(),
            revision: configuration["metadata"]["labels"][label::REVISION]
                .as_str()
                .unwrap_or(DEFAULT_REVISION)
                .to_owned(),
            service,
            webhooks: hooks.len(),
        });
    }
    all
}

fn tables(injected: &[Injected], injectors: &[Injector], local: bool) -> String {
    let mut namespaces = Table::new(&["NAMESPACE", "ISTIO-REVISION", "POD-REVISIONS", "WITHOUT SIDECAR"]);
    for one in injected {
        let pods: Vec<String> = one
            .pods
            .iter()
            .map(|(revision, count)| format!("{revision}: {count}"))
            .collect();
        namespaces.row(vec![
            one.namespace.clone(),
            if one.revision.is_empty() {
                "<none>".into()
            } else {
                one.revision.clone()
            },
            if pods.is_empty() {
                "<no pods>".into()
            } else {
                pods.join(", ")
            },
            one.bare.to_string(),
        ]);
    }
    let mut text = match injected.is_empty() {
        true => "No namespace asks for sidecars; label one: istio-injection=enabled\n".to_owned(),
        false => namespaces.to_string(),
    };
    text.push('\n');
    if local {
        text.push_str("The local mesh injects by itself, without a webhook.\n");
        return text;
    }
    if injectors.is_empty() {
        text.push_str("No webhook injects sidecars; is the mesh installed (`meshctl install`)?\n");
        return text;
    }
    let mut hooks = Table::new(&["INJECTOR-HOOK", "ISTIO-REVISION", "SERVICE", "WEBHOOKS"]);
    for one in injectors {
        hooks.row(vec![
            one.name.clone(),
            one.revision.clone(),
            one.service.clone(),
            one.webhooks.to_string(),
        ]);
    }
    text + &hooks.to_string()
}

fn machine(injected: &[Injected], injectors: &[Injector]) -> Value {
    let namespaces = injected.iter().map(|one| {
        json!({"namespace": one.namespace, "revision": one.revision, "pods": one.pods, "withoutSidecar": one.bare})
    });
    let hooks = injectors.iter().map(|one| {
        json!({"name": one.name, "revision": one.revision, "service": one.service, "webhooks": one.webhooks})
    });
    json!({"namespaces": namespaces.collect::<Value>(), "injectors": hooks.collect::<Value>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_and_hooks() {
        let namespace = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
        let pod = |namespace: &str, containers: Value| json!({"metadata": {"name": "p", "namespace": namespace}, "spec": {"initContainers": containers}, "status": {"phase": "Running"}});
        let namespaces = [
            namespace("shop", json!({"istio-injection": "enabled"})),
            namespace("canary", json!({"istio.io/rev": "canary"})),
            namespace("plain", json!({})),
        ];
        let pods = [
            pod("shop", json!([{"name": "istio-proxy"}])),
            pod("shop", json!([])),
            pod("plain", json!([])),
        ];
        let found = injected(&namespaces, &pods);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (
                found[0].revision.as_str(),
                found[0].bare,
                found[0].pods["default"]
            ),
            ("default", 1, 1)
        );
        assert_eq!(found[1].revision, "canary");
        let hooks = injectors(&[
            json!({"metadata": {"name": "istio-sidecar-injector"}, "webhooks": [
            {"name": "rev.sidecar-injector.istio.io", "clientConfig": {"service": {"name": "pilot", "namespace": "istio-system"}}}]}),
        ]);
        let text = tables(&found, &hooks, false);
        assert!(
            text.contains("istio-system/pilot") && text.contains("<no pods>"),
            "{text}"
        );
    }
}
