//! One WebSocket: text and binary messages, each of which must come back as it was.

use anyhow::{Context, ensure};
use clap::Args;
use futures::{SinkExt, StreamExt};
use http::Uri;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite::Message};

#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// ws://host:port/path
    #[arg(long)]
    pub url: Uri,
    #[arg(long, default_value_t = 100)]
    pub messages: u32,
    /// Milliseconds of silence before the last message.
    #[arg(long, default_value_t = 0)]
    pub pause_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub messages: u32,
    pub status: u16,
}

pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    let host = settings.url.host().context("the URL has no host")?;
    let port = settings.url.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port))
        .await
        .with_context(|| format!("no connection to {host}:{port}"))?;
    let (mut socket, response) = client_async(&settings.url, stream)
        .await
        .context("no agreement on WebSocket")?;
    let mut report = Report {
        messages: 0,
        status: response.status().as_u16(),
    };
    for i in 0..settings.messages {
        if i + 1 == settings.messages {
            tokio::time::sleep(Duration::from_millis(settings.pause_ms)).await;
        }
        let message = match i % 2 {
            0 => Message::text(format!("message {i}")),
            _ => Message::binary(vec![i as u8; (i as usize) * 13 % 9000]),
        };
        socket.send(message.clone()).await?;
        let answer = tokio::time::timeout(Duration::from_secs(10), socket.next())
            .await
            .with_context(|| format!("message {i} was not answered within 10 s"))?
            .with_context(|| format!("closed before the answer to message {i}"))??;
        ensure!(answer == message, "message {i} came back changed");
        report.messages += 1;
    }
    socket.close(None).await?;
    Ok(report)
}
