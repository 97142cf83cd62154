//! `meshctl kube-inject -f FILE`: the same manifests with sidecars in their workloads, by pilot's own injector. Without
//! files for the settings they come from the running mesh, if there is one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use mesh_pilot::{
    convert,
    inject::{self, Outcome, Settings, values},
    model::{Labels, ProxySettings},
};
use mesh_proto::{
    finding::{ObjectRef, Report},
    kube::{Kind, Manifest},
    mesh::MeshConfig,
    names::{self, label},
};
use serde_json::Value;

use crate::{
    context::{Mesh, Target},
    local::manifest::{self, to_yaml},
    output,
};

const INJECTOR: &str = "istio-sidecar-injector";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The manifests; - for standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filename: String,
    /// Write there instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Settings of the mesh (MeshConfig), instead of the running mesh's
    #[arg(
        long = "meshConfigFile",
        visible_alias = "mesh-config-file",
        value_name = "FILE"
    )]
    pub mesh_config_file: Option<PathBuf>,
    /// The ConfigMap with the settings of the mesh [default: istio]
    #[arg(
        long = "meshConfigMapName",
        visible_alias = "mesh-config-map-name",
        value_name = "NAME"
    )]
    pub mesh_config_map: Option<String>,
    /// Values of the installation (as in the chart), instead of the running mesh's
    #[arg(long = "valuesFile", visible_alias = "values-file", value_name = "FILE")]
    pub values_file: Option<PathBuf>,
    /// The ConfigMap with the values of the installation [default: istio-sidecar-injector]
    #[arg(
        long = "injectConfigMapName",
        visible_alias = "inject-config-map-name",
        value_name = "NAME"
    )]
    pub inject_config_map: Option<String>,
    /// The control plane's revision
    #[arg(short, long, default_value = "default")]
    pub revision: String,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    let parsed = manifest::read(std::slice::from_ref(&arguments.filename), false)?;
    if let Some(bad) = parsed.malformed.first() {
        bail!("{}: {}", bad.source, bad.text);
    }
    let (mesh, proxies, settings) = settings(&arguments, target).await?;
    let mut written = String::new();
    for document in parsed.documents {
        let (object, note) = injected(document.object, &mesh, &proxies, &settings)
            .with_context(|| format!("{}: cannot be injected", document.source))?;
        if let Some(note) = note {
            eprintln!("meshctl: {}: {note}", document.source);
        }
        if !written.is_empty() {
            written.push_str("---\n");
        }
        written.push_str(to_yaml(&object)?.trim_end());
        written.push('\n');
    }
    match &arguments.output {
        Some(file) => {
            std::fs::write(file, written).with_context(|| format!("{} cannot be written", file.display()))?;
        }
        None => output::print(&written),
    }
    Ok(0)
}

/// Of files where they are named, else of the running mesh, else the defaults.
async fn settings(
    arguments: &Arguments,
    target: &Target,
) -> anyhow::Result<(MeshConfig, Vec<Arc<ProxySettings>>, Settings)> {
    let suffix = match arguments.revision.as_str() {
        "default" => String::new(),
        revision => format!("-{revision}"),
    };
    let running = match target.is_known() {
        true => Some(Mesh::find(target).await?),
        false => None,
    };
    let read = |file: &Path| {
        std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
    };
    let mesh = match &arguments.mesh_config_file {
        Some(file) => Some(read(file)?),
        None => {
            let default = || format!("{}{suffix}", names::MESH_CONFIG_MAP);
            let name = arguments.mesh_config_map.clone().unwrap_or_else(default);
            of_map(
                running.as_ref(),
                &name,
                "mesh",
                arguments.mesh_config_map.is_some(),
            )
            .await?
        }
    };
    let values = match &arguments.values_file {
        Some(file) => Some(read(file)?),
        None => {
            let name = arguments
                .inject_config_map
                .clone()
                .unwrap_or_else(|| format!("{INJECTOR}{suffix}"));
            of_map(
                running.as_ref(),
                &name,
                "values",
                arguments.inject_config_map.is_some(),
            )
            .await?
        }
    };
    let base = Settings {
        revision: arguments.revision.clone(),
        // Whoever runs this has chosen.
        any_revision: true,
        ..Settings::default()
    };
    let settings = values::read(values.as_deref(), &base)
        .map_err(|problem| anyhow!("the installation's values: {problem}"))?;
    let mut report = Report::new(
        ObjectRef::new("ConfigMap", names::SYSTEM_NAMESPACE, names::MESH_CONFIG_MAP),
        None,
    );
    let mesh = MeshConfig::parse(mesh.as_deref().unwrap_or_default(), &mut report);
    let mesh = mesh.ok_or_else(|| {
        let problems: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        anyhow!("the settings of the mesh cannot be read: {}", problems.join("; "))
    })?;
    Ok((mesh, proxies(running.as_ref()).await?, settings))
}

/// The ProxyConfigs of the running mesh.
async fn proxies(running: Option<&Mesh>) -> anyhow::Result<Vec<Arc<ProxySettings>>> {
    let Some(mesh) = running else {
        return Ok(Vec::new());
    };
    let objects = mesh.objects(Kind::ProxyConfig, "", "").await?;
    let manifests = objects
        .into_iter()
        .filter_map(|object| Manifest::read(object, None).ok());
    Ok(convert::proxy_settings(manifests.collect::<Vec<_>>().iter()))
}

/// A key of a ConfigMap of the control plane.
async fn of_map(mesh: Option<&Mesh>, name: &str, key: &str, named: bool) -> anyhow::Result<Option<String>> {
    let Some(mesh) = mesh else {
        if named {
            bail!(
                "ConfigMap {name} is named, but no mesh is there to read it from; name one with --kubeconfig"
            );
        }
        return Ok(None);
    };
    let found = mesh.objects(Kind::ConfigMap, &mesh.system, name).await?;
    match found.first() {
        Some(map) => Ok(map["data"][key].as_str().map(ToOwned::to_owned)),
        None if named => bail!("there is no ConfigMap {}/{name} in {mesh}", mesh.system),
        None => Ok(None),
    }
}

/// Where the pod of a kind is.
fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The object with a sidecar, and what is to be told of one that stays as it is.
fn injected(
    mut object: Value,
    mesh: &MeshConfig,
    proxies: &[Arc<ProxySettings>],
    settings: &Settings,
) -> anyhow::Result<(Value, Option<String>)> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let Some(pointer) = template(&kind) else {
        return Ok((object, None));
    };
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or("default")
        .to_owned();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Some(place) = object.pointer_mut(pointer) else {
        bail!(
            "{kind} {name} has no {}",
            pointer.trim_start_matches('/').replace('/', ".")
        );
    };
    let mut pod: Pod =
        serde_json::from_value(place.clone()).with_context(|| format!("{kind} {name} is none"))?;
    let own = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    pod.metadata.namespace = Some(namespace);
    // The workload's name is the beginning of its pods', from which the injector knows the workload.
    if !pointer.is_empty() {
        pod.metadata.name = Some(name.clone());
    }
    let yes = Labels::from([(label::INJECTION.to_owned(), "enabled".to_owned())]);
    match inject::inject(&pod, &yes, mesh, proxies, settings) {
        Outcome::Injected(mut pod) => {
            (pod.metadata.namespace, pod.metadata.name) = own;
            let mut value = serde_json::to_value(*pod)?;
            if pointer.is_empty() {
                value["apiVersion"] = "v1".into();
                value["kind"] = "Pod".into();
            } else if let Some(fields) = value.as_object_mut() {
                fields.remove("apiVersion");
                fields.remove("kind");
                fields.remove("status");
            }
            *place = value;
            Ok((object, None))
        }
        Outcome::Skipped(reason) => Ok((object, Some(format!("{kind} {name} stays as it is: {reason}")))),
        Outcome::Refused(finding) => bail!("{finding}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> Settings {
        Settings {
            any_revision: true,
            ..Settings::default()
        }
    }

    fn inject(object: Value) -> (Value, Option<String>) {
        injected(object, &MeshConfig::default(), &[], &settings()).unwrap()
    }

    #[test]
    fn a_deployment_gets_sidecars() {
        let (object, note) = inject(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "i"}]}}}}),
        );
        assert_eq!(note, None);
        let template = &object["spec"]["template"];
        let text = template.to_string();
        assert!(
            text.contains("istio-proxy") && text.contains("istio-init"),
            "{text}"
        );
        assert!(
            template["metadata"].get("name").is_none() && template.get("kind").is_none(),
            "{text}"
        );
        assert_eq!(object["spec"]["replicas"], 2);
    }

    #[test]
    fn a_pod_keeps_its_name() {
        let (object, _) = inject(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"containers": [{"name": "app", "image": "i"}]}}),
        );
        assert_eq!(
            (&object["metadata"]["name"], &object["kind"]),
            (&json!("web"), &json!("Pod"))
        );
        assert_eq!(object["metadata"]["namespace"], "shop");
    }

    #[test]
    fn the_rest_stays_as_it_is() {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
        assert_eq!(inject(service.clone()), (service, None));
        let declined = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web",
            "labels": {"sidecar.istio.io/inject": "false"}}, "spec": {"containers": []}});
        let (object, note) = inject(declined.clone());
        assert_eq!(object, declined);
        assert!(note.unwrap().contains("stays as it is"));
    }
}
