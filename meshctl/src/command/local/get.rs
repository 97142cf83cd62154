//! `meshctl local get KIND [NAME]`: objects as kubectl shows them; for the mesh's own kinds also what pilot found.

pub mod columns;

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_proto::{finding::Finding, names::port};
use serde_json::{Value, json};

use crate::{
    context::Context,
    local::object::{KINDS, Kind},
    output::{self, Format, Table},
    reach,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// KIND, KIND/NAME, several KINDs with commas, or `all`
    pub kind: String,
    pub name: Vec<String>,
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Only objects with these labels: a=b, a!=b, a in (b,c), a notin (b,c), a, !a; with commas between them
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let (kinds, names) = wanted(&arguments)?;
    let namespace = if arguments.all_namespaces {
        ""
    } else {
        arguments.namespace.as_str()
    };
    let mut found: Vec<(&'static Kind, Vec<Value>)> = Vec::new();
    for kind in kinds {
        let mut objects = Vec::new();
        if names.is_empty() {
            objects = context.objects(&kind.full_name(), namespace, "").await?;
        }
        for name in &names {
            objects.extend(context.objects(&kind.full_name(), namespace, name).await?);
        }
        if let Some(selector) = &arguments.selector {
            let mut chosen = Vec::new();
            for object in objects {
                if has_labels(&object, selector)? {
                    chosen.push(object);
                }
            }
            objects = chosen;
        }
        found.push((kind, objects));
    }
    let one = names.len() == 1 && found.len() == 1;
    match arguments.output {
        Format::Json => output::json(&whole(found, one))?,
        Format::Yaml => output::yaml(&whole(found, one))?,
        Format::Name => {
            for (kind, objects) in &found {
                for object in objects {
                    output::line(&format!("{}/{}", kind.full_name(), columns::name(object)));
                }
            }
        }
        Format::Table | Format::Wide => tables(&arguments, &found, context).await,
    }
    Ok(0)
}

fn wanted(arguments: &Arguments) -> anyhow::Result<(Vec<&'static Kind>, Vec<String>)> {
    let mut names = arguments.name.clone();
    let mut word = arguments.kind.as_str();
    if let Some((kind, name)) = word.split_once('/') {
        names.insert(0, name.to_owned());
        word = kind;
    }
    if word == "all" {
        let kinds = KINDS
            .iter()
            .filter(|kind| ["Pod", "Service", "Deployment", "ReplicaSet"].contains(&kind.kind));
        return Ok((kinds.collect(), names));
    }
    let mut kinds = Vec::new();
    for one in word.split(',') {
        let Some(kind) = Kind::by_word(one) else {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.plural).collect();
            bail!(
                "{one:?} is no kind of the local platform; it has: {}",
                known.join(", ")
            );
        };
        kinds.push(kind);
    }
    Ok((kinds, names))
}

/// The selectors of Kubernetes (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>).
fn has_labels(object: &Value, selector: &str) -> anyhow::Result<bool> {
    let labels = &object["metadata"]["labels"];
    let mut all = true;
    for term in terms(selector) {
        all &=
            fits(labels, term.trim()).with_context(|| format!("-l {selector:?}: {term:?} is no selector"))?;
    }
    Ok(all)
}

/// Cut at the commas that are in no parenthesis.
fn terms(selector: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    selector
        .split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .collect()
}

fn fits(labels: &Value, term: &str) -> Option<bool> {
    let value = |name: &str| labels[name.trim()].as_str();
    if let Some((name, rest)) = term.split_once(" in ").or(term.split_once(" notin ")) {
        let list = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
        let found = value(name).is_some_and(|value| list.split(',').any(|one| one.trim() == value));
        return Some(found != term.contains(" notin "));
    }
    let plain = |word: &str| !word.is_empty() && !word.contains([' ', '=', '!', '(', ')']);
    let (fits, name) = if let Some((name, wanted)) = term.split_once("!=") {
        (value(name) != Some(wanted.trim()), name)
    } else if let Some((name, wanted)) = term.split_once('=') {
        (value(name) == Some(wanted.trim_start_matches('=').trim()), name)
    } else if let Some(name) = term.strip_prefix('!') {
        (value(name).is_none(), name)
    } else {
        (value(term).is_some(), term)
    };
    plain(name.trim()).then_some(fits)
}

/// One object alone, several as a list.
fn whole(found: Vec<(&'static Kind, Vec<Value>)>, one: bool) -> Value {
    let mut items: Vec<Value> = found.into_iter().flat_map(|(_, objects)| objects).collect();
    if one && items.len() == 1 {
        return items.remove(0);
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

async fn tables(arguments: &Arguments, found: &[(&'static Kind, Vec<Value>)], context: &Context) {
    let several = found.iter().filter(|(_, objects)| !objects.is_empty()).count() > 1;
    let findings = if found
        .iter()
        .any(|(kind, objects)| kind.mesh && !objects.is_empty())
    {
        findings(context).await
    } else {
        Some(Vec::new())
    };
    let mut shown = 0;
    let mut remarks = Vec::new();
    for (kind, objects) in found.iter().filter(|(_, objects)| !objects.is_empty()) {
        let mut heading: Vec<&str> = Vec::new();
        if arguments.all_namespaces && kind.namespaced {
            heading.push("NAMESPACE");
        }
        heading.extend(columns::heading(kind, arguments.output));
        let mut table = Table::new(&heading);
        for object in objects {
            let own: Vec<&Finding> = findings
                .iter()
                .flatten()
                .filter(|one| is_about(one, kind, object))
                .collect();
            let mut cells = columns::cells(
                kind,
                object,
                arguments.output,
                findings.as_ref().map(|_| own.as_slice()),
            );
            if several && let Some(first) = cells.first_mut() {
                *first = format!("{}/{first}", kind.full_name());
            }
            if arguments.all_namespaces && kind.namespaced {
                cells.insert(
                    0,
                    object["metadata"]["namespace"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                );
            }
            table.row(cells);
            remarks.extend(own.iter().map(ToString::to_string));
        }
        if shown > 0 {
            output::line("");
        }
        output::print(&table.to_string());
        shown += 1;
    }
    if shown == 0 {
        let place = if arguments.all_namespaces {
            "the mesh"
        } else {
            arguments.namespace.as_str()
        };
        eprintln!("no {} in {place}", arguments.kind);
    }
    for remark in remarks {
        eprintln!("{remark}");
    }
}

fn is_about(finding: &Finding, kind: &Kind, object: &Value) -> bool {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    finding.object.kind == kind.kind
        && finding.object.name == text("name")
        && (finding.object.namespace == text("namespace") || !kind.namespaced)
}

/// What pilot found; nothing when pilot cannot be asked.
async fn findings(context: &Context) -> Option<Vec<Finding>> {
    let pods = context.parts("pilot").await.ok()?;
    let way = reach::Way::Network(context.network(pods.first()?));
    let answer = reach::get_json(&way, port::CONTROL, "/debug/findings")
        .await
        .ok()?;
    serde_json::from_value(answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let object = json!({"metadata": {"labels": {"app": "a", "version": "v1"}}});
        for (selector, expect) in [
            ("app=a", true),
            ("app==a,version=v1", true),
            ("app=b", false),
            ("version", true),
            ("x", false),
            ("!x,app!=b", true),
            ("app!=a", false),
            ("app in (b, a),version", true),
            ("app notin (b,a)", false),
            ("x notin (b)", true),
        ] {
            assert_eq!(has_labels(&object, selector).unwrap(), expect, "{selector}");
        }
        for wrong in ["app in a", "app in (a", "", "a b", "=a"] {
            assert!(has_labels(&object, wrong).is_err(), "{wrong:?}");
        }
    }
}
