//! Thousands of connections that do nothing: each is proven alive when it is opened and again at the end.

use anyhow::{Context, ensure};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Connections that are being opened, or asked, at the same time.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// host:port of a server that sends back what it gets.
    #[arg(long)]
    pub target: String,
    #[arg(long)]
    pub count: usize,
    /// How long all of them are left alone.
    #[arg(long, default_value_t = 5)]
    pub hold_seconds: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub opened: usize,
    pub alive_at_the_end: usize,
    pub open_seconds: f64,
}

pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    ensure!(settings.count <= 15_000, "at most 15000 connections");
    let begin = Instant::now();
    let connections: Vec<TcpStream> = stream::iter(0..settings.count)
        .map(|i| open(&settings.target, i))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let open_seconds = begin.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(settings.hold_seconds)).await;
    let opened = connections.len();
    let alive: Vec<TcpStream> = stream::iter(connections.into_iter().enumerate())
        .map(|(i, stream)| async move {
            prove(stream, i)
                .await
                .with_context(|| format!("connection {i}, at the end"))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Report {
        opened,
        alive_at_the_end: alive.len(),
        open_seconds,
    })
}

async fn open(target: &str, i: usize) -> anyhow::Result<TcpStream> {
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(target))
        .await
        .with_context(|| format!("connection {i} to {target} was not open within {PATIENCE:?}"))?
        .with_context(|| format!("connection {i} to {target}"))?;
    prove(stream, i)
        .await
        .with_context(|| format!("connection {i}, when opened"))
}

/// Eight bytes there and back.
async fn prove(mut stream: TcpStream, i: usize) -> anyhow::Result<TcpStream> {
    let sent = (i as u64).to_be_bytes();
    let mut got = [0; 8];
    let exchange = async {
        stream.write_all(&sent).await?;
        stream.read_exact(&mut got).await
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("no echo within {PATIENCE:?}"))??;
    ensure!(sent == got, "other bytes came back");
    Ok(stream)
}
