//! `mesh-proxy agent`: the mesh's part beside a stock Envoy that is the data plane of a pod in our place. It gets the
//! certificate from citadel as our proxy does, and Envoy gets everything from it over one unix socket:
//!
//! | Module | |
//! | --- | --- |
//! | [`bootstrap`] | Envoy's bootstrap (pure) |
//! | [`secrets`] | SDS: `default` and `ROOTCA`, again at each change |
//! | [`relay`] | ADS: Envoy's stream to pilot, under our certificate; the name table stays here, for the DNS server |
//! | [`child`] | Envoy as a process, and its admin pages |
//! | [`pages`] | the ports for metrics and health |
//!
//! So the private key is in two processes and never on a disk, and pilot sees one proxy. On SIGTERM Envoy tells its peers to
//! go elsewhere while it still takes work, as our proxy does, and ends when nothing is in flight or time is up. When Envoy
//! ends by itself, the agent ends as it did.

use std::{os::unix::fs::PermissionsExt, process::ExitCode, time::Duration};

use anyhow::Context;
use mesh_proto::envoy::service::{
    discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
    secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer,
};
use mesh_runtime::{
    drain::{self, Drain, shutdown_signal},
    log,
    metrics::Registry,
    tls::IdentityCell,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

use crate::{
    admin::{self, Command},
    app::mesh,
    dns::Names,
    observe::Stats,
    settings::AgentArgs,
};

pub mod bootstrap;
pub mod child;
pub mod pages;
pub mod relay;
pub mod secrets;

use child::Envoy;

/// Files in the agent's folder.
const SOCKET: &str = "agent.sock";
const BOOTSTRAP: &str = "envoy.json";
/// What Envoy gets after SIGTERM, before it is killed.
const END: Duration = Duration::from_secs(5);

/// Runs until Envoy ends: by itself, or after SIGTERM, SIGINT or `/quitquitquit`.
pub async fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    let proxy = &args.proxy;
    let format = if proxy.log_as_json {
        log::Format::Json
    } else {
        log::Format::Text
    };
    // Kept: with it goes the way to change the level.
    let _log = log::init("mesh-agent", &proxy.log_level, format)?;
    let (trigger, drain) = drain::channel();
    let (identity, names, stats, registry) =
        (IdentityCell::new(), Names::new(), Stats::new(), Registry::new());
    let citadel = mesh::agent(proxy)?;
    citadel.register(&registry);
    tokio::spawn({
        let (identity, drain) = (identity.clone(), drain.clone());
        async move { citadel.run(identity, drain).await }
    });
    if proxy.dns_capture {
        mesh::serve_dns(&names, &stats, &drain);
    }
    let relay = relay::Relay::new(mesh::pilot(proxy, &identity), identity.clone(), proxy, names);
    let socket = args.folder.join(SOCKET);
    serve(&socket, relay, identity, drain.clone())?;
    let file = args.folder.join(BOOTSTRAP);
    let bootstrap = bootstrap::render(proxy, &socket);
    std::fs::write(&file, bootstrap.to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    let (commands, mut asked) = admin::commands();
    pages::serve(proxy, commands, registry, stats).await?;
    let mut envoy = Envoy::start(&args, &file)?;
    tokio::select! {
        status = envoy.ended() => return Ok(child::code(status?)),
        () = leave(&mut asked) => {}
    }
    trigger.drain();
    let code = tokio::select! {
        status = envoy.ended() => child::code(status?),
        () = child::settle(proxy) => child::code(envoy.end(END).await?),
    };
    Ok(code)
}

async fn leave(asked: &mut tokio::sync::mpsc::Receiver<Command>) {
    admin::wait_for_end(asked, shutdown_signal()).await;
}

/// Both services for Envoy, on a socket that nobody else may use.
fn serve(
    socket: &std::path::Path,
    relay: relay::Relay,
    identity: IdentityCell,
    drain: Drain,
) -> anyhow::Result<()> {
    let what = || format!("cannot listen on {}", socket.display());
    // What a process before this one has left.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(what),
        _ => {}
    }
    let listener = UnixListener::bind(socket).with_context(what)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).with_context(what)?;
    let server = tonic::transport::Server::builder()
        .add_service(
            AggregatedDiscoveryServiceServer::new(relay).max_decoding_message_size(relay::MAX_REQUEST),
        )
        .add_service(SecretDiscoveryServiceServer::new(secrets::Secrets::new(
            identity, drain,
        )));
    tokio::spawn(async move {
        let connections = UnixListenerStream::new(listener);
        if let Err(error) = server.serve_with_incoming(connections).await {
            tracing::error!(%error, "Envoy gets nothing any more");
        }
    });
    Ok(())
}
