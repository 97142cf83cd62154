//! From a folder to codes: each folder of `e2e/analyze` holds objects with a known fault and a file `expect`, one line for
//! each finding (code, kind, object). What is found must be exactly that. The reference page of the codes is held true
//! here too, and the samples must have no fault at all.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use mesh_proto::{
    finding::{CODES, Code, Finding},
    kube::yaml,
};

use super::offline;
use crate::ingest::Change;

/// Found by `meshctl install` and `meshctl precheck`, which have a cluster to ask.
const AT_INSTALLATION: [&str; 2] = ["IST0141", "IST0142"];
/// Needs two files with the same object, or a pod at its admission; tested where they are made.
const ELSEWHERE: [&str; 2] = ["GSM0003", "GSM0005"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

/// The findings of these files together.
fn findings(files: &[PathBuf]) -> Vec<Finding> {
    let mut changes = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let (manifests, findings) = yaml::manifests(&fs::read_to_string(file).unwrap(), &name);
        changes.extend(
            manifests
                .into_iter()
                .map(|manifest| Change::Apply(Box::new(manifest))),
        );
        // What is of no concern to the mesh is no fault of a file.
        let findings = findings
            .into_iter()
            .filter(|finding| finding.level > mesh_proto::finding::Level::Info);
        changes.push(Change::Findings {
            part: name,
            findings: findings.collect(),
        });
    }
    offline(changes)
}

/// `IST0101 VirtualService shop/reviews`
fn line(finding: &Finding) -> String {
    let object = finding.object.to_string();
    // A file is named with the line of the fault.
    let object = match finding.object.kind.as_str() {
        "File" => object.split(':').next().unwrap_or_default(),
        _ => &object,
    };
    format!("{} {object}", finding.code)
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = entries(folder);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files
}

#[test]
fn each_folder_has_its_faults_and_no_others() {
    let folders = entries(&root().join("e2e/analyze"));
    assert!(folders.len() >= 50, "only {} folders", folders.len());
    let mut wrong = Vec::new();
    for folder in &folders {
        let findings = findings(&yaml_files(folder));
        let mut found: Vec<String> = findings.iter().map(line).collect();
        found.sort();
        let expected = fs::read_to_string(folder.join("expect")).unwrap();
        let expected: Vec<&str> = expected.lines().collect();
        if found != expected {
            let told: String = findings
                .iter()
                .map(|finding| format!("    {finding}\n"))
                .collect();
            wrong.push(format!(
                "{}: expected {expected:#?}, found\n{told}",
                folder.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_code_has_a_folder() {
    let mut seen = BTreeSet::new();
    for folder in entries(&root().join("e2e/analyze")) {
        let expected = fs::read_to_string(folder.join("expect")).unwrap();
        seen.extend(
            expected
                .lines()
                .filter_map(|line| line.split(' ').next())
                .map(str::to_owned),
        );
    }
    let without = |code: &&Code| {
        !seen.contains(code.code) && !AT_INSTALLATION.contains(&code.code) && !ELSEWHERE.contains(&code.code)
    };
    let missing: Vec<&str> = CODES.iter().filter(without).map(|code| code.code).collect();
    assert!(missing.is_empty(), "no folder of e2e/analyze has {missing:?}");
    assert!(CODES.iter().filter(|code| code.code.starts_with("IST")).count() >= 50);
}

/// Each rule of the sample is applied over its application, as the guide does.
#[test]
fn samples_have_no_faults() {
    let sample = root().join("samples/bookinfo");
    let networking = sample.join("networking");
    let base = [
        sample.join("bookinfo.yaml"),
        sample.join("bookinfo-ratings-v2-redis.yaml"),
        networking.join("destination-rule-all.yaml"),
    ];
    for file in yaml_files(&networking) {
        let mut files: Vec<PathBuf> = base.iter().filter(|known| **known != file).cloned().collect();
        if file.ends_with("destination-rule-all-mtls.yaml") {
            // It stands in the place of the other one.
            files.retain(|known| !known.starts_with(&networking));
        }
        let gateway = networking.join("bookinfo-gateway.yaml");
        if file != gateway && fs::read_to_string(&file).unwrap().contains("- bookinfo-gateway") {
            files.push(gateway);
        }
        files.push(file.clone());
        let findings = findings(&files);
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "{}:\n{}", file.display(), told.join("\n"));
    }
}

#[test]
fn the_page_of_codes_is_true() {
    let mut page = String::from(
        "# Findings\n\n\
         What `meshctl analyze`, the validation webhook and pilot's `/debug/findings` say about configuration. Codes that begin \
         with `IST` are Istio's, with the same names and levels; ours begin with `GSM`.\n\n\
         An object with an error alone is not taken: its last good version stays in effect. `meshctl analyze -S \
         \"CODE=Kind name.namespace\"` leaves a finding out.\n\n\
         This page is generated from `proto/src/finding/codes.rs`; each code has a folder in `e2e/analyze` that shows it.\n\n\
         | Code | Name | Level |\n| --- | --- | --- |\n",
    );
    for code in CODES {
        let anchor = code.code.to_lowercase();
        page += &format!(
            "| [{}](#{anchor}) | {} | {} |\n",
            code.code, code.name, code.level
        );
    }
    for code in CODES {
        page += &format!(
            "\n## {}\n\n**{}** ({})\n\n{}\n\n{}\n",
            code.code, code.name, code.level, code.meaning, code.remedy
        );
    }
    let path = root().join("docs/reference/findings.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{} is not up to date; UPDATE=1 writes it",
        path.display()
    );
}
