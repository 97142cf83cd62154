//! TCP clients: many bytes in one direction, a server that speaks first, one line there and back.

use crate::app::tcp::{GIVE, GREETING, TAKE, receive, send};
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    Upload,
    Download,
}

#[derive(Args, Clone, Debug)]
pub struct BulkSettings {
    /// host:port
    #[arg(long)]
    pub target: String,
    #[arg(long, value_enum)]
    pub direction: Direction,
    #[arg(long)]
    pub bytes: u64,
}

#[derive(Args, Clone, Debug)]
pub struct FirstSettings {
    #[arg(long)]
    pub target: String,
}

#[derive(Args, Clone, Debug)]
pub struct LineSettings {
    #[arg(long)]
    pub target: String,
    #[arg(long)]
    pub line: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BulkReport {
    /// Bytes that arrived as they were sent.
    pub bytes: u64,
    pub seconds: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FirstReport {
    /// From the connection being open to the greeting.
    pub greeted_after_ms: f64,
    pub greeting: String,
    pub answer: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LineReport {
    pub answer: String,
}

async fn connect(target: &str) -> anyhow::Result<TcpStream> {
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(target))
        .await
        .with_context(|| format!("no connection to {target} within {PATIENCE:?}"))?
        .with_context(|| format!("no connection to {target}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub async fn bulk(settings: &BulkSettings) -> anyhow::Result<BulkReport> {
    let mut stream = connect(&settings.target).await?;
    let begin = Instant::now();
    let bytes = match settings.direction {
        Direction::Upload => {
            stream.write_u8(GIVE).await?;
            stream.write_u64(settings.bytes).await?;
            send(&mut stream, settings.bytes).await.context("sending")?;
            stream
                .read_u64()
                .await
                .context("reading the count of what arrived")?
        }
        Direction::Download => {
            stream.write_u8(TAKE).await?;
            stream.write_u64(settings.bytes).await?;
            let bytes = receive(&mut stream, settings.bytes).await?;
            ensure!(
                stream.read(&mut [0; 1]).await? == 0,
                "more than {} bytes came",
                settings.bytes
            );
            bytes
        }
    };
    Ok(BulkReport {
        bytes,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

pub async fn server_first(settings: &FirstSettings) -> anyhow::Result<FirstReport> {
    let mut stream = BufReader::new(connect(&settings.target).await?);
    let begin = Instant::now();
    let greeting = read_line(&mut stream, "the greeting").await?;
    let greeted_after_ms = begin.elapsed().as_secs_f64() * 1000.0;
    ensure!(
        greeting == GREETING,
        "greeted {greeting:?} instead of {GREETING:?}"
    );
    stream.write_all(b"hello\r\n").await?;
    let answer = read_line(&mut stream, "the answer").await?;
    Ok(FirstReport {
        greeted_after_ms,
        greeting,
        answer,
    })
}

pub async fn line(settings: &LineSettings) -> anyhow::Result<LineReport> {
    let mut stream = BufReader::new(connect(&settings.target).await?);
    stream
        .write_all(format!("{}\n", settings.line).as_bytes())
        .await?;
    Ok(LineReport {
        answer: read_line(&mut stream, "the answer").await?,
    })
}

async fn read_line(stream: &mut BufReader<TcpStream>, what: &str) -> anyhow::Result<String> {
    let mut line = String::new();
    let n = tokio::time::timeout(PATIENCE, stream.take(64 * 1024).read_line(&mut line))
        .await
        .with_context(|| format!("{what} did not come within {PATIENCE:?}"))?
        .with_context(|| format!("reading {what}"))?;
    ensure!(n > 0, "the connection was closed before {what}");
    Ok(line)
}
