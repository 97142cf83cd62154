//! The client side: `host:port` → lazy channel. Each connection resolves the name again, then does TCP and TLS within
//! [`CONNECT_TIMEOUT`]; HTTP/2 keepalive finds dead ones within about 40 s.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("address {0:?} is not host:port")]
    Address(String),
    #[error("address {address:?}: {source}")]
    Uri {
        address: String,
        source: tonic::transport::Error,
    },
}

/// A channel to `host:port`. It connects at the first call, and again whenever the connection is lost.
/// With `tls`, the server is proven by that configuration, whatever the host's name.
pub fn connect(address: &str, tls: Option<Arc<ClientConfig>>) -> Result<Channel, ConnectError> {
    let form = || ConnectError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    port.parse::<u16>().map_err(|_| form())?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| form())?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    // The connector below does TLS, so tonic must see http; requests still say what it is.
    let uri_error = |source| ConnectError::Uri {
        address: address.to_owned(),
        source,
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(uri_error)?;
    let origin = format!("{scheme}://{address}").parse().map_err(|_| form())?;
    let endpoint = endpoint
        .origin(origin)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let tls = tls.map(|config| Arc::new(with_h2(&config)));
    let address: Arc<str> = address.into();
    let connector = Connector { address, name, tls };
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn with_h2(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    if config.alpn_protocols.is_empty() {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    config
}

#[derive(Clone)]
struct Connector {
    address: Arc<str>,
    name: ServerName<'static>,
    tls: Option<Arc<ClientConfig>>,
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.open().await.map(TokioIo::new) })
    }
}

impl Connector {
    async fn open(self) -> io::Result<Stream> {
        let what = |stage: &str, error: &io::Error| {
            io::Error::new(error.kind(), format!("{stage} {}: {error}", self.address))
        };
        let stream = TcpStream::connect(&*self.address)
            .await
            .map_err(|error| what("connect to", &error))?;
        stream.set_nodelay(true)?;
        match self.tls.clone() {
            None => Ok(Stream::Plain(stream)),
            Some(config) => {
                let connecting = TlsConnector::from(config).connect(self.name.clone(), stream);
                let stream = connecting.await.map_err(|error| what("TLS with", &error))?;
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }
}

/// A connection with or without TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses() {
        for good in ["citadel.istio-system.svc:15013", "10.0.0.1:1", "[fd00::1]:15013"] {
            assert!(connect(good, None).is_ok(), "{good}");
        }
        for bad in [
            "",
            "citadel",
            "citadel:",
            "citadel:http",
            "a b:1",
            ":15013",
            "host:70000",
        ] {
            assert!(connect(bad, None).is_err(), "{bad}");
        }
    }
}
