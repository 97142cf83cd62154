//! The simulated proxies. Each opens a TCP connection of its own, proves itself by its account's
//! certificate, and speaks delta xDS on one stream as our proxy does: it asks for the endpoints of new
//! clusters and the tables of new listeners, answers for clusters and endpoints at once and for listeners
//! when their tables are there, and after a lost stream comes back with the versions it holds, after the
//! same waits. It does not build anything from what it gets.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use h2::SendStream;
use mesh_proto::{
    envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest},
    xds::{Type, WILDCARD},
};
use mesh_runtime::{
    backoff::Backoff,
    tls::{self, IdentityCell, PeerNames},
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::TlsConnector;

use super::{
    Mode, Settings,
    board::{Board, Change},
    objects::Population,
    protocol::{End, Item, Library, Reader, Resource, frame},
};

const PILOT: &str = "spiffe://cluster.local/ns/istio-system/sa/pilot";
const METHOD: &str =
    "https://pilot/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// As our proxy waits.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// HTTP/2 windows, as our proxy's client announces them.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;

/// What all proxies share.
struct Shared {
    address: SocketAddr,
    library: Library,
    board: Arc<Board>,
    /// Proxies that have everything they asked for.
    complete: AtomicUsize,
    received: AtomicU64,
    /// Why a stream ended last, for the error when something does not come to pass.
    trouble: std::sync::Mutex<String>,
    running: watch::Sender<bool>,
}

pub struct Fleet {
    shared: Arc<Shared>,
    proxies: std::sync::Mutex<Vec<Proxy>>,
    count: usize,
}

impl Fleet {
    pub fn new(
        settings: &Settings,
        population: &Population,
        identities: &BTreeMap<usize, IdentityCell>,
        address: SocketAddr,
        board: Arc<Board>,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            address,
            library: Library::default(),
            board,
            complete: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            trouble: std::sync::Mutex::default(),
            running: watch::Sender::new(true),
        });
        let configs: BTreeMap<usize, Arc<ClientConfig>> = identities
            .iter()
            .map(|(service, cell)| {
                let peer = PeerNames::Exact(vec![PILOT.to_owned()]);
                Ok((*service, Arc::new(tls::client_config(cell, peer, &["h2"])?)))
            })
            .collect::<anyhow::Result<_>>()?;
        let proxy = |number: usize| {
            let (service, _) = population.place(number);
            let (id, metadata) = population.node(number);
            let clusters = match settings.mode {
                Mode::Full => Vec::new(),
                Mode::Ondemand => population
                    .wanted(number, settings)
                    .into_iter()
                    .map(|service| population.cluster(service).as_str().into())
                    .collect(),
            };
            Ok(Proxy {
                shared: shared.clone(),
                tls: configs.get(&service).context("no identity")?.clone(),
                node: Node {
                    id,
                    metadata: Some(metadata.to_struct()),
                    ..Node::default()
                },
                clusters,
                held: Default::default(),
            })
        };
        let proxies = (0..settings.proxies)
            .map(proxy)
            .collect::<anyhow::Result<Vec<Proxy>>>()?;
        Ok(Self {
            shared,
            count: proxies.len(),
            proxies: std::sync::Mutex::new(proxies),
        })
    }

    /// All at once.
    pub fn start(&self) {
        for proxy in std::mem::take(&mut *super::board::lock(&self.proxies)) {
            tokio::spawn(proxy.run());
        }
    }

    pub fn stop(&self) {
        self.shared.running.send_replace(false);
    }

    /// Until every proxy has what it asked for.
    pub async fn complete(&self, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            let complete = self.shared.complete.load(Ordering::Relaxed);
            if complete == self.count {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{complete} of {} proxies have their configuration after {patience:?}; the last that lost its stream said: {}",
                self.count,
                super::board::lock(&self.shared.trouble)
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Bytes of responses so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }
}

/// Name and version of what it has.
type Held = HashMap<Arc<str>, Arc<str>>;

struct Proxy {
    shared: Arc<Shared>,
    tls: Arc<ClientConfig>,
    node: Node,
    /// What it asks for by name; empty: everything.
    clusters: Vec<Arc<str>>,
    held: [Held; 6],
}

impl Proxy {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut running = self.shared.running.subscribe();
        while *running.borrow() {
            let mut stream = Stream::new(&mut self);
            let result = tokio::select! {
                result = stream.run() => result,
                _ = running.wait_for(|running| !running) => Ok(()),
            };
            if stream.complete {
                stream.proxy.shared.complete.fetch_sub(1, Ordering::Relaxed);
                backoff.reset();
            }
            if let Err(error) = result {
                *super::board::lock(&self.shared.trouble) = format!("{error:#}");
            }
            tokio::time::sleep(backoff.next(fraction())).await;
        }
    }
}

/// Something between 0 and 1 that differs between proxies.
fn fraction() -> f64 {
    f64::from(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos() % 1000) / 1000.0
}

/// One stream of a proxy.
struct Stream<'a> {
    proxy: &'a mut Proxy,
    /// Types of which everything was asked for and nothing has come yet.
    unanswered: BTreeSet<Type>,
    /// Names that were asked for and have not come yet.
    missing: [BTreeSet<Arc<str>>; 6],
    /// Listeners are answered for when their tables are there.
    listeners: Option<DeltaDiscoveryRequest>,
    /// New names that the response at hand makes necessary.
    fresh: [Vec<Arc<str>>; 6],
    /// The change that the response at hand carries.
    change: Option<Arc<Change>>,
    complete: bool,
}

impl<'a> Stream<'a> {
    fn new(proxy: &'a mut Proxy) -> Self {
        Self {
            proxy,
            unanswered: BTreeSet::new(),
            missing: Default::default(),
            listeners: None,
            fresh: Default::default(),
            change: None,
            complete: false,
        }
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let tcp = TcpStream::connect(self.proxy.shared.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.proxy.shared.address.ip().into());
        let tls = TlsConnector::from(self.proxy.tls.clone())
            .connect(name, tcp)
            .await
            .context("TLS")?;
        let (mut client, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake::<_, bytes::Bytes>(tls)
            .await?;
        // It ends with the last handle of the stream.
        tokio::spawn(connection);
        let request = http::Request::post(METHOD)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut requests) = client.send_request(request, false)?;
        for request in self.first() {
            requests.send_data(frame(&request), false)?;
        }
        let response = response.await?;
        if let Some(status) = response.headers().get("grpc-status") {
            let message = response.headers().get("grpc-message");
            bail!("pilot refused the stream: {status:?} {message:?}");
        }
        let mut body = response.into_body();
        let mut reader = Reader::default();
        while let Some(bytes) = body.data().await {
            let bytes = bytes?;
            self.proxy
                .shared
                .received
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            body.flow_control().release_capacity(bytes.len())?;
            reader.push(&bytes);
            while let Some(item) = reader.next()? {
                match item {
                    Item::Resource(resource) => self.resource(&resource)?,
                    Item::End(end) => self.end(end, &mut requests)?,
                }
            }
        }
        let trailers = body.trailers().await?;
        bail!("the stream ended: {trailers:?}")
    }

    /// What a new stream begins with.
    fn first(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for kind in Type::ALL {
            let held = &self.proxy.held[kind.index()];
            let everything =
                kind.allows_wildcard() && (kind != Type::Cluster || self.proxy.clusters.is_empty());
            let named: Vec<String> = match kind {
                _ if everything => vec![WILDCARD.to_owned()],
                Type::Cluster => self.proxy.clusters.iter().map(|name| name.to_string()).collect(),
                _ => held.keys().map(|name| name.to_string()).collect(),
            };
            if named.is_empty() {
                continue;
            }
            if everything {
                self.unanswered.insert(kind);
            } else {
                let lacking = named.iter().filter(|name| !held.contains_key(name.as_str()));
                self.missing[kind.index()] = lacking.map(|name| name.as_str().into()).collect();
            }
            requests.push(DeltaDiscoveryRequest {
                node: requests.is_empty().then(|| self.proxy.node.clone()),
                type_url: kind.url().to_owned(),
                resource_names_subscribe: named,
                initial_resource_versions: held
                    .iter()
                    .map(|(name, version)| (name.to_string(), version.to_string()))
                    .collect(),
                ..DeltaDiscoveryRequest::default()
            });
        }
        requests
    }

    fn resource(&mut self, resource: &Resource) -> anyhow::Result<()> {
        let any = resource.resource.as_ref().context("a resource without a body")?;
        let kind = Type::from_url(&any.type_url).context("a resource of a type that was not asked for")?;
        let shared = &self.proxy.shared;
        if let Some(change) = shared.board.current()
            && change.is_in(kind, &resource.version, &any.value)
        {
            self.change = Some(change);
        }
        let facts = shared.library.facts(kind, resource, &any.value)?;
        self.missing[kind.index()].remove(&facts.name);
        let wanted = |of: Type, name: &Arc<str>| !self.proxy.held[of.index()].contains_key(name);
        if facts.eds && wanted(Type::Endpoint, &facts.name) {
            self.fresh[Type::Endpoint.index()].push(facts.name.clone());
        }
        for table in facts.routes.iter().filter(|table| wanted(Type::Route, table)) {
            self.fresh[Type::Route.index()].push(table.clone());
        }
        self.proxy.held[kind.index()].insert(facts.name.clone(), facts.version.clone());
        Ok(())
    }

    /// The response is whole: asks for what it refers to, answers for it.
    fn end(&mut self, end: End, requests: &mut SendStream<bytes::Bytes>) -> anyhow::Result<()> {
        let kind = Type::from_url(&end.type_url).context("a response of a type that was not asked for")?;
        self.unanswered.remove(&kind);
        for name in &end.removed {
            self.proxy.held[kind.index()].remove(name.as_str());
            self.missing[kind.index()].remove(name.as_str());
        }
        for of in [Type::Endpoint, Type::Route] {
            let missing = &mut self.missing[of.index()];
            let mut fresh = std::mem::take(&mut self.fresh[of.index()]);
            // What was asked for already, and is on its way, is not asked for again.
            fresh.retain(|name| missing.insert(name.clone()));
            if !fresh.is_empty() {
                let request = DeltaDiscoveryRequest {
                    type_url: of.url().to_owned(),
                    resource_names_subscribe: fresh.iter().map(|name| name.to_string()).collect(),
                    ..DeltaDiscoveryRequest::default()
                };
                requests.send_data(frame(&request), false)?;
            }
        }
        let answer = DeltaDiscoveryRequest {
            type_url: end.type_url,
            response_nonce: end.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        if kind == Type::Listener {
            ensure!(
                self.listeners.is_none(),
                "listeners came before the last ones were answered for"
            );
            self.listeners = Some(answer);
        } else {
            requests.send_data(frame(&answer), false)?;
        }
        if self.missing[Type::Route.index()].is_empty()
            && let Some(answer) = self.listeners.take()
        {
            requests.send_data(frame(&answer), false)?;
        }
        if let Some(change) = self.change.take() {
            change.answered();
        }
        let nothing = self.unanswered.is_empty() && self.missing.iter().all(BTreeSet::is_empty);
        if nothing && !self.complete {
            self.complete = true;
            self.proxy.shared.complete.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
