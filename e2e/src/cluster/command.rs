//! The command line of `mesh-cluster`.

use super::{
    Cluster, Options, image,
    layout::{DEFAULT_DIR, Layout},
    machine, relay, start,
};
use crate::{need, process::run};
use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

#[derive(Debug, Parser)]
#[command(
    name = "mesh-cluster",
    about = "A real Kubernetes cluster on this machine, in network namespaces of its own"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Verb,
    /// The folder of the cluster; two folders are two clusters.
    #[arg(long, global = true, env = "GOSSAMER_CLUSTER_DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster and wait until it is ready.
    Up {
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// The port of 127.0.0.1 for the API server; any that is free, if not given.
        #[arg(long)]
        api_port: Option<u16>,
        /// Do not load this project's images.
        #[arg(long)]
        no_images: bool,
        /// The build profile whose programs go into the images: `debug` or `release`.
        #[arg(long, default_value = "debug")]
        profile: String,
    },
    /// Take the cluster down; nothing of it is left.
    Down,
    /// Show what runs.
    Status,
    /// Make images of this project's programs; all of them, if none is named.
    Images {
        names: Vec<String>,
        #[arg(long, default_value = "debug")]
        profile: String,
    },
    /// Load images into every node: the name of one of this project's, which is made anew if its program has changed, or a file.
    Load {
        #[arg(required = true)]
        images: Vec<String>,
        #[arg(long, default_value = "debug")]
        profile: String,
    },
    /// Run a command inside a machine: `control`, `node-1`, …
    Exec {
        machine: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        line: Vec<String>,
    },
    /// Run `kubectl` for this cluster.
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        line: Vec<String>,
    },
    /// Lead a port of 127.0.0.1 to ADDRESS:PORT or NAMESPACE/SERVICE:PORT in the cluster, until interrupted.
    Forward {
        target: String,
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// End a program of a machine and keep it ended.
    Halt { machine: String, program: String },
    /// Start a halted program again.
    Resume { machine: String, program: String },
    /// Inside: starts a machine.
    #[command(hide = true)]
    MachineLaunch {
        #[arg(long)]
        name: String,
    },
    /// Inside: the first process of a machine.
    #[command(hide = true)]
    Machine {
        #[arg(long)]
        name: String,
    },
    /// Inside: carries connections into the cluster.
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        port: u16,
        /// Go on when the terminal goes.
        #[arg(long)]
        detach: bool,
        target: SocketAddr,
    },
}

pub fn execute(arguments: Arguments) -> anyhow::Result<()> {
    let dir = arguments.dir;
    match arguments.command {
        Verb::Up {
            nodes,
            api_port,
            no_images,
            profile,
        } => up(&dir, nodes, api_port, (!no_images).then_some(profile.as_str())),
        Verb::Down => {
            Cluster::remove(&dir)?;
            println!(
                "nothing of the cluster in {} is left",
                Layout::new(&dir)?.dir.display()
            );
            Ok(())
        }
        Verb::Status => status(&Cluster::open(&dir)?),
        Verb::Images { names, profile } => images(&names, &profile),
        Verb::Load { images, profile } => load(&Cluster::open(&dir)?, &images, &profile),
        Verb::Exec { machine, line } => become_command(Cluster::open(&dir)?.node_command(&machine, line)?),
        Verb::Kubectl { line } => become_command(Cluster::open(&dir)?.kubectl(line)),
        Verb::Forward { target, port } => {
            let target = Cluster::open(&dir)?.resolve(&target)?;
            relay::run(&Layout::new(&dir)?, port, target)
        }
        Verb::Halt { machine, program } => Cluster::open(&dir)?.halt(&machine, &program),
        Verb::Resume { machine, program } => Cluster::open(&dir)?.resume(&machine, &program),
        Verb::MachineLaunch { name } => machine::launch(&Layout::new(&dir)?, &name),
        Verb::Machine { name } => machine::run(&Layout::new(&dir)?, &name),
        Verb::Relay { port, detach, target } => {
            if detach {
                // Fails only for the leader of a group, who has no terminal to lose.
                let _ = nix::unistd::setsid();
            }
            relay::run(&Layout::new(&dir)?, port, target)
        }
    }
}

fn up(dir: &Path, nodes: u8, api_port: Option<u16>, profile: Option<&str>) -> anyhow::Result<()> {
    need::root()?;
    let mut images = Vec::new();
    if let Some(profile) = profile {
        for recipe in &image::PROJECT {
            images.push(made(recipe, profile)?);
        }
    }
    let options = Options {
        dir: dir.to_owned(),
        nodes,
        api_port,
        images,
    };
    let cluster = Cluster::start(&options, &|text| println!("{text}"))?.left_running();
    println!("\nexport KUBECONFIG={}", cluster.kubeconfig().display());
    println!(
        "kubectl of the same version: {}",
        cluster.kubernetes.join("kubectl").display()
    );
    Ok(())
}

fn made(recipe: &image::Recipe, profile: &str) -> anyhow::Result<image::Image> {
    let binaries = need::binaries()?.with_file_name(profile);
    let image = image::build(recipe, &binaries)?;
    let size = std::fs::metadata(&image.archive)?.len() as f64 / 1e6;
    let word = if image.fresh { "made" } else { "unchanged" };
    println!(
        "{word:9} {} ({size:.1} MB, {})",
        image.reference,
        image.archive.display()
    );
    Ok(image)
}

/// `proxy`, `gossamer/proxy` and `gossamer/proxy:0.1.0` are the same image.
fn recipe(name: &str) -> anyhow::Result<&'static image::Recipe> {
    let mut all = image::PROJECT.iter().chain(&image::CLUSTER);
    all.find(|recipe| {
        let reference = recipe.reference();
        let short = reference.trim_start_matches("docker.io/");
        [recipe.name, &reference, short].contains(&name)
            || short.rsplit_once(':').is_some_and(|(bare, _)| bare == name)
    })
    .with_context(|| {
        let names: Vec<_> = image::PROJECT.iter().map(|recipe| recipe.name).collect();
        format!(
            "there is neither a file nor an image {name}; images are {}",
            names.join(", ")
        )
    })
}

fn images(names: &[String], profile: &str) -> anyhow::Result<()> {
    if names.is_empty() {
        for recipe in &image::PROJECT {
            made(recipe, profile)?;
        }
    }
    for name in names {
        made(recipe(name)?, profile)?;
    }
    Ok(())
}

fn load(cluster: &Cluster, images: &[String], profile: &str) -> anyhow::Result<()> {
    for name in images {
        let archive = if Path::new(name).is_file() {
            PathBuf::from(name)
        } else {
            made(recipe(name)?, profile)?.archive
        };
        cluster.load_image(&archive)?;
        println!("loaded    {name} into {}", cluster.nodes().join(", "));
    }
    Ok(())
}

fn status(cluster: &Cluster) -> anyhow::Result<()> {
    let mut healthy = true;
    for machine in cluster.machines() {
        let pid = cluster.pid(&machine);
        healthy &= pid.is_ok();
        let state = pid.map_or_else(|_| "does not run".to_owned(), |pid| format!("process {pid}"));
        println!("{} ({state}, logs in {})", machine.name, machine.logs().display());
        for program in machine::programs(&machine)? {
            let runs = start::runs(&machine, &program);
            let held = machine.hold(&program.name).exists();
            healthy &= runs || held;
            let state = match (runs, held) {
                (true, _) => "running",
                (false, true) => "halted",
                (false, false) => "not running",
            };
            println!("  {:24} {state}", program.name);
        }
    }
    println!("\nexport KUBECONFIG={}", cluster.kubeconfig().display());
    print!(
        "{}",
        run(
            cluster.kubectl(["get", "nodes", "--output", "wide"]),
            None,
            super::PATIENCE
        )?
        .said()
    );
    ensure!(healthy, "something does not run; its log says why");
    Ok(())
}

/// Standard input and output, signals and the exit code are the command's own.
fn become_command(mut line: std::process::Command) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let error = line.exec();
    Err(error).with_context(|| format!("cannot run {}", line.get_program().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_several_names() {
        for name in [
            "proxy",
            "gossamer/proxy",
            "gossamer/proxy:0.1.0",
            "docker.io/gossamer/proxy:0.1.0",
        ] {
            assert_eq!(recipe(name).unwrap().name, "proxy");
        }
        assert!(
            recipe("proxi")
                .unwrap_err()
                .to_string()
                .contains("images are proxy, ")
        );
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
