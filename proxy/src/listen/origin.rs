//! Where a redirected connection wanted to go: `SO_ORIGINAL_DST`, kept by netfilter's connection tracking.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::TcpStream;

/// The destination before redirection, or `None` when the connection was not redirected.
pub fn original_destination(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let origin = if local.is_ipv4() {
        origin_v4(stream)
    } else {
        origin_v6(stream)
    };
    origin.filter(|address| *address != local)
}

fn origin_v4(stream: &TcpStream) -> Option<SocketAddr> {
    let raw = getsockopt(stream, sockopt::OriginalDst).ok()?;
    let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
    Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
}

fn origin_v6(stream: &TcpStream) -> Option<SocketAddr> {
    let raw = getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
    let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
    Some(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, 0).into())
}
