//! `meshctl validate -f FILE`: whether each object alone is valid, by the code that pilot and the validation webhook use.
//! What is wrong between objects is `analyze`'s.

use anyhow::bail;
use clap::Args;
use mesh_proto::{
    finding::{Finding, Level},
    kube::Manifest,
    validate,
};

use super::exit;
use crate::{local::manifest, output};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Files and folders; - for standard input
    #[arg(short, long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// The same
    pub files: Vec<String>,
    /// Folders with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<i32> {
    let files: Vec<String> = arguments
        .filename
        .iter()
        .chain(&arguments.files)
        .cloned()
        .collect();
    if files.is_empty() {
        bail!("nothing to validate: name files with -f");
    }
    let parsed = manifest::read(&files, arguments.recursive)?;
    for bad in &parsed.malformed {
        eprintln!("{}: {}", bad.source, bad.text);
    }
    let (mut objects, mut findings) = (0, Vec::new());
    for document in parsed.documents {
        objects += 1;
        findings.append(&mut judge(document.object, document.source));
    }
    findings.sort_by(|a, b| a.order().cmp(&b.order()));
    for finding in &findings {
        output::line(&finding.to_string());
    }
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    if !parsed.malformed.is_empty() {
        return Ok(exit::DATA);
    }
    if errors > 0 {
        eprintln!("{errors} of the findings are errors: the API server would refuse these objects");
        return Ok(1);
    }
    output::line(&format!("{}: {objects} objects, all valid", files.join(", ")));
    Ok(0)
}

/// What is of no concern to the mesh is valid.
fn judge(object: serde_json::Value, source: String) -> Vec<Finding> {
    match Manifest::read(object, Some(source)) {
        Ok(manifest) => validate::check(&manifest),
        Err(finding) if finding.level == Level::Info => Vec::new(),
        Err(finding) => vec![*finding],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn single_objects() {
        for (object, expect) in [
            (
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
                0,
            ),
            (
                json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}}),
                0,
            ),
            (
                json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a"},
                    "spec": {"hosts": ["a"], "http": [{"timeout": "soon", "route": [{"destination": {"host": "a"}}]}]}}),
                1,
            ),
            (json!({"kind": "Pod"}), 1),
        ] {
            assert_eq!(judge(object.clone(), "f:1".into()).len(), expect, "{object}");
        }
    }
}
