//! Point 4: manifests: those of `samples/` applied twice, the second time without effect; bad ones refused at apply, by the schema
//! of their kind or by pilot, with code and field; and no finding about what we give away ourselves.

use anyhow::{Context, ensure};
use mesh_e2e::{
    installed::{Installed, PATIENCE},
    mesh::{path, read},
    process::{Outcome, run},
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What every other sample builds upon.
const BASE: [&str; 3] = [
    "samples/bookinfo/bookinfo.yaml",
    "samples/bookinfo/networking/bookinfo-gateway.yaml",
    "samples/bookinfo/networking/destination-rule-all.yaml",
];
/// The YAML files of a folder and those below it, in order.
fn files(folder: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(path(folder)?)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The documents of a file, each with its comments.
fn documents(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let pieces = text.split("\n---\n").map(str::to_owned);
    Ok(pieces.filter(|piece| piece.contains("kind: ")).collect())
}

fn name(file: &Path) -> String {
    file.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

pub fn samples_twice(mesh: &mut Installed) -> anyhow::Result<()> {
    let all = files("samples")?;
    ensure!(all.len() >= 20, "only {} files", all.len());
    let running = path(BASE[0])?;
    for file in &all {
        let text = std::fs::read_to_string(file)?;
        // The objects count here; images from elsewhere (Redis, Prometheus) need not be there.
        let text = if file == Path::new(&running) {
            text
        } else {
            text.replace("replicas: 1", "replicas: 0")
        };
        mesh.apply(&text).with_context(|| file.display().to_string())?;
        let said = mesh.apply(&text)?;
        let changed: Vec<&str> = said
            .lines()
            .filter(|line| !line.ends_with(" unchanged"))
            .collect();
        ensure!(
            changed.is_empty() && !said.is_empty(),
            "{}, the second time: {changed:?}",
            file.display()
        );
    }
    let base = BASE.map(path).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    for file in all
        .iter()
        .rev()
        .filter(|file| !base.iter().any(|one| Path::new(one) == *file))
    {
        let file = file.to_string_lossy();
        mesh.kubectl_ok(&["delete", "--ignore-not-found", "--wait=false", "-f", &file])?;
    }
    // Some of them had replaced these.
    base.iter()
        .try_for_each(|file| mesh.kubectl_ok(&["apply", "-f", file]).map(drop))
}

/// `meshctl analyze` of each sample with what it builds upon, from files alone.
pub fn samples_are_clean(mesh: &mut Installed) -> anyhow::Result<()> {
    let mut base = Vec::new();
    // The rules name the versions of everything, that with Redis too.
    for file in BASE
        .iter()
        .chain(&["samples/bookinfo/bookinfo-ratings-v2-redis.yaml"])
    {
        base.extend(documents(Path::new(&path(file)?))?);
    }
    for file in files("samples")? {
        let own = documents(&file)?;
        let replaced = own
            .iter()
            .map(|document| key(document))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut all = own;
        for document in &base {
            if !replaced.contains(&key(document)?) {
                all.push(document.clone());
            }
        }
        let line = mesh.meshctl(["analyze", "--use-kube=false", "-"]);
        let said = run(line, Some(&all.join("\n---\n")), PATIENCE)?;
        let clean = said.code == Some(0) && said.said().contains("No validation issues found");
        ensure!(clean, "{}: {}", file.display(), said.said());
    }
    Ok(())
}

/// Which object a document is.
fn key(document: &str) -> anyhow::Result<String> {
    let object: Value = serde_saphyr::from_str(document).with_context(|| document.to_owned())?;
    Ok(format!("{} {}", object["kind"], object["metadata"]["name"]))
}

fn create(mesh: &Installed, document: &str) -> anyhow::Result<Outcome> {
    let line = mesh.kubectl(["create", "--dry-run=server", "-f", "-"]);
    run(line, Some(document), PATIENCE)
}

/// What a comment of the document asks for.
fn wanted<'a>(document: &'a str, mark: &str) -> Vec<&'a str> {
    let lines = document.lines().filter_map(|line| line.strip_prefix(mark));
    lines.map(str::trim).collect()
}

/// Everything that the schemas can say, they do say; and what fits them is taken.
pub fn schemas(mesh: &mut Installed) -> anyhow::Result<()> {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files("e2e/manifests/crds/invalid")? {
        for document in documents(&file)? {
            count += 1;
            let wanted = wanted(&document, "# apply: ");
            let told = create(mesh, &document)?;
            let as_wanted = told.code != Some(0) && wanted.iter().all(|part| told.stderr.contains(part));
            if !as_wanted || wanted.is_empty() {
                wrong.push(format!("{}: {wanted:?}, said: {}", name(&file), told.said()));
            }
        }
    }
    ensure!(count >= 50, "only {count} documents");
    for file in files("e2e/manifests/crds/valid")? {
        for document in documents(&file)? {
            let told = create(mesh, &document)?;
            // What the mesh cannot do is refused by pilot in words of its own, never by the schema.
            let honest = told.code == Some(0) || told.stderr.contains("GSM0004 spec.");
            if !honest {
                wrong.push(format!("{}: {}", name(&file), told.said()));
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// What no schema can say: by the webhook, with code and field; and `meshctl validate` says the same without a cluster.
pub fn beyond_schemas(mesh: &mut Installed) -> anyhow::Result<()> {
    let text = read("e2e/manifests/refused.yaml")?;
    let documents: Vec<&str> = text.split("\n---\n").collect();
    ensure!(documents.len() >= 12, "only {} documents", documents.len());
    for document in documents {
        let wanted = wanted(document, "# refused: ");
        let parts: Vec<&str> = wanted.first().context("no comment")?.splitn(2, ' ').collect();
        let told = create(mesh, document)?.failed()?;
        ensure!(told.contains("admission webhook"), "not by the webhook: {told}");
        let validate = run(mesh.meshctl(["validate", "-f", "-"]), Some(document), PATIENCE)?.failed()?;
        for part in parts {
            ensure!(told.contains(part), "refused without {part:?}: {told}");
            ensure!(
                validate.contains(part),
                "meshctl validate without {part:?}: {validate}"
            );
        }
    }
    Ok(())
}
