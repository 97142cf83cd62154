//! The ports that our proxy has for everybody, in front of Envoy's admin pages, which stay on loopback: metrics of Envoy, of the
//! agent and of the application (15020; without the application's on 15090), health (15021), and the application's probes.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use http::Method;
use mesh_proto::names::port;
use mesh_runtime::{
    drain,
    http::{Pages, serve_on},
    metrics::Registry,
};
use tokio::{net::TcpListener, sync::mpsc};

use super::child;
use crate::{
    admin::{Command, merge, merge::Application},
    app::mesh,
    observe::{Stats, stats},
    settings::ProxyArgs,
};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the pages read.
struct Agent {
    /// Envoy's pages.
    envoy: SocketAddr,
    registry: Registry,
    stats: Stats,
    commands: mpsc::Sender<Command>,
}

/// Listens on all three ports; they stay until the process ends.
pub async fn serve(
    args: &ProxyArgs,
    commands: mpsc::Sender<Command>,
    registry: Registry,
    stats: Stats,
) -> anyhow::Result<()> {
    let agent = Arc::new(Agent {
        envoy: args.admin_address,
        registry,
        stats,
        commands,
    });
    for own in [port::METRICS, port::HEALTH, port::STATS] {
        let address = SocketAddr::from(([0, 0, 0, 0], own));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let public = own == port::METRICS;
        let mut pages = pages(&agent, mesh::application(args).filter(|_| public));
        if public {
            for (path, probe) in mesh::probes(args).all() {
                let probe = probe.clone();
                pages = pages.get(path, "a probe of the application", move || {
                    let probe = probe.clone();
                    async move { probe.ask().await }
                });
            }
        }
        // A drain that never comes: the process ends under these pages.
        tokio::spawn(serve_on(listener, pages, drain::channel().1));
    }
    Ok(())
}

fn pages(agent: &Arc<Agent>, application: Option<Application>) -> Pages {
    let pages = ["/stats/prometheus", "/metrics"]
        .into_iter()
        .fold(Pages::new(), |pages, path| {
            let (agent, application) = (agent.clone(), application.clone());
            pages.get(path, "numbers for Prometheus", move |headers: HeaderMap| async move {
                metrics(&agent, application.as_ref(), &headers).await
            })
        });
    let health = agent.clone();
    let quit = agent.clone();
    pages
        .get("/healthz/ready", "200 when Envoy is ready", move || async move {
            ready(&health).await
        })
        .post_local("/quitquitquit", "drain and leave", move || async move {
            match quit.commands.try_send(Command::Quit) {
                Ok(()) => "OK\n".into_response(),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "already leaving\n").into_response(),
            }
        })
}

/// As Envoy says it.
async fn ready(agent: &Agent) -> Response {
    match child::page(agent.envoy, Method::GET, "/ready").await {
        Ok((status, text)) => (status, text).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Envoy's numbers, then the agent's, then the application's. An Envoy that does not answer costs its own.
async fn metrics(agent: &Agent, application: Option<&Application>, headers: &HeaderMap) -> Response {
    let mut page = match child::page(agent.envoy, Method::GET, "/stats/prometheus").await {
        Ok((_, text)) => text,
        Err(why) => {
            tracing::warn!(%why, "Envoy's metrics are missing");
            String::new()
        }
    };
    let mut names = agent.stats.collect();
    names.retain(|sample| sample.text_name().starts_with("dns."));
    merge::add(&mut page, &stats::prometheus(&names));
    merge::add(&mut page, &agent.registry.encode());
    if let Some(application) = application {
        application.append(&mut page, headers).await;
    }
    ([(header::CONTENT_TYPE, PROMETHEUS)], page).into_response()
}
