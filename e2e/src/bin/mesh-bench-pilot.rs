//! `make bench-pilot`; see `mesh_e2e::bench_pilot`.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    mesh_e2e::bench_pilot::run(mesh_e2e::bench_pilot::Settings::parse())
}
