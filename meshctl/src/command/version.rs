//! `meshctl version`: of this program, and of the mesh that runs.

use crate::{context::Context, output};

pub async fn run(context: &Context) -> anyhow::Result<i32> {
    let info = mesh_runtime::build::info();
    output::line(&format!(
        "meshctl: {} ({}, {}/{})",
        info.version, info.profile, info.os, info.arch
    ));
    match context.client.status().await {
        Ok(status) => output::line(&format!("mesh: {} in {}", status.version, status.dir)),
        Err(_) => output::line("mesh: none is running here"),
    }
    Ok(0)
}
