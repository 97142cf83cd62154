//! The PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>): who the client
//! is, told by a load balancer in front of us, or told by us.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Sniff;
use crate::config::cluster::ProxyProtocol;

/// A header: how many bytes it takes, and the addresses it tells (nothing for health checks of the balancer itself).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub length: usize,
    /// Source and destination.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1.
const MAX_LINE: usize = 107;
/// Addresses and options of version 2; more is not believed.
const MAX_BODY: usize = 4096;

/// The header at the beginning of these bytes.
pub fn header(bytes: &[u8]) -> Sniff<Header> {
    if SIGNATURE.starts_with(&bytes[..bytes.len().min(SIGNATURE.len())]) {
        return version2(bytes);
    }
    let start = &bytes[..bytes.len().min(6)];
    if b"PROXY ".starts_with(start) {
        version1(bytes)
    } else {
        Sniff::Not
    }
}

/// The header that tells of a client and of the address that it wanted; `None`: the connection is the proxy's own, or
/// nobody knows.
pub fn written(version: ProxyProtocol, addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    // Both in one family, as the header has room for one.
    let addresses = addresses.map(
        |(from, to)| match (from.ip().to_canonical(), to.ip().to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (IpAddr::V4(a), IpAddr::V4(b), from.port(), to.port()),
            (a, b) => (IpAddr::V6(wide(a)), IpAddr::V6(wide(b)), from.port(), to.port()),
        },
    );
    match version {
        ProxyProtocol::V1 => match addresses {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((from, to, port, wanted)) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {from} {to} {port} {wanted}\r\n").into_bytes()
            }
        },
        ProxyProtocol::V2 => written2(addresses),
    }
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn written2(addresses: Option<(IpAddr, IpAddr, u16, u16)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((from, to, port, wanted)) = addresses else {
        header.extend([0x20, 0, 0, 0]);
        return header;
    };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend([0x21, 0x11, 0, 12]);
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (from, to) => {
            header.extend([0x21, 0x21, 0, 36]);
            header.extend(wide(from).octets());
            header.extend(wide(to).octets());
        }
    }
    header.extend(port.to_be_bytes());
    header.extend(wanted.to_be_bytes());
    header
}

fn version1(bytes: &[u8]) -> Sniff<Header> {
    let Some(end) = bytes.windows(2).take(MAX_LINE).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_LINE {
            Sniff::NeedMore
        } else {
            Sniff::Not
        };
    };
    let length = end + 2;
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else {
        return Sniff::Not;
    };
    let parts: Vec<&str> = line.split(' ').collect();
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Sniff::Found(Header {
            length,
            addresses: None,
        }),
        [
            "PROXY",
            family @ ("TCP4" | "TCP6"),
            source,
            destination,
            source_port,
            destination_port,
        ] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().ok()?;
                (ip.is_ipv4() == (family == "TCP4")).then_some(SocketAddr::new(ip, port.parse().ok()?))
            };
            match (
                address(source, source_port),
                address(destination, destination_port),
            ) {
                (Some(source), Some(destination)) => Sniff::Found(Header {
                    length,
                    addresses: Some((source, destination)),
                }),
                _ => Sniff::Not,
            }
        }
        _ => Sniff::Not,
    }
}

fn version2(bytes: &[u8]) -> Sniff<Header> {
    let Some((head, rest)) = bytes.split_at_checked(16) else {
        return Sniff::NeedMore;
    };
    let (version, command) = (head[12] >> 4, head[12] & 0xf);
    let size = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if version != 2 || command > 1 || size > MAX_BODY {
        return Sniff::Not;
    }
    let Some(body) = rest.get(..size) else {
        return Sniff::NeedMore;
    };
    let length = 16 + size;
    let addresses = match (command, head[13]) {
        // LOCAL: the balancer's own connection.
        (0, _) => None,
        (_, 0x11) => {
            let Some(body) = body.first_chunk::<12>() else {
                return Sniff::Not;
            };
            let ip = |at: usize| IpAddr::from([body[at], body[at + 1], body[at + 2], body[at + 3]]);
            let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
            Some((SocketAddr::new(ip(0), port(8)), SocketAddr::new(ip(4), port(10))))
        }
        (_, 0x21) => {
            let Some(body) = body.first_chunk::<36>() else {
                return Sniff::Not;
            };
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&body[at..at + 16]);
                IpAddr::from(octets)
            };
            let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
            Some((
                SocketAddr::new(ip(0), port(32)),
                SocketAddr::new(ip(16), port(34)),
            ))
        }
        // Other families tell nothing that is understood; the header must still be skipped.
        _ => None,
    };
    Sniff::Found(Header { length, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1() {
        let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET";
        let addresses = Some((address("192.168.0.1:56324"), address("192.168.0.11:443")));
        assert_eq!(
            header(line),
            Sniff::Found(Header {
                length: 47,
                addresses
            })
        );
        for length in 0..46 {
            assert_eq!(header(&line[..length]), Sniff::NeedMore, "{length}");
        }
        assert_eq!(
            header(b"PROXY UNKNOWN\r\n"),
            Sniff::Found(Header {
                length: 15,
                addresses: None
            })
        );
        for bad in [
            &b"PROXY TCP4 ::1 ::1 1 2\r\n"[..],
            b"PROXY TCP4 1.2.3.4\r\n",
            b"GET / HTTP/1.1",
            &[b'P'; 200],
        ] {
            assert_eq!(header(bad), Sniff::Not, "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let four = (address("192.168.0.1:56324"), address("192.168.0.11:443"));
        let six = (address("[fd00::1]:1"), address("[fd00::2]:65535"));
        let mixed = (address("10.0.0.1:1"), address("[fd00::2]:2"));
        let mapped = (address("[::ffff:10.0.0.1]:1"), address("10.0.0.2:2"));
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            for (told, expect) in [
                (Some(four), Some(four)),
                (Some(six), Some(six)),
                (Some(mixed), Some((address("[::ffff:10.0.0.1]:1"), mixed.1))),
                (Some(mapped), Some((address("10.0.0.1:1"), mapped.1))),
                (None, None),
            ] {
                let bytes = written(version, told);
                let expect = Header {
                    length: bytes.len(),
                    addresses: expect,
                };
                assert_eq!(header(&bytes), Sniff::Found(expect), "{version:?} {told:?}");
            }
        }
        assert_eq!(
            written(ProxyProtocol::V1, Some(four)),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        assert_eq!(
            written(ProxyProtocol::V2, Some(four))[12..16],
            [0x21, 0x11, 0, 12]
        );
    }

    #[test]
    fn verdicts_over_damaged_headers_hold() {
        let v2 = [
            SIGNATURE,
            &[0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80],
        ]
        .concat();
        let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
        let corpus: [&[u8]; 4] = [
            b"PROXY TCP4 10.0.0.1 10.0.0.2 4660 80\r\nGET / HTTP/1.1\r\n",
            b"PROXY UNKNOWN\r\n",
            &v2,
            &local,
        ];
        crate::testing::damaged(&corpus, 10_000, |bytes| {
            crate::testing::verdicts_hold(bytes, header)
        });
    }

    #[test]
    fn version_2() {
        let v4 = [
            SIGNATURE,
            &[0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80],
        ]
        .concat();
        let addresses = Some((address("10.0.0.1:4660"), address("10.0.0.2:80")));
        assert_eq!(
            header(&v4),
            Sniff::Found(Header {
                length: 28,
                addresses
            })
        );
        for length in 0..v4.len() {
            assert_eq!(header(&v4[..length]), Sniff::NeedMore, "{length}");
        }
        let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
        assert_eq!(
            header(&local),
            Sniff::Found(Header {
                length: 16,
                addresses: None
            })
        );
        let short = [SIGNATURE, &[0x21, 0x11, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(header(&short), Sniff::Not);
    }
}
