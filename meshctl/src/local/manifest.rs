//! Manifests: the YAML (or JSON) that users write, cut into documents, each parsed alone, so that one bad document does
//! not hide the good ones beside it. Pure; reading folders and standard input is in [`read`].
//!
//! Bounds: a file of at most 8 MiB, a folder of at most 10,000 files.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_json::Value;

const MAX_FILE: u64 = 8 << 20;
const MAX_FILES: usize = 10_000;

/// One object with the place where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub object: Value,
    /// `file:line` of its first line.
    pub source: String,
}

/// A document that is no YAML, or a file of a folder that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// `file:line:column`, or the file.
    pub source: String,
    /// What is wrong, as a sentence.
    pub text: String,
}

/// What one text holds.
#[derive(Debug, Default)]
pub struct Parsed {
    pub documents: Vec<Document>,
    pub malformed: Vec<Malformed>,
}

/// Cuts a text at its `---` lines and parses each piece. `kind: List` objects are opened.
pub fn parse(text: &str, file: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (first_line, piece) in pieces(text) {
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        let skipped = piece.lines().take_while(|line| blank(line)).count();
        if piece.lines().all(blank) {
            continue;
        }
        match serde_saphyr::from_str::<Value>(piece) {
            Ok(Value::Null) => {}
            Ok(object) => {
                let source = format!("{file}:{}", first_line + skipped);
                match object.get("items") {
                    Some(Value::Array(items)) if object["kind"] == "List" => {
                        let documents = items.iter().map(|item| Document {
                            object: item.clone(),
                            source: source.clone(),
                        });
                        parsed.documents.extend(documents);
                    }
                    _ => parsed.documents.push(Document { object, source }),
                }
            }
            Err(error) => {
                let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
                let line = first_line as u64 + line.saturating_sub(1);
                let text = format!("this is no YAML: {}", error.without_snippet());
                parsed.malformed.push(Malformed {
                    source: format!("{file}:{line}:{column}"),
                    text,
                });
            }
        }
    }
    parsed
}

/// The documents of a stream with the number of their first line (YAML 1.2, chapter 9: a line starting with `---`
/// always ends a document, even inside a scalar).
fn pieces(text: &str) -> Vec<(usize, &str)> {
    let mut pieces = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") {
            pieces.push((start_line, &text[start..offset]));
            start = offset + 3;
            start_line = index + 1;
        } else if bare == "..." {
            pieces.push((start_line, &text[start..offset]));
            start = offset + line.len();
            start_line = index + 2;
        }
        offset += line.len();
    }
    pieces.push((start_line, &text[start.min(text.len())..]));
    pieces
}

/// Everything that the `-f` arguments name: files, folders (one level, `*.yaml`, `*.yml`, `*.json`, or the whole tree
/// when `recursive`), `-` for standard input. One bad file of a folder does not hide the others.
pub fn read(arguments: &[String], recursive: bool) -> anyhow::Result<Parsed> {
    let mut all = Parsed::default();
    for argument in arguments {
        let mut add = |parsed: Parsed| {
            all.documents.extend(parsed.documents);
            all.malformed.extend(parsed.malformed);
        };
        if argument == "-" {
            let mut text = String::new();
            std::io::stdin()
                .take(MAX_FILE)
                .read_to_string(&mut text)
                .context("standard input cannot be read")?;
            add(parse(&text, "standard input"));
            continue;
        }
        for file in files(Path::new(argument), recursive)? {
            match read_file(&file) {
                Ok(text) => add(parse(&text, &file.display().to_string())),
                Err(error) if file == Path::new(argument) => return Err(error),
                Err(error) => add(Parsed {
                    documents: Vec::new(),
                    malformed: vec![Malformed {
                        source: file.display().to_string(),
                        text: format!("{error:#}"),
                    }],
                }),
            }
        }
    }
    Ok(all)
}

fn read_file(file: &Path) -> anyhow::Result<String> {
    let size = file
        .metadata()
        .with_context(|| format!("{} cannot be read", file.display()))?
        .len();
    if size > MAX_FILE {
        bail!(
            "{} has {size} bytes; a manifest may have at most {MAX_FILE}",
            file.display()
        );
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn files(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    let metadata = path
        .metadata()
        .with_context(|| format!("{} cannot be read", path.display()))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut folders) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?
        {
            let path = entry?.path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if path.is_dir() {
                if recursive {
                    folders.push(path);
                }
            } else if ["yaml", "yml", "json"].contains(&extension) {
                found.push(path);
            }
        }
        if found.len() > MAX_FILES {
            bail!(
                "{} holds more than {MAX_FILES} manifests; name a smaller folder",
                path.display()
            );
        }
    }
    found.sort();
    Ok(found)
}

/// An object as YAML text.
pub fn to_yaml(object: &Value) -> anyhow::Result<String> {
    serde_saphyr::to_string(object).context("the object cannot be written as YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_their_lines() {
        let text = "# licence\napiVersion: v1\nkind: A\n---\n# a comment\nkind: B\n---\n---\nkind: C\n";
        let parsed = parse(text, "f.yaml");
        let got: Vec<(&str, &str)> = parsed
            .documents
            .iter()
            .map(|d| (d.object["kind"].as_str().unwrap(), d.source.as_str()))
            .collect();
        assert_eq!(got, [("A", "f.yaml:2"), ("B", "f.yaml:6"), ("C", "f.yaml:9")]);
        assert!(parsed.malformed.is_empty());
    }

    #[test]
    fn a_bad_document_leaves_the_others() {
        let parsed = parse("kind: A\n---\nkind: [B\n---\nkind: C\n", "f.yaml");
        assert_eq!(parsed.documents.len(), 2);
        assert_eq!(parsed.malformed.len(), 1);
        assert!(
            parsed.malformed[0].source.starts_with("f.yaml:3:")
                || parsed.malformed[0].source.starts_with("f.yaml:2:")
        );
    }

    #[test]
    fn lists_are_opened_and_json_is_yaml() {
        let parsed = parse(
            r#"{"kind": "List", "items": [{"kind": "A"}, {"kind": "B"}]}"#,
            "x",
        );
        assert_eq!(parsed.documents.len(), 2);
    }

    #[test]
    fn yaml_round_trip_keeps_types() {
        let object = serde_json::json!({"a": "8080", "b": 8080, "c": "true", "d": true, "e": ["x: y", "multi\nline\n"], "f": {}, "g": "1e3", "h": null, "i": "0x1f", "j": "on"});
        let text = to_yaml(&object).unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), object, "{text}");
    }
}
