//! `meshctl local delete`: objects by file or by name; waits until pods and namespaces have really gone.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use crate::{
    context::Context,
    local::{
        control::Selection,
        manifest,
        object::{Key, Kind, key_of},
    },
    output,
};

const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Args)]
pub struct Arguments {
    /// KIND NAME…, or KIND/NAME…
    pub what: Vec<String>,
    /// Everything in these files
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub filename: Vec<String>,
    #[arg(short = 'R', long)]
    pub recursive: bool,
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// All objects of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    /// What is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Seconds that a pod's programs have to end
    #[arg(long, value_name = "SECONDS")]
    pub grace_period: Option<u64>,
    /// Do not wait until it has gone
    #[arg(long)]
    pub no_wait: bool,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let keys = if arguments.filename.is_empty() {
        named(&arguments, context).await?
    } else {
        let parsed = manifest::read(&arguments.filename, arguments.recursive)?;
        let mut keys = Vec::new();
        for document in parsed.documents {
            keys.push(key_of(&document.object, &arguments.namespace)?);
        }
        // What others need goes last.
        keys.reverse();
        keys
    };
    if keys.is_empty() && !arguments.all {
        bail!("nothing to delete; write KIND NAME, or -f FILE");
    }
    if keys.is_empty() {
        output::line("nothing to delete");
    }
    let mut good = true;
    let mut leaving = Vec::new();
    for key in keys {
        match context
            .client
            .delete(&selection(&key, arguments.grace_period))
            .await
        {
            Ok(_) => {
                output::line(&format!("{key} deleted"));
                leaving.push(key);
            }
            Err(error) if arguments.ignore_not_found && error.to_string().contains("is not there") => {}
            Err(error) => {
                eprintln!("error: {error:#}");
                good = false;
            }
        }
    }
    if !arguments.no_wait {
        wait(&leaving, context).await?;
    }
    Ok(i32::from(!good))
}

fn selection(key: &Key, grace: Option<u64>) -> Selection {
    let (namespace, name) = (key.namespace.clone(), key.name.clone());
    Selection {
        kind: key.kind.full_name(),
        namespace,
        name,
        grace,
    }
}

async fn named(arguments: &Arguments, context: &Context) -> anyhow::Result<Vec<Key>> {
    let kind = |word: &str| {
        Kind::by_word(word).ok_or_else(|| anyhow::anyhow!("{word:?} is no kind of the local platform"))
    };
    let key = |kind: &'static Kind, name: &str| {
        let namespace = if kind.namespaced {
            arguments.namespace.clone()
        } else {
            String::new()
        };
        Key {
            kind,
            namespace,
            name: name.to_owned(),
        }
    };
    let Some((first, names)) = arguments.what.split_first() else {
        return Ok(Vec::new());
    };
    if first.contains('/') {
        let split = arguments.what.iter().map(|word| match word.split_once('/') {
            Some((word, name)) => Ok(key(kind(word)?, name)),
            None => bail!("{word:?}: write KIND/NAME for each, or KIND NAME…"),
        });
        return split.collect();
    }
    let kind = kind(first)?;
    if arguments.all {
        let found = context
            .objects(&kind.full_name(), &arguments.namespace, "")
            .await?;
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        return Ok(found.iter().map(|object| key(kind, &name(object))).collect());
    }
    Ok(names.iter().map(|name| key(kind, name)).collect())
}

/// Pods and namespaces need time to go; and so do the pods of what was deleted.
async fn wait(keys: &[Key], context: &Context) -> anyhow::Result<()> {
    let end = tokio::time::Instant::now() + PATIENCE;
    for key in keys {
        loop {
            let gone = match key.kind.kind {
                "Pod" | "Namespace" => context.client.objects(&selection(key, None)).await.is_err(),
                "Deployment" | "ReplicaSet" => !has_pods(key, context).await?,
                _ => true,
            };
            if gone {
                break;
            }
            if tokio::time::Instant::now() > end {
                bail!("{key} is still on its way out; see `meshctl local get pods -A`");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

async fn has_pods(key: &Key, context: &Context) -> anyhow::Result<bool> {
    let pods = context.objects("pod", &key.namespace, "").await?;
    let sets = context.objects("replicaset", &key.namespace, "").await?;
    let owned = |object: &Value, kind: &str, name: &dyn Fn(&str) -> bool| {
        let owners = object["metadata"]["ownerReferences"].as_array();
        owners
            .into_iter()
            .flatten()
            .any(|owner| owner["kind"] == kind && name(owner["name"].as_str().unwrap_or_default()))
    };
    if key.kind.kind == "ReplicaSet" {
        return Ok(pods
            .iter()
            .any(|pod| owned(pod, "ReplicaSet", &|name| name == key.name)));
    }
    let of_deployment = |name: &str| {
        name.rsplit_once('-')
            .is_some_and(|(deployment, _)| deployment == key.name)
    };
    Ok(sets
        .iter()
        .any(|set| owned(set, "Deployment", &|name| name == key.name))
        || pods.iter().any(|pod| owned(pod, "ReplicaSet", &of_deployment)))
}
