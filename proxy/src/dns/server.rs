//! The server on loopback, UDP and TCP (RFC 7766 framing), IPv4 and, where the pod has it, IPv6.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use mesh_runtime::drain::Drain;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    Names,
    answer::{self, Step, Transport},
    forward::Forwarder,
    resolv_conf::ResolvConf,
};
use crate::observe::Stats;

/// Queries on their way to resolvers at once.
pub const MAX_QUERIES: usize = 512;
/// TCP connections at once.
pub const MAX_CONNECTIONS: usize = 64;
/// A TCP client that says nothing for this time is let go.
const IDLE: Duration = Duration::from_secs(10);
/// The largest query over UDP that makes sense.
const MAX_PACKET: usize = 4_096;

/// What the server needs.
#[derive(Clone)]
pub struct Settings {
    pub port: u16,
    pub names: Names,
    pub resolvers: ResolvConf,
    pub stats: Stats,
}

struct Server {
    names: Names,
    forwarder: Forwarder,
    stats: Stats,
    queries: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    turn: AtomicUsize,
}

/// Serves until the drain. Only IPv4's loopback must be there.
pub async fn serve(settings: Settings, drain: Drain) -> io::Result<()> {
    let server = Arc::new(Server {
        names: settings.names,
        forwarder: Forwarder::new(&settings.resolvers),
        stats: settings.stats,
        queries: Arc::new(Semaphore::new(MAX_QUERIES)),
        connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        turn: AtomicUsize::new(0),
    });
    let mut tasks = JoinSet::new();
    for ip in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ] {
        let address = SocketAddr::new(ip, settings.port);
        match bind(address).await {
            Ok((udp, tcp)) => {
                tasks.spawn(serve_udp(Arc::clone(&server), udp));
                tasks.spawn(serve_tcp(Arc::clone(&server), tcp));
            }
            Err(error) if ip.is_ipv4() => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("DNS server cannot listen on {address}: {error}"),
                ));
            }
            Err(error) => tracing::debug!(%address, %error, "no DNS over IPv6 in this pod"),
        }
    }
    drain.drained().await;
    tasks.shutdown().await;
    Ok(())
}

async fn bind(address: SocketAddr) -> io::Result<(Arc<UdpSocket>, TcpListener)> {
    Ok((
        Arc::new(UdpSocket::bind(address).await?),
        TcpListener::bind(address).await?,
    ))
}

impl Server {
    /// The answer at once, or `None` when resolvers must be asked first.
    fn quick(&self, query: &[u8], transport: Transport) -> Step {
        self.stats.control().dns_requests.add_shared(1);
        let turn = self.turn.fetch_add(1, Relaxed);
        let step = answer::answer(query, &self.names.get(), transport, turn);
        if matches!(step, Step::Answer(_)) {
            self.stats.control().dns_answered.add_shared(1);
        }
        step
    }

    async fn forwarded(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match self.forwarder.ask(query, transport).await {
            Ok(response) => {
                self.stats.control().dns_forwarded.add_shared(1);
                Some(response)
            }
            Err(error) => {
                self.stats.control().dns_failed.add_shared(1);
                tracing::debug!(%error, "a DNS query could not be resolved");
                answer::failure(query)
            }
        }
    }
}

async fn serve_udp(server: Arc<Server>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let (size, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // A client that went away shows up here as an error; nothing of it concerns the next query.
                tracing::debug!(%error, "DNS over UDP");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let query = &buffer[..size];
        let answer = match server.quick(query, Transport::Udp) {
            Step::Ignore => None,
            Step::Answer(bytes) => Some(bytes),
            Step::Forward => match Arc::clone(&server.queries).try_acquire_owned() {
                Ok(permit) => {
                    let (server, socket, query) = (Arc::clone(&server), Arc::clone(&socket), query.to_vec());
                    tokio::spawn(async move {
                        if let Some(bytes) = server.forwarded(&query, Transport::Udp).await {
                            send(&socket, &bytes, client).await;
                        }
                        drop(permit);
                    });
                    None
                }
                Err(_) => {
                    server.stats.control().dns_refused.add_shared(1);
                    answer::failure(query)
                }
            },
        };
        if let Some(bytes) = answer {
            send(&socket, &bytes, client).await;
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        tracing::debug!(%client, %error, "a DNS answer could not be sent");
    }
}

async fn serve_tcp(server: Arc<Server>, listener: TcpListener) {
    loop {
        let Ok(slot) = Arc::clone(&server.connections).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if let Err(error) = connection(&server, stream).await {
                        tracing::debug!(%error, "DNS over TCP");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "DNS over TCP could not accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => usize::from(length),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let mut query = vec![0; length];
        tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await??;
        let answer = match server.quick(&query, Transport::Tcp) {
            Step::Ignore => return Ok(()),
            Step::Answer(bytes) => Some(bytes),
            Step::Forward => server.forwarded(&query, Transport::Tcp).await,
        };
        let Some(bytes) = answer else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut packet = length.to_be_bytes().to_vec();
        packet.extend(bytes);
        stream.write_all(&packet).await?;
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query, ResponseCode},
        rr::{Name, RecordType},
    };

    use super::*;
    use crate::dns::table::tests::example;

    fn query(name: &str) -> Vec<u8> {
        let mut message = Message::new(5, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    #[tokio::test]
    async fn answers_over_udp_and_tcp_and_fails_clearly() {
        // A port that is free for both.
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let names = Names::new();
        names.set(example());
        let resolvers = ResolvConf {
            servers: vec![],
            search: vec![],
            timeout: Duration::from_secs(1),
            attempts: 1,
        };
        let (trigger, drain) = mesh_runtime::drain::channel();
        let settings = Settings {
            port,
            names,
            resolvers,
            stats: Stats::new(),
        };
        let serving = tokio::spawn(serve(settings, drain));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(("127.0.0.1", port)).await.unwrap();
        let mut buffer = [0; 1500];
        let mut ask = async |name: &str| {
            for _ in 0..50 {
                // The server may still be starting.
                let sent = client.send(&query(name)).await;
                let answer = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut buffer)).await;
                if let (Ok(_), Ok(Ok(size))) = (sent, answer) {
                    return Message::from_vec(&buffer[..size]).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("no answer");
        };
        let answer = ask("reviews.default.svc.cluster.local.").await;
        assert_eq!(answer.answers[0].data.to_string(), "10.96.0.5");
        let answer = ask("elsewhere.example.").await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::ServFail,
            "there is no resolver"
        );

        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        for _ in 0..2 {
            let query = query("httpbin.org.");
            stream.write_u16(query.len() as u16).await.unwrap();
            stream.write_all(&query).await.unwrap();
            let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(
                Message::from_vec(&answer).unwrap().answers[0].data.to_string(),
                "240.240.0.2"
            );
        }
        trigger.drain();
        serving.await.unwrap().unwrap();
    }
}
