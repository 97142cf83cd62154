//! `mesh-e2e-app`: one program that is every application the tests need. `serve` speaks HTTP/1.1, HTTP/2, gRPC, WebSocket and
//! several TCP protocols; the other commands are the clients for them and print one JSON report each.

pub mod certificate;
pub mod grpc;
pub mod http;
pub mod serve;
pub mod tcp;

use crate::client::{self, ask, grpc as grpc_client, idle, load, tcp as tcp_client, websocket};
use clap::{Parser, Subcommand};
use serde::Serialize;

#[derive(Debug, Parser)]
#[command(name = "mesh-e2e-app", about = "Server and clients for the end-to-end tests")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve every protocol until SIGTERM.
    Serve(serve::Settings),
    /// Do nothing until SIGTERM: a pod to run commands in.
    Sleep,
    /// Send HTTP requests and count what comes back.
    Load(load::Settings),
    /// Do a list of different things, one after the other, and tell each outcome.
    Ask,
    /// Make gRPC calls of all three kinds.
    Grpc(grpc_client::Settings),
    /// Exchange messages over one WebSocket.
    Websocket(websocket::Settings),
    /// Send or fetch many bytes over TCP, checking each.
    Bulk(tcp_client::BulkSettings),
    /// Open a TCP connection and wait for the server to speak first.
    ServerFirst(tcp_client::FirstSettings),
    /// Send one line over TCP and print the answer.
    Line(tcp_client::LineSettings),
    /// Hold many connections open, and see that all still work at the end.
    Idle(idle::Settings),
    /// Get a workload certificate from citadel with this pod's token and keep it in files, then run a program.
    WithCertificate(certificate::Settings),
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    client::raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Serve(settings) => serve::run(&settings).await,
            Command::Sleep => {
                mesh_runtime::drain::shutdown_signal().await?;
                Ok(())
            }
            Command::Load(settings) => print(&load::run(&settings, load::stop_when(&settings)).await?),
            Command::Ask => print(&ask::run().await?),
            Command::Grpc(settings) => print(&grpc_client::run(&settings).await?),
            Command::Websocket(settings) => print(&websocket::run(&settings).await?),
            Command::Bulk(settings) => print(&tcp_client::bulk(&settings).await?),
            Command::ServerFirst(settings) => print(&tcp_client::server_first(&settings).await?),
            Command::Line(settings) => print(&tcp_client::line(&settings).await?),
            Command::Idle(settings) => print(&idle::run(&settings).await?),
            Command::WithCertificate(settings) => certificate::run(&settings).await,
        }
    })
}

fn print(report: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
