//! The supervisor of a local mesh: one process that is API server, kubelet, controllers, kube-proxy and cluster DNS at
//! once (`meshctl local node`, started by `up`). It owns everything of the platform; when it ends in an orderly way
//! nothing is left, and when it is killed its containers die with it and the next `up` or `down` removes the rest.

use std::{
    collections::BTreeMap,
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, UdpSocket, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    clean, control,
    controller::{self, Outlets, deployment::controller_uid, namespace::FIRST},
    dns::{self, Zone},
    egress, images,
    issuer::Issuer,
    kubelet::{self, Addresses},
    merge, moment, netns,
    object::{self, Key, Kind},
    platform::{BRIDGE, Layout, NODE_ADDRESS},
    publish::{self, Gateway},
    store::{Store, write_atomically},
};

/// How long a program may take to end when the whole platform goes.
const LAST_GRACE: Duration = Duration::from_secs(3);
/// As container engines allow: a proxy with many connections needs many descriptors.
const OPEN_FILES: u64 = 1 << 20;

/// What the supervisor is told at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Port on 127.0.0.1 that leads to the ingress gateway; none: no port on the host.
    pub gateway_port: Option<u16>,
}

/// What all parts of the supervisor share.
pub struct Node {
    pub layout: Layout,
    pub options: Options,
    pub store: Arc<Store>,
    pub issuer: Issuer,
    pub addresses: Addresses,
    pub processes: Processes,
    pub started: String,
    closing: watch::Sender<bool>,
}

/// The main processes of running containers, by `namespace/pod/container`.
#[derive(Debug, Default)]
pub struct Processes(Mutex<BTreeMap<String, i32>>);

impl Processes {
    pub fn set(&self, container: &str, pid: Option<i32>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pid {
            Some(pid) => map.insert(container.to_owned(), pid),
            None => map.remove(container),
        };
    }

    pub fn get(&self, container: &str) -> Option<i32> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(container)
            .copied()
    }
}

impl Node {
    /// Asks everything to end.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    pub fn is_closed(&self) -> bool {
        *self.closing.borrow()
    }

    /// Resolves when the end has been asked for.
    pub async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

/// Runs the supervisor to its end.
pub async fn run(layout: Layout, options: Options) -> anyhow::Result<()> {
    // Away from the terminal that started us; a session leader already is.
    let _ = nix::unistd::setsid();
    std::fs::create_dir_all(layout.run())?;
    let _lock = lock(&layout)?;
    write_atomically(
        &layout.pid_file(),
        std::process::id().to_string().as_bytes(),
        0o644,
    )?;
    raise_open_files();
    clean::processes_and_namespaces(&layout)
        .await
        .context("what an earlier run left cannot be removed")?;
    let host_port = match options.gateway_port {
        Some(port) => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            Some(TcpListener::bind(address).await.with_context(|| {
                format!("{address} cannot be opened for the gateway; choose another with --gateway-port")
            })?)
        }
        None => None,
    };
    let result = serve(&layout, options, host_port).await;
    clean::processes_and_namespaces(&layout)
        .await
        .context("not everything could be removed")?;
    result
}

async fn serve(layout: &Layout, options: Options, host_port: Option<TcpListener>) -> anyhow::Result<()> {
    let (store, strange) = Store::open(&layout.cluster()).context("the store cannot be opened")?;
    for text in strange {
        tracing::warn!(text, "a file in the store is no object; it is left alone");
    }
    let node = Arc::new(Node {
        layout: layout.clone(),
        options,
        store: Arc::new(store),
        issuer: Issuer::open(&layout.pki())?,
        addresses: Addresses::default(),
        processes: Processes::default(),
        started: moment::now(),
        closing: watch::Sender::new(false),
    });
    forget_last_run(&node)?;
    // The user's table is there to be edited, even when it is empty.
    images::add(&layout.images(), &images::Table::new())?;
    first_objects(&node.store)?;
    netns::create_node(layout).await?;
    let namespace = layout.node_namespace();
    let dns_address = SocketAddr::from((NODE_ADDRESS, 53));
    let udp = UdpSocket::from_std(netns::datagram(&namespace, dns_address).await?)?;
    let tcp = TcpListener::from_std(netns::listen(&namespace, dns_address).await?)?;
    let way_out = TcpListener::from_std(netns::listen(&namespace, egress::address()).await?)?;
    netns::run(
        "ip",
        &["netns", "exec", &namespace, "nft", "-f", "-"],
        &egress::rules(BRIDGE),
    )
    .await?;
    let (zone, zone_seen) = watch::channel(Arc::new(Zone::default()));
    let (gateway, gateway_seen) = watch::channel(Arc::new(Gateway::default()));
    let socket = control_socket(layout)?;

    let mut background = tokio::task::JoinSet::new();
    background.spawn(dns::server::serve(udp, tcp, zone_seen));
    background.spawn(egress::serve(way_out));
    if let Some(listener) = host_port {
        background.spawn(publish::serve(listener, namespace, gateway_seen));
    }
    background.spawn(control::serve(node.clone(), socket));
    let controllers = tokio::spawn(controller::run(node.clone(), Outlets { zone, gateway }));
    let kubelet = tokio::spawn(kubelet::run(node.clone(), LAST_GRACE));
    tracing::info!(dir = %layout.dir.display(), "the node is up");

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => node.close(),
        _ = interrupt.recv() => node.close(),
        () = node.closed() => {}
        Some(ended) = background.join_next() => {
            node.close();
            tracing::error!(?ended, "a part of the node ended by itself");
        }
    }
    controllers.await.context("the controllers failed")?;
    kubelet.await.context("the kubelet failed")?;
    background.shutdown().await;
    tracing::info!("the node is down");
    Ok(())
}

/// One supervisor for a folder.
fn lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.lock();
    let file = File::create(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => bail!("another supervisor runs for {}", layout.dir.display()),
    }
}

/// Does a supervisor hold the lock?
pub fn is_running(layout: &Layout) -> bool {
    File::open(layout.lock()).is_ok_and(|file| file.try_lock_shared().is_err())
}

fn raise_open_files() {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let wanted = hard.max(OPEN_FILES);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Pods of the last run are gone, whatever their objects say. Those of a set are made anew by it; bare ones begin again.
fn forget_last_run(node: &Node) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(node.layout.pods()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} cannot be removed", node.layout.pods().display()));
        }
        _ => {}
    }
    for (key, pod) in node.store.list(Kind::named("Pod")) {
        let leaving = !object::text(&pod, "/metadata/deletionTimestamp").is_empty();
        if leaving || !controller_uid(&pod).is_empty() {
            node.store.remove(&key)?;
        } else {
            node.store
                .update(&key, |pod| pod["status"] = json!({"phase": "Pending"}))?;
        }
    }
    for (key, _) in node.store.list(Kind::named("EndpointSlice")) {
        let managed = node
            .store
            .get(&key)
            .is_some_and(|slice| !controller_uid(&slice).is_empty());
        if managed {
            node.store.remove(&key)?;
        }
    }
    Ok(())
}

fn first_objects(store: &Store) -> anyhow::Result<()> {
    for name in FIRST {
        let key = Key::new("Namespace", "", name);
        if store.get(&key).is_none() {
            let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let mut namespace = merge::apply(&key, None, &manifest);
            namespace["status"] =
                Value::Object([("phase".to_owned(), "Active".into())].into_iter().collect());
            store.create(&key, namespace)?;
        }
    }
    Ok(())
}

/// The control socket, for root alone.
fn control_socket(layout: &Layout) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let path = layout.socket();
    let _ = std::fs::remove_file(&path);
    // The folder is closed first, so that nobody can connect before the socket's own mode is set.
    std::fs::set_permissions(layout.run(), PermissionsExt::from_mode(0o700))?;
    let listener =
        UnixListener::bind(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Reads the options that `up` wrote for the supervisor.
pub fn read_options(path: &Path) -> anyhow::Result<Options> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not usable", path.display()))
}
