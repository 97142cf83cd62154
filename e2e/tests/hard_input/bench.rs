//! A proxy, ours or Envoy, between raw bytes and a server that says what has reached it.

use anyhow::{Context, ensure};
use mesh_e2e::{
    mesh::free_port,
    need,
    process::{Background, command, eventually},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

pub const LIMIT: Duration = Duration::from_secs(20);
/// After so long without a byte nothing more is expected.
const QUIET: Duration = Duration::from_millis(700);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Envoy,
}

/// A running proxy with one port for each of its configurations.
pub struct Proxy {
    pub ports: Vec<u16>,
    admin: u16,
    process: Background,
}

fn at(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// A connection manager with these fields besides the usual ones; `/admin` is refused, all else goes to the server.
fn manager(more: &Value) -> Value {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let router =
        json!({"name": "router", "typed_config": {"@type": format!("{types}.http.router.v3.Router")}});
    let routes = json!([
        {"match": {"prefix": "/admin"}, "direct_response": {"status": 403, "body": {"inline_string": "no"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "30s"}},
    ]);
    let mut manager = json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        manager[name] = value.clone();
    }
    json!({"filters": [{"name": "http", "typed_config": manager}]})
}

impl Proxy {
    /// Starts one with a listener for each of `managers`.
    pub fn start(kind: Kind, server: SocketAddr, managers: &[Value]) -> anyhow::Result<Self> {
        let admin = free_port()?;
        let ports: Vec<u16> = managers
            .iter()
            .map(|_| free_port())
            .collect::<anyhow::Result<_>>()?;
        let listeners: Vec<Value> = managers
            .iter()
            .zip(&ports)
            .map(|(more, port)| {
                json!({"name": format!("in-{port}"), "address": at(*port), "filter_chains": [manager(more)]})
            })
            .collect();
        let bootstrap = json!({
            "admin": {"address": at(admin)},
            "static_resources": {
                "listeners": listeners,
                "clusters": [{"name": "server", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
                    "cluster_name": "server",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(server.port())}}]}]}}],
            },
        });
        let folder = need::binaries()?.with_file_name("e2e").join("hard-input");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{admin}.json"));
        std::fs::write(&file, bootstrap.to_string())?;
        let program = match kind {
            Kind::Ours => need::binary("mesh-proxy")?,
            Kind::Envoy => need::envoy()?,
        };
        let file = file.display().to_string();
        let flags = ["--concurrency", "1", "--disable-hot-restart", "-c", &file];
        let process = Background::start(command(program, flags))?;
        for port in &ports {
            eventually(LIMIT, "the proxy listens", || {
                TcpStream::connect(("127.0.0.1", *port)).map_err(Into::into)
            })?;
        }
        Ok(Self {
            ports,
            admin,
            process,
        })
    }

    pub fn connect(&self, nth: usize) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.ports[nth]))?;
        stream.set_read_timeout(Some(QUIET))?;
        stream.set_write_timeout(Some(QUIET))?;
        Ok(stream)
    }

    /// A counter of the admin pages; 0 if it is not there (yet).
    pub fn counter(&self, name: &str) -> anyhow::Result<u64> {
        let mut admin = TcpStream::connect(("127.0.0.1", self.admin))?;
        admin.set_read_timeout(Some(LIMIT))?;
        admin.write_all(b"GET /stats HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        admin.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.1 200"), "/stats was answered {text:?}");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map_or(Ok(0), |number| number.trim().parse().context("a number"))
    }

    /// Waits until the counter has grown beyond `before`.
    pub fn grows(&self, name: &str, before: u64) -> anyhow::Result<()> {
        eventually(Duration::from_secs(5), "the counter grows", || {
            let now = self.counter(name)?;
            ensure!(now > before, "{name} is {now}, and was {before}");
            Ok(())
        })
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(number.context("no VmRSS")?.trim().parse()?)
    }

    /// One honest request is answered.
    pub fn serves(&self, nth: usize) -> anyhow::Result<()> {
        let answer = outcome(self.connect(nth)?, b"GET /well HTTP/1.1\r\nhost: a\r\n\r\n")?;
        ensure!(answer == "200 GET /well", "an honest request got {answer:?}");
        Ok(())
    }
}

/// A server that answers each request with its method and target, and with very much where that is asked for (`/much`), or late (`/hang`).
pub fn server() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer_all(&stream));
        }
    });
    Ok(address)
}

fn answer_all(stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        let (mut length, mut chunked) = (0, false);
        reader.read_line(&mut first).ok().filter(|count| *count > 0)?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        while chunked {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            chunked = size > 0;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if first.contains("/hang") {
            std::thread::sleep(Duration::from_secs(3));
        }
        let said = first.trim().trim_end_matches(" HTTP/1.1");
        let size = if said.contains("/much") {
            256 << 20
        } else {
            said.len()
        };
        let mut out = stream;
        write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n{said}").ok()?;
        let block = [0; 64 << 10];
        let mut left = size - said.len();
        while left > 0 {
            let part = left.min(block.len());
            out.write_all(&block[..part]).ok()?;
            left -= part;
        }
    }
}

/// Sends bytes and tells what came back: for each answer its status, and what had reached the server; `closed` if there was no
/// answer, `nothing` if the connection is still open.
pub fn outcome(mut stream: TcpStream, bytes: &[u8]) -> anyhow::Result<String> {
    // A proxy that refuses may close before all was sent.
    let _unsent = stream.write_all(bytes);
    let (text, open) = read_until_quiet(&mut stream);
    let text = String::from_utf8_lossy(&text);
    let mut rest = &*text;
    let mut said = Vec::new();
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let status = head.split(' ').nth(1).context("no status")?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        let (body, next) = after.split_at(length.unwrap_or(0).min(after.len()));
        rest = next;
        match status {
            "200" => said.push(format!("{status} {body}")),
            _ => said.push(status.to_owned()),
        }
    }
    Ok(match (said.is_empty(), open) {
        (false, _) => said.join(", "),
        (true, true) => "nothing".to_owned(),
        (true, false) => "closed".to_owned(),
    })
}

/// Everything that comes until nothing more does, and whether the connection is still open.
pub fn read_until_quiet(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let (mut all, mut buffer) = (Vec::new(), [0; 16 << 10]);
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, false),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return (all, true),
            Err(_) => return (all, false),
        }
        if start.elapsed() > LIMIT {
            return (all, true);
        }
    }
}

/// Runs the cases of a table at the same time, and tells of all that were not as expected.
pub fn each<T: Sync>(cases: &[T], run: impl Fn(&T) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for group in cases.chunks(16) {
        let run = &run;
        let results: Vec<anyhow::Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = group.iter().map(|case| scope.spawn(move || run(case))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a case panicked")))
                .collect()
        });
        wrong.extend(results.into_iter().filter_map(Result::err));
    }
    let text: Vec<String> = wrong.iter().map(|error| format!("{error:#}")).collect();
    ensure!(text.is_empty(), "{} cases:\n{}", text.len(), text.join("\n"));
    Ok(())
}
