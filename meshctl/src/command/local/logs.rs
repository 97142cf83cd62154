//! `meshctl local logs POD`: what a container wrote, and with -f what it goes on writing.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    context::Context,
    local::{object, pod::log},
    output,
};

const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct Arguments {
    /// POD, POD.NAMESPACE or deployment/NAME
    pub pod: String,
    #[arg(short, long)]
    pub container: Option<String>,
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Go on until interrupted, or until the pod is gone
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let pod = context.pod(&arguments.pod, &arguments.namespace).await?;
    let container = container(&pod, arguments.container.as_deref())?;
    let text = |pointer| object::text(&pod, pointer);
    let folder = context
        .client
        .layout
        .pod(text("/metadata/namespace"), text("/metadata/name"));
    let path = log::path(&folder, &container);
    let mut shown = String::new();
    for file in [log::rotated(&path), path.clone()] {
        if let Ok(bytes) = std::fs::read(&file) {
            shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    if !path.exists() && !arguments.follow {
        bail!(
            "container {container:?} has written nothing: it has not been started; see `meshctl local get pods -o wide`"
        );
    }
    output::print(&last_lines(&shown, arguments.tail));
    if arguments.follow {
        let inode = path.metadata().map_or(0, |metadata| metadata.ino());
        tokio::select! {
            result = follow(&path, inode) => result?,
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    Ok(0)
}

/// The named container, or the first main one.
fn container(pod: &Value, wanted: Option<&str>) -> anyhow::Result<String> {
    let names = |pointer: &str| -> Vec<String> {
        let list = pod
            .pointer(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        list.filter_map(|container| container["name"].as_str().map(ToOwned::to_owned))
            .collect()
    };
    let all = [names("/spec/containers"), names("/spec/initContainers")].concat();
    match wanted {
        None => all.first().cloned().context("the pod has no containers"),
        Some(name) if all.iter().any(|one| one == name) => Ok(name.to_owned()),
        Some(name) => bail!("the pod has no container {name:?}; it has: {}", all.join(", ")),
    }
}

fn last_lines(text: &str, count: Option<usize>) -> String {
    let Some(count) = count else {
        return text.to_owned();
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines[lines.len().saturating_sub(count)..].concat()
}

/// Prints what is appended; goes over to the new file when the log is turned over.
async fn follow(path: &Path, mut inode: u64) -> anyhow::Result<()> {
    let mut position = path.metadata().map_or(0, |metadata| metadata.len());
    loop {
        tokio::time::sleep(POLL).await;
        let Ok(metadata) = path.metadata() else {
            if path.parent().is_some_and(Path::exists) {
                continue;
            }
            return Ok(());
        };
        if metadata.ino() != inode {
            if inode != 0 {
                position = print_from(&log::rotated(path), position).map(|_| 0).unwrap_or(0);
            }
            inode = metadata.ino();
        }
        if metadata.len() > position {
            position = print_from(path, position)?;
        }
    }
}

fn print_from(path: &Path, position: u64) -> anyhow::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(position))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    output::print(&String::from_utf8_lossy(&bytes));
    Ok(position + bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tails() {
        assert_eq!(last_lines("a\nb\nc\n", Some(2)), "b\nc\n");
        assert_eq!(last_lines("a\n", Some(5)), "a\n");
        assert_eq!(last_lines("a\nb", Some(1)), "b");
        assert_eq!(last_lines("a\n", None), "a\n");
    }

    #[test]
    fn containers() {
        let pod =
            json!({"spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "istio-proxy"}]}});
        assert_eq!(container(&pod, None).unwrap(), "app");
        assert_eq!(container(&pod, Some("istio-proxy")).unwrap(), "istio-proxy");
        let error = container(&pod, Some("x")).unwrap_err().to_string();
        assert!(error.contains("app, istio-proxy"), "{error}");
    }
}
