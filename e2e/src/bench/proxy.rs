//! A contestant as a process on CPU 0 (the upstream on CPU 1): started, ready when it answers, its CPU time and memory read from
//! `/proc`, ended.

use crate::process::{Background, command};
use anyhow::{Context, bail};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ours,
    Envoy,
    Nginx,
    Haproxy,
    Upstream,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "Gossamer",
            Self::Envoy => "Envoy 1.40",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Upstream => "upstream",
        }
    }
}

pub struct Running {
    process: Background,
    name: &'static str,
    /// From its start to its first answer.
    pub ready_ms: f64,
}

const PATIENCE: Duration = Duration::from_secs(20);

pub fn start(kind: Kind, program: &Path, file: &Path, port: u16) -> anyhow::Result<Running> {
    let cpu = if kind == Kind::Upstream { "1" } else { "0" };
    let (program, file) = (program.display().to_string(), file.display().to_string());
    let mut words = vec!["-c", cpu, &program];
    match kind {
        Kind::Ours => words.extend(["-c", &file, "--concurrency", "1", "--log-level", "error"]),
        Kind::Envoy => words.extend([
            "-c",
            &file,
            "--concurrency",
            "1",
            "--log-level",
            "error",
            "--use-dynamic-base-id",
        ]),
        Kind::Nginx | Kind::Upstream => words.extend(["-c", &file]),
        Kind::Haproxy => words.extend(["-f", &file]),
    }
    let begin = Instant::now();
    let mut process = Background::start(command("taskset", &words))?;
    loop {
        if answers(port) {
            break;
        }
        if !process.is_running() || begin.elapsed() > PATIENCE {
            let said = process
                .terminate(PATIENCE)
                .map(|outcome| outcome.said())
                .unwrap_or_default();
            bail!("{} does not answer on port {port}: {said}", kind.name());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Running {
        process,
        name: kind.name(),
        ready_ms: begin.elapsed().as_secs_f64() * 1000.0,
    })
}

/// Does something that speaks HTTP, or insists on TLS, listen there?
fn answers(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) else {
        return false;
    };
    if port == super::MIDDLE {
        return true;
    }
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let request = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    let mut answer = [0; 12];
    stream.write_all(request).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

impl Running {
    /// User and system time so far (proc(5): fields 14 and 15 of `stat`, in hundredths of a second).
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.process.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} has ended", self.name))?;
        let fields: Vec<&str> = text
            .rsplit_once(')')
            .context("no stat")?
            .1
            .split_whitespace()
            .collect();
        let ticks: u64 = [11, 12]
            .iter()
            .filter_map(|i| fields.get(*i)?.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    pub fn resident_mb(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.process.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} has ended", self.name))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kb: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kb / 1000.0)
    }

    pub fn stop(self) -> anyhow::Result<()> {
        self.process.kill()
    }
}
