//! What is asked of a running container from outside: the actions of probes and of lifecycle hooks. Each is one of
//! Kubernetes' kinds: a request, a connection, a program inside the container, a pause.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{HTTPGetAction, LifecycleHandler, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::process::Command;

use super::{
    container::Job,
    probe::{self, Ask},
};
use crate::local::enter::Spec;

static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

/// One probe of one running container.
pub struct Asker<'a> {
    pub job: &'a Job,
    pub pid: i32,
    pub probe: &'a Probe,
}

impl Ask for Asker<'_> {
    async fn ask(&self) -> Result<(), String> {
        let Asker { job, pid, probe } = self;
        if let Some(action) = &probe.http_get {
            return http(job, action).await;
        }
        if let Some(action) = &probe.tcp_socket {
            let addresses = addresses(job, action.host.as_deref(), &action.port)?;
            return probe::tcp(&job.pod.netns, &addresses).await;
        }
        if let Some(action) = &probe.exec {
            return exec(job, *pid, action.command.as_deref().unwrap_or_default()).await;
        }
        if let Some(action) = &probe.grpc {
            // That the port is open is what can be known without the health service's own protocol.
            let addresses = addresses(job, None, &IntOrString::Int(action.port))?;
            return probe::tcp(&job.pod.netns, &addresses).await;
        }
        Err("the probe has none of httpGet, tcpSocket, exec, grpc".into())
    }
}

/// A lifecycle hook, to its end.
pub async fn run(job: &Job, pid: i32, handler: &LifecycleHandler) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        return exec(job, pid, action.command.as_deref().unwrap_or_default()).await;
    }
    if let Some(action) = &handler.http_get {
        return http(job, action).await;
    }
    if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    if let Some(action) = &handler.tcp_socket {
        let addresses = addresses(job, action.host.as_deref(), &action.port)?;
        return probe::tcp(&job.pod.netns, &addresses).await;
    }
    Err("the hook has none of exec, httpGet, sleep, tcpSocket".into())
}

async fn http(job: &Job, action: &HTTPGetAction) -> Result<(), String> {
    let addresses = addresses(job, action.host.as_deref(), &action.port)?;
    probe::http(&job.pod.netns, &addresses, action).await
}

/// Loopback first: it is never redirected. An application may also listen on the pod's address alone.
fn addresses(job: &Job, host: Option<&str>, port: &IntOrString) -> Result<Vec<SocketAddr>, String> {
    let port = probe::port(port, &job.container)?;
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        let address: IpAddr = host
            .parse()
            .map_err(|_| format!("host {host:?} is not an address"))?;
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let own = IpAddr::V4(job.pod.address);
    Ok(vec![
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        SocketAddr::new(own, port),
    ])
}

/// Runs a program inside the container; good if it ends with 0.
async fn exec(job: &Job, pid: i32, command: &[String]) -> Result<(), String> {
    let spec = exec_spec(job, pid, command)?;
    let file = job
        .pod
        .folder
        .join(format!("exec-{}.json", NEXT_FILE.fetch_add(1, Ordering::Relaxed)));
    let text = serde_json::to_vec(&spec).map_err(|error| error.to_string())?;
    crate::local::store::write_atomically(&file, &text, 0o600).map_err(|error| error.to_string())?;
    let result = Command::new("/proc/self/exe")
        .args(["local", "enter", "--remove", "--spec"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    match result {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: {status}", command.join(" "))),
        Err(error) => Err(format!("{}: {error}", command.join(" "))),
    }
}

/// The spec of another program beside the container's own.
pub fn exec_spec(job: &Job, pid: i32, command: &[String]) -> Result<Spec, String> {
    let file = job.pod.spec_file(&job.container.name);
    let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    beside(spec, pid, command)
}

/// Turns a container's spec into that of a program beside it.
pub fn beside(spec: Spec, pid: i32, command: &[String]) -> Result<Spec, String> {
    let (program, args) = command.split_first().ok_or("no command given")?;
    Ok(Spec {
        join: Some(pid),
        parent: None,
        program: program.clone(),
        args: args.to_vec(),
        ..spec
    })
}
