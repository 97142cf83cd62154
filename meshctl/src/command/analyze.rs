//! `meshctl analyze`: mistakes in files, in the running mesh, or in the running mesh as it would be with the files.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::{Args, ValueEnum};
use mesh_pilot::{analyze, ingest::Change};
use mesh_proto::{
    finding::{self, Finding, Level, ObjectRef},
    kube::Manifest,
};
use serde_json::Value;

use crate::{
    context::Context,
    local::{
        manifest::{self, Parsed},
        object::KINDS,
    },
    output::{self, Format, Table},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Files and folders (- for standard input); none: the running mesh
    pub files: Vec<String>,
    /// Folders with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// With files: look at them together with the running mesh
    #[arg(long)]
    pub use_kube: bool,
    /// Only findings about this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Leave out a code, for all objects or one: IST0102, "IST0102=Namespace default"
    #[arg(short = 'S', long)]
    pub suppress: Vec<String>,
    /// From which level on the exit code is not 0
    #[arg(long, value_enum, default_value_t = Threshold::Error)]
    pub failure_threshold: Threshold,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// List the codes
    #[arg(short = 'L', long)]
    pub list_analyzers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Threshold {
    Info,
    Warning,
    Error,
}

impl Threshold {
    fn level(self) -> Level {
        match self {
            Self::Info => Level::Info,
            Self::Warning => Level::Warning,
            Self::Error => Level::Error,
        }
    }
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    if arguments.list_analyzers {
        output::print(&codes().to_string());
        return Ok(0);
    }
    let parsed = manifest::read(&arguments.files, arguments.recursive)?;
    let live = if arguments.files.is_empty() || arguments.use_kube {
        objects(context).await?
    } else {
        Vec::new()
    };
    if arguments.files.is_empty() && live.is_empty() {
        bail!("the mesh holds no objects");
    }
    let mut findings = analyze(parsed, live);
    findings.retain(|finding| {
        let here = arguments
            .namespace
            .as_ref()
            .is_none_or(|wanted| finding.object.namespace == *wanted);
        (here || arguments.all_namespaces) && !is_suppressed(finding, &arguments.suppress)
    });
    findings.sort_by(|a, b| a.order().cmp(&b.order()));
    findings.dedup();
    show(&findings, &arguments)?;
    let failed = findings
        .iter()
        .any(|finding| finding.level >= arguments.failure_threshold.level());
    Ok(i32::from(failed))
}

/// Every object of the running mesh.
async fn objects(context: &Context) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for kind in KINDS {
        all.extend(context.objects(&kind.full_name(), "", "").await?);
    }
    Ok(all)
}

/// Files stand in the place of live objects of the same name.
fn analyze(parsed: Parsed, live: Vec<Value>) -> Vec<Finding> {
    let mut changes = Vec::new();
    for bad in parsed.malformed {
        let object = ObjectRef::new("File", "", bad.source.clone());
        let finding =
            Finding::new(finding::UNREADABLE_FILE, object, "", bad.text).at(Some(bad.source.clone()));
        changes.push(Change::Findings {
            part: bad.source,
            findings: vec![finding],
        });
    }
    let mut written = BTreeSet::new();
    for document in parsed.documents {
        match Manifest::read(document.object, Some(document.source.clone())) {
            Ok(manifest) => {
                written.insert((manifest.kind, manifest.key.clone()));
                changes.push(Change::Apply(Box::new(manifest)));
            }
            Err(finding) => changes.push(Change::Findings {
                part: document.source,
                findings: vec![*finding],
            }),
        }
    }
    // What the mesh does not know is none of its business in a running mesh.
    let live = live
        .into_iter()
        .filter_map(|object| Manifest::read(object, None).ok());
    let live = live.filter(|manifest| !written.contains(&(manifest.kind, manifest.key.clone())));
    changes.extend(live.map(|manifest| Change::Apply(Box::new(manifest))));
    changes.push(Change::Synced);
    analyze::offline(changes)
}

/// `IST0102`, or `IST0102=Namespace default` where names may hold `*`.
fn is_suppressed(finding: &Finding, rules: &[String]) -> bool {
    rules.iter().any(|rule| match rule.split_once('=') {
        None => *rule == finding.code,
        Some((code, object)) => code == finding.code && glob(object, &finding.object.to_string()),
    })
}

fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        last = Some(part);
    }
    rest.is_empty() || last == Some("")
}

fn show(findings: &[Finding], arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.output {
        Format::Json => output::json(&serde_json::to_value(findings)?)?,
        Format::Yaml => output::yaml(&serde_json::to_value(findings)?)?,
        _ if findings.is_empty() => {
            let what = if arguments.files.is_empty() {
                "the mesh".into()
            } else {
                arguments.files.join(", ")
            };
            output::line(&format!("✔ No validation issues found when analyzing {what}."));
        }
        _ => findings
            .iter()
            .for_each(|finding| output::line(&finding.to_string())),
    }
    Ok(())
}

fn codes() -> Table {
    let mut table = Table::new(&["CODE", "NAME", "LEVEL", "MEANING"]);
    for code in finding::CODES {
        table.row(vec![
            code.code.into(),
            code.name.into(),
            code.level.to_string(),
            code.meaning.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_document_and_an_unknown_field_are_both_found() {
        let text = "kind: [\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\n\
                    spec: {hosts: [a], htp: []}\n";
        let findings = analyze(manifest::parse(text, "f.yaml"), Vec::new());
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|line| line.contains("f.yaml:")), "{told:?}");
        assert!(told.iter().any(|line| line.contains("spec.htp")), "{told:?}");
    }

    #[test]
    fn suppression() {
        let object = ObjectRef::new("Namespace", "", "default");
        let finding = Finding::new(finding::CODES[0], object, "", "");
        let code = finding::CODES[0].code;
        for (rule, expect) in [
            (code.to_owned(), true),
            (format!("{code}=Namespace default"), true),
            (format!("{code}=Namespace d*"), true),
            (format!("{code}=Namespace other"), false),
            ("IST9999".into(), false),
        ] {
            assert_eq!(
                is_suppressed(&finding, std::slice::from_ref(&rule)),
                expect,
                "{rule}"
            );
        }
    }
}
