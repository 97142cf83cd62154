//! `mesh-pilot`: the control plane of the mesh.

use clap::Parser;
use mesh_pilot::{app, settings::Settings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let log = mesh_runtime::log::init("pilot", &settings.log_level, settings.log_format)?;
    app::run(settings, log).await?;
    Ok(())
}
