//! The load, on CPU 1: `wrk` to fill a proxy, `h2load` at a fixed rate for latency.

use crate::process::{command, run};
use anyhow::{Context, ensure};
use std::{path::Path, time::Duration};

pub struct Full {
    pub requests: u64,
    pub per_second: f64,
}

pub struct Paced {
    pub p50_us: f64,
    pub p99_us: f64,
}

/// As many requests as go through.
pub fn full(url: &str, connections: u32, time: Duration) -> anyhow::Result<Full> {
    let (connections, seconds) = (connections.to_string(), format!("{}s", time.as_secs()));
    let words = [
        "-c",
        "1",
        "wrk",
        "-t",
        "1",
        "-c",
        &connections,
        "-d",
        &seconds,
        url,
    ];
    let text = run(command("taskset", words), None, time + Duration::from_secs(20))?.ok()?;
    parse_wrk(&text)
}

fn parse_wrk(text: &str) -> anyhow::Result<Full> {
    ensure!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "requests failed:\n{text}"
    );
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .context("wrk counted nothing")?
        .0;
    let per_second = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .context("no rate")?;
    Ok(Full {
        requests: requests.trim().parse()?,
        per_second: per_second.trim().parse()?,
    })
}

/// A fixed number of requests a second over 20 connections, each request's time in a file.
pub fn paced(url: &str, rate: u64, seconds: u64, log: &Path) -> anyhow::Result<Paced> {
    const CLIENTS: u64 = 20;
    let _ = std::fs::remove_file(log);
    let total = (rate * seconds).to_string();
    let (clients, each) = (CLIENTS.to_string(), (rate / CLIENTS).max(1).to_string());
    let log_file = format!("--log-file={}", log.display());
    let words = [
        "-c", "1", "h2load", "--h1", "-t", "1", "-c", &clients, "-n", &total, "--rps", &each, &log_file, url,
    ];
    let text = run(
        command("taskset", words),
        None,
        Duration::from_secs(seconds * 2 + 20),
    )?
    .ok()?;
    ensure!(text.contains(" 0 failed"), "requests failed:\n{text}");
    let log = std::fs::read_to_string(log).context("h2load wrote no log")?;
    parse_h2load(&log)
}

/// Lines of: start in microseconds, status, time in microseconds.
fn parse_h2load(log: &str) -> anyhow::Result<Paced> {
    let mut times: Vec<f64> = Vec::new();
    for line in log.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        ensure!(
            fields.len() == 3 && fields[1] == "200",
            "a request failed: {line}"
        );
        times.push(fields[2].parse()?);
    }
    ensure!(!times.is_empty(), "no requests in the log");
    times.sort_by(f64::total_cmp);
    let quantile = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize];
    Ok(Paced {
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_generators_print_is_read() {
        let full = parse_wrk("  12345 requests in 3.00s, 4.2MB read\nRequests/sec:   4115.00\n").unwrap();
        assert_eq!((full.requests, full.per_second), (12_345, 4115.0));
        assert!(parse_wrk("  1 requests in 3s\n  Non-2xx or 3xx responses: 1\nRequests/sec: 1\n").is_err());
        let paced = parse_h2load("1\t200\t300\n2\t200\t100\n3\t200\t200\n").unwrap();
        assert_eq!((paced.p50_us, paced.p99_us), (200.0, 300.0));
    }
}
