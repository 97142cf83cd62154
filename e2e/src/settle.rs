//! Waiting until what was applied is what the proxies do: pilot's `/debug/acked` says of an object whether every proxy has
//! acknowledged the version that was applied last.

use crate::{mesh::Mesh, process::eventually};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// API groups of what the proxies are configured by.
const GROUPS: [&str; 4] = [
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "gateway.networking.k8s.io",
];

/// One of the mesh's own.
pub struct Object {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl Object {
    fn path(&self) -> String {
        format!("{}/{}/{}", self.kind.to_lowercase(), self.namespace, self.name)
    }
}

/// The mesh's own objects in a manifest.
pub fn objects(yaml: &str) -> anyhow::Result<Vec<Object>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("the manifest is no YAML")?;
    let text = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
    Ok(documents
        .iter()
        .filter(|document| {
            let version = document["apiVersion"].as_str().unwrap_or_default();
            version
                .split_once('/')
                .is_some_and(|(group, _)| GROUPS.contains(&group))
        })
        .map(|document| Object {
            kind: text(&document["kind"], ""),
            namespace: text(&document["metadata"]["namespace"], "default"),
            name: text(&document["metadata"]["name"], ""),
        })
        .collect())
}

impl Mesh {
    /// What pilot says about the acknowledgement of `kind/namespace/name`.
    pub fn acked(&self, object: &str) -> anyhow::Result<Value> {
        let text = self.control_page(
            "pilot",
            mesh_proto::names::port::CONTROL,
            &format!("/debug/acked?object={object}"),
        )?;
        serde_json::from_str(&text).with_context(|| format!("/debug/acked of {object}: {text}"))
    }

    /// Waits until each of the manifest's objects is acknowledged as it is now.
    pub fn settled(&self, yaml: &str) -> anyhow::Result<()> {
        for object in objects(yaml)? {
            let live = self.get(&object.kind, &object.namespace, &object.name)?;
            let version = live["metadata"]["resourceVersion"]
                .as_str()
                .context("the object has no resourceVersion")?;
            eventually(
                PATIENCE,
                &format!("{} acknowledged by all proxies", object.path()),
                || {
                    let acked = self.acked(&object.path())?;
                    ensure!(
                        acked["acked"] == true && acked["version"] == version,
                        "version {version} is applied: {acked}"
                    );
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Waits until every proxy has forgotten each of the manifest's objects.
    pub fn settled_deletion(&self, yaml: &str) -> anyhow::Result<()> {
        for object in objects(yaml)? {
            eventually(
                PATIENCE,
                &format!("{} gone from all proxies", object.path()),
                || {
                    // Pilot answers 404 with an error for what it never saw.
                    let acked = self.acked(&object.path())?;
                    let gone =
                        acked["version"].is_null() && (acked["acked"] == true || acked["acked"].is_null());
                    ensure!(gone, "{acked}");
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Pilot's list of proxies and what each has.
    pub fn syncz(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.control_page("pilot", mesh_proto::names::port::CONTROL, "/debug/syncz")?;
        serde_json::from_str(&text).with_context(|| format!("/debug/syncz: {text}"))
    }

    /// What pilot found wrong.
    pub fn findings(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.control_page("pilot", mesh_proto::names::port::CONTROL, "/debug/findings")?;
        serde_json::from_str(&text).with_context(|| format!("/debug/findings: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_meshs_own_objects_are_waited_for() {
        let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n\
                    apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: books}\n";
        let objects = objects(yaml).unwrap();
        assert_eq!(
            objects.iter().map(Object::path).collect::<Vec<_>>(),
            ["virtualservice/books/b"]
        );
    }
}
