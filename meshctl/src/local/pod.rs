//! One pod from its beginning to its end: network namespace, volumes, init containers in order, native sidecars, main
//! containers; at the end the main containers first, then the sidecars in reverse order, so that the proxy outlives the
//! application. The task that runs a pod is the only writer of its status.

pub mod container;
pub mod environment;
pub mod hook;
pub mod log;
pub mod probe;
pub mod status;
pub mod volume;

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use self::{
    container::Job,
    environment::{Data, Facts, Sources},
    status::{Role, Standing, State},
    volume::{Tokens, Volumes},
};
use super::{
    issuer::Bound,
    moment, netns,
    node::Node,
    object::{self, Key},
    platform::{NODE_ADDRESS, NODE_NAME},
    store::write_atomically,
};

/// Between a pod's removal from the endpoints and its first SIGTERM: the time in which proxies learn of it.
const ENDPOINT_GRACE: Duration = Duration::from_secs(1);
/// Sidecars get this much even when the application used up the whole grace period.
const SIDECAR_GRACE: Duration = Duration::from_secs(2);
const DEFAULT_GRACE: i64 = 30;
const RETRY: Duration = Duration::from_millis(200);
/// How often volumes are looked at when nothing in the store changed: for tokens that want renewal.
const VOLUME_INTERVAL: Duration = Duration::from_secs(10);

/// Everything that the tasks of one pod share.
pub struct PodContext {
    pub node: Arc<Node>,
    pub key: Key,
    pub uid: String,
    pub pod: Pod,
    pub folder: PathBuf,
    pub netns: String,
    pub address: Ipv4Addr,
    standing: Mutex<Standing>,
    /// Moves with every change of the standing.
    changed: watch::Sender<u64>,
    volumes: Mutex<Volumes>,
}

/// How a pod is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub grace: Duration,
    /// Wait for the endpoints' change to travel first.
    pub announce: bool,
}

/// One started container.
struct Running {
    role: Role,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<i32>,
}

impl PodContext {
    pub fn new(node: Arc<Node>, key: Key, object: &Value, address: Ipv4Addr) -> anyhow::Result<Arc<Self>> {
        let pod: Pod =
            serde_json::from_value(object.clone()).with_context(|| format!("{key} is not a pod"))?;
        let uid = object::text(object, "/metadata/uid").to_owned();
        let spec = pod.spec.as_ref().with_context(|| format!("{key} has no spec"))?;
        let init = spec
            .init_containers
            .iter()
            .flatten()
            .map(|container| (container, init_role(container)));
        let all = init.chain(spec.containers.iter().map(|container| (container, Role::Main)));
        let containers = all
            .map(|(c, role)| status::Container::new(&c.name, c.image.as_deref().unwrap_or_default(), role))
            .collect();
        let standing = Standing {
            containers,
            started: moment::now(),
            ..Standing::default()
        };
        Ok(Arc::new(Self {
            folder: node.layout.pod(&key.namespace, &key.name),
            netns: node.layout.pod_namespace(&key.namespace, &key.name, &uid),
            node,
            key,
            uid,
            pod,
            address,
            standing: Mutex::new(standing),
            changed: watch::Sender::new(0),
            volumes: Mutex::new(Volumes::default()),
        }))
    }

    /// Changes the standing and, if that changed anything, writes the status.
    pub fn update(&self, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = standing.clone();
        change(&mut standing);
        if *standing == before {
            return;
        }
        let now = moment::now();
        let written = self.node.store.update(&self.key, |object| {
            if object["metadata"]["uid"] == self.uid.as_str() {
                object["status"] = status::compose(&standing, &object["status"], &now);
            }
        });
        if let Err(error) = written {
            tracing::warn!(pod = %self.key.name, namespace = %self.key.namespace, %error, "status");
        }
        drop(standing);
        self.changed.send_modify(|version| *version += 1);
    }

    pub fn update_container(&self, index: usize, change: impl FnOnce(&mut status::Container)) {
        self.update(|standing| {
            if let Some(container) = standing.containers.get_mut(index) {
                change(container);
            }
        });
    }

    fn look<T>(&self, at: impl FnOnce(&Standing) -> T) -> T {
        at(&self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn restart_policy(&self) -> String {
        let policy = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.clone());
        policy.unwrap_or_else(|| "Always".into())
    }

    pub fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(u64::try_from(seconds.unwrap_or(DEFAULT_GRACE)).unwrap_or(0))
    }

    pub fn hostname(&self) -> String {
        let written = self.pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
        let mut name = written.unwrap_or_else(|| self.key.name.clone());
        name.truncate(63);
        name
    }

    pub fn spec_file(&self, container: &str) -> PathBuf {
        self.folder.join(format!("{container}.json"))
    }

    pub fn volumes_folder(&self) -> PathBuf {
        self.folder.join("volumes")
    }

    /// Never ends by itself: what waits on it is dropped with the pod.
    pub async fn never(&self) {
        std::future::pending::<()>().await;
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            pod: &self.pod,
            pod_address: self.address.to_string(),
            pod_addresses: format!("{},{}", self.address, netns::address_v6(self.address)),
            host_address: NODE_ADDRESS.to_string(),
            node: NODE_NAME,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: machine_memory(),
        }
    }

    pub fn lookups(&self) -> Lookups<'_> {
        Lookups(self)
    }

    fn refresh_volumes(&self) -> Result<(), String> {
        let volumes = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.volumes.as_deref())
            .unwrap_or_default();
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut written = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        written.refresh(
            &self.volumes_folder(),
            volumes,
            &self.facts(),
            &self.lookups(),
            now,
        )
    }
}

/// What volumes and variables of a pod refer to: objects of its namespace, tokens of its account.
pub struct Lookups<'a>(&'a PodContext);

impl Sources for Lookups<'_> {
    fn config_map(&self, name: &str) -> Option<Data> {
        let object = self
            .0
            .node
            .store
            .get(&Key::new("ConfigMap", &self.0.key.namespace, name))?;
        let mut data = decoded(object.get("binaryData"));
        let plain = object
            .get("data")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        data.extend(
            plain.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.as_bytes().to_vec()))),
        );
        Some(data)
    }

    fn secret(&self, name: &str) -> Option<Data> {
        let object = self
            .0
            .node
            .store
            .get(&Key::new("Secret", &self.0.key.namespace, name))?;
        Some(decoded(object.get("data")))
    }
}

fn decoded(data: Option<&Value>) -> Data {
    let entries = data.and_then(Value::as_object).into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.clone(), BASE64_STANDARD.decode(value.as_str()?).ok()?)))
        .collect()
}

impl Tokens for Lookups<'_> {
    fn token(&self, audience: &str, seconds: i64) -> Result<String, String> {
        let pod = self.0;
        let written = pod
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref());
        let account = written.unwrap_or("default");
        let object = pod
            .node
            .store
            .get(&Key::new("ServiceAccount", &pod.key.namespace, account));
        let object = object.ok_or_else(|| format!("ServiceAccount {account:?} is not there (yet)"))?;
        let bound = Bound {
            namespace: &pod.key.namespace,
            account,
            account_uid: object::text(&object, "/metadata/uid"),
            pod: &pod.key.name,
            pod_uid: &pod.uid,
        };
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        pod.node
            .issuer
            .token(&bound, audience, now, seconds)
            .map_err(|error| error.to_string())
    }
}

fn init_role(container: &Container) -> Role {
    if container.restart_policy.as_deref() == Some("Always") {
        Role::Sidecar
    } else {
        Role::Init
    }
}

fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    total.unwrap_or(0) * 1024
}

/// Runs a pod to its end and removes everything of it but its object.
pub async fn run(pod: Arc<PodContext>, mut ending: watch::Receiver<Option<Ending>>) {
    let mut running = Vec::new();
    let was_told = {
        let told = async {
            // A sender that is gone means that the supervisor ends: end, too.
            let _ = ending.wait_for(Option::is_some).await;
        };
        tokio::select! {
            () = live(&pod, &mut running) => false,
            () = told => true,
        }
    };
    if !was_told {
        // It ran to its end: what is left are sidecars, and then the object, until somebody deletes it.
        end(&mut running, Instant::now() + pod.grace()).await;
        clean(&pod).await;
        let _ = ending.wait_for(Option::is_some).await;
        return;
    }
    let told = ending.borrow().unwrap_or(Ending {
        grace: Duration::ZERO,
        announce: false,
    });
    if told.announce && pod.look(Standing::ready) {
        tokio::time::sleep(ENDPOINT_GRACE).await;
    }
    end(&mut running, Instant::now() + told.grace).await;
    clean(&pod).await;
}

/// Brings the pod up and stays until all main containers are done for good. Dropping it stops nothing: what was started is
/// in `running`.
async fn live(pod: &Arc<PodContext>, running: &mut Vec<Running>) {
    set_up(pod).await;
    let Some(spec) = &pod.pod.spec else { return };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (index, container) in init.iter().enumerate() {
        let role = init_role(container);
        running.push(start(pod, index, container, role));
        if role == Role::Sidecar {
            wait_until(pod, |standing| {
                standing.containers.get(index).is_some_and(|c| c.started)
            })
            .await;
            continue;
        }
        wait_until(pod, |standing| over(standing, index, &pod.restart_policy())).await;
        let code = pod.look(|standing| last_code(standing, index));
        running.pop();
        if code != 0 {
            pod.update(|standing| standing.finished = Some(false));
            return;
        }
    }
    let first = init.len();
    for (index, container) in spec.containers.iter().enumerate() {
        running.push(start(pod, first + index, container, Role::Main));
    }
    let volumes = keep_volumes(pod);
    let mains: Vec<usize> = (first..first + spec.containers.len()).collect();
    let policy = pod.restart_policy();
    let all_over = wait_until(pod, |standing| {
        mains.iter().all(|index| over(standing, *index, &policy))
    });
    tokio::select! {
        () = all_over => {}
        () = volumes => {}
    }
    let good = pod.look(|standing| mains.iter().all(|index| last_code(standing, *index) == 0));
    pod.update(|standing| standing.finished = Some(good));
}

/// Has this container ended, never to be started again?
fn over(standing: &Standing, index: usize, policy: &str) -> bool {
    let Some(container) = standing.containers.get(index) else {
        return true;
    };
    let State::Ended(ended) = &container.state else {
        return false;
    };
    match container.role {
        Role::Sidecar => false,
        Role::Init => ended.code == 0 || policy == "Never",
        Role::Main => policy == "Never" || (policy == "OnFailure" && ended.code == 0),
    }
}

fn last_code(standing: &Standing, index: usize) -> i32 {
    match standing.containers.get(index).map(|container| &container.state) {
        Some(State::Ended(ended)) => ended.code,
        _ => 0,
    }
}

async fn wait_until(pod: &PodContext, holds: impl Fn(&Standing) -> bool) {
    let mut changed = pod.changed.subscribe();
    while !pod.look(&holds) {
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn start(pod: &Arc<PodContext>, index: usize, container: &Container, role: Role) -> Running {
    let (stop, receiver) = watch::channel(None);
    let job = Job {
        pod: pod.clone(),
        index,
        container: container.clone(),
        role,
    };
    Running {
        role,
        stop,
        task: tokio::spawn(container::run(job, receiver)),
    }
}

/// Namespace, files and volumes; tried until it works, each trouble shown in the status.
async fn set_up(pod: &PodContext) {
    loop {
        match set_up_once(pod).await {
            Ok(()) => break,
            Err((reason, text)) => {
                pod.update(|standing| standing.trouble = Some((reason.to_owned(), text)));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    pod.update(|standing| {
        standing.trouble = None;
        standing.address = Some(pod.address);
    });
}

async fn set_up_once(pod: &PodContext) -> Result<(), (&'static str, String)> {
    let spec = pod.pod.spec.as_ref();
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        let text =
            "spec.hostNetwork: the local platform never gives a pod the host's network; remove the field";
        return Err(("HostNetworkRefused", text.into()));
    }
    if !netns::path(&pod.netns).exists() {
        let made = netns::create_pod(&pod.node.layout, &pod.netns, pod.address).await;
        if let Err(error) = made {
            // A half-made namespace would hinder the next try.
            let _ = netns::remove(&pod.netns).await;
            return Err(("NetworkNotReady", error.to_string()));
        }
    }
    write_network_files(pod).map_err(|error| ("CreateContainerConfigError", error.to_string()))?;
    pod.refresh_volumes().map_err(|text| ("ContainerCreating", text))
}

/// `/etc/hosts` and `/etc/resolv.conf` of the pod.
fn write_network_files(pod: &PodContext) -> std::io::Result<()> {
    let mut hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{}\n{}\t{}\n",
        pod.address,
        pod.hostname(),
        netns::address_v6(pod.address),
        pod.hostname()
    );
    let aliases = pod
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_aliases.as_deref())
        .unwrap_or_default();
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join(" ");
        hosts.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    let domain = mesh_proto::names::CLUSTER_DOMAIN;
    let namespace = &pod.key.namespace;
    let resolver = format!(
        "nameserver {NODE_ADDRESS}\nsearch {namespace}.svc.{domain} svc.{domain} {domain}\noptions ndots:5\n"
    );
    write_atomically(&pod.folder.join("hosts"), hosts.as_bytes(), 0o644)?;
    write_atomically(&pod.folder.join("resolv.conf"), resolver.as_bytes(), 0o644)
}

/// Lets the volumes follow their sources as long as the pod lives.
async fn keep_volumes(pod: &PodContext) {
    let mut revision = pod.node.store.subscribe();
    loop {
        tokio::select! {
            changed = revision.changed() => {
                if changed.is_err() {
                    return pod.never().await;
                }
                // Several changes at once are one look.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            () = tokio::time::sleep(VOLUME_INTERVAL) => {}
        }
        revision.mark_unchanged();
        if let Err(text) = pod.refresh_volumes() {
            tracing::warn!(pod = %pod.key.name, namespace = %pod.key.namespace, %text, "a volume keeps what it had");
        }
    }
}

/// Main and init containers together, then the sidecars, last started first.
async fn end(running: &mut Vec<Running>, deadline: Instant) {
    let (sidecars, others): (Vec<Running>, Vec<Running>) =
        running.drain(..).partition(|one| one.role == Role::Sidecar);
    for one in &others {
        one.stop.send_replace(Some(deadline));
    }
    for one in others {
        let _ = one.task.await;
    }
    for one in sidecars.into_iter().rev() {
        one.stop
            .send_replace(Some(deadline.max(Instant::now() + SIDECAR_GRACE)));
        let _ = one.task.await;
    }
}

/// Namespace, stray processes and files. Logs stay until the object goes.
async fn clean(pod: &PodContext) {
    for pid in netns::members(&pod.netns) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    if let Err(error) = netns::remove(&pod.netns).await {
        tracing::warn!(pod = %pod.key.name, namespace = %pod.key.namespace, %error, "its network namespace stays");
    }
    let _ = std::fs::remove_dir_all(pod.volumes_folder());
    pod.node.addresses.give_back(pod.address);
}
