//! Envoy as a process of ours: how it is started, asked, drained and ended.

use std::{
    io,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::settings::{AgentArgs, ProxyArgs};

/// Of an admin page, at most this much; statistics of thousands of clusters are some megabytes.
const MOST: usize = 64 << 20;
/// How long an admin page may take.
const PAGE: Duration = Duration::from_secs(5);
/// How long a line of the access log may wait, in milliseconds.
const FLUSH: &str = "500";
/// How often a leaving Envoy is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// What requests that are being answered get beyond the drain time, as with our proxy.
const ANSWER: Duration = Duration::from_secs(20);

/// A running Envoy. It is killed when this is dropped.
pub struct Envoy(Child);

impl Envoy {
    pub fn start(args: &AgentArgs, bootstrap: &Path) -> anyhow::Result<Self> {
        let drain = args.proxy.drain_time_s.max(1).to_string();
        let mut command = Command::new(&args.envoy);
        command
            .arg("--config-path")
            .arg(bootstrap)
            .args(["--log-level", level(&args.proxy.log_level)])
            .args(["--drain-time-s", &drain, "--parent-shutdown-time-s"])
            .arg((args.proxy.drain_time_s.max(1) + 1).to_string())
            .args(["--local-address-ip-version", family(&args.proxy)])
            .args(["--file-flush-interval-msec", FLUSH])
            // Needs shared memory, and there is never a second one.
            .arg("--disable-hot-restart")
            .kill_on_drop(true);
        if args.proxy.concurrency > 0 {
            command.args(["--concurrency", &args.proxy.concurrency.to_string()]);
        }
        let child = command.spawn().with_context(|| {
            format!(
                "cannot run Envoy ({}): it must be on PATH, or named by ENVOY_BINARY",
                args.envoy.display()
            )
        })?;
        tracing::info!(pid = child.id(), program = %args.envoy.display(), "Envoy started");
        Ok(Self(child))
    }

    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }

    /// SIGTERM, and SIGKILL after a while.
    pub async fn end(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        if let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by now, which `wait` tells.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if let Ok(status) = tokio::time::timeout(patience, self.0.wait()).await {
            return status;
        }
        tracing::warn!(?patience, "Envoy does not end; killing it");
        self.0.kill().await?;
        self.0.wait().await
    }
}

/// As the shell tells it: a signal is 128 and its number.
pub fn code(status: ExitStatus) -> ExitCode {
    let number = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    tracing::info!(%status, "Envoy ended");
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}

/// Our word for a level as Envoy's. Of directives for parts of our own, the first counts.
fn level(ours: &str) -> &str {
    match ours.split(',').next().unwrap_or_default() {
        "warn" => "warning",
        known @ ("trace" | "debug" | "info" | "warning" | "error" | "critical" | "off") => known,
        _ => "info",
    }
}

fn family(args: &ProxyArgs) -> &'static str {
    let first = args.instance_ip.split(',').next().unwrap_or_default();
    if first.contains(':') { "v6" } else { "v4" }
}

/// Tells Envoy's peers to go elsewhere, and waits until nothing is in flight: at least as long as our proxy would, and not
/// longer than it would.
pub async fn settle(args: &ProxyArgs) {
    let start = Instant::now();
    let drain = "/drain_listeners?graceful&skip_exit";
    if let Err(why) = page(args.admin_address, Method::POST, drain).await {
        tracing::warn!(%why, "Envoy does not drain; ending it");
        return;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let filter = "/stats?usedonly&filter=downstream_(rq%7Ccx)_active$";
        let Ok((_, text)) = page(args.admin_address, Method::GET, filter).await else {
            return;
        };
        let (requests, all) = in_flight(&text);
        let limit = if requests > 0 {
            args.drain_time() + ANSWER
        } else {
            args.drain_time()
        };
        let elapsed = start.elapsed();
        if elapsed >= limit || (all == 0 && elapsed >= args.minimum_drain()) {
            if all > 0 {
                let seconds = elapsed.as_secs();
                tracing::warn!(requests, all, seconds, "leaving before everything has ended");
            }
            return;
        }
    }
}

/// Requests, and everything; without those for the admin pages. Some are counted by listener and by worker: what matters is
/// whether there are any.
fn in_flight(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        let value: u64 = value.trim().parse().unwrap_or(0);
        if name.contains(".admin.") {
            continue;
        }
        if name.ends_with("downstream_rq_active") {
            sums.0 += value;
        }
        sums.1 += value;
    }
    sums
}

/// One of Envoy's admin pages.
pub async fn page(address: SocketAddr, method: Method, path: &str) -> Result<(StatusCode, String), String> {
    match tokio::time::timeout(PAGE, ask(address, method, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "no answer from Envoy's {path} within {} s",
            PAGE.as_secs()
        )),
    }
}

async fn ask(address: SocketAddr, method: Method, path: &str) -> Result<(StatusCode, String), String> {
    let text = |error: &dyn std::fmt::Display| format!("Envoy's {path}: {error}");
    let tcp = TcpStream::connect(address).await.map_err(|error| text(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(|error| text(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| text(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let bytes = body.map_err(|error| text(&error))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let answer = answer.await;
    connection.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight() {
        let text = "http.admin.downstream_rq_active: 1\nlistener.admin.downstream_cx_active: 1\n\
                    http.inbound_0.0.0.0_8080;.downstream_rq_active: 2\n\
                    listener.0.0.0.0_15006.downstream_cx_active: 3\nnot a number: x\n";
        assert_eq!(in_flight(text), (2, 5));
        assert_eq!(in_flight(""), (0, 0));
    }

    #[test]
    fn levels_and_codes() {
        assert_eq!(
            [
                level("warn"),
                level("debug,mesh_proxy::xds=trace"),
                level("mesh_proxy=debug")
            ],
            ["warning", "debug", "info"]
        );
        let same = |raw: i32, number: u8| {
            assert_eq!(
                format!("{:?}", code(ExitStatus::from_raw(raw))),
                format!("{:?}", ExitCode::from(number))
            );
        };
        same(3 << 8, 3);
        same(9, 137);
    }
}
