//! `meshctl dashboard`: a port on this machine's loopback that leads to telemetry's dashboard, until interrupted.
//! Bound: 256 connections.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use mesh_proto::names::port;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{context::Context, local::netns, output};

const MAX_CONNECTIONS: usize = 256;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Port on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = port::DASHBOARD)]
    pub port: u16,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let pods = context.parts("telemetry").await?;
    let network = context.network(pods.first().context("telemetry is not running")?);
    let address = (Ipv4Addr::LOCALHOST, arguments.port);
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "127.0.0.1:{} cannot be opened; choose another with --port",
            arguments.port
        )
    })?;
    output::line(&format!(
        "dashboard: http://{}/   (Ctrl-C ends it)",
        listener.local_addr()?
    ));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let serve = async {
        loop {
            let permit = permits.clone().acquire_owned().await?;
            let (mut client, _) = listener.accept().await?;
            let network = network.clone();
            tokio::spawn(async move {
                let inside = (Ipv4Addr::LOCALHOST, port::DASHBOARD).into();
                match netns::connect(&network, inside).await {
                    Ok(mut upstream) => {
                        // Either side may end at any time: that is how pages are left.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
                    }
                    Err(error) => eprintln!("meshctl: the dashboard does not answer: {error}"),
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
