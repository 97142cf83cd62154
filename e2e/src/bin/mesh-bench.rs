//! `make bench`; see `mesh_e2e::bench`.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    mesh_e2e::bench::run(&mesh_e2e::bench::Settings::parse())
}
