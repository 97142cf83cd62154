//! Queries to the pod's own resolvers, in the order of `resolv.conf`: byte for byte but for the id, which is random
//! outside (an answer must not be guessable). Over UDP each query has a socket of its own, connected to the resolver, so
//! that only the resolver's packets reach it, from a random port.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{answer::Transport, cache::Cache, resolv_conf::ResolvConf};

/// The largest UDP answer (RFC 6891 lets both sides agree on up to this).
const MAX_PACKET: usize = 65_535;
/// A query that all resolvers let go unanswered is given up after this time: clients ask again after 5 s by default.
const MAX_TIME: Duration = Duration::from_secs(4);

/// Why a query could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("the pod has no resolver: resolv.conf names none")]
    NoResolver,
    #[error("no resolver answered within {MAX_TIME:?}; the last one, {server}, failed with: {last}")]
    Unanswered { server: SocketAddr, last: io::Error },
}

/// The way to the resolvers.
pub struct Forwarder {
    servers: Vec<SocketAddr>,
    attempts: u32,
    wait: Duration,
    cache: Cache,
}

impl Forwarder {
    pub fn new(conf: &ResolvConf) -> Self {
        Self::to(
            conf.servers
                .iter()
                .map(|address| SocketAddr::new(*address, 53))
                .collect(),
            conf,
        )
    }

    /// To these servers; the rest as in `conf`.
    pub fn to(servers: Vec<SocketAddr>, conf: &ResolvConf) -> Self {
        // The same order as the client's own resolver, but faster to the next one: the client waits for us.
        Self {
            servers,
            attempts: conf.attempts,
            wait: conf.timeout.min(Duration::from_millis(1_500)),
            cache: Cache::default(),
        }
    }

    /// The resolvers' answer.
    pub async fn ask(&self, query: &[u8], transport: Transport) -> Result<Vec<u8>, ForwardError> {
        if let Some(kept) = self.cache.get(query, Instant::now()) {
            return Ok(kept);
        }
        let end = Instant::now() + MAX_TIME;
        let Some(mut server) = self.servers.first().copied() else {
            return Err(ForwardError::NoResolver);
        };
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..self.attempts {
            for next in &self.servers {
                let left = end.saturating_duration_since(Instant::now()).min(self.wait);
                if left.is_zero() {
                    return Err(ForwardError::Unanswered { server, last });
                }
                server = *next;
                let outcome = match transport {
                    Transport::Udp => timeout(left, udp(server, query)).await,
                    Transport::Tcp => timeout(left, tcp(server, query)).await,
                };
                match outcome {
                    Ok(Ok(response)) => {
                        self.cache.put(query, &response, Instant::now());
                        return Ok(response);
                    }
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
            }
        }
        Err(ForwardError::Unanswered { server, last })
    }
}

fn with_id(query: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut packet = query.to_vec();
    packet[..2].copy_from_slice(&id);
    packet
}

/// Is this the answer to that query? Same id, a response, the same question.
fn answers(response: &[u8], query: &[u8], id: [u8; 2]) -> bool {
    if response.len() < 12 || response[..2] != id || response[2] & 0x80 == 0 {
        return false;
    }
    // Some servers leave the question out of an error.
    let questions = u16::from_be_bytes([response[4], response[5]]);
    questions == 0
        || question(query)
            .is_none_or(|asked| question(response).is_some_and(|got| got.eq_ignore_ascii_case(asked)))
}

/// The bytes of the first question: labels, type and class.
fn question(message: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => return message.get(12..at + 5),
            length @ 1..=63 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
}

async fn udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    let id = rand::random::<u16>().to_be_bytes();
    socket.send(&with_id(query, id)).await?;
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let size = socket.recv(&mut buffer).await?;
        if answers(&buffer[..size], query, id) {
            buffer.truncate(size);
            buffer[..2].copy_from_slice(&query[..2]);
            buffer.shrink_to_fit();
            return Ok(buffer);
        }
    }
}

async fn tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = rand::random::<u16>().to_be_bytes();
    let length = u16::try_from(query.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend(with_id(query, id));
    stream.write_all(&packet).await?;
    let mut response = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut response).await?;
    if !answers(&response, query, id) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is not to this query",
        ));
    }
    response[..2].copy_from_slice(&query[..2]);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `example.` A IN.
    const QUERY: [u8; 25] =
        *b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x00\x00\x01\x00\x01";

    fn response(query: &[u8]) -> Vec<u8> {
        let mut response = query.to_vec();
        response[2] |= 0x80;
        response
    }

    #[tokio::test]
    async fn goes_to_the_next_resolver_and_ignores_strangers() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let good = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![silent.local_addr().unwrap(), good.local_addr().unwrap()];
        let conf = ResolvConf {
            servers: vec![],
            search: vec![],
            timeout: Duration::from_millis(100),
            attempts: 1,
        };
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (size, from) = good.recv_from(&mut buffer).await.unwrap();
            assert_ne!(&buffer[..2], &QUERY[..2], "the id outside is random");
            let mut wrong = response(&buffer[..size]);
            wrong[0] ^= 1;
            good.send_to(&wrong, from).await.unwrap();
            good.send_to(&response(&buffer[..size]), from).await.unwrap();
        });
        let forwarder = Forwarder::to(servers, &conf);
        assert_eq!(
            forwarder.ask(&QUERY, Transport::Udp).await.unwrap(),
            response(&QUERY)
        );
        answering.await.unwrap();
        drop(silent);
    }

    #[tokio::test]
    async fn says_who_did_not_answer() {
        let conf = ResolvConf {
            servers: vec![],
            search: vec![],
            timeout: Duration::from_millis(50),
            attempts: 1,
        };
        let error = Forwarder::to(vec![], &conf)
            .ask(&QUERY, Transport::Udp)
            .await
            .unwrap_err();
        assert!(matches!(error, ForwardError::NoResolver));
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = silent.local_addr().unwrap();
        let error = Forwarder::to(vec![server], &conf)
            .ask(&QUERY, Transport::Udp)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&server.to_string()), "{error}");
    }
}
