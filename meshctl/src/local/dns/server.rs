//! The cluster's DNS on the wire: UDP and TCP on the node's address, port 53. Questions about other domains are passed to
//! the host's resolvers as they are; when those do not answer, the client is told so at once for a while instead of
//! being made to wait each time.
//!
//! Bounds: 512 questions in flight, 64 TCP connections of 10 s, 2 s for a resolver of the host.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
};

use super::{Verdict, Zone, answer};

const MAX_QUESTIONS: usize = 512;
const MAX_CONNECTIONS: usize = 64;
const CONNECTION_LIFE: Duration = Duration::from_secs(10);
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// After resolvers failed, how long nobody is made to wait for them again.
const UPSTREAM_PAUSE: Duration = Duration::from_secs(5);
/// Without EDNS, a client takes no more over UDP (RFC 1035, 4.2.1).
const PLAIN_UDP: usize = 512;

struct Shared {
    zone: watch::Receiver<Arc<Zone>>,
    upstreams: Vec<SocketAddr>,
    started: Instant,
    /// Milliseconds since `started` until which the host's resolvers are left alone.
    paused_until: AtomicU64,
}

/// Serves until dropped. `zone` may change at any time.
pub async fn serve(udp: UdpSocket, tcp: TcpListener, zone: watch::Receiver<Arc<Zone>>) {
    let upstreams = host_resolvers();
    let shared = Arc::new(Shared {
        zone,
        upstreams,
        started: Instant::now(),
        paused_until: AtomicU64::new(0),
    });
    tokio::join!(serve_udp(Arc::new(udp), shared.clone()), serve_tcp(tcp, shared));
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(MAX_QUESTIONS));
    let mut buffer = vec![0; 4096];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error of an earlier answer; the socket itself stays good.
                tracing::debug!(%error, "dns: receive");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            continue;
        };
        let (question, socket, shared) = (buffer[..length].to_vec(), socket.clone(), shared.clone());
        tokio::spawn(async move {
            if let Some(reply) = reply(&shared, &question, true).await {
                let _ = socket.send_to(&reply, client).await;
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_LIFE, conversation(stream, &shared)).await;
            drop(permit);
        });
    }
}

/// Questions and answers, each with its length before it (RFC 1035, 4.2.2).
async fn conversation(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    loop {
        let length = usize::from(stream.read_u16().await?);
        let mut question = vec![0; length];
        stream.read_exact(&mut question).await?;
        let Some(reply) = reply(shared, &question, false).await else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(reply.len()) else {
            return Ok(());
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(reply);
        stream.write_all(&framed).await?;
    }
}

/// The bytes to answer with; nothing for what is no question.
async fn reply(shared: &Shared, bytes: &[u8], udp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(bytes).ok()?;
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    let zone = shared.zone.borrow().clone();
    match answer(&zone, &question) {
        Verdict::Answer(reply) => {
            let encoded = reply.to_vec().ok()?;
            let limit = if question.edns.is_some() {
                usize::from(question.max_payload())
            } else {
                PLAIN_UDP
            };
            if udp && encoded.len() > limit {
                reply.truncate().to_vec().ok()
            } else {
                Some(encoded)
            }
        }
        Verdict::Forward => match forward(shared, bytes, udp).await {
            Some(answer) => Some(answer),
            None => {
                let mut reply = Message::error_msg(
                    question.metadata.id,
                    question.metadata.op_code,
                    ResponseCode::ServFail,
                );
                reply.add_queries(question.queries.iter().cloned());
                reply.to_vec().ok()
            }
        },
    }
}

async fn forward(shared: &Shared, question: &[u8], udp: bool) -> Option<Vec<u8>> {
    let now = u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if shared.upstreams.is_empty() || now < shared.paused_until.load(Ordering::Relaxed) {
        return None;
    }
    for upstream in &shared.upstreams {
        let asked = async {
            if udp {
                ask_udp(*upstream, question).await
            } else {
                ask_tcp(*upstream, question).await
            }
        };
        if let Ok(Ok(answer)) = tokio::time::timeout(UPSTREAM_TIMEOUT, asked).await {
            return Some(answer);
        }
    }
    let pause = u64::try_from((shared.started.elapsed() + UPSTREAM_PAUSE).as_millis()).unwrap_or(u64::MAX);
    shared.paused_until.store(pause, Ordering::Relaxed);
    None
}

async fn ask_udp(upstream: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if upstream.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Only the answer to this very question counts.
        if length >= 2 && buffer.get(..2) == question.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(upstream: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), question].concat())
        .await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The name servers in the host's own configuration: at most two.
fn host_resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    resolvers(&text)
}

fn resolvers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())??
            .parse::<IpAddr>()
            .ok()
    };
    text.lines()
        .filter_map(server)
        .map(|address| SocketAddr::new(address, 53))
        .take(2)
        .collect()
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Query,
        rr::{Name, RecordType},
    };

    use super::{super::Target, *};

    #[test]
    fn resolvers_of_the_host() {
        let text =
            "# x\nsearch a\nnameserver 192.0.2.1\nnameserver ::1\nnameserver 192.0.2.3\noptions ndots:5\n";
        assert_eq!(
            resolvers(text),
            ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]
        );
    }

    #[tokio::test]
    async fn both_transports_answer() {
        let mut zone = Zone::default();
        // More addresses than 512 bytes can hold.
        let addresses = (1..=60).map(|last| [10, 244, 0, last].into()).collect();
        zone.insert("a.default.svc.cluster.local", Target::Addresses(addresses));
        let (_sender, zone) = watch::channel(Arc::new(zone));
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        tokio::spawn(serve(udp, tcp, zone));
        let mut question = Message::query();
        question.add_query(Query::query(
            Name::from_ascii("a.default.svc.cluster.local.").unwrap(),
            RecordType::A,
        ));
        let bytes = question.to_vec().unwrap();
        let short = Message::from_vec(&ask_udp(udp_at, &bytes).await.unwrap()).unwrap();
        assert!(short.metadata.truncation && short.answers.is_empty());
        let full = Message::from_vec(&ask_tcp(tcp_at, &bytes).await.unwrap()).unwrap();
        assert_eq!(full.answers.len(), 60);
    }
}
