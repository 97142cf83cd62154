//! YAML (and JSON) texts with one or more objects in them.

use serde_json::Value;

use super::Manifest;
use crate::finding::{self, Finding, ObjectRef};

/// Documents in one text. More are refused as a whole, so that a runaway file cannot fill the memory.
const DOCUMENT_LIMIT: usize = 10_000;

/// Every object in a text, and a finding for each document that is none. One bad document hurts no other.
/// `name` is the file's name, for findings.
pub fn manifests(text: &str, name: &str) -> (Vec<Manifest>, Vec<Finding>) {
    let (mut manifests, mut findings) = (Vec::new(), Vec::new());
    let documents = split(text);
    if documents.len() > DOCUMENT_LIMIT {
        let text = format!("{} documents; a file may have {DOCUMENT_LIMIT}", documents.len());
        findings.push(Finding::new(finding::UNREADABLE_FILE, file(name), "", text));
        return (manifests, findings);
    }
    for (line, document) in documents {
        match serde_saphyr::from_str::<Value>(document) {
            Ok(Value::Null) => {}
            Ok(value) => {
                let first = line + leading(document);
                for value in items(value) {
                    match Manifest::read(value, Some(format!("{name}:{first}"))) {
                        Ok(manifest) => manifests.push(manifest),
                        Err(finding) => findings.push(*finding),
                    }
                }
            }
            Err(error) => {
                let (row, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
                let at = format!("{name}:{}:{column}", line as u64 + row - 1);
                let text = format!("not YAML: {}", explain(&error));
                findings.push(Finding::new(finding::UNREADABLE_FILE, file(name), "", text).at(Some(at)));
            }
        }
    }
    (manifests, findings)
}

/// What is wrong with a text that is not YAML, in a reader's words: without the library's advice to programmers.
pub fn explain(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("a key");
            let place = error
                .location()
                .map(|at| format!(", again in line {}, column {}", at.line(), at.column()));
            format!("{key} is there twice{}", place.unwrap_or_default())
        }
        other => other.to_string(),
    }
}

fn file(name: &str) -> ObjectRef {
    ObjectRef::new("File", "", name)
}

/// A `List` is the objects in it.
fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Object(mut map) if map.get("kind").and_then(Value::as_str) == Some("List") => {
            match map.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        value => vec![value],
    }
}

/// Documents between lines `---`, each with the number of its first line.
fn split(text: &str) -> Vec<(usize, &str)> {
    let (mut documents, mut start, mut first, mut offset) = (Vec::new(), 0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.trim_end().strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t'])) {
            documents.push((first, &text[start..offset]));
            // What stands behind the marker, such as a comment, belongs to no document.
            start = offset + line.len();
            first = number + 2;
        }
        offset += line.len();
    }
    documents.push((first, &text[start..]));
    documents.retain(|(_, document)| !document.trim().is_empty());
    documents
}

/// Lines before the first that says something.
fn leading(document: &str) -> usize {
    document
        .lines()
        .take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, names: &[&str], found: &[&str]) {
        let (manifests, findings) = manifests(text, "f.yaml");
        let got: Vec<String> = manifests
            .iter()
            .map(|manifest| {
                format!(
                    "{} {}",
                    manifest.key,
                    manifest.source.as_deref().unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(got, names, "{text}");
        let got: Vec<String> = findings
            .iter()
            .map(|finding| {
                format!(
                    "{} {}",
                    finding.code,
                    finding.source.as_deref().unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(got, found, "{text}");
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";

    #[test]
    fn documents() {
        check("", &[], &[]);
        check("---\n---\n", &[], &[]);
        check(POD, &["default/a f.yaml:1"], &[]);
        check(
            &format!("# comment\n\n{POD}---\n{POD}"),
            &["default/a f.yaml:3", "default/a f.yaml:7"],
            &[],
        );
        check(
            &format!("--- # one\n{POD}--- # two\n"),
            &["default/a f.yaml:2"],
            &[],
        );
        check(
            &format!("{POD}---\na: [\n---\n{POD}"),
            &["default/a f.yaml:1", "default/a f.yaml:7"],
            &["GSM0001 f.yaml:5:4"],
        );
        check("text", &[], &["GSM0001 f.yaml:1"]);
        check(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"j","namespace":"n"}}"#,
            &["n/j f.yaml:1"],
            &[],
        );
    }

    #[test]
    fn lists() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n\
                    - {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
        check(list, &["default/a f.yaml:1", "default/b f.yaml:1"], &[]);
    }
}
