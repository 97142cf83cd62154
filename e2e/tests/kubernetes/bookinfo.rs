//! Point 1: Bookinfo, by `meshctl install`, a label and `kubectl apply`: its pods have sidecars, and every lesson is as on one machine.

use anyhow::{Context, ensure};
use mesh_e2e::{
    expect,
    installed::{Installed, SYSTEM},
    mesh::is_ready,
};

/// `READY 2/2`: the application and, as a sidecar among its init containers, the proxy.
pub fn sidecars_by_themselves(mesh: &mut Installed) -> anyhow::Result<()> {
    let pods = mesh.list("pods", Some("default"))?;
    ensure!(pods.len() >= 6, "Bookinfo has six pods: {}", pods.len());
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let text = mesh.kubectl_ok(&["get", "pod", name, "-n", "default", "--no-headers"])?;
        ensure!(is_ready(&pod) && text.contains("2/2"), "{text}");
        let inits = pod["spec"]["initContainers"]
            .as_array()
            .context("no init containers")?;
        let sidecar = inits.iter().find(|container| container["name"] == "istio-proxy");
        ensure!(
            sidecar.is_some_and(|container| container["restartPolicy"] == "Always"),
            "{name}: {inits:?}"
        );
    }
    Ok(())
}

/// Every proxy has everything, and `meshctl analyze` has nothing to say.
pub fn proxies_are_synced(mesh: &mut Installed) -> anyhow::Result<()> {
    let text = mesh.ctl(&["proxy-status"])?;
    for name in ["productpage-v1", "reviews-v3", "istio-ingressgateway"] {
        let line = text.lines().find(|line| line.contains(name));
        let line = line.with_context(|| format!("no {name} in\n{text}"))?;
        ensure!(line.contains("SYNCED") && !line.contains("STALE"), "{line}");
    }
    // The test application leaves ports to be found out on purpose, which is worth a word.
    for namespace in ["default", SYSTEM] {
        let said = mesh.ctl_said(&["analyze", "-n", namespace])?;
        ensure!(
            said.code == Some(0) && said.said().contains("No validation issues found"),
            "{}",
            said.said()
        );
    }
    Ok(())
}

/// Each as `samples/bookinfo/expect` describes it.
pub fn lessons(mesh: &mut Installed) -> anyhow::Result<()> {
    for lesson in expect::lessons()? {
        let begin = std::time::Instant::now();
        expect::run(mesh, &lesson.name)?;
        println!(
            "  lesson {} ({:.1} s)",
            lesson.name,
            begin.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
