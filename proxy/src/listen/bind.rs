//! Listening sockets: one per worker and listener, spread by the kernel (`SO_REUSEPORT`).

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// Connections the kernel keeps for us before we accept them; it caps the number at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A peer that has gone without a word, behind a connection on which nothing moves, is noticed after this time and as many
/// questions: seven and a half minutes. Accepted connections have it from the listening socket.
const QUIET: Duration = Duration::from_secs(300);
const QUESTION: Duration = Duration::from_secs(30);
const QUESTIONS: u32 = 5;

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
    let alive = TcpKeepalive::new()
        .with_time(QUIET)
        .with_interval(QUESTION)
        .with_retries(QUESTIONS);
    socket.set_tcp_keepalive(&alive)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn accepted_connections_ask_whether_their_peer_is_there() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (server, _) = accepted.unwrap();
        let server = SockRef::from(&server);
        assert!(server.keepalive().unwrap());
        assert_eq!(server.tcp_keepalive_time().unwrap(), QUIET);
    }
}
