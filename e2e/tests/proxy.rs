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
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(10);

/// A proxy of one listener that leads to one server.
struct Proxy {
    address: SocketAddr,
    _process: Background,
}

/// What a test says beside the usual.
#[derive(Default)]
struct Extra {
    cluster: Value,
    route: Value,
    /// Not HTTP: the configuration of the proxy of connections.
    tcp: Option<Value>,
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

impl Proxy {
    fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        Self::with(upstream, Extra::default())
    }

    fn with(upstream: SocketAddr, extra: Extra) -> anyhow::Result<Self> {
        let (port, admin) = (free_port()?, free_port()?);
        let file = bootstrap_with(upstream, port, admin, extra)?;
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
    bootstrap_with(upstream, port, admin, Extra::default())
}

fn bootstrap_with(upstream: SocketAddr, port: u16, admin: u16, extra: Extra) -> anyhow::Result<PathBuf> {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let router =
        json!({"name": "router", "typed_config": {"@type": format!("{types}.http.router.v3.Router")}});
    let mut forward = json!({"cluster": "server"});
    merge(&mut forward, extra.route);
    let route = json!({"match": {"prefix": "/"}, "route": forward});
    let manager = json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    });
    let mut connections = json!({
        "@type": format!("{types}.network.tcp_proxy.v3.TcpProxy"), "stat_prefix": "in", "cluster": "server",
    });
    let filter = match extra.tcp {
        None => manager,
        Some(more) => {
            merge(&mut connections, more);
            connections
        }
    };
    let mut cluster = json!({"name": "server", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
        "cluster_name": "server",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(upstream.port())}}]}]}});
    merge(&mut cluster, extra.cluster);
    let bootstrap = json!({
        "admin": {"address": at(admin)},
        "static_resources": {
            "listeners": [{"name": "in", "address": at(port), "filter_chains": [
                {"filters": [{"name": "in", "typed_config": filter}]}]}],
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

/// A server of one thread per connection; `serve` gets the number of the connection.
fn server(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(number, stream));
        }
    });
    Ok(address)
}

/// Reads to the empty line; what came after it stays unread in the second part.
fn head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = all.split_off(end + 4);
            return Some((String::from_utf8_lossy(&all).into_owned(), rest));
        }
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => all.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

fn answer(stream: &mut TcpStream, status: u16, body: &str) -> bool {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .is_ok()
}

fn client(proxy: &Proxy) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(proxy.address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Asks, and gives the answer's head and the body that came with it.
fn get(client: &mut TcpStream) -> anyhow::Result<(String, String)> {
    write!(client, "GET / HTTP/1.1\r\nhost: server\r\n\r\n")?;
    let (head, mut body) = head(client).context("no answer")?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(Ok(0), str::parse)?;
    while body.len() < length {
        let mut buffer = [0; 4096];
        let count = client.read(&mut buffer)?;
        ensure!(count > 0, "the answer broke off after {head}");
        body.extend_from_slice(&buffer[..count]);
    }
    Ok((head, String::from_utf8_lossy(&body).into_owned()))
}

fn proxy_protocol(version: &str) -> Value {
    let types = "type.googleapis.com/envoy.extensions.transport_sockets";
    json!({"transport_socket": {"name": "p", "typed_config": {
        "@type": format!("{types}.proxy_protocol.v3.ProxyProtocolUpstreamTransport"),
        "config": {"version": version},
        "transport_socket": {"name": "r", "typed_config": {"@type": format!("{types}.raw_buffer.v3.RawBuffer")}}}}})
}

/// Each connection says for whom it is, so clients never share one, and one client keeps its own.
#[test]
fn an_endpoint_is_told_who_the_client_is() -> anyhow::Result<()> {
    for version in ["V1", "V2"] {
        let address = server(move |number, mut stream| {
            let mut told = Vec::new();
            let length = if version == "V1" { 0 } else { 28 };
            while told.len() < length || (length == 0 && !told.ends_with(b"\r\n")) {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                told.push(byte[0]);
            }
            let said = match told.get(12..28) {
                Some(fixed) if length > 0 => format!("{fixed:?}"),
                _ => String::from_utf8_lossy(&told).trim_end().to_owned(),
            };
            while head(&mut stream).is_some() && answer(&mut stream, 200, &format!("{number} {said}")) {}
        })?;
        let extra = Extra {
            cluster: proxy_protocol(version),
            ..Extra::default()
        };
        let proxy = Proxy::with(address, extra)?;
        let mut clients = [client(&proxy)?, client(&proxy)?];
        for number in [0, 1, 0] {
            let stream = &mut clients[number];
            let (from, to) = (stream.local_addr()?.port(), proxy.address.port());
            let expect = if version == "V1" {
                format!("{number} PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}")
            } else {
                let mut fixed = vec![0x21, 0x11, 0, 12, 127, 0, 0, 1, 127, 0, 0, 1];
                fixed.extend(from.to_be_bytes());
                fixed.extend(to.to_be_bytes());
                format!("{number} {fixed:?}")
            };
            let (_, body) = get(stream)?;
            ensure!(body == expect, "{version}: {body:?}, not {expect:?}");
        }
    }
    Ok(())
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend(payload);
    frame
}

/// The first connection takes a request and then is dead without a word; the next one answers it.
#[test]
fn a_connection_that_answers_no_ping_is_given_up() -> anyhow::Result<()> {
    let address = server(|number, mut stream| {
        // Settings, and the acknowledgement of the proxy's.
        let hello = [frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat();
        if stream.write_all(&hello).is_err() {
            return;
        }
        if number > 0 {
            std::thread::sleep(Duration::from_millis(300));
            // `:status: 200`, and no body.
            if stream.write_all(&frame(1, 5, 1, &[0x88])).is_err() {
                return;
            }
        }
        let mut buffer = [0; 4096];
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    })?;
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let extra = Extra {
        cluster: json!({"typed_extension_protocol_options": {(options): {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http2_protocol_options": {
                "connection_keepalive": {"interval": "0.3s", "timeout": "0.5s"}}}}}}),
        route: json!({"retry_policy": {"retry_on": "reset", "num_retries": 1}}),
        ..Extra::default()
    };
    let proxy = Proxy::with(address, extra)?;
    let start = Instant::now();
    let (head, _) = get(&mut client(&proxy)?)?;
    let took = start.elapsed();
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    ensure!(
        took >= Duration::from_millis(800) && took < Duration::from_secs(5),
        "{took:?}"
    );
    Ok(())
}

/// Four fail at the same moment; the budget has room for one retry.
#[test]
fn retries_stay_in_their_budget() -> anyhow::Result<()> {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = server(move |_, mut stream| {
        while head(&mut stream).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(500));
            if !answer(&mut stream, 503, "") {
                return;
            }
        }
    })?;
    let extra = Extra {
        cluster: json!({"circuit_breakers": {"thresholds": [{"retry_budget": {
            "budget_percent": {"value": 10.0}, "min_retry_concurrency": 1}}]}}),
        route: json!({"retry_policy": {"retry_on": "5xx", "num_retries": 1}}),
        ..Extra::default()
    };
    let proxy = Proxy::with(address, extra)?;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = client(&proxy)?;
            Ok(std::thread::spawn(move || get(&mut stream).map(|(head, _)| head)))
        })
        .collect::<anyhow::Result<_>>()?;
    for client in clients {
        let head = client
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ensure!(head.starts_with("HTTP/1.1 503"), "{head}");
    }
    let asked = asked.load(Ordering::SeqCst);
    ensure!(asked == 5, "the server was asked {asked} times");
    Ok(())
}

#[test]
fn a_client_gets_the_cookie_that_keeps_it_where_it_is() -> anyhow::Result<()> {
    let address =
        server(|_, mut stream| while head(&mut stream).is_some() && answer(&mut stream, 200, "ok") {})?;
    let cookie = json!({"name": "stay", "ttl": "60s", "path": "/", "attributes": [
        {"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]});
    let extra = Extra {
        cluster: json!({"lb_policy": "RING_HASH"}),
        route: json!({"hash_policy": [{"cookie": cookie}]}),
        ..Extra::default()
    };
    let proxy = Proxy::with(address, extra)?;
    let mut stream = client(&proxy)?;
    let (head, _) = get(&mut stream)?;
    let set = head
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .context("no cookie")?;
    let rest = "; Max-Age=60; Path=/; SameSite=Strict; Secure; HttpOnly";
    ensure!(set.starts_with("stay=\"") && set.ends_with(rest), "{set}");
    let own = set.split(';').next().unwrap_or_default();
    write!(stream, "GET / HTTP/1.1\r\nhost: server\r\ncookie: {own}\r\n\r\n")?;
    let again = self::head(&mut stream).context("no answer")?.0;
    ensure!(!again.contains("set-cookie"), "{again}");
    Ok(())
}

#[test]
fn an_endpoint_goes_out_by_the_answers_that_count_as_errors() -> anyhow::Result<()> {
    let address =
        server(|_, mut stream| while head(&mut stream).is_some() && answer(&mut stream, 429, "") {})?;
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let is = |status: &str| json!({"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": status}}]}});
    for (statuses, expect) in [(["429", "503"], "503"), (["500", "503"], "429")] {
        let extra = Extra {
            cluster: json!({
                "outlier_detection": {"consecutive_5xx": 2, "max_ejection_percent": 100},
                "common_lb_config": {"healthy_panic_threshold": {"value": 0.0}},
                "typed_extension_protocol_options": {(options): {
                    "@type": format!("type.googleapis.com/{options}"),
                    "outlier_detection": {"error_matcher": {"or_match": {"rules": statuses.map(is)}}}}}}),
            ..Extra::default()
        };
        let proxy = Proxy::with(address, extra)?;
        let mut stream = client(&proxy)?;
        for expect in ["429", "429", expect] {
            let (head, _) = get(&mut stream)?;
            ensure!(
                head.starts_with(&format!("HTTP/1.1 {expect} ")),
                "{statuses:?}: {head}"
            );
        }
    }
    Ok(())
}

/// Connections go through an HTTP proxy, which is asked for the other end.
#[test]
fn connections_go_through_a_tunnel() -> anyhow::Result<()> {
    for (post, asks) in [
        (false, "CONNECT db.example:5432 HTTP/1.1\r\n"),
        (true, "POST / HTTP/1.1\r\n"),
    ] {
        let address = server(move |number, mut stream| {
            let Some((head, early)) = head(&mut stream) else {
                return;
            };
            if !head.starts_with(asks) || !head.contains("host: db.example:5432\r\n") || number == 1 {
                answer(&mut stream, 403, "");
                return;
            }
            let framing = if post {
                "transfer-encoding: chunked\r\n"
            } else {
                ""
            };
            let mut buffer = [0; 4096];
            if write!(stream, "HTTP/1.1 200 Fine\r\n{framing}\r\n").is_err()
                || stream.write_all(&early).is_err()
            {
                return;
            }
            // What comes goes back; in a POST both ways are chunked in the same manner.
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        })?;
        let extra = Extra {
            tcp: Some(json!({"tunneling_config": {"hostname": "db.example:5432", "use_post": post}})),
            ..Extra::default()
        };
        let proxy = Proxy::with(address, extra)?;
        // The proxy was looked after by a connection of its own, which asked for a tunnel too.
        let mut answers = Vec::new();
        for _ in 0..3 {
            let mut stream = client(&proxy)?;
            stream.write_all(b"hello")?;
            let mut buffer = [0; 5];
            answers.push(stream.read_exact(&mut buffer).is_ok() && &buffer == b"hello");
        }
        let through = answers.iter().filter(|through| **through).count();
        ensure!(through == 2, "of three connections, one was refused: {answers:?}");
    }
    Ok(())
}
