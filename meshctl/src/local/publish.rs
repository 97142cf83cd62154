//! The one thing the host sees: a port on 127.0.0.1 that leads to the ingress gateway. A connection is taken on the host
//! and continued inside the node namespace. TLS and plain HTTP share the port: the first byte of a TLS connection is
//! always 0x16 (RFC 8446, 5.1) and that of HTTP never is, so each reaches the gateway's port of its kind.
//!
//! Both directions are copied until both have ended; one side's end is passed on at once and stops only its direction.
//! Bounds: 16,384 connections, 30 s for the first byte, 5 s to connect.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

use super::netns;

const MAX_CONNECTIONS: usize = 16_384;
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TLS_HANDSHAKE: u8 = 0x16;

/// Where the gateway's ready pods answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, namespace: String, gateway: watch::Receiver<Arc<Gateway>>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let next = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "gateway port: accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (namespace, gateway, next) = (namespace.clone(), gateway.clone(), next.clone());
        tokio::spawn(async move {
            if let Err(error) = forward(stream, &namespace, &gateway, &next).await {
                tracing::debug!(%error, "gateway port: connection");
            }
            drop(permit);
        });
    }
}

async fn forward(
    mut client: TcpStream,
    namespace: &str,
    gateway: &watch::Receiver<Arc<Gateway>>,
    next: &AtomicUsize,
) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let mut first = [0];
    if tokio::time::timeout(FIRST_BYTE_TIMEOUT, client.peek(&mut first)).await?? == 0 {
        return Ok(());
    }
    let gateway = gateway.borrow().clone();
    let targets = if first[0] == TLS_HANDSHAKE {
        &gateway.https
    } else {
        &gateway.http
    };
    let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed) % targets.len().max(1)) else {
        anyhow::bail!("the gateway has no ready pod");
    };
    let mut upstream = tokio::time::timeout(CONNECT_TIMEOUT, netns::connect(namespace, *target)).await??;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
