//! 1. The mesh gets ready and Bookinfo's page answers.

use anyhow::{Context, ensure};
use mesh_e2e::{
    browser,
    mesh::{Mesh, is_ready},
    process::eventually,
    site::Site,
};
use std::time::Duration;

pub fn control_plane_is_ready(mesh: &mut Mesh) -> anyhow::Result<()> {
    for part in ["pilot", "citadel", "telemetry", "istio-ingressgateway"] {
        let pods = mesh.pods("istio-system", part)?;
        ensure!(
            !pods.is_empty() && pods.iter().all(is_ready),
            "{part}: {} pods, not all ready",
            pods.len()
        );
    }
    let status = mesh.ctl(&["local", "status"])?;
    ensure!(
        status.contains(&mesh.gateway_port.to_string()),
        "the status names no gateway port: {status}"
    );
    Ok(())
}

/// Every pod of Bookinfo has a sidecar, and every sidecar has what pilot has for it.
pub fn proxies_are_synced(mesh: &mut Mesh) -> anyhow::Result<()> {
    for app in ["productpage", "details", "reviews", "ratings"] {
        for pod in mesh.pods("default", app)? {
            let init = pod["spec"]["initContainers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let names: Vec<&str> = init
                .iter()
                .filter_map(|container| container["name"].as_str())
                .collect();
            ensure!(
                names.contains(&"istio-init") && names.contains(&"istio-proxy"),
                "{app}: init containers {names:?}"
            );
        }
    }
    eventually(Duration::from_secs(20), "all proxies synced", || {
        let text = mesh.ctl(&["proxy-status"])?;
        for app in [
            "productpage-v1",
            "details-v1",
            "reviews-v1",
            "reviews-v2",
            "reviews-v3",
            "ratings-v1",
            "istio-ingressgateway",
        ] {
            let line = text
                .lines()
                .find(|line| line.starts_with(app))
                .with_context(|| format!("{app} is not listed:\n{text}"))?;
            let line = line.to_lowercase();
            ensure!(
                line.contains("synced") && !line.contains("stale") && !line.contains("rejected"),
                "{line}"
            );
        }
        Ok(())
    })
}

pub fn page_answers_through_the_gateway(mesh: &mut Mesh) -> anyhow::Result<()> {
    let page = mesh.page("/productpage", &[])?;
    ensure!(page.status == 200, "{}", page.shown());
    for text in ["The Comedy of Errors", "William Shakespeare", "Reviews served by"] {
        ensure!(
            page.body.contains(text),
            "the page lacks {text:?}: {}",
            page.shown()
        );
    }
    ensure!(
        mesh.page("/nothing-here", &[])?.status == 404,
        "a path without a route is not 404"
    );
    Ok(())
}

pub fn page_in_a_browser(mesh: &mut Mesh) -> anyhow::Result<()> {
    let seen = browser::look(&mesh.url("/productpage"), &mesh.artifacts(), "productpage")?;
    for text in [
        "The Comedy of Errors",
        "Book Details",
        "Book Reviews",
        "Reviews served by",
    ] {
        ensure!(
            seen.html.contains(text),
            "the browser shows no {text:?}: {}",
            seen.html
        );
    }
    let (width, height) = browser::size(&seen.picture)?;
    ensure!(
        width >= 1000 && height >= 600,
        "the picture is {width} x {height}"
    );
    println!("    a picture of the page: {}", seen.picture.display());
    Ok(())
}

const UNKNOWN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: unknown-image, namespace: e2e, labels: {app: unknown-image}}
spec:
  containers:
  - {name: app, image: example.com/nobody/knows:1.0}
";

pub fn unknown_image_hurts_no_other(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply(UNKNOWN)?;
    let said = eventually(Duration::from_secs(20), "the pod says what is wrong", || {
        let text = mesh.ctl(&["local", "get", "pods", "-n", "e2e"])?;
        let line = text
            .lines()
            .find(|line| line.starts_with("unknown-image"))
            .context("it is not listed")?
            .to_owned();
        ensure!(line.contains("ImageNotFound"), "{line}");
        Ok(line)
    });
    let page = mesh.page("/productpage", &[]);
    mesh.ctl(&["local", "delete", "pod", "unknown-image", "-n", "e2e"])?;
    said?;
    ensure!(page?.status == 200, "the page suffers");
    Ok(())
}
