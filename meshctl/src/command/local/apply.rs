//! `meshctl local apply -f …`: objects into the mesh, each answered by one line, findings as warnings.

use anyhow::bail;
use clap::Args;

use crate::{
    context::Context,
    local::{
        control::{Applied, ApplyRequest, Sourced},
        images,
        manifest::{self, Parsed},
        object::Kind,
        store::Change,
    },
    output,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// File, folder, or - for standard input
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub filename: Vec<String>,
    /// Folders with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Where objects go that name no namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Which program stands for an image
    #[arg(long, value_name = "NAME=PROGRAM [ARGS]")]
    pub image: Vec<String>,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    if arguments.filename.is_empty() && arguments.image.is_empty() {
        bail!("nothing to apply; name a file or folder with -f");
    }
    add_images(&arguments.image, context).await?;
    if arguments.filename.is_empty() {
        return Ok(0);
    }
    let parsed = manifest::read(&arguments.filename, arguments.recursive)?;
    if parsed.documents.is_empty() && parsed.malformed.is_empty() {
        bail!("no objects in {}", arguments.filename.join(", "));
    }
    let good = objects(parsed, &arguments.namespace, context).await?;
    Ok(i32::from(!good))
}

/// What `--image` arguments say.
pub fn images(written: &[String]) -> Result<images::Table, images::ImageError> {
    written.iter().map(|one| images::parse_argument(one)).collect()
}

pub async fn add_images(written: &[String], context: &Context) -> anyhow::Result<()> {
    if written.is_empty() {
        return Ok(());
    }
    let rows = images(written)?;
    context.client.add_images(&rows).await?;
    for (name, program) in rows {
        output::line(format!("image/{name} = {} {}", program.program, program.args.join(" ")).trim_end());
    }
    Ok(())
}

/// Applies what was read; true if all of it was taken.
pub async fn objects(parsed: Parsed, namespace: &str, context: &Context) -> anyhow::Result<bool> {
    let mut good = parsed.malformed.is_empty();
    for bad in &parsed.malformed {
        eprintln!("error: {}: {}", bad.source, bad.text);
    }
    let mut objects: Vec<Sourced> = parsed
        .documents
        .into_iter()
        .map(|one| Sourced {
            object: one.object,
            source: one.source,
        })
        .collect();
    // What others need comes first, whatever the order of the files.
    objects.sort_by_key(|one| rank(&one.object));
    let request = ApplyRequest {
        objects,
        namespace: namespace.to_owned(),
    };
    for applied in context.client.apply(&request).await? {
        good &= print(&applied);
    }
    Ok(good)
}

fn rank(object: &serde_json::Value) -> usize {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    match Kind::of(text("apiVersion"), text("kind")).map(|kind| kind.kind) {
        Some("Namespace") => 0,
        Some("ServiceAccount" | "ConfigMap" | "Secret") => 1,
        Some("Service") => 2,
        Some("Pod" | "Deployment" | "ReplicaSet") => 4,
        _ => 3,
    }
}

fn print(applied: &Applied) -> bool {
    for finding in &applied.findings {
        eprintln!("{finding}");
    }
    let in_vain = applied.findings.iter().any(|finding| finding.is_error());
    if let Some(error) = &applied.error {
        eprintln!("error: {error}");
        return false;
    }
    let word = match applied.change {
        Some(Change::Created) => "created",
        Some(Change::Configured) => "configured",
        Some(Change::Unchanged) | None => "unchanged",
    };
    let effect = if in_vain {
        " (not in effect as it is: pilot keeps the last good version of it, if there was one)"
    } else {
        ""
    };
    output::line(&format!("{} {word}{effect}", applied.name));
    true
}
