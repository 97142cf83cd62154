//! Starting a cluster, in the order in which its parts need each other, and waiting for each with a limit. What can go on at the
//! same time does: images are loaded while the API server starts. If a part does not come, the error has what every program
//! said last, and everything is removed again.

use super::{
    Cluster, Options, clean,
    image::{self, Image},
    layout::{API_PORT, CONTROL, CONTROL_ADDRESS, Layout, MAX_NODES, Shape, node_name},
    machine, network, pki,
    programs::{self, Tools},
};
use crate::{
    mesh::free_port,
    need,
    process::{command, eventually, run},
};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// On a busy machine of two cores; on a quiet one the whole takes about ten seconds.
const SETUP: Duration = Duration::from_secs(10);
const API: Duration = Duration::from_secs(120);
const NODES: Duration = Duration::from_secs(120);
const DNS: Duration = Duration::from_secs(120);
const DNS_MANIFEST: &str = include_str!("../../kubernetes/dns.yaml");
/// Measured: the API server and the controllers watch their certificates, a kubelet its files.
const WATCHES_OF_CONTROL: usize = 16;
const WATCHES_OF_NODE: usize = 10;
/// Between two questions by `kubectl`, each of which costs a tenth of a second of computing.
const PAUSE: Duration = Duration::from_millis(150);
/// Started when the API server answers: what finds no API server asks again only after a while.
const AFTER_API: [&str; 2] = ["kubelet", "kube-proxy"];

pub fn start(options: &Options, say: &dyn Fn(&str)) -> anyhow::Result<Cluster> {
    need::root()?;
    ensure!(
        (1..=MAX_NODES).contains(&options.nodes),
        "a cluster has 1 to {MAX_NODES} nodes, not {}",
        options.nodes
    );
    let layout = Layout::new(&options.dir)?;
    let tools = Tools::find()?;
    ensure!(
        fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("overlay")),
        "the kernel has no `overlay` file system, which containerd keeps containers in"
    );
    let mut images = Vec::new();
    for recipe in &image::CLUSTER {
        images.push(image::build(recipe, &need::binaries()?)?);
    }
    images.extend(options.images.iter().cloned());
    refuse_second(&layout)?;
    clean::everything(&layout)?;
    enough_watches(options.nodes)?;

    let begin = Instant::now();
    let shape = Shape {
        nodes: options.nodes,
        api_port: options.api_port.map_or_else(free_port, Ok)?,
    };
    let cluster = Cluster {
        shape,
        kubernetes: tools.kubernetes.clone(),
        layout,
        owned: true,
    };
    let say = |text: &str| say(&format!("{:5.1} s  {text}", begin.elapsed().as_secs_f64()));
    bring_up(&cluster, &tools, &images, &say).map_err(|error| error.context(cluster.diagnose()))?;
    Ok(cluster)
}

/// The kernel gives one user so many `inotify` instances, usually 128, and without one a kubelet does not start. That is said before
/// the start: four clusters, or one beside a desktop, use them up.
fn enough_watches(nodes: u8) -> anyhow::Result<()> {
    let setting = "/proc/sys/fs/inotify/max_user_instances";
    let text = fs::read_to_string(setting).with_context(|| format!("cannot read {setting}"))?;
    let limit: usize = text
        .trim()
        .parse()
        .with_context(|| format!("{setting} is no number"))?;
    let used = watches_in_use();
    let needed = WATCHES_OF_CONTROL + usize::from(nodes) * WATCHES_OF_NODE;
    ensure!(
        used + needed <= limit,
        "this cluster needs {needed} inotify instances, and {used} of the {limit} that one user may have are in use: take another \
         cluster down, or `sysctl -w fs.inotify.max_user_instances=1024`"
    );
    Ok(())
}

/// Those of root's processes, as far as they can be seen.
fn watches_in_use() -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_root = entries.filter(|entry| entry.metadata().is_ok_and(|data| data.uid() == 0));
    let files = of_root.flat_map(|entry| {
        fs::read_dir(entry.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
    });
    files
        .filter(|file| fs::read_link(file.path()).is_ok_and(|link| link == Path::new("anon_inode:inotify")))
        .count()
}

fn refuse_second(layout: &Layout) -> anyhow::Result<()> {
    let alive = network::namespaces(layout)
        .iter()
        .any(|name| !network::members(name).is_empty());
    if alive && layout.shape_file().exists() {
        bail!(
            "a cluster runs in {0} already: `mesh-cluster status --dir {0}` shows it, `down` ends it",
            layout.dir.display()
        );
    }
    Ok(())
}

fn bring_up(cluster: &Cluster, tools: &Tools, images: &[Image], say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let (layout, shape) = (&cluster.layout, &cluster.shape);
    prepare(layout, tools, shape)?;
    network::create(layout, shape.nodes)?;
    say("machines: network namespaces, certificates and configuration are there");
    for machine in cluster.machines() {
        let mut line = command(
            need::binary("mesh-cluster")?,
            ["machine-launch", "--name", &machine.name],
        );
        line.arg("--dir").arg(&layout.dir);
        run(line, None, SETUP)?.ok()?;
    }
    for machine in cluster.machines() {
        let set_up = eventually(SETUP, "it is set up", || {
            ensure!(
                machine.ready().exists(),
                "{} is not there",
                machine.ready().display()
            );
            Ok(())
        });
        set_up.with_context(|| format!("machine {}", machine.name))?;
    }
    relay(cluster)?;

    let (own, others) = images.split_at(image::CLUSTER.len());
    std::thread::scope(|scope| {
        let loads = scope.spawn(|| load(cluster, own));
        eventually(API, "the API server is ready", || {
            unhurried(cluster.kubectl_ok(&["get", "--raw", "/readyz"]))
        })?;
        say("API server is ready");
        let early = || anyhow::anyhow!("loading images ended early");
        loads.join().unwrap_or_else(|_| Err(early()))?;
        // These are not needed for what follows.
        let loads = scope.spawn(|| load(cluster, others));
        let ready = nodes_and_dns(cluster, say);
        loads.join().unwrap_or_else(|_| Err(early()))?;
        ready
    })?;
    say(&format!("{} images are loaded", images.len()));
    Ok(())
}

fn nodes_and_dns(cluster: &Cluster, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    for name in cluster.nodes() {
        for program in AFTER_API {
            cluster.resume(&name, program)?;
        }
    }
    cluster.apply(DNS_MANIFEST).context("the cluster's DNS")?;
    eventually(NODES, "every node is ready", || unhurried(nodes_ready(cluster)))?;
    say(&format!("{} nodes are ready", cluster.shape.nodes));
    let rollout = [
        "rollout",
        "status",
        "deployment/coredns",
        "--namespace",
        "kube-system",
    ];
    run(cluster.kubectl(rollout), None, DNS)?
        .ok()
        .context("the cluster's DNS")?;
    say("DNS is ready");
    Ok(())
}

fn unhurried<T>(outcome: anyhow::Result<T>) -> anyhow::Result<T> {
    outcome.inspect_err(|_| std::thread::sleep(PAUSE))
}

/// Everything that is a file.
fn prepare(layout: &Layout, tools: &Tools, shape: &Shape) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&layout.dir)
        .with_context(|| format!("cannot make {}", layout.dir.display()))?;
    let path = layout.shape_file();
    fs::write(&path, serde_json::to_vec(shape)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    pki::write(layout, shape.nodes, shape.api_port)?;
    programs::describe(layout, tools, shape.nodes)?;
    for index in 1..=shape.nodes {
        for program in AFTER_API {
            fs::write(layout.machine(&node_name(index)).hold(program), "")?;
        }
    }
    Ok(())
}

/// From a port of the host to the API server.
fn relay(cluster: &Cluster) -> anyhow::Result<()> {
    let dir = &cluster.layout.dir;
    let log = fs::File::create(dir.join("relay.log"))?;
    let child = Command::new(need::binary("mesh-cluster")?)
        .args(["relay", "--detach", "--dir"])
        .arg(dir)
        .args(["--port", &cluster.shape.api_port.to_string()])
        .arg(format!("{CONTROL_ADDRESS}:{API_PORT}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the relay to the API server")?;
    fs::write(cluster.layout.relay_pid(), child.id().to_string())?;
    Ok(())
}

/// Into every node, as soon as its containerd answers.
fn load(cluster: &Cluster, images: &[Image]) -> anyhow::Result<()> {
    for node in cluster.nodes() {
        eventually(NODES, &format!("containerd of {node} answers"), || {
            cluster.node_exec(&node, &["ctr", "version"])?.ok()
        })?;
    }
    for image in images {
        cluster
            .load_image(&image.archive)
            .with_context(|| format!("loading {}", image.reference))?;
    }
    Ok(())
}

fn nodes_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let text = cluster.kubectl_ok(&["get", "nodes", "--output", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let nodes = list["items"].as_array().cloned().unwrap_or_default();
    let ready = nodes.iter().filter(|node| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True")
        })
    });
    let count = ready.count();
    ensure!(
        count == usize::from(cluster.shape.nodes),
        "{count} of {} nodes are ready; the control machine is {CONTROL}",
        cluster.shape.nodes
    );
    Ok(())
}

/// Is this program of the machine running?
pub fn runs(machine: &super::layout::Machine, program: &machine::Program) -> bool {
    machine.running(&program.name).exists()
}
