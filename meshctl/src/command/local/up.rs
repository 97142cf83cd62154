//! `meshctl local up`: checks the machine, starts the supervisor, hands it the control plane, and tells what happens until
//! everything is ready.

use std::{
    fs::OpenOptions,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_proto::{
    finding::{Finding, ObjectRef, Report},
    mesh::MeshConfig,
    names::{MESH_CONFIG_MAP, SYSTEM_NAMESPACE},
};

use super::{
    apply,
    get::columns::{name, pod_status},
    rollout::is_complete,
};
use crate::{
    context::{self, Context},
    local::{
        client::Client,
        install,
        manifest::Parsed,
        node::{self, Options},
        platform::{DEFAULT_DIR, Layout},
        requirements,
        store::write_atomically,
    },
    output,
};

const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(30);
const GATEWAY_PORT: u16 = 8080;
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub struct Arguments {
    /// Port on 127.0.0.1 that leads to the ingress gateway, HTTP and HTTPS; 0 for none [default: 8080]
    #[arg(long)]
    pub gateway_port: Option<u16>,
    /// Which program stands for an image
    #[arg(long, value_name = "NAME=PROGRAM [ARGS]")]
    pub image: Vec<String>,
    /// Life of certificates, such as 60s
    #[arg(long, value_name = "DURATION")]
    pub cert_ttl: Option<String>,
    /// Settings of the mesh (MeshConfig, YAML)
    #[arg(long, value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
    /// Values of the control plane: certTtl, logLevel, pilotReplicas, gatewayReplicas
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Seconds to wait until everything is ready
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
    /// Only the platform: pods, services, DNS, and no mesh
    #[arg(long, hide = true)]
    pub without_control_plane: bool,
}

impl Arguments {
    fn wanted_port(&self) -> Option<u16> {
        Some(self.gateway_port.unwrap_or(GATEWAY_PORT)).filter(|port| *port != 0)
    }
}

pub async fn run(mut arguments: Arguments, dir: Option<&Path>) -> anyhow::Result<i32> {
    let begin = Instant::now();
    let missing = requirements::check();
    if !missing.is_empty() {
        bail!(requirements::report(&missing));
    }
    let mesh_config = match &arguments.mesh_config {
        Some(file) => Some(
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?,
        ),
        None => None,
    };
    if let Some(ttl) = &arguments.cert_ttl {
        arguments.set.push(format!("certTtl={ttl}"));
    }
    if let Some(text) = &mesh_config {
        refuse_bad_settings(text)?;
    }
    apply::images(&arguments.image)?;
    // The folder comes first: a platform's names are made from its real path.
    let folder = dir.unwrap_or(Path::new(DEFAULT_DIR));
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let layout = context::layout(dir)?;
    let values = install::values(&arguments.set, &layout.dir.to_string_lossy())?;
    let context = Context {
        client: Client::new(layout.clone()),
    };
    let gateway_port = if node::is_running(&layout) {
        running(&context, &arguments).await?
    } else {
        start(&layout, &arguments, &context.client).await?;
        output::line(&format!(
            "node       up in {} ({})",
            seconds(begin),
            layout.node_namespace()
        ));
        arguments.wanted_port()
    };
    apply::add_images(&arguments.image, &context).await?;
    if arguments.without_control_plane {
        return Ok(0);
    }
    let known = context
        .objects("configmap", SYSTEM_NAMESPACE, MESH_CONFIG_MAP)
        .await
        .is_ok();
    let mut documents = if known && mesh_config.is_none() {
        Vec::new()
    } else {
        install::mesh_config(mesh_config.as_deref())
    };
    documents.extend(install::control_plane(&values));
    install_objects(documents, &context).await?;
    wait(&context, begin, Duration::from_secs(arguments.timeout)).await?;
    next_steps(gateway_port, &layout, begin);
    Ok(0)
}

/// A mesh is not begun with settings that pilot would not take.
fn refuse_bad_settings(text: &str) -> anyhow::Result<()> {
    let mut report = Report::new(
        ObjectRef::new("ConfigMap", SYSTEM_NAMESPACE, MESH_CONFIG_MAP),
        None,
    );
    MeshConfig::parse(text, &mut report);
    match report.findings.into_iter().find(Finding::is_error) {
        Some(finding) => bail!("--mesh-config: {finding}"),
        None => Ok(()),
    }
}

fn seconds(begin: Instant) -> String {
    format!("{:.1} s", begin.elapsed().as_secs_f64())
}

/// A mesh that is up already keeps its port, which is returned.
async fn running(context: &Context, arguments: &Arguments) -> anyhow::Result<Option<u16>> {
    let status = context.client.status().await?;
    if arguments.gateway_port.is_some() && status.gateway_port != arguments.wanted_port() {
        let port = status
            .gateway_port
            .map_or_else(|| "no port".to_owned(), |port| format!("port {port}"));
        bail!("the mesh is up with {port} for its gateway; `meshctl local down` first to change that");
    }
    output::line("node       is up already");
    Ok(status.gateway_port)
}

async fn start(layout: &Layout, arguments: &Arguments, client: &Client) -> anyhow::Result<()> {
    let options = Options {
        gateway_port: arguments.wanted_port(),
    };
    let path = layout.run().join("options.json");
    write_atomically(&path, &serde_json::to_vec(&options)?, 0o600)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    let _ = std::fs::remove_file(layout.socket());
    let log_file = layout.node_log();
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&log_file)?;
    let mut supervisor = Command::new("/proc/self/exe")
        .arg0("meshctl")
        .arg("--dir")
        .arg(&layout.dir)
        .args(["local", "node", "--options"])
        .arg(&path)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("the supervisor cannot be started")?;
    let end = Instant::now() + SUPERVISOR_PATIENCE;
    while client.status().await.is_err() {
        if let Some(status) = supervisor.try_wait()? {
            bail!("the supervisor ended ({status}):\n{}", tail(&log_file, 8));
        }
        if Instant::now() > end {
            give_up(&mut supervisor);
            bail!(
                "the supervisor does not answer; its log ({}):\n{}",
                log_file.display(),
                tail(&log_file, 8)
            );
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn give_up(supervisor: &mut Child) {
    let _ = supervisor.kill();
    let _ = supervisor.wait();
}

fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Applies the control plane without a line for each object.
async fn install_objects(
    documents: Vec<crate::local::manifest::Document>,
    context: &Context,
) -> anyhow::Result<()> {
    use crate::local::control::{ApplyRequest, Sourced};
    let parsed = Parsed {
        documents,
        malformed: Vec::new(),
    };
    let objects = parsed
        .documents
        .into_iter()
        .map(|one| Sourced {
            object: one.object,
            source: one.source,
        })
        .collect();
    let request = ApplyRequest {
        objects,
        namespace: SYSTEM_NAMESPACE.to_owned(),
    };
    for applied in context.client.apply(&request).await? {
        for finding in &applied.findings {
            eprintln!("warning: {finding}");
        }
        if let Some(error) = applied.error {
            bail!("the control plane cannot be installed: {error}");
        }
    }
    Ok(())
}

/// One line for each part when it is ready.
async fn wait(context: &Context, begin: Instant, timeout: Duration) -> anyhow::Result<()> {
    let end = begin + timeout;
    let mut waiting: Vec<&str> = install::DEPLOYMENTS.to_vec();
    loop {
        for deployment in context.objects("deployment", SYSTEM_NAMESPACE, "").await? {
            let own = name(&deployment).to_owned();
            if waiting.contains(&own.as_str()) && is_complete(&deployment) {
                waiting.retain(|other| *other != own);
                output::line(&format!("{:<10} ready in {}", short(&own), seconds(begin)));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "not ready after {} s:\n{}",
                timeout.as_secs(),
                explain(context, &waiting).await
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

fn short(deployment: &str) -> &str {
    if deployment == "istio-ingressgateway" {
        "gateway"
    } else {
        deployment
    }
}

/// For each part that is not ready: how its pods are, and the end of what they wrote.
async fn explain(context: &Context, waiting: &[&str]) -> String {
    let pods = context
        .objects("pod", SYSTEM_NAMESPACE, "")
        .await
        .unwrap_or_default();
    let mut text = String::new();
    for part in waiting {
        let own = pods
            .iter()
            .filter(|pod| pod["metadata"]["labels"]["app"] == *part);
        for pod in own {
            let (status, message) = pod_status(pod);
            text.push_str(&format!("  {}: {status} {message}\n", name(pod)));
            let folder = context.client.layout.pod(SYSTEM_NAMESPACE, name(pod));
            for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
                let log =
                    crate::local::pod::log::path(&folder, container["name"].as_str().unwrap_or_default());
                for line in tail(&log, 5).lines() {
                    text.push_str(&format!("    | {line}\n"));
                }
            }
        }
    }
    text.push_str("more: `meshctl local get pods -A -o wide`, `meshctl local logs POD -n istio-system`");
    text
}

fn next_steps(gateway_port: Option<u16>, layout: &Layout, begin: Instant) {
    let dir = if layout.dir == Path::new(DEFAULT_DIR) {
        String::new()
    } else {
        format!(" --dir {}", layout.dir.display())
    };
    output::line(&format!("\nThe mesh is up ({}). Next:", seconds(begin)));
    output::line("  label a namespace istio-injection=enabled, so that its pods get sidecars");
    output::line(&format!(
        "  meshctl{dir} local apply -f samples/bookinfo/bookinfo.yaml"
    ));
    output::line(&format!("  meshctl{dir} local get pods"));
    if let Some(port) = gateway_port {
        output::line(&format!(
            "  curl http://127.0.0.1:{port}/   (after a Gateway and a VirtualService)"
        ));
    }
    output::line(&format!("  meshctl{dir} dashboard"));
}
