//! `meshctl authz check POD`: which AuthorizationPolicies a workload's proxy has, as it has them: from its own
//! configuration, not from what it should be.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use mesh_proto::names::port;
use serde_json::{Value, json};

use crate::{
    context::{Mesh, Target},
    output::{self, Table},
    reach,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Policies of a workload, with their rules
    Check {
        /// POD, POD.NAMESPACE or deployment/NAME
        #[arg(required_unless_present = "file")]
        pod: Option<String>,
        /// A saved `/config_dump` instead of a running proxy
        #[arg(short, long, conflicts_with = "pod")]
        file: Option<PathBuf>,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        /// Port of the proxy's admin pages
        #[arg(long, default_value_t = port::ADMIN)]
        proxy_admin_port: u16,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

/// A policy, as the proxy has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Applied {
    action: String,
    /// `name.namespace`
    policy: String,
}

/// What is known of it: how many rules, in how many chains of listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Extent {
    rules: std::collections::BTreeSet<String>,
    listeners: std::collections::BTreeSet<String>,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    let What::Check {
        pod,
        file,
        output,
        proxy_admin_port,
    } = arguments.what;
    let dump: Value = match file {
        Some(file) => {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?
        }
        None => {
            let mesh = Mesh::find(target).await?;
            let pod = mesh.pod(pod.as_deref().unwrap_or_default()).await?;
            reach::get_json(&mesh.way(&pod), proxy_admin_port, "/config_dump")
                .await
                .context("the proxy's admin page cannot be read; has the pod a sidecar?")?
        }
    };
    let applied = applied(&dump);
    match output {
        Format::Table => output::print(&table(&applied)),
        Format::Json => output::json(&machine(&applied))?,
        Format::Yaml => output::yaml(&machine(&applied))?,
    }
    Ok(0)
}

fn applied(dump: &Value) -> BTreeMap<Applied, Extent> {
    let mut found: BTreeMap<Applied, Extent> = BTreeMap::new();
    let listeners = crate::show::listener::list(dump, &crate::show::Filter::default());
    for listener in listeners {
        let name = listener["name"].as_str().unwrap_or_default();
        walk(listener, &mut |rules: &Value| {
            // The API's default.
            let action = rules["action"].as_str().unwrap_or("ALLOW").to_owned();
            for rule in rules["policies"]
                .as_object()
                .into_iter()
                .flat_map(|policies| policies.keys())
            {
                let Some((policy, number)) = named(rule) else {
                    continue;
                };
                let key = Applied {
                    action: action.clone(),
                    policy,
                };
                let extent = found.entry(key).or_default();
                extent.rules.insert(number);
                extent.listeners.insert(name.to_owned());
            }
        });
    }
    found
}

/// Every rule set of RBAC filters below a value; dumps nest as deeply as Envoy's API does.
fn walk(value: &Value, found: &mut impl FnMut(&Value)) {
    match value {
        Value::Object(fields) => {
            let rbac = fields
                .get("@type")
                .and_then(Value::as_str)
                .is_some_and(|kind| kind.ends_with(".RBAC"));
            if let Some(rules) = fields.get("rules").filter(|_| rbac) {
                found(rules);
            }
            fields.values().for_each(|value| walk(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
        _ => {}
    }
}

/// `ns[shop]-policy[readers]-rule[0]` → `readers.shop`, `0`
fn named(rule: &str) -> Option<(String, String)> {
    let rest = rule.strip_prefix("ns[")?;
    let (namespace, rest) = rest.split_once("]-policy[")?;
    let (policy, rest) = rest.split_once("]-rule[")?;
    Some((
        format!("{policy}.{namespace}"),
        rest.trim_end_matches(']').to_owned(),
    ))
}

fn table(applied: &BTreeMap<Applied, Extent>) -> String {
    if applied.is_empty() {
        return "No AuthorizationPolicy applies: everybody may talk to this workload.\n".to_owned();
    }
    let mut table = Table::new(&["ACTION", "AuthorizationPolicy", "RULES", "LISTENERS"]);
    for (key, extent) in applied {
        table.row(vec![
            key.action.clone(),
            key.policy.clone(),
            extent.rules.len().to_string(),
            extent.listeners.iter().cloned().collect::<Vec<_>>().join(","),
        ]);
    }
    table.to_string()
}

fn machine(applied: &BTreeMap<Applied, Extent>) -> Value {
    let all = applied.iter().map(|(key, extent)| {
        json!({
            "action": key.action, "policy": key.policy, "rules": extent.rules, "listeners": extent.listeners,
        })
    });
    Value::Array(all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_a_dump() {
        let rbac = |action: &str, names: &[&str]| {
            let policies: serde_json::Map<String, Value> =
                names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
            json!({"typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                "rules": {"action": action, "policies": policies}}})
        };
        let dump = json!({"configs": [{"@type": "x.ListenersConfigDump", "dynamic_listeners": [{"active_state": {"listener": {
            "name": "virtualInbound", "filter_chains": [{"filters": [{"typed_config": {"http_filters": [
                rbac("DENY", &["ns[shop]-policy[no]-rule[0]"]),
                rbac("ALLOW", &["ns[shop]-policy[yes]-rule[0]", "ns[shop]-policy[yes]-rule[1]"])]}}]}]}}}]}]});
        let text = table(&applied(&dump));
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["ALLOW", "yes.shop", "2", "virtualInbound"]);
        assert_eq!(rows[2], ["DENY", "no.shop", "1", "virtualInbound"]);
        assert!(table(&applied(&json!({}))).contains("everybody"));
    }
}
