//! Every lesson of the Bookinfo sample is free of errors, on top of the application and its destination rules.

use std::path::{Path, PathBuf};

use mesh_pilot::{analyze, ingest::file};
use mesh_proto::finding::{Finding, Level};

fn bookinfo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/bookinfo")
}

fn lessons() -> Vec<PathBuf> {
    let folder = bookinfo().join("networking");
    let entries = std::fs::read_dir(&folder).expect("the sample's folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

#[test]
fn lessons_have_no_errors() {
    let lessons = lessons();
    assert!(lessons.len() > 10, "{lessons:?}");
    let mut problems: Vec<Finding> = Vec::new();
    for lesson in lessons {
        let base = [
            "bookinfo.yaml",
            "bookinfo-ratings-v2-redis.yaml",
            "networking/destination-rule-all.yaml",
            "networking/bookinfo-gateway.yaml",
        ];
        let mut files: Vec<PathBuf> = base.iter().map(|name| bookinfo().join(name)).collect();
        if !files.contains(&lesson) {
            files.push(lesson);
        }
        // Applied one after another, as a reader of the lessons does: what comes later replaces what came before.
        let changes = files
            .into_iter()
            .flat_map(|file| file::read_all(vec![file]))
            .collect();
        let findings = analyze::offline(changes);
        problems.extend(findings.into_iter().filter(|finding| finding.level > Level::Info));
    }
    let shown: Vec<String> = problems.iter().map(Finding::to_string).collect();
    assert!(problems.is_empty(), "{shown:#?}");
}
