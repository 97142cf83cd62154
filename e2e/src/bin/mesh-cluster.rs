//! A Kubernetes cluster for tests; see `mesh_e2e::cluster`.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    mesh_e2e::cluster::command::execute(mesh_e2e::cluster::command::Arguments::parse())
}
