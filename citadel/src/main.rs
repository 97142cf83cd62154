//! `mesh-citadel`: the certificate authority of the mesh.

use clap::Parser;
use mesh_citadel::{app, settings::Settings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let log = mesh_runtime::log::init("citadel", &settings.log_level, settings.log_format)?;
    app::run(settings, log).await
}
