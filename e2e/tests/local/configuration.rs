//! 8. What is wrong becomes a finding, with code, object and field; everything else stays as it was.

use anyhow::{Context, ensure};
use mesh_e2e::{mesh::Mesh, process::eventually, site::Site};
use std::time::Duration;

const GOOD: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: judged, namespace: default}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v3}}]}]
";

/// The page, which must not change whatever is applied.
fn page_is_red(mesh: &Mesh) -> anyhow::Result<()> {
    for _ in 0..5 {
        let page = mesh.page("/productpage", &[])?;
        ensure!(
            page.status == 200 && page.body.contains("stars red"),
            "the page changed: {}",
            page.shown()
        );
    }
    Ok(())
}

/// Applies something wrong over something good; looks for the finding in what `analyze` says of the running mesh, and at the
/// page; puts everything back.
fn judged(mesh: &Mesh, wrong: &str, expect: &[&str]) -> anyhow::Result<()> {
    mesh.apply_acked(GOOD)?;
    page_is_red(mesh)?;
    let applied = mesh.try_apply(wrong)?;
    let found = eventually(Duration::from_secs(10), "the finding", || {
        let said = mesh
            .ctl_within(&["analyze", "-A"], Duration::from_secs(20))?
            .said()
            + &applied.said();
        for text in expect {
            ensure!(said.contains(text), "no {text:?} in: {said}");
        }
        Ok(())
    });
    let page = page_is_red(mesh);
    mesh.delete(GOOD)?;
    found.and(page)
}

/// A field of the wrong type: the last good version keeps serving.
pub fn malformed_virtual_service(mesh: &mut Mesh) -> anyhow::Result<()> {
    let wrong = GOOD
        .replace("subset: v3", "subset: v1")
        .replace("http: [{route:", "http: [{timeout: soon, route:");
    judged(mesh, &wrong, &["IST0106", "judged", "spec.http[0].timeout"])
}

pub fn reference_to_nothing(mesh: &mut Mesh) -> anyhow::Result<()> {
    let nothing = GOOD
        .replace("name: judged", "name: nowhere")
        .replace("hosts: [reviews]", "hosts: [unused.example.com]")
        .replace(
            "{host: reviews, subset: v3}",
            "{host: nobody.default.svc.cluster.local}",
        );
    let outcome = judged(
        mesh,
        &nothing,
        &[
            "IST0101",
            "nowhere",
            "spec.http[0].route[0].destination.host",
            "nobody",
        ],
    );
    mesh.delete(&nothing)?;
    outcome
}

/// Not even YAML: the command says where, and whatever else is in the same file is applied.
pub fn invalid_yaml(mesh: &mut Mesh) -> anyhow::Result<()> {
    let beside =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside, namespace: default}\ndata: {a: b}\n";
    let outcome = mesh.try_apply(&format!("kind: [VirtualService\nspec: }}\n---\n{beside}"))?;
    ensure!(
        outcome.code != Some(0),
        "invalid YAML was taken: {}",
        outcome.said()
    );
    ensure!(
        outcome.said().contains("standard input:"),
        "no line is named: {}",
        outcome.said()
    );
    mesh.get("configmap", "default", "beside")
        .context("the document beside it was not applied")?;
    mesh.ctl(&["local", "delete", "configmap", "beside"])?;
    let page = mesh.page("/productpage", &[])?;
    ensure!(page.status == 200, "{}", page.status);
    Ok(())
}

pub fn unknown_field(mesh: &mut Mesh) -> anyhow::Result<()> {
    let wrong = GOOD.replace("http: [{route:", "http: [{rote: [], route:");
    judged(mesh, &wrong, &["judged", "spec.http[0].rote"])
}
