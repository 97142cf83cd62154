//! `mesh-pilot`: the control plane of the mesh.

use clap::Parser;
use mesh_pilot::{app, settings::Settings};

/// Thousands of proxies come and go, and each needs much more memory for its first second than later: it is given back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let log = mesh_runtime::log::init("pilot", &settings.log_level, settings.log_format)?;
    app::run(settings, log).await?;
    Ok(())
}
