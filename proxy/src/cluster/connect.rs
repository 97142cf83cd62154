//! Opens a connection to one address: TCP, then TLS where the cluster asks for it, within one deadline.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{
    conn::{
        io::{Io, Prefixed},
        tls::facts,
    },
    observe::record::TlsFacts,
};

/// How to reach an address.
#[derive(Clone, Debug)]
pub struct Dial {
    pub address: SocketAddr,
    /// Source address, for connections that must not be redirected back to us.
    pub source: Option<std::net::IpAddr>,
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// For TCP and TLS together.
    pub timeout: Duration,
    pub keepalive: Option<TcpKeepalive>,
    /// Said before anything else, TLS too.
    pub preface: Option<Box<[u8]>>,
}

/// What is on the other end.
#[derive(Debug)]
pub struct Connected {
    pub io: Io,
    /// What TLS agreed on.
    pub alpn: Option<Vec<u8>>,
    /// What TLS proved; its names come from a verified certificate.
    pub tls: Option<Arc<TlsFacts>>,
    pub address: SocketAddr,
    pub local: SocketAddr,
}

/// Why there is no connection. Nothing of a request was sent in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to {address}: {error}")]
    Tcp { address: SocketAddr, error: io::Error },
    #[error("TLS handshake with {address} failed: {error}")]
    Tls { address: SocketAddr, error: io::Error },
    #[error("HTTP with {address} could not begin: {error}")]
    Http { address: SocketAddr, error: String },
    #[error("no connection to {address} within {} ms", .limit.as_millis())]
    Timeout { address: SocketAddr, limit: Duration },
}

/// Connects.
pub async fn connect(dial: &Dial) -> Result<Connected, ConnectError> {
    let address = dial.address;
    match tokio::time::timeout(dial.timeout, connect_untimed(dial)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout {
            address,
            limit: dial.timeout,
        }),
    }
}

async fn connect_untimed(dial: &Dial) -> Result<Connected, ConnectError> {
    let address = dial.address;
    let mut tcp = open(dial)
        .await
        .map_err(|error| ConnectError::Tcp { address, error })?;
    let local = tcp
        .local_addr()
        .map_err(|error| ConnectError::Tcp { address, error })?;
    if let Some(preface) = &dial.preface {
        tcp.write_all(preface)
            .await
            .map_err(|error| ConnectError::Tcp { address, error })?;
    }
    let Some((config, name)) = &dial.tls else {
        return Ok(Connected {
            io: Io::plain(tcp.into()),
            alpn: None,
            tls: None,
            address,
            local,
        });
    };
    let connector = TlsConnector::from(config.clone());
    let stream = connector
        .connect(name.clone(), Prefixed::from(tcp))
        .await
        .map_err(|error| ConnectError::Tls { address, error })?;
    let (_, session) = stream.get_ref();
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    let facts = Arc::new(facts(session, None));
    Ok(Connected {
        io: Io::tls(TlsStream::Client(stream)),
        alpn,
        tls: Some(facts),
        address,
        local,
    })
}

async fn open(dial: &Dial) -> io::Result<TcpStream> {
    let socket = if dial.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = dial
        .source
        .filter(|source| source.is_ipv4() == dial.address.is_ipv4())
    {
        if source.is_ipv4() {
            // Many connections share the source address: let the kernel choose the port at connect time, per destination.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        }
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(dial.address).await?;
    stream.set_nodelay(true)?;
    if let Some(keepalive) = &dial.keepalive {
        SockRef::from(&stream).set_tcp_keepalive(keepalive)?;
    }
    Ok(stream)
}
