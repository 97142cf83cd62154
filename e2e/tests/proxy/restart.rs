//! Hot restart under load: process after process takes over the listening sockets, and no request is lost, no connection refused
//! and no answer cut.

use super::{LIMIT, bootstrap};
use anyhow::{Context, ensure};
use mesh_e2e::{
    mesh::free_port,
    need,
    process::{Background, command, eventually},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Restarts, and what there is of each kind of client.
const RESTARTS: u32 = 3;
const CLIENTS: usize = 4;
/// An answer that outlives its process: so many bytes, one at a time.
const BYTES: usize = 40;
const BYTE: Duration = Duration::from_millis(50);

fn server() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    let slow = buffer[..count].starts_with(b"GET /slow");
                    let length = if slow { BYTES } else { 2 };
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes());
                    for _ in 0..length {
                        if slow {
                            std::thread::sleep(BYTE);
                        }
                        let _ = stream.write_all(b"x");
                    }
                }
            });
        }
    });
    Ok(address)
}

/// One request; says whether the connection may be used again.
fn ask(stream: &mut TcpStream, path: &str) -> anyhow::Result<bool> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            ensure!(head.starts_with("HTTP/1.1 200"), "answered {head:?}");
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.context("no length")?.parse::<usize>()? {
                return Ok(!head.contains("connection: close"));
            }
        }
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "closed after {text:?}");
        answer.extend_from_slice(&buffer[..count]);
    }
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Asks until told to stop; counts what went well. `keep`: over connections that are kept as long as they may be.
fn load(address: SocketAddr, keep: bool, stop: &AtomicBool, done: &AtomicUsize) -> anyhow::Result<()> {
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect(address)?,
        };
        let again = ask(&mut stream, "/")?;
        done.fetch_add(1, Ordering::Relaxed);
        kept = (keep && again).then_some(stream);
    }
    Ok(())
}

fn start(file: &Path, epoch: u32, workers: u32) -> anyhow::Result<Background> {
    // The name of the process's socket is the machine's: another run of this test must not meet it.
    let base = std::process::id().to_string();
    let (epoch, workers) = (epoch.to_string(), workers.to_string());
    let file = file.display().to_string();
    let flags = [
        "-c",
        &file,
        "--base-id",
        &base,
        "--restart-epoch",
        &epoch,
        "--concurrency",
        &workers,
    ];
    Background::start(command(need::binary("mesh-proxy")?, flags))
}

/// The epoch that serves: the newest whose process says so on the admin port.
fn serves(admin: u16) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", admin))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
    Ok(())
}

#[test]
fn a_process_takes_over_and_nothing_is_lost() -> anyhow::Result<()> {
    let (port, admin) = (free_port()?, free_port()?);
    let file = bootstrap(server()?, port, admin)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut running = start(&file, 0, 2)?;
    eventually(LIMIT, "the first process serves", || {
        serves(admin).and_then(|()| connect(address))
    })?;
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2 * CLIENTS)
            .map(|n| {
                scope.spawn({
                    let (stop, done) = (&stop, &done);
                    move || load(address, n % 2 == 0, stop, done)
                })
            })
            .collect();
        let restarted = (1..=RESTARTS).try_for_each(|epoch| {
            let before = done.load(Ordering::Relaxed);
            let slow = scope.spawn(move || ask(&mut connect(address)?, "/slow"));
            std::thread::sleep(BYTE * 4);
            // More workers, fewer, the same.
            let next = start(&file, epoch, [2, 3, 1, 1][epoch as usize % 4])?;
            let old = std::mem::replace(&mut running, next);
            let asked = Instant::now();
            let again = slow.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
            again.with_context(|| format!("the answer that outlives process {}", epoch - 1))?;
            ensure!(asked.elapsed() > BYTE * 20, "the slow answer was not slow");
            let mut old = old;
            eventually(LIMIT, "the process before ends", || {
                ensure!(!old.is_running(), "process {} runs", epoch - 1);
                Ok(())
            })?;
            eventually(LIMIT, "the admin pages are the next process's", || serves(admin))?;
            let now = done.load(Ordering::Relaxed);
            ensure!(
                now > before + 20,
                "{now} requests after restart {epoch}, {before} before"
            );
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        restarted
    })?;
    ensure!(running.is_running(), "the last process runs");
    Ok(())
}

#[test]
fn a_process_that_cannot_start_changes_nothing() -> anyhow::Result<()> {
    let (port, admin) = (free_port()?, free_port()?);
    let file = bootstrap(server()?, port, admin)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let base = (std::process::id() + 1_000_000).to_string();
    let proxy = need::binary("mesh-proxy")?;
    let path = file.display().to_string();
    let first = ["-c", &path, "--base-id", &base, "--concurrency", "1"];
    let mut first = Background::start(command(&proxy, first))?;
    eventually(LIMIT, "the first process serves", || {
        serves(admin).and_then(|()| connect(address))
    })?;
    // Its admin address is one that nobody has.
    let bad = file.with_extension("bad.json");
    let text = std::fs::read_to_string(&file)?.replacen("127.0.0.1", "192.0.2.1", 1);
    std::fs::write(&bad, text)?;
    let bad = bad.display().to_string();
    let next = [
        "-c",
        &bad,
        "--base-id",
        &base,
        "--restart-epoch",
        "1",
        "--concurrency",
        "1",
    ];
    let said = mesh_e2e::process::run(command(&proxy, next), None, LIMIT)?.failed()?;
    ensure!(said.contains("admin address"), "{said}");
    eventually(LIMIT, "the first process has its admin pages again", || {
        serves(admin)
    })?;
    ask(&mut connect(address)?, "/")?;
    ensure!(first.is_running(), "the first process runs");
    let lost = ["-c", &path, "--base-id", &base, "--restart-epoch", "7"];
    let said = mesh_e2e::process::run(command(&proxy, lost), None, LIMIT)?.failed()?;
    ensure!(said.contains("--restart-epoch 6"), "{said}");
    Ok(())
}
