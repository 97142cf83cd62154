//! The server side: a listener → a stream of connections whose TLS handshake is done. Handshakes run beside each
//! other, at most `max_pending` at once and each within `timeout`; a slow or broken client holds up nobody.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::tls::Leaf;

/// Who is at the other end of a connection, as proven by its certificate. In the extensions of each request.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// URI names of the leaf; empty when the client showed no certificate.
    pub uris: Vec<String>,
    /// When the certificate of this connection ends. A connection may outlive it: who cares must look.
    pub not_after: Option<SystemTime>,
    pub address: Option<SocketAddr>,
}

/// A connection over TLS.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    peer: PeerCertificate,
}

/// Accepts connections until the stream is dropped.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    timeout: Duration,
    max_pending: usize,
) -> ReceiverStream<io::Result<TlsConnection>> {
    let (sender, receiver) = mpsc::channel(max_pending.max(1));
    tokio::spawn(accept(
        listener,
        with_h2(&config),
        timeout,
        max_pending.max(1),
        sender,
    ));
    ReceiverStream::new(receiver)
}

fn with_h2(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    if config.alpn_protocols.is_empty() {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Arc::new(config)
}

async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    timeout: Duration,
    max_pending: usize,
    sender: mpsc::Sender<io::Result<TlsConnection>>,
) {
    let acceptor = TlsAcceptor::from(config);
    let slots = Arc::new(Semaphore::new(max_pending));
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = sender.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(timeout, handshake(acceptor, stream, address)).await {
                // A receiver that is gone closes the connection, as it should.
                Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%address, ?timeout, "TLS handshake took too long"),
            }
            drop(slot);
        });
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> io::Result<TlsConnection> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(Leaf::read);
    let peer = match leaf {
        None => PeerCertificate {
            uris: Vec::new(),
            not_after: None,
            address: Some(address),
        },
        Some(Ok(Leaf { uris, not_after, .. })) => PeerCertificate {
            uris,
            not_after: Some(not_after),
            address: Some(address),
        },
        Some(Err(error)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    Ok(TlsConnection { stream, peer })
}

impl Connected for TlsConnection {
    type ConnectInfo = PeerCertificate;

    fn connect_info(&self) -> PeerCertificate {
        self.peer.clone()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
