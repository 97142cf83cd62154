//! The test application; see `mesh_e2e::app`.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    mesh_e2e::app::run(mesh_e2e::app::Arguments::parse())
}
