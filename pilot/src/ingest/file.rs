//! A folder of YAML and JSON files, watched: the embedded source of objects.
//!
//! [`Files`] is the pure part: given the text of a file, what changed? [`watch`] is the I/O around it: one thread that
//! scans the folders, then waits for the kernel's events, and looks through everything again every few seconds, because
//! events can be lost. Hidden files and other extensions are not read.
//!
//! What a broken file does: its readable documents count, an object that was in it and is not found any more stays as
//! it was (it may be in the unreadable part), and a finding names file, line and column. An object in two files is a
//! finding too; the file that comes first by name counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_proto::{
    finding::{self, Finding},
    kube::{Kind, Manifest, ObjectKey, yaml},
};

use super::Change;

mod scan;
mod watch;

pub use scan::{Scan, read_all};
pub use watch::watch;

type Id = (Kind, ObjectKey);

/// Larger files are refused with a finding.
pub const FILE_LIMIT: u64 = 16 << 20;

/// What is known of all files.
#[derive(Debug, Default)]
pub struct Files {
    files: BTreeMap<String, File>,
    /// The files that declare an object, in their order; the first one counts.
    claims: BTreeMap<Id, BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<Id, Arc<Manifest>>,
    findings: Vec<Finding>,
}

impl Files {
    /// A file has this text now (`None`: it is gone). `name` is its path, as findings will tell it.
    pub fn update(&mut self, name: &str, text: Option<&str>) -> Vec<Change> {
        let (objects, findings) = match text {
            None => (BTreeMap::new(), Vec::new()),
            Some(text) => {
                let (manifests, findings) = yaml::manifests(text, name);
                self.readable(name, manifests, findings)
            }
        };
        self.replace(name, objects, findings)
    }

    /// A file cannot be read at all: what it held stays.
    pub fn unreadable(&mut self, name: &str, problem: String) -> Vec<Change> {
        let object = finding::ObjectRef::new("File", "", name);
        let finding = Finding::new(finding::UNREADABLE_FILE, object, "", problem).at(Some(name.to_owned()));
        let objects = self
            .files
            .get(name)
            .map(|file| file.objects.clone())
            .unwrap_or_default();
        self.replace(name, objects, vec![finding])
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    fn readable(
        &self,
        name: &str,
        manifests: Vec<Manifest>,
        mut findings: Vec<Finding>,
    ) -> (BTreeMap<Id, Arc<Manifest>>, Vec<Finding>) {
        // Something in the file cannot be read: what was in it and is missing now may be in that part.
        let broken = findings.iter().any(Finding::is_error);
        let mut objects = match self.files.get(name) {
            Some(old) if broken => old.objects.clone(),
            _ => BTreeMap::new(),
        };
        let mut seen = BTreeSet::new();
        for manifest in manifests {
            let id = (manifest.kind, manifest.key.clone());
            if seen.insert(id.clone()) {
                objects.insert(id, Arc::new(manifest));
            } else {
                let text = "declared twice in this file; the first one counts: remove or rename the other";
                let finding = Finding::new(
                    finding::DUPLICATE_OBJECT,
                    manifest.object_ref(),
                    "metadata.name",
                    text,
                );
                findings.push(finding.at(manifest.source));
            }
        }
        (objects, findings)
    }

    fn replace(
        &mut self,
        name: &str,
        objects: BTreeMap<Id, Arc<Manifest>>,
        findings: Vec<Finding>,
    ) -> Vec<Change> {
        let old = self
            .files
            .get(name)
            .map(|file| file.objects.clone())
            .unwrap_or_default();
        let touched: BTreeSet<Id> = old.keys().chain(objects.keys()).cloned().collect();
        let before: Vec<Option<Arc<Manifest>>> = touched.iter().map(|id| self.winner(id)).collect();
        // Files that declare one of these objects too: what is told about them may change.
        let others = touched
            .iter()
            .filter_map(|id| self.claims.get(id))
            .flatten()
            .cloned();
        let parts: BTreeSet<String> = others.chain([name.to_owned()]).collect();
        let told: Vec<Vec<Finding>> = parts.iter().map(|part| self.findings_of(part)).collect();

        for id in &touched {
            let claims = self.claims.entry(id.clone()).or_default();
            if objects.contains_key(id) {
                claims.insert(name.to_owned());
            } else {
                claims.remove(name);
            }
            if claims.is_empty() {
                self.claims.remove(id);
            }
        }
        if objects.is_empty() && findings.is_empty() {
            self.files.remove(name);
        } else {
            self.files.insert(name.to_owned(), File { objects, findings });
        }

        let mut changes = Vec::new();
        for (id, before) in touched.iter().zip(before) {
            match (before, self.winner(id)) {
                // Moving to another line is no change.
                (Some(before), Some(after)) if before.value == after.value => {}
                (_, Some(after)) => changes.push(Change::Apply(Box::new(after.as_ref().clone()))),
                (Some(_), None) => changes.push(Change::Delete {
                    kind: id.0,
                    key: id.1.clone(),
                }),
                (None, None) => {}
            }
        }
        for (part, told) in parts.into_iter().zip(told) {
            let findings = self.findings_of(&part);
            if findings != told {
                changes.push(Change::Findings { part, findings });
            }
        }
        changes
    }

    /// The manifest that counts: that of the first file.
    fn winner(&self, id: &Id) -> Option<Arc<Manifest>> {
        let first = self.claims.get(id)?.first()?;
        self.files.get(first)?.objects.get(id).cloned()
    }

    /// What is wrong with a file: its own findings, and objects that an earlier file declares too.
    fn findings_of(&self, name: &str) -> Vec<Finding> {
        let Some(file) = self.files.get(name) else {
            return Vec::new();
        };
        let mut findings = file.findings.clone();
        for (id, manifest) in &file.objects {
            let Some(first) = self.claims.get(id).and_then(BTreeSet::first) else {
                continue;
            };
            if first != name {
                let text = format!("also declared in {first}, which counts; remove one of them");
                let finding = Finding::new(
                    finding::DUPLICATE_OBJECT,
                    manifest.object_ref(),
                    "metadata.name",
                    text,
                );
                findings.push(finding.at(manifest.source.clone()));
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, label: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{l: v{label}}}}}\n---\n")
    }

    /// `+name=label`, `-name`, `!part codes`.
    fn show(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|change| match change {
                Change::Apply(manifest) => {
                    format!(
                        "+{}={}",
                        manifest.key.name,
                        manifest.meta("labels", "l").unwrap_or_default()
                    )
                }
                Change::Delete { key, .. } => format!("-{}", key.name),
                Change::Findings { part, findings } => {
                    let codes: Vec<&str> = findings.iter().map(|finding| finding.code.as_ref()).collect();
                    format!("!{part} {}", codes.join(" "))
                }
                Change::Keys { source, .. } => format!("keys {source}"),
                Change::Synced => "synced".into(),
            })
            .collect()
    }

    #[test]
    fn applies_what_changed() {
        let mut files = Files::default();
        let mut check =
            |text: Option<&str>, expect: &[&str]| assert_eq!(show(&files.update("a", text)), expect);
        check(Some(&(pod("x", "1") + &pod("z", "1"))), &["+x=v1", "+z=v1"]);
        check(Some(&(pod("z", "1") + &pod("x", "2"))), &["+x=v2"]);
        check(Some(&pod("x", "2")), &["-z"]);
        check(Some(&pod("x", "2")), &[]);
        check(None, &["-x"]);
        check(None, &[]);
    }

    #[test]
    fn a_broken_part_deletes_nothing() {
        let mut files = Files::default();
        let mut check =
            |text: &str, expect: &[&str]| assert_eq!(show(&files.update("a", Some(text))), expect);
        check(&(pod("x", "1") + &pod("z", "1")), &["+x=v1", "+z=v1"]);
        check(&(pod("x", "2") + "a: [\n"), &["+x=v2", "!a GSM0001"]);
        check(&pod("x", "2"), &["-z", "!a "]);
        check(&(pod("x", "2") + &pod("x", "3")), &["!a GSM0003"]);
    }

    #[test]
    fn an_unreadable_file_keeps_its_objects() {
        let mut files = Files::default();
        files.update("a", Some(&pod("x", "1")));
        assert_eq!(
            show(&files.unreadable("a", "permission denied".into())),
            ["!a GSM0001"]
        );
        assert_eq!(show(&files.update("a", Some(&pod("x", "1")))), ["!a "]);
    }

    #[test]
    fn the_first_file_counts() {
        let mut files = Files::default();
        assert_eq!(show(&files.update("b", Some(&pod("x", "b")))), ["+x=vb"]);
        assert_eq!(
            show(&files.update("a", Some(&pod("x", "a")))),
            ["+x=va", "!b GSM0003"]
        );
        let changes = show(&files.update("a", None));
        assert!(
            changes.contains(&"+x=vb".to_owned()) && changes.contains(&"!b ".to_owned()),
            "{changes:?}"
        );
    }
}
