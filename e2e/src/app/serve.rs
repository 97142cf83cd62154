//! The server: which port speaks what. Each listener is a task; each connection is one too, at most [`MAX_CONNECTIONS`] of them
//! per port, the next ones wait in the kernel's queue.

use super::{http, tcp};
use anyhow::Context;
use clap::Args;
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};

/// HTTP/1.1, HTTP/2 without TLS, gRPC, and WebSocket under `/ws`.
pub const HTTP: u16 = 8080;
/// The same again, for a port named `grpc`.
pub const GRPC: u16 = 9090;
/// HTTP over TLS, with a certificate of its own for any name below `tls.example`.
pub const HTTPS: u16 = 8443;
/// Sends back every byte.
pub const TCP_ECHO: u16 = 7001;
/// Greets before it is spoken to.
pub const SERVER_FIRST: u16 = 7002;
/// Takes or gives many bytes of a known pattern.
pub const BULK: u16 = 7003;
/// Answers an HTTP/1.1 request with the very bytes of its head.
pub const RAW_HTTP: u16 = 7004;

const MAX_CONNECTIONS: usize = 12_000;

#[derive(Debug, Args)]
pub struct Settings {
    /// What this instance calls itself in answers.
    #[arg(long, env = "VERSION", default_value = "v1")]
    pub version: String,
    /// After SIGTERM, how long connections are still accepted.
    #[arg(long, default_value_t = 5)]
    pub shutdown_delay_seconds: u64,
}

pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "unknown".to_owned());
    let echo = Arc::new(http::Echo::new(pod, settings.version.clone()));
    for port in [HTTP, GRPC] {
        let echo = echo.clone();
        listen(port, move |stream| http::serve(stream, echo.clone())).await?;
    }
    let acceptor = acceptor()?;
    let secured = echo.clone();
    listen(HTTPS, move |stream| {
        http::serve_tls(stream, acceptor.clone(), secured.clone())
    })
    .await?;
    listen(TCP_ECHO, tcp::echo).await?;
    listen(SERVER_FIRST, tcp::greet).await?;
    listen(BULK, tcp::bulk).await?;
    listen(RAW_HTTP, tcp::raw_http).await?;
    println!("serving as {} {}", echo.pod, echo.version);
    mesh_runtime::drain::shutdown_signal().await?;
    echo.leave();
    tokio::time::sleep(Duration::from_secs(settings.shutdown_delay_seconds)).await;
    echo.finished(Duration::from_secs(10)).await;
    Ok(())
}

fn acceptor() -> anyhow::Result<tokio_rustls::TlsAcceptor> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["*.tls.example".to_owned()])?.self_signed(&key)?;
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = rustls::ServerConfig::builder_with_provider(mesh_runtime::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(Arc::new(config).into())
}

async fn listen<F, T>(port: u16, serve: F) -> anyhow::Result<()>
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = bind(port).with_context(|| format!("cannot listen on port {port}"))?;
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(async move {
        // Nobody closes the semaphore, so this ends with the program.
        while let Ok(permit) = room.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let connection = serve(stream);
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            println!("port {port}: connection from {from}: {error:#}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    println!("port {port}: cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    Ok(())
}

/// A deep queue: thousands of connections come at once in one of the tests. IPv6 sockets take IPv4 too.
fn bind(port: u16) -> std::io::Result<TcpListener> {
    let any = |address: &str| format!("{address}:{port}").parse().map_err(std::io::Error::other);
    let (socket, address) = match TcpSocket::new_v6() {
        Ok(socket) => (socket, any("[::]")?),
        Err(_) => (TcpSocket::new_v4()?, any("0.0.0.0")?),
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}
