//! `meshctl version`: of this program, of the control plane, and of the proxies that are connected to it.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use mesh_proto::names::port;
use serde_json::{Value, json};

use super::proxy_status;
use crate::{
    context::{Mesh, Target},
    local::object,
    output, reach,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Of the running mesh too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pub remote: bool,
    /// Numbers only
    #[arg(short, long)]
    pub short: bool,
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Json,
    Yaml,
}

/// What runs in the mesh.
struct Remote {
    /// Pod of the control plane → what it says about its build.
    control: BTreeMap<String, Value>,
    /// Version → how many proxies.
    proxies: BTreeMap<String, usize>,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    let own = serde_json::to_value(mesh_runtime::build::info())?;
    let (remote, problem) = match arguments.remote {
        false => (None, None),
        true => match remote(target).await {
            Ok(remote) => (Some(remote), None),
            // The program's own version is an answer even where no mesh is.
            Err(error) => (None, Some(format!("{error:#}"))),
        },
    };
    if let Some(format) = arguments.output {
        let value = machine(&own, remote.as_ref());
        match format {
            Format::Json => output::json(&value)?,
            Format::Yaml => output::yaml(&value)?,
        }
        return Ok(0);
    }
    output::line(&format!("client version: {}", version(&own, arguments.short)));
    match (remote, problem) {
        (Some(remote), _) => {
            for (pod, info) in &remote.control {
                output::line(&format!(
                    "control plane version: {} ({pod})",
                    version(info, arguments.short)
                ));
            }
            let proxies: Vec<String> = remote
                .proxies
                .iter()
                .map(|(version, count)| format!("{version} ({count} proxies)"))
                .collect();
            let none = "no proxy is connected".to_owned();
            let told = if proxies.is_empty() {
                none
            } else {
                proxies.join(", ")
            };
            output::line(&format!("data plane version: {told}"));
        }
        (None, Some(problem)) => output::line(&format!("control plane version: not known: {problem}")),
        (None, None) => {}
    }
    Ok(0)
}

async fn remote(target: &Target) -> anyhow::Result<Remote> {
    let mesh = Mesh::find(target).await?;
    let mut control = BTreeMap::new();
    for pod in mesh.parts("pilot").await? {
        let info = reach::get_json(&mesh.way(&pod), port::CONTROL, "/version").await?;
        control.insert(object::text(&pod, "/metadata/name").to_owned(), info);
    }
    let mut proxies = BTreeMap::new();
    for proxy in proxy_status::proxies(&mesh).await? {
        let version = proxy["version"].as_str().filter(|version| !version.is_empty());
        *proxies
            .entry(version.unwrap_or("unknown").to_owned())
            .or_default() += 1;
    }
    Ok(Remote { control, proxies })
}

fn version(info: &Value, short: bool) -> String {
    let text = |field: &str| info[field].as_str().unwrap_or_default();
    match short {
        true => text("version").to_owned(),
        false => format!(
            "{} ({}, {}/{})",
            text("version"),
            text("profile"),
            text("os"),
            text("arch")
        ),
    }
}

/// istioctl's fields.
fn machine(own: &Value, remote: Option<&Remote>) -> Value {
    let mut value = json!({"clientVersion": own});
    if let Some(remote) = remote {
        let control = remote
            .control
            .iter()
            .map(|(pod, info)| json!({"Component": "pilot", "Pod": pod, "Info": info}));
        value["meshVersion"] = control.collect();
        let proxies = remote
            .proxies
            .iter()
            .map(|(version, count)| json!({"IstioVersion": version, "Count": count}));
        value["dataPlaneVersion"] = proxies.collect();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let info = json!({"version": "0.1.0", "profile": "release", "os": "linux", "arch": "x86_64"});
        assert_eq!(version(&info, true), "0.1.0");
        assert_eq!(version(&info, false), "0.1.0 (release, linux/x86_64)");
        let remote = Remote {
            control: [("pilot-0".to_owned(), info.clone())].into(),
            proxies: [("0.1.0".to_owned(), 3)].into(),
        };
        let value = machine(&info, Some(&remote));
        assert_eq!(value["meshVersion"][0]["Pod"], "pilot-0");
        assert_eq!(value["dataPlaneVersion"][0]["Count"], 3);
    }
}
