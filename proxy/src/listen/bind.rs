//! Listening sockets: one per worker and listener, spread by the kernel (`SO_REUSEPORT`).

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections the kernel keeps for us before we accept them; it caps the number at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds a listening socket that shares its address with the other workers' sockets.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // `[::]` must not take the IPv4 port away from `0.0.0.0`, which is a listener of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
