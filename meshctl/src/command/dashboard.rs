//! `meshctl dashboard [PAGE]`: a port on this machine's loopback that leads to a page inside the mesh, until interrupted.
//! Bound: 256 connections.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use mesh_proto::{kube::Kind, names::port};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{context::Mesh, local::object, output, reach::Link};

const MAX_CONNECTIONS: usize = 256;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Which page
    #[arg(value_enum, default_value_t)]
    pub page: Page,
    /// With `proxy`: POD, POD.NAMESPACE or deployment/NAME
    pub pod: Option<String>,
    /// Port on this machine; 0 takes any free one [default: the page's own]
    #[arg(short, long, visible_alias = "ui-port")]
    pub port: Option<u16>,
    /// Address of this machine to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub address: IpAddr,
    /// Open it with the browser of this desktop
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub browser: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// The mesh's own: who talks to whom, and how well
    #[default]
    Mesh,
    /// The admin pages of a proxy
    #[value(alias = "envoy")]
    Proxy,
    /// Pilot's debug pages
    #[value(aliases = ["istiod-debug", "controlz", "istiod"])]
    Pilot,
    Citadel,
    Telemetry,
    /// Addons, if they are installed
    Prometheus,
    Grafana,
    Jaeger,
}

impl Page {
    /// The label `app` of the pods behind it, and their port.
    fn place(self) -> (&'static str, u16) {
        match self {
            Self::Mesh => ("telemetry", port::DASHBOARD),
            Self::Proxy => ("", port::ADMIN),
            Self::Pilot => ("pilot", port::CONTROL),
            Self::Citadel => ("citadel", port::CONTROL),
            Self::Telemetry => ("telemetry", port::CONTROL),
            Self::Prometheus => ("prometheus", 9090),
            Self::Grafana => ("grafana", 3000),
            Self::Jaeger => ("jaeger", 16686),
        }
    }
}

pub async fn run(arguments: Arguments, mesh: &Mesh) -> anyhow::Result<i32> {
    let (app, inside) = arguments.page.place();
    let pod = match (&arguments.pod, arguments.page) {
        (Some(written), Page::Proxy) => mesh.pod(written).await?,
        (None, Page::Proxy) => bail!("say whose: meshctl dashboard proxy POD"),
        (Some(_), _) => bail!("only `dashboard proxy` takes a pod"),
        (None, _) => pod_of(mesh, app).await?,
    };
    let way = mesh.way(&pod);
    // Proxies are many, and 15000 may well be taken by one that runs here.
    let wanted = arguments.port.unwrap_or(if app.is_empty() { 0 } else { inside });
    let listener = TcpListener::bind((arguments.address, wanted))
        .await
        .with_context(|| {
            format!(
                "{}:{wanted} cannot be opened; choose another with --port",
                arguments.address
            )
        })?;
    let url = format!("http://{}/", listener.local_addr()?);
    output::line(&format!("dashboard: {url}   (Ctrl-C ends it)"));
    if arguments.browser {
        open(&url);
    }
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let serve = async {
        loop {
            let permit = permits.clone().acquire_owned().await?;
            let (mut client, _) = listener.accept().await?;
            let way = way.clone();
            tokio::spawn(async move {
                match way.connect(inside).await {
                    Ok(Link { mut stream, trouble }) => {
                        let copy = tokio::io::copy_bidirectional(&mut client, &mut stream);
                        tokio::select! {
                            // Either side may end at any time: that is how pages are left.
                            _ = copy => {}
                            Some(text) = trouble => eprintln!("meshctl: port {inside} of the pod: {text}"),
                        }
                    }
                    Err(error) => eprintln!("meshctl: the page does not answer: {error:#}"),
                }
                drop(permit);
            });
        }
    };
    tokio::select! {
        result = serve => result,
        _ = tokio::signal::ctrl_c() => Ok(0),
    }
}

/// A pod of the control plane, or of an addon (which are labelled in one of two ways).
async fn pod_of(mesh: &Mesh, app: &str) -> anyhow::Result<Value> {
    let pods = mesh.objects(Kind::Pod, &mesh.system, "").await?;
    let is = |pod: &&Value| {
        let labels = &pod["metadata"]["labels"];
        let named = labels["app"] == app || labels["app.kubernetes.io/name"] == app;
        named
            && object::text(pod, "/status/phase") == "Running"
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    match pods.iter().find(is) {
        Some(pod) => Ok(pod.clone()),
        None => bail!(
            "no pod of {app} is running in namespace {} of {mesh}; name another namespace with --istioNamespace",
            mesh.system
        ),
    }
}

/// A desktop's own way; without a desktop the address is printed anyway.
fn open(url: &str) {
    let opened = std::process::Command::new("xdg-open")
        .arg(url)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    if let Err(error) = opened {
        eprintln!("meshctl: no browser can be opened here (xdg-open: {error}); the address is above");
    }
}
