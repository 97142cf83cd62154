//! The manifests of `e2e/manifests/crds`: what is valid decodes without an error, what is invalid has the finding that its
//! comment says. (That Kubernetes' API server agrees is shown against a real one, by the same files.)

use std::{fs, path::Path};

use mesh_proto::{
    finding::{self, Finding},
    kube::{Manifest, yaml},
    validate,
};

/// Name and text of every file in a folder of `e2e/manifests/crds`.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../e2e/manifests/crds")
        .join(folder);
    let mut files: Vec<(String, String)> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            (
                path.display().to_string(),
                fs::read_to_string(&path).expect("a readable file"),
            )
        })
        .collect();
    files.sort();
    files
}

fn manifests(text: &str, name: &str) -> Vec<Manifest> {
    let (manifests, findings) = yaml::manifests(text, name);
    assert_eq!(findings, vec![], "{name}");
    manifests
}

#[test]
fn valid_manifests_have_no_error() {
    let mut count = 0;
    for (name, text) in files("valid") {
        for manifest in manifests(&text, &name) {
            count += 1;
            // What is not supported yet is an error of the mesh, not of the manifest.
            let errors: Vec<Finding> = validate::check(&manifest)
                .into_iter()
                .filter(|finding| finding.is_error() && finding.code != finding::NOT_SUPPORTED.code)
                .collect();
            assert!(errors.is_empty(), "{errors:#?}");
        }
    }
    assert!(count > 25, "{count}");
}

#[test]
fn invalid_manifests_have_the_error_that_they_say() {
    let mut count = 0;
    for (name, text) in files("invalid") {
        for document in text.split("\n---\n") {
            let said = document.lines().find_map(|line| line.strip_prefix("# finding: "));
            let said = said.unwrap_or_else(|| panic!("{name}: a document without `# finding:`:\n{document}"));
            for manifest in manifests(document, &name) {
                count += 1;
                let found: Vec<String> = validate::check(&manifest)
                    .iter()
                    .map(|finding| format!("{} {}", finding.level, finding.path))
                    .collect();
                assert!(
                    found.iter().any(|found| found == said),
                    "{name}, {}: {said:?} is not among {found:?}",
                    manifest.key
                );
            }
        }
    }
    assert!(count > 60, "{count}");
}
