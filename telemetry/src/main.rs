//! `mesh-telemetry`: gathers what proxies report, rolls it up, shows it.

use clap::Parser;
use mesh_telemetry::{app, settings::Settings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let log = mesh_runtime::log::init("telemetry", &settings.log_level, settings.log_format)?;
    app::run(settings, log).await
}
