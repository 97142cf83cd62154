//! The times of the whole mesh on this machine: up to ready, apply to page, and from a changed rule to its effect.

use super::table::median;
use crate::{
    mesh::{BOOKINFO_NAMESPACE, Mesh},
    process::eventually,
    run::Fixture,
    site::Site,
};
use anyhow::ensure;
use std::time::{Duration, Instant};

const CHANGES: usize = 21;

fn rule(version: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\n\
         spec: {{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews, subset: {version}}}}}]}}]}}\n"
    )
}

pub fn times() -> anyhow::Result<String> {
    eprintln!("the whole mesh");
    let mesh = Mesh::prepare()?;
    let begin = Instant::now();
    mesh.up()?;
    let up = begin.elapsed();

    let begin = Instant::now();
    mesh.apply(BOOKINFO_NAMESPACE)?;
    mesh.apply_file("samples/bookinfo/bookinfo.yaml")?;
    mesh.apply_file("samples/bookinfo/networking/bookinfo-gateway.yaml")?;
    eventually(Duration::from_secs(90), "the whole page", || {
        let page = mesh.page("/productpage", &[])?;
        ensure!(
            page.status == 200 && !page.body.contains("Error fetching"),
            "{}",
            page.status
        );
        Ok(())
    })?;
    let page = begin.elapsed();

    mesh.apply_file("samples/bookinfo/networking/destination-rule-all.yaml")?;
    mesh.wait_ready()?;
    mesh.apply_acked(&rule("v1"))?;
    let mut effects = Vec::new();
    for i in 0..CHANGES {
        let version = if i % 2 == 0 { "v2" } else { "v1" };
        let wanted = format!("reviews-{version}-");
        let begin = Instant::now();
        mesh.apply(&rule(version))?;
        while !mesh
            .page("/api/v1/products/0/reviews", &[])?
            .body
            .contains(&wanted)
        {
            ensure!(
                begin.elapsed() < Duration::from_secs(20),
                "{version} does not come"
            );
        }
        effects.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    mesh.stop()?;
    let most = effects.iter().copied().fold(0.0, f64::max);
    let middle = median(effects).unwrap_or_default();
    Ok(format!(
        "### The mesh on this machine (development build)\n\n| | |\n|---|---|\n| `meshctl local up` to ready | {:.1} s |\n\
         | `apply` of Bookinfo to its whole page | {:.1} s |\n\
         | `meshctl local apply` of a rule to its effect, {CHANGES} times | median {middle:.0} ms, at most {most:.0} ms |\n\n",
        up.as_secs_f64(),
        page.as_secs_f64()
    ))
}
