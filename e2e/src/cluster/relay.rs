//! Connections from the host into the cluster: a port of 127.0.0.1 on the host, and the other end made inside the control
//! machine's network namespace, from where nodes, pods and Services are reachable. This is how the kubeconfig's server is
//! reached, and what `mesh-cluster forward` is.
//!
//! The listening socket is made first and stays the host's; then the process enters the namespace, and every connection that it
//! makes is made there. Both directions are copied until both have ended. Bounds: 4,096 connections, 5 s to connect.

use super::{layout::Layout, network};
use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, sync::Semaphore};

const MAX_CONNECTIONS: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Relays until the process is told to end. Says on standard output where it listens.
pub fn run(layout: &Layout, port: u16, target: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .with_context(|| format!("port {port} of 127.0.0.1 cannot be had; choose another one"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let namespace = network::path(&layout.namespace(super::layout::CONTROL));
    let file = std::fs::File::open(&namespace)
        .with_context(|| format!("cannot open {}: is the cluster up?", namespace.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", namespace.display()))?;
    // Threads are made only now: each thread has a network namespace of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    println!("{address}");
    runtime.block_on(async {
        tokio::select! {
            () = serve(tokio::net::TcpListener::from_std(listener)?, target) => {}
            end = mesh_runtime::drain::shutdown_signal() => { end?; }
        }
        Ok(())
    })
}

async fn serve(listener: tokio::net::TcpListener, target: SocketAddr) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    if let Err(error) = carry(client, target).await {
                        eprintln!("{target}: {error:#}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let mut upstream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target))
        .await
        .context("no connection within 5 s")??;
    upstream.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn both_directions_are_carried_and_each_end_is_passed_on() {
        let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = upstream.local_addr().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, target));
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = upstream.accept().await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    }
}
