//! `meshctl analyze`: mistakes in files, in the running mesh, or in the running mesh as it would be with the files. What is
//! wrong is found by pilot's own code; here it is chosen and shown. Flags and exit codes are istioctl's.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use mesh_pilot::{analyze, ingest::Change};
use mesh_proto::{
    finding::{self, Finding, Level, ObjectRef},
    kube::{Kind, Manifest},
    names,
};
use serde_json::{Value, json};

use super::exit;
use crate::{
    context::{Mesh, Target},
    local::manifest::{self, Parsed},
    output::{self, Table},
    world,
};

/// An annotation that leaves findings about its object out: codes with commas, or `*`.
const SUPPRESS: &str = "galley.istio.io/analyze-suppress";

#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes: 0, or with the output format `log` 79 when a finding reaches --failure-threshold, 65 when a file is not YAML.\n\n\
Examples:\n  \
meshctl analyze                          the running mesh, one namespace\n  \
meshctl analyze -A                       all of it\n  \
meshctl analyze rules/ -R                the running mesh as it would be with these files\n  \
meshctl analyze --use-kube=false rules/  the files alone\n  \
meshctl analyze -S \"IST0103=Pod *.testing\"")]
pub struct Arguments {
    /// Files and folders (- for standard input); none: the running mesh alone
    pub files: Vec<String>,
    /// Folders with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Look at the running mesh too [default: true, if there is one]
    #[arg(short = 'k', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub use_kube: Option<bool>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Leave out a code, everywhere or for some objects: IST0102, "IST0102=Namespace default", "IST0103=Pod *.testing"
    #[arg(short = 'S', long, value_name = "CODE=KIND NAME")]
    pub suppress: Vec<String>,
    /// From which level on the exit code is 79 (with the output format `log`)
    #[arg(long, value_enum, ignore_case = true, default_value_t = Threshold::Error)]
    pub failure_threshold: Threshold,
    /// From which level on findings are shown
    #[arg(long, value_enum, ignore_case = true, default_value_t = Threshold::Info)]
    pub output_threshold: Threshold,
    #[arg(short, long, value_enum, ignore_case = true, default_value_t)]
    pub output: Format,
    /// Colours [default: on a terminal]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub color: Option<bool>,
    /// Settings of the mesh to judge by, instead of the running mesh's
    #[arg(
        long = "meshConfigFile",
        visible_alias = "mesh-config-file",
        value_name = "FILE"
    )]
    pub mesh_config_file: Option<PathBuf>,
    /// Say nothing of files that are no objects
    #[arg(long)]
    pub ignore_unknown: bool,
    /// How long the running mesh may take to answer
    #[arg(long, value_parser = mesh_runtime::settings::duration, default_value = "30s")]
    pub timeout: Duration,
    /// Say what was looked at
    #[arg(short, long)]
    pub verbose: bool,
    /// List the analyzers and the codes
    #[arg(short = 'L', long)]
    pub list_analyzers: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line for each finding
    #[default]
    Log,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Threshold {
    Info,
    #[value(alias = "warn")]
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

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    if arguments.list_analyzers {
        output::print(&listing());
        return Ok(0);
    }
    warn_unknown(&arguments.suppress);
    let parsed = manifest::read(&arguments.files, arguments.recursive)?;
    let wanted = arguments
        .use_kube
        .unwrap_or_else(|| arguments.files.is_empty() || target.is_known());
    if !wanted && arguments.files.is_empty() {
        bail!("nothing to analyze: name files, or leave --use-kube=false out");
    }
    let (mesh, live) = if wanted {
        let mesh = Mesh::find(target).await?;
        let read = tokio::time::timeout(arguments.timeout, world::objects(&mesh, world::Part::Analysis));
        let live = read.await.with_context(|| {
            format!(
                "{mesh} did not answer within {:?}; try a longer --timeout",
                arguments.timeout
            )
        })??;
        (Some(mesh), live)
    } else {
        (None, Vec::new())
    };
    if arguments.verbose {
        eprintln!(
            "Analyzed {} objects of files and {} of {}",
            parsed.documents.len(),
            live.len(),
            mesh.as_ref()
                .map_or_else(|| "no mesh".to_owned(), ToString::to_string)
        );
    }
    let mut objects = Objects::new(parsed, live);
    if let Some(file) = &arguments.mesh_config_file {
        objects.mesh_config(file)?;
    }
    let scope = match (&mesh, &target.namespace) {
        _ if arguments.all_namespaces => None,
        (_, Some(namespace)) => Some(namespace.clone()),
        // Files alone are looked at as a whole.
        (None, None) => None,
        (Some(mesh), None) => Some(mesh.namespace.clone()),
    };
    let findings = objects.findings(&arguments, scope.as_deref());
    show(&findings, &arguments, mesh.as_ref(), scope.as_deref())?;
    Ok(code(&findings, &arguments))
}

/// What is looked at.
struct Objects {
    changes: Vec<Change>,
    /// Of files.
    written: BTreeSet<(Kind, String)>,
    /// Codes that an object's annotation leaves out.
    suppressed: BTreeMap<ObjectRef, String>,
}

impl Objects {
    /// Files stand in the place of live objects of the same name.
    fn new(parsed: Parsed, live: Vec<Manifest>) -> Self {
        let mut all = Self {
            changes: Vec::new(),
            written: BTreeSet::new(),
            suppressed: BTreeMap::new(),
        };
        let mut bad = |part: String, finding: Finding| {
            all.changes.push(Change::Findings {
                part,
                findings: vec![finding],
            });
        };
        for malformed in parsed.malformed {
            let object = ObjectRef::new("File", "", malformed.source.clone());
            let finding = Finding::new(finding::UNREADABLE_FILE, object, "", malformed.text);
            bad(malformed.source.clone(), finding.at(Some(malformed.source)));
        }
        let mut manifests = Vec::new();
        for document in parsed.documents {
            match Manifest::read(document.object, Some(document.source.clone())) {
                Ok(manifest) => manifests.push(manifest),
                // What means nothing to the mesh is none of its business.
                Err(finding) if finding.level == Level::Info => {}
                Err(finding) => bad(document.source, *finding),
            }
        }
        for manifest in manifests {
            let key = (manifest.kind, manifest.key.to_string());
            if all.written.insert(key) {
                all.add(manifest);
            } else {
                let text = "the same object is in these files a second time; the first one counts";
                let finding = Finding::new(finding::DUPLICATE_OBJECT, manifest.object_ref(), "", text);
                let part = manifest.source.clone().unwrap_or_default();
                all.changes.push(Change::Findings {
                    part,
                    findings: vec![finding.at(manifest.source)],
                });
            }
        }
        for manifest in live {
            if !all.written.contains(&(manifest.kind, manifest.key.to_string())) {
                all.add(manifest);
            }
        }
        all
    }

    fn add(&mut self, manifest: Manifest) {
        if let Some(codes) = manifest.meta("annotations", SUPPRESS) {
            self.suppressed.insert(manifest.object_ref(), codes.to_owned());
        }
        self.changes.push(Change::Apply(Box::new(manifest)));
    }

    fn mesh_config(&mut self, file: &std::path::Path) -> anyhow::Result<()> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": names::MESH_CONFIG_MAP, "namespace": names::SYSTEM_NAMESPACE},
            "data": {"mesh": text},
        });
        let manifest = Manifest::read(object, Some(file.display().to_string()));
        self.changes.push(Change::Apply(Box::new(
            manifest.map_err(|finding| anyhow::anyhow!("{finding}"))?,
        )));
        Ok(())
    }

    fn findings(self, arguments: &Arguments, scope: Option<&str>) -> Vec<Finding> {
        let mut findings = analyze::offline(self.changes);
        findings.retain(|finding| {
            let namespace = &finding.object.namespace;
            let of_file = finding.source.is_some();
            let here = scope.is_none_or(|scope| namespace.is_empty() || namespace == scope || of_file);
            let annotated = self.suppressed.get(&finding.object).is_some_and(|codes| {
                codes
                    .split(',')
                    .any(|code| code.trim() == "*" || code.trim() == finding.code)
            });
            let unread = arguments.ignore_unknown && finding.code == finding::UNREADABLE_FILE.code;
            here && !annotated && !unread && !is_suppressed(finding, &arguments.suppress)
        });
        findings
    }
}

/// Of the findings that are not left out, shown or not.
fn code(findings: &[Finding], arguments: &Arguments) -> i32 {
    // As istioctl: who asks for JSON or YAML decides alone.
    if arguments.output != Format::Log {
        return 0;
    }
    let unread = |finding: &Finding| finding.code == finding::UNREADABLE_FILE.code;
    let reached = |finding: &&Finding| finding.level >= arguments.failure_threshold.level();
    if findings.iter().filter(reached).any(|finding| !unread(finding)) {
        exit::FINDINGS
    } else if findings.iter().any(unread) {
        exit::DATA
    } else {
        0
    }
}

fn warn_unknown(rules: &[String]) {
    for rule in rules {
        let code = rule.split('=').next().unwrap_or_default();
        if !finding::CODES.iter().any(|known| known.code == code) {
            eprintln!("meshctl: --suppress {rule}: there is no code {code:?}, so this leaves nothing out");
        }
    }
}

/// `IST0102`, or `IST0103=Pod name.namespace` where names may hold `*`; also `Pod namespace/name`, as findings print it.
fn is_suppressed(finding: &Finding, rules: &[String]) -> bool {
    let object = &finding.object;
    let dotted = match object.namespace.as_str() {
        "" => format!("{} {}", object.kind, object.name),
        namespace => format!("{} {}.{namespace}", object.kind, object.name),
    };
    rules.iter().any(|rule| match rule.split_once('=') {
        None => *rule == finding.code,
        Some((code, pattern)) => {
            code == finding.code && (glob(pattern, &dotted) || glob(pattern, &object.to_string()))
        }
    })
}

fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        // The last part ends the text; any other is taken where it is met first.
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

fn show(
    findings: &[Finding],
    arguments: &Arguments,
    mesh: Option<&Mesh>,
    scope: Option<&str>,
) -> anyhow::Result<()> {
    let shown: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.level >= arguments.output_threshold.level())
        .collect();
    match arguments.output {
        Format::Json => output::json(&machine(&shown))?,
        Format::Yaml => output::yaml(&machine(&shown))?,
        Format::Log => {
            let colour = arguments.color.unwrap_or_else(colour);
            for finding in &shown {
                output::line(&line(finding, colour));
            }
        }
    }
    if shown.is_empty() {
        let place = mesh.map(|mesh| match scope {
            Some(namespace) => format!("namespace {namespace} of {mesh}"),
            None => mesh.to_string(),
        });
        let what: Vec<String> = arguments.files.iter().cloned().chain(place).collect();
        // Beside the answer, so that JSON stays JSON.
        eprintln!("✔ No validation issues found when analyzing {}.", what.join(", "));
    }
    Ok(())
}

/// istioctl's fields, and ours beside them.
fn machine(findings: &[&Finding]) -> Value {
    let all = findings.iter().map(|finding| {
        let mut value = json!({
            "code": finding.code,
            "name": finding.name,
            "level": finding.level,
            "origin": finding.object.to_string(),
            "object": finding.object,
            "path": finding.path,
            "message": finding.text,
        });
        if let Some(source) = &finding.source {
            value["reference"] = source.clone().into();
        }
        value
    });
    Value::Array(all.collect())
}

fn colour() -> bool {
    let plain = |name: &str, is: fn(&str) -> bool| std::env::var(name).is_ok_and(|value| is(&value));
    std::io::stdout().is_terminal()
        && !plain("TERM", |term| term == "dumb")
        && !plain("NO_COLOR", |value| !value.is_empty())
}

fn line(finding: &Finding, colour: bool) -> String {
    let text = finding.to_string();
    let code = match finding.level {
        Level::Error => "31",
        Level::Warning => "33",
        Level::Info => "36",
    };
    match text.split_once(' ').filter(|_| colour) {
        Some((level, rest)) => format!("\u{1b}[{code}m{level}\u{1b}[0m {rest}"),
        None => text,
    }
}

fn listing() -> String {
    let mut analyzers = Table::new(&["ANALYZER", "WHAT IT SEES TO"]);
    for (name, purpose) in analyze::checks() {
        analyzers.row(vec![name.to_owned(), purpose.to_owned()]);
    }
    let mut codes = Table::new(&["CODE", "NAME", "LEVEL", "MEANING"]);
    for code in finding::CODES {
        codes.row(vec![
            code.code.into(),
            code.name.into(),
            code.level.to_string(),
            code.meaning.into(),
        ]);
    }
    format!("{analyzers}\n{codes}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &str) -> Arguments {
        Line::parse_from(std::iter::once("analyze").chain(line.split_whitespace())).arguments
    }

    fn analyzed(text: &str, line: &str) -> Vec<Finding> {
        Objects::new(manifest::parse(text, "f.yaml"), Vec::new()).findings(&arguments(line), None)
    }

    const BAD: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\n\
                       spec: {hosts: [a], htp: []}\n";
    const QUIET: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

    #[test]
    fn a_bad_document_and_an_unknown_field_are_both_found() {
        let findings = analyzed(&format!("kind: [\n---\n{BAD}"), "");
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|line| line.contains("f.yaml:")), "{told:?}");
        assert!(told.iter().any(|line| line.contains("spec.htp")), "{told:?}");
    }

    #[test]
    fn exit_codes() {
        for (text, line, expect) in [
            (QUIET.to_owned(), "", 0),
            (QUIET.to_owned(), "--failure-threshold info", exit::FINDINGS),
            (QUIET.to_owned(), "--failure-threshold Info -o json", 0),
            (BAD.to_owned(), "", exit::FINDINGS),
            (BAD.to_owned(), "-S IST0106", 0),
            ("kind: [\n".to_owned(), "", exit::DATA),
            ("kind: [\n".to_owned(), "--ignore-unknown", 0),
            (format!("kind: [\n---\n{BAD}"), "", exit::FINDINGS),
        ] {
            assert_eq!(
                code(&analyzed(&text, line), &arguments(line)),
                expect,
                "{text} {line}"
            );
        }
    }

    #[test]
    fn an_object_may_leave_findings_out() {
        let annotated = |codes: &str| {
            QUIET.replace(
                "{name: shop}",
                &format!("{{name: shop, annotations: {{{SUPPRESS}: '{codes}'}}}}"),
            )
        };
        assert_eq!(analyzed(&annotated("IST0101"), "-S IST0108").len(), 1);
        assert_eq!(analyzed(&annotated("IST0101,IST0102"), "-S IST0108").len(), 0);
        assert_eq!(analyzed(&annotated("*"), "").len(), 0);
    }

    #[test]
    fn twice_the_same() {
        let findings = analyzed(&format!("{QUIET}---\n{QUIET}"), "-S IST0102");
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!(findings[0].code, finding::DUPLICATE_OBJECT.code);
    }

    #[test]
    fn suppression() {
        let pod = Finding::new(
            finding::POD_MISSING_PROXY,
            ObjectRef::new("Pod", "testing", "web-1"),
            "",
            "",
        );
        for (rule, expect) in [
            ("IST0103", true),
            ("IST0103=Pod web-1.testing", true),
            ("IST0103=Pod *.testing", true),
            ("IST0103=Pod web*", true),
            ("IST0103=Pod testing/web-1", true),
            ("IST0103=Pod *.other", false),
            ("IST0103=Deployment *", false),
            ("IST0104=Pod *", false),
        ] {
            assert_eq!(is_suppressed(&pod, &[rule.to_owned()]), expect, "{rule}");
        }
    }

    #[test]
    fn colours() {
        let finding = Finding::new(
            finding::POD_MISSING_PROXY,
            ObjectRef::new("Pod", "a", "b"),
            "",
            "x",
        );
        assert_eq!(line(&finding, false), "Warning [IST0103] (Pod a/b) x");
        assert_eq!(
            line(&finding, true),
            "\u{1b}[33mWarning\u{1b}[0m [IST0103] (Pod a/b) x"
        );
    }
}
