//! The proxy alone, from a bootstrap file, between a client and a server that are written here byte by byte: what happens in the
//! moments that no well-behaved peer shows.

#[path = "proxy/restart.rs"]
mod restart;

use anyhow::{Context, ensure};
use mesh_e2e::{
    mesh::free_port,
    need,
    process::{Background, command, eventually},
};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(10);

/// A proxy of one listener that leads to one server.
struct Proxy {
    address: SocketAddr,
    _process: Background,
}

impl Proxy {
    fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let (port, admin) = (free_port()?, free_port()?);
        let file = bootstrap(upstream, port, admin)?;
        let line = command(
            need::binary("mesh-proxy")?,
            ["--concurrency", "1", "-c", &file.display().to_string()],
        );
        let process = Background::start(line)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually(LIMIT, "the proxy listens", || {
            TcpStream::connect(address).map_err(Into::into)
        })?;
        Ok(Self {
            address,
            _process: process,
        })
    }
}

fn at(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// Writes the file of a proxy of one listener that leads to one server.
fn bootstrap(upstream: SocketAddr, port: u16, admin: u16) -> anyhow::Result<PathBuf> {
    let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": at(upstream.port())}}]}]);
    let cluster = json!({"name": "server", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "server", "endpoints": endpoints}});
    bootstrap_of(port, admin, &json!({"cluster": "server"}), &cluster)
}

/// Writes the file of a proxy of one listener with this route to this cluster.
fn bootstrap_of(port: u16, admin: u16, route: &Value, cluster: &Value) -> anyhow::Result<PathBuf> {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let router =
        json!({"name": "router", "typed_config": {"@type": format!("{types}.http.router.v3.Router")}});
    let route = json!({"match": {"prefix": "/"}, "route": route});
    let manager = json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    });
    let bootstrap = json!({
        "admin": {"address": at(admin)},
        "static_resources": {
            "listeners": [{"name": "in", "address": at(port), "filter_chains": [
                {"filters": [{"name": "http", "typed_config": manager}]}]}],
            "clusters": [cluster],
        },
    });
    let folder = need::binaries()?.with_file_name("e2e").join("proxy");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{port}.json"));
    std::fs::write(&file, bootstrap.to_string())?;
    Ok(file)
}

/// Answers the first request of each connection, and when a second has come closes without a word.
fn serves_once(listener: &TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || {
            let mut stream = stream;
            let mut buffer = [0; 4096];
            for answer in [Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), None] {
                match (stream.read(&mut buffer), answer) {
                    (Ok(1..), Some(answer)) if stream.write_all(answer.as_bytes()).is_ok() => {}
                    _ => return,
                }
            }
        });
    }
}

fn ask(client: &mut TcpStream, method: &str, body: &str) -> anyhow::Result<String> {
    let length = body.len();
    write!(
        client,
        "{method} / HTTP/1.1\r\nhost: server\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut buffer = [0; 4096];
    let count = client.read(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..count]).into_owned();
    let status = answer.split(' ').nth(1);
    Ok(status
        .with_context(|| format!("{method} was answered {answer:?}"))?
        .to_owned())
}

/// RFC 9110, 9.2.2: a request that crosses the end of its connection is repeated where that does no harm, and only there.
#[test]
fn a_request_on_a_connection_that_is_closed_is_repeated_if_it_may_be() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let proxy = Proxy::start(listener.local_addr()?)?;
    std::thread::spawn(move || serves_once(&listener));
    let mut client = TcpStream::connect(proxy.address)?;
    client.set_read_timeout(Some(LIMIT))?;
    // Each but the first comes on a connection that has served one, and those that are repeated leave another such.
    for (method, body, expected) in [
        ("GET", "", "200"),
        ("GET", "", "200"),
        ("DELETE", "", "200"),
        ("POST", "", "503"),
        ("POST", "new", "200"),
        ("PUT", "not kept", "503"),
        ("GET", "", "200"),
    ] {
        let status = ask(&mut client, method, body)?;
        ensure!(
            status == expected,
            "{method} {body:?} was answered {status}, not {expected}"
        );
    }
    Ok(())
}
