//! A whole proxy with one worker on loopback, and servers behind it that note what they get: for tests of this crate that
//! want real connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_runtime::{
    drain::{self, Trigger},
    tls::IdentityCell,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tonic::transport::Channel;

use crate::{
    app::Workers,
    bootstrap,
    observe::{Stats, access_log::Host, outlet::Outlet, report::Connect},
    store::Store,
    worker::{Own, Parts},
};

/// Everything in a test ends within this time.
pub const SOON: Duration = Duration::from_secs(10);

struct NoConnect;

impl Connect for NoConnect {
    fn channel(&self, cluster: &str) -> Result<Channel, String> {
        Err(format!("there is no cluster {cluster}"))
    }
}

/// A running proxy. Its thread stays until the process ends.
pub struct Proxy {
    pub address: SocketAddr,
    pub stats: Stats,
    _trigger: Trigger,
}

impl Proxy {
    /// From a bootstrap; `PORT` in it becomes a free port.
    pub async fn start(yaml: &str) -> Self {
        Self::of_mesh(yaml, IdentityCell::new(), Own::default()).await
    }

    /// The same, as the proxy of a workload with an identity.
    pub async fn of_mesh(yaml: &str, identity: IdentityCell, own: Own) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let text = yaml.replace("PORT", &address.port().to_string());
        let bootstrap = bootstrap::read(&text).unwrap();
        let (stats, store) = (Stats::new(), Store::new());
        let (trigger, drain) = drain::channel();
        store.publish(bootstrap.snapshot());
        let parts = Parts {
            store: store.clone(),
            identity,
            own,
            stats: stats.clone(),
            outlet: Outlet::new(stats.clone(), Host::default(), Arc::new(NoConnect)),
            connections: crate::conn::track::Connections::default(),
            sockets: Default::default(),
            drain,
        };
        Workers::start(1, &parts).unwrap();
        tokio::time::timeout(SOON, store.listening(1)).await.unwrap();
        Self {
            address,
            stats,
            _trigger: trigger,
        }
    }

    /// A proxy with one HTTP listener: its filters before the router, its routes (of one virtual host), its clusters.
    pub async fn http(filters: &str, routes: &str, clusters: &[(&str, SocketAddr)]) -> Self {
        Self::http_with("", filters, routes, clusters).await
    }

    /// The same, with more settings of the connection manager.
    pub async fn http_with(
        settings: &str,
        filters: &str,
        routes: &str,
        clusters: &[(&str, SocketAddr)],
    ) -> Self {
        let clusters: Vec<String> = clusters
            .iter()
            .map(|(name, address)| {
                format!(
                    "{{name: {name}, connect_timeout: 2s, load_assignment: {{cluster_name: {name}, endpoints: \
                     [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
                    address.ip(),
                    address.port()
                )
            })
            .collect();
        let manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let router = "envoy.extensions.filters.http.router.v3.Router";
        let yaml = format!(
            "static_resources: {{clusters: [{}], listeners: [{{name: in, address: {{socket_address: {{address: \
             127.0.0.1, port_value: PORT}}}}, filter_chains: [{{filters: [{{name: http, typed_config: {{'@type': \
             type.googleapis.com/{manager}, stat_prefix: in, {settings} route_config: {{name: r, virtual_hosts: \
             [{{name: all, domains: ['*'], routes: [{routes}]}}]}}, http_filters: [{filters} {{name: router, \
             typed_config: {{'@type': type.googleapis.com/{router}}}}}]}}}}]}}]}}]}}",
            clusters.join(", ")
        );
        Self::start(&yaml).await
    }

    /// Sends a request as it stands and reads until the connection ends.
    pub async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        tokio::time::timeout(SOON, reading).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// A GET with these header lines.
    pub async fn get(&self, path: &str, headers: &str) -> String {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: site.test\r\nconnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    /// One number, by its text name; 0 if there is none.
    pub fn number(&self, name: &str) -> u64 {
        let samples = self.stats.collect();
        let sample = samples.iter().find(|sample| sample.text_name() == name);
        match sample.map(|sample| &sample.value) {
            Some(crate::observe::stats::Value::Counter(n)) => *n,
            Some(crate::observe::stats::Value::Gauge(n)) => u64::try_from(*n).unwrap(),
            _ => 0,
        }
    }

    /// Waits until a number is this.
    pub async fn until(&self, name: &str, wanted: u64) {
        let reached = async {
            while self.number(name) != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(SOON, reached).await.is_err() {
            panic!("{name} is {}, not {wanted}", self.number(name));
        }
    }
}

/// A server that notes its requests and answers `200 got it`.
pub struct Server {
    pub address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request<Bytes>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::slow(Duration::ZERO).await
    }

    /// One that takes its time to answer.
    pub async fn slow(pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let seen = seen.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let seen = seen.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let _ = seen.send(Request::from_parts(parts, body));
                        tokio::time::sleep(pause).await;
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from("got it"))))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        Self { address, requests }
    }

    /// The next request.
    pub async fn next(&mut self) -> Request<Bytes> {
        tokio::time::timeout(SOON, self.requests.recv())
            .await
            .expect("a request in time")
            .unwrap()
    }

    /// Has no further request come?
    pub fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

/// Calls `run` with `rounds` damaged versions of what is in the corpus, always the same ones: bits flipped, bytes set to
/// odd values, cut, doubled, mixed with another member.
pub fn damaged(corpus: &[&[u8]], rounds: u64, mut run: impl FnMut(&[u8])) {
    use crate::balance::mix;
    for round in 0..rounds {
        let mut random = round;
        let mut below = |bound: usize| {
            random = mix(random);
            usize::try_from(random % bound.max(1) as u64).unwrap()
        };
        let mut bytes = corpus[below(corpus.len())].to_vec();
        for _ in 0..=below(4) {
            if bytes.is_empty() {
                break;
            }
            let (at, length) = (below(bytes.len()), bytes.len());
            match below(7) {
                0 => bytes[at] ^= 1 << below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'\r', b'\n', b':'][below(8)],
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..(at + below(16)).min(length))),
                4 => {
                    let part = bytes[at..(at + below(64)).min(length)].to_vec();
                    bytes.splice(at..at, part);
                }
                5 => {
                    let other = corpus[below(corpus.len())];
                    let from = below(other.len());
                    bytes.splice(at.., other[from..].iter().copied());
                }
                _ => {
                    let noise: Vec<u8> = (0..below(8)).map(|_| below(256) as u8).collect();
                    bytes.splice(at..at, noise);
                }
            }
        }
        run(&bytes);
    }
}

/// A verdict over the first bytes must hold whatever follows them, and must come at all.
pub fn verdicts_hold<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    detect: impl Fn(&[u8]) -> crate::sniff::Sniff<T>,
) {
    use crate::sniff::{MAX_BYTES, Sniff};
    let whole = detect(bytes);
    // Every length would be too many of them: the ends, and some between.
    let step = bytes.len() / 7 + 1;
    for length in (0..bytes.len())
        .step_by(step)
        .chain([bytes.len().saturating_sub(1)])
    {
        let part = detect(&bytes[..length]);
        assert!(
            part == Sniff::NeedMore || part == whole,
            "{length} of {bytes:?}: {part:?}, then {whole:?}"
        );
    }
    if whole == Sniff::NeedMore {
        let long = [bytes, &[0; MAX_BYTES + 512]].concat();
        assert_ne!(
            detect(&long),
            Sniff::NeedMore,
            "no verdict over {} bytes",
            long.len()
        );
    }
}
