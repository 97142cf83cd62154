//! The Helm charts of `charts/`, embedded: `helm install` and `meshctl install` have one source. A test holds the tables
//! here against the folders.

/// A file: its path below `charts/`, and its text.
pub type File = (&'static str, &'static str);

macro_rules! file {
    ($path:literal) => {
        ($path, include_str!(concat!("../../../charts/", $path)))
    };
}

/// One chart.
#[derive(Debug)]
pub struct Chart {
    pub name: &'static str,
    pub metadata: File,
    pub values: File,
    pub schema: File,
    /// Those whose name begins with `_` hold definitions for the others.
    pub templates: &'static [File],
    /// Kinds; they are installed as they are, before everything else.
    pub crds: Option<File>,
}

/// Roles for people, and the kinds.
pub const BASE: Chart = Chart {
    name: "base",
    metadata: file!("base/Chart.yaml"),
    values: file!("base/values.yaml"),
    schema: file!("base/values.schema.json"),
    templates: &[file!("base/templates/roles.yaml")],
    crds: Some(file!("base/crds/crd-all.gen.yaml")),
};

/// Pilot, citadel, telemetry.
pub const CONTROL: Chart = Chart {
    name: "control",
    metadata: file!("control/Chart.yaml"),
    values: file!("control/values.yaml"),
    schema: file!("control/values.schema.json"),
    templates: &[
        file!("control/templates/_injection.tpl"),
        file!("control/templates/_names.tpl"),
        file!("control/templates/citadel-roles.yaml"),
        file!("control/templates/citadel.yaml"),
        file!("control/templates/mesh.yaml"),
        file!("control/templates/pilot-roles.yaml"),
        file!("control/templates/pilot.yaml"),
        file!("control/templates/telemetry.yaml"),
        file!("control/templates/webhooks.yaml"),
    ],
    crds: None,
};

/// One gateway; a release of it for each.
pub const GATEWAY: Chart = Chart {
    name: "gateway",
    metadata: file!("gateway/Chart.yaml"),
    values: file!("gateway/values.yaml"),
    schema: file!("gateway/values.schema.json"),
    templates: &[
        file!("gateway/templates/_names.tpl"),
        file!("gateway/templates/account.yaml"),
        file!("gateway/templates/scaling.yaml"),
        file!("gateway/templates/service.yaml"),
        file!("gateway/templates/workload.yaml"),
    ],
    crds: None,
};

/// Values by name, for `--profile`.
pub const PROFILES: [(&str, File); 4] = [
    ("default", file!("profiles/default.yaml")),
    ("demo", file!("profiles/demo.yaml")),
    ("ha", file!("profiles/ha.yaml")),
    ("minimal", file!("profiles/minimal.yaml")),
];

pub fn profile(name: &str) -> Option<File> {
    PROFILES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, file)| *file)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_charts_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts");
        let listed = |folder: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(root.join(folder)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            // Notes are for people who use Helm.
            names
                .filter(|name| name != "NOTES.txt")
                .map(|name| format!("{folder}/{name}"))
                .collect()
        };
        for chart in [&BASE, &CONTROL, &GATEWAY] {
            let embedded: BTreeSet<String> = chart
                .templates
                .iter()
                .map(|(path, _)| (*path).to_owned())
                .collect();
            assert_eq!(embedded, listed(&format!("{}/templates", chart.name)));
            let files: BTreeSet<String> = ["Chart.yaml", "templates", "values.schema.json", "values.yaml"]
                .into_iter()
                .chain(chart.crds.map(|_| "crds"))
                .map(|name| format!("{}/{name}", chart.name))
                .collect();
            assert_eq!(files, listed(chart.name));
        }
        let profiles: BTreeSet<String> = PROFILES.iter().map(|(_, (path, _))| (*path).to_owned()).collect();
        assert_eq!(profiles, listed("profiles"));
    }

    #[test]
    fn versions_are_this_program_s() {
        for chart in [&BASE, &CONTROL, &GATEWAY] {
            for field in ["version", "appVersion"] {
                let line = format!("\n{field}: {}\n", mesh_runtime::build::VERSION);
                assert!(
                    chart.metadata.1.contains(&line),
                    "{} lacks {line:?}",
                    chart.metadata.0
                );
            }
        }
    }
}
