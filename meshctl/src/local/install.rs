//! The control plane as manifests, embedded in the binary, with a few values filled in. They are ordinary objects: once
//! applied, `get`, `logs` and `exec` treat them as any others.

use std::{collections::BTreeMap, time::Duration};

use mesh_runtime::{log, settings};

use super::{manifest, manifest::Document};

/// Less than this is over before it has reached its proxy.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
const MOST_PODS: u32 = 20;

/// In the order in which one needs the other.
const MANIFESTS: [(&str, &str); 4] = [
    ("citadel.yaml", include_str!("../../manifests/citadel.yaml")),
    ("pilot.yaml", include_str!("../../manifests/pilot.yaml")),
    ("telemetry.yaml", include_str!("../../manifests/telemetry.yaml")),
    ("gateway.yaml", include_str!("../../manifests/gateway.yaml")),
];
/// The mesh's settings; a user's own take its place.
const MESH: (&str, &str) = ("mesh.yaml", include_str!("../../manifests/mesh.yaml"));

/// What `--set` may change: name, default, meaning.
pub const VALUES: &[(&str, &str, &str)] = &[
    ("certTtl", "24h", "life of a certificate"),
    ("logLevel", "info", "log level of pilot, citadel and telemetry"),
    ("pilotReplicas", "1", "pods of pilot"),
    ("gatewayReplicas", "1", "pods of the ingress gateway"),
];

/// Deployments of the control plane, as `up` waits for them.
pub const DEPLOYMENTS: [&str; 4] = ["citadel", "pilot", "telemetry", "istio-ingressgateway"];

/// Why values are not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("{0:?} is not NAME=VALUE")]
    Form(String),
    #[error("there is no value {name:?}; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("{name}: {text}")]
    Wrong { name: String, text: String },
    #[error("{name}: {value:?} has characters that no value needs")]
    Characters { name: String, value: String },
}

/// The values: defaults, then what was written.
pub fn values(written: &[String], dir: &str) -> Result<BTreeMap<String, String>, ValueError> {
    let mut values: BTreeMap<String, String> = VALUES
        .iter()
        .map(|(name, default, _)| ((*name).to_owned(), (*default).to_owned()))
        .collect();
    for one in written {
        let (name, value) = one.split_once('=').ok_or_else(|| ValueError::Form(one.clone()))?;
        if !values.contains_key(name) {
            let known: Vec<&str> = VALUES.iter().map(|(name, ..)| *name).collect();
            return Err(ValueError::Unknown {
                name: name.into(),
                known: known.join(", "),
            });
        }
        check(name, value).map_err(|text| ValueError::Wrong {
            name: name.into(),
            text,
        })?;
        values.insert(name.to_owned(), value.to_owned());
    }
    values.insert("version".into(), mesh_runtime::build::VERSION.into());
    values.insert("dir".into(), dir.into());
    let plain = |c: char| c.is_alphanumeric() || " ._:/=,-+@".contains(c);
    match values.iter().find(|(_, value)| !value.chars().all(plain)) {
        Some((name, value)) => Err(ValueError::Characters {
            name: name.clone(),
            value: value.clone(),
        }),
        None => Ok(values),
    }
}

/// What a value must be, so that the control plane can start with it.
fn check(name: &str, value: &str) -> Result<(), String> {
    match name {
        "certTtl" => match settings::duration(value)? {
            ttl if ttl < SHORTEST_TTL => Err(format!("{value:?} is shorter than {SHORTEST_TTL:?}")),
            _ => Ok(()),
        },
        "logLevel" => log::check(value).map_err(|error| error.to_string()),
        _ => match value.parse::<u32>() {
            Ok(1..=MOST_PODS) => Ok(()),
            _ => Err(format!("{value:?} is not a number from 1 to {MOST_PODS}")),
        },
    }
}

/// The objects of the control plane.
pub fn control_plane(values: &BTreeMap<String, String>) -> Vec<Document> {
    MANIFESTS
        .iter()
        .flat_map(|(name, text)| manifest::parse(&fill(text, values), name).documents)
        .collect()
}

/// The ConfigMap with the mesh's settings: the platform's, or the text given.
pub fn mesh_config(text: Option<&str>) -> Vec<Document> {
    let mut documents = manifest::parse(MESH.1, MESH.0).documents;
    if let (Some(text), Some(document)) = (text, documents.first_mut()) {
        document.object["data"]["mesh"] = text.into();
    }
    documents
}

fn fill(text: &str, values: &BTreeMap<String, String>) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::object::key_of;

    #[test]
    fn the_control_plane_is_made_of_known_objects() {
        let values = values(&["certTtl=60s".into()], "/var/lib/gossamer").unwrap();
        for (name, text) in MANIFESTS.iter().chain([&MESH]) {
            let parsed = manifest::parse(&fill(text, &values), name);
            assert_eq!(parsed.malformed, [], "{name}");
        }
        let documents = control_plane(&values);
        let keys: Vec<String> = documents
            .iter()
            .map(|document| key_of(&document.object, "").unwrap().to_string())
            .collect();
        for deployment in DEPLOYMENTS {
            assert!(
                keys.contains(&format!("deployment.apps/{deployment}")),
                "{keys:?}"
            );
        }
        let all = serde_json::to_string(&documents.iter().map(|d| &d.object).collect::<Vec<_>>()).unwrap();
        assert!(all.contains("--default-ttl=60s") && !all.contains("{{"), "{all}");
    }

    #[test]
    fn values_are_checked() {
        let error = |written: &str| values(&[written.into()], "/d").unwrap_err().to_string();
        assert!(error("x").contains("NAME=VALUE"));
        assert!(error("colour=red").contains("certTtl"));
        for wrong in [
            "certTtl=bogus",
            "certTtl=0s",
            "logLevel=bogus",
            "pilotReplicas=0",
            "gatewayReplicas=-1",
        ] {
            let name = wrong.split('=').next().unwrap();
            assert!(error(wrong).starts_with(name), "{}", error(wrong));
        }
        let folder = values(&[], "/a\"b").unwrap_err().to_string();
        assert!(folder.contains("characters"), "{folder}");
    }

    #[test]
    fn settings_of_the_mesh() {
        assert!(
            mesh_config(None)[0].object["data"]["mesh"]
                .as_str()
                .unwrap()
                .contains("accessLogFile")
        );
        assert_eq!(mesh_config(Some("a: b"))[0].object["data"]["mesh"], "a: b");
    }
}
