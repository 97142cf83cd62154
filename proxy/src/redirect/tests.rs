//! The ruleset as text, and once in a real network namespace.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use clap::Parser;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Uid, setfsuid},
};
use socket2::{Domain, Socket, Type};

use super::*;

#[derive(Parser)]
struct Wrapper {
    #[command(flatten)]
    cli: RedirectArgs,
}

fn settings(args: &[&str]) -> Result<Settings, ArgsError> {
    let args = std::iter::once("redirect").chain(args.iter().copied());
    let resolv = || "nameserver 10.96.0.10\nnameserver fd00::10\n".to_owned();
    Wrapper::try_parse_from(args).unwrap().cli.settings(resolv)
}

#[test]
fn the_default_ruleset() {
    let expected = r#"table inet gossamer
delete table inet gossamer
table inet gossamer {
    chain output {
        type nat hook output priority -100; policy accept;
        oifname "lo" ip saddr 127.0.0.6 accept
        oifname "lo" ip6 saddr ::6 accept
        oifname "lo" ip daddr != 127.0.0.1 tcp dport != { 15008 } meta skuid { 1337 } redirect to :15006
        oifname "lo" ip6 daddr != ::1 tcp dport != { 15008 } meta skuid { 1337 } redirect to :15006
        oifname "lo" ip daddr != 127.0.0.1 tcp dport != { 15008 } meta skgid { 1337 } redirect to :15006
        oifname "lo" ip6 daddr != ::1 tcp dport != { 15008 } meta skgid { 1337 } redirect to :15006
        meta skuid { 1337 } accept
        meta skgid { 1337 } accept
        oifname "lo" accept
        meta l4proto tcp redirect to :15001
    }
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        tcp dport { 15008, 15020, 15021, 15090 } accept
        meta l4proto tcp redirect to :15006
    }
}
"#;
    assert_eq!(plan(&settings(&[]).unwrap()), expected);
}

#[test]
fn every_option_has_its_rule() {
    let text = plan(
        &settings(&[
            "-b",
            "80,443",
            "-d",
            "8081",
            "-i",
            "10.0.0.0/8,fd00::/8",
            "-x",
            "10.1.2.3/16,10.2.0.1",
            "-o",
            "53,6379",
            "-q",
            "9999",
            "-c",
            "eth1,docker0",
            "--redirect-dns",
            "-u",
            "1337,0",
        ])
        .unwrap(),
    );
    for rule in [
        "oifname { \"eth1\", \"docker0\" } accept",
        "iifname { \"eth1\", \"docker0\" } accept",
        "meta skuid { 1337, 0 } accept",
        "tcp dport { 8081, 15008 } accept",
        "tcp dport { 80, 443 } redirect to :15006",
        "tcp dport { 53, 6379 } accept",
        "udp dport 53 accept",
        "ip daddr { 10.96.0.10/32 } udp dport 53 redirect to :15053",
        "ip6 daddr { fd00::10/128 } tcp dport 53 redirect to :15053",
        "ip daddr { 10.1.0.0/16, 10.2.0.1/32 } accept",
        "tcp dport { 9999 } redirect to :15001",
        "ip daddr { 10.0.0.0/8 } meta l4proto tcp redirect to :15001",
        "ip6 daddr { fd00::/8 } meta l4proto tcp redirect to :15001",
        "udp sport 15053 meta skuid { 1337, 0 } ct zone set 2 accept",
        "udp sport 53 ct zone set 1",
    ] {
        assert!(
            text.lines().any(|line| line.trim() == rule),
            "{rule} is missing in\n{text}"
        );
    }
    assert!(!text.contains("        meta l4proto tcp redirect"), "{text}");
    let all = plan(&settings(&["--capture-all-dns", "-i", ""]).unwrap());
    assert!(all.contains("        udp dport 53 redirect to :15053\n"), "{all}");
}

#[test]
fn bad_arguments_are_named() {
    for (args, text) in [
        (
            vec!["-m", "TPROXY"],
            "interception mode \"TPROXY\" is not supported",
        ),
        (vec!["-b", "80,http"], "-b: \"http\" is not a port number"),
        (
            vec!["-i", "10.0.0.0/33"],
            "-i: \"10.0.0.0/33\" is not an address range",
        ),
        (vec!["-c", "a\"b"], "-c: \"a\\\"b\" is not an interface's name"),
    ] {
        let error = settings(&args).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
    }
}

/// Runs a command in this thread's namespace.
fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Moves this thread (and the processes it starts) into a network namespace of its own, gone with the thread.
fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root: it makes network namespaces");
    run("ip link set lo up");
}

fn namespace_path() -> String {
    format!(
        "/proc/{}/task/{}/ns/net",
        std::process::id(),
        nix::unistd::gettid()
    )
}

/// Makes sockets as this user: netfilter looks at who opened the socket, and the kernel keeps that per thread.
fn as_user<T>(user: u32, f: impl FnOnce() -> T) -> T {
    setfsuid(Uid::from_raw(user));
    let result = f();
    setfsuid(Uid::from_raw(0));
    result
}

/// Begins to connect as this user; the socket must live until the connection was looked at.
fn connect_as(user: u32, to: SocketAddr) -> Socket {
    as_user(user, || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        // In progress, or refused at once: the other end tells.
        let _ = socket.connect(&to.into());
        socket
    })
}

/// The next connection of a listener: the destination before redirection; `None` if there is none soon.
fn accepted(listener: &TcpListener) -> Option<SocketAddr> {
    listener.set_nonblocking(true).unwrap();
    let end = Instant::now() + Duration::from_millis(700);
    while Instant::now() < end {
        if let Ok((stream, _)) = listener.accept() {
            let socket = socket2::SockRef::from(&stream);
            let local = stream.local_addr().unwrap();
            let original = if local.is_ipv4() {
                socket.original_dst_v4()
            } else {
                socket.original_dst_v6()
            };
            return Some(
                original
                    .ok()
                    .and_then(|address| address.as_socket())
                    .unwrap_or(local),
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A pod with its proxy's ports, joined to an outside namespace; checks where each kind of connection lands.
#[test]
fn in_a_real_namespace() {
    let (send_path, outside_path) = mpsc::channel();
    let (ask, asked) = mpsc::channel::<SocketAddr>();
    let outside = std::thread::spawn(move || {
        enter_namespace();
        send_path.send(namespace_path()).unwrap();
        let mut sockets = Vec::new();
        while let Ok(to) = asked.recv() {
            sockets.push(connect_as(0, to));
        }
    });
    let pod = std::thread::spawn(move || {
        enter_namespace();
        let path = outside_path.recv().unwrap();
        pod_addresses(&path);
        let rules = plan(&settings(&["--redirect-dns", "-o", "7777"]).unwrap());
        apply(&rules).unwrap();
        apply(&rules).expect("a second time is fine");
        outbound();
        inbound(&ask);
        dns();
        clean().unwrap();
        clean().expect("a second time is fine");
        drop(ask);
    });
    pod.join().unwrap();
    outside.join().unwrap();
}

fn pod_addresses(outside: &str) {
    run("ip link add gx0 type veth peer name gx1");
    run(&format!("ip link set gx1 netns {outside}"));
    run("ip addr add 10.77.0.2/24 dev gx0");
    run("ip -6 addr add fd77::2/64 dev gx0 nodad");
    run("ip link set gx0 up");
    run("ip route add default via 10.77.0.1");
    run("ip -6 route add default via fd77::1");
    for line in [
        "ip addr add 10.77.0.1/24 dev gx1",
        "ip -6 addr add fd77::1/64 dev gx1 nodad",
        "ip link set gx1 up",
    ] {
        run(&format!("nsenter --net={outside} {line}"));
    }
}

fn outbound() {
    let proxy = [TcpListener::bind("0.0.0.0:15001").unwrap(), v6_only("[::]:15001")];
    let inbound = TcpListener::bind("0.0.0.0:15006").unwrap();
    let app = TcpListener::bind("0.0.0.0:8080").unwrap();
    for (n, service) in [at("10.96.0.1:80"), at("[fd00::1]:80")].into_iter().enumerate() {
        let _socket = connect_as(1000, service);
        assert_eq!(
            accepted(&proxy[n]),
            Some(service),
            "an outbound connection lands on 15001"
        );
    }
    let _direct = connect_as(1337, at("10.96.0.1:80"));
    assert_eq!(accepted(&proxy[0]), None, "the proxy's own connection passes");
    let _excluded = connect_as(1000, at("10.96.0.1:7777"));
    assert_eq!(accepted(&proxy[0]), None, "an excluded port passes");
    let _local = connect_as(1000, at("127.0.0.1:8080"));
    assert_eq!(accepted(&app), Some(at("127.0.0.1:8080")), "loopback passes");
    let _itself = connect_as(1337, at("10.77.0.2:8080"));
    assert_eq!(
        accepted(&inbound),
        Some(at("10.77.0.2:8080")),
        "the proxy to its own pod lands on 15006"
    );
    // The proxy to the application, from 127.0.0.6.
    let socket = as_user(1337, || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    socket.bind(&at("127.0.0.6:0").into()).unwrap();
    socket.connect(&at("10.77.0.2:8080").into()).unwrap();
    assert_eq!(
        accepted(&app),
        Some(at("10.77.0.2:8080")),
        "the inbound proxy reaches the application"
    );
}

/// A listener that leaves IPv4 to the one beside it.
fn v6_only(address: &str) -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(true).unwrap();
    socket.bind(&at(address).into()).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}

fn inbound(ask: &mpsc::Sender<SocketAddr>) {
    let v4 = TcpListener::bind("0.0.0.0:15006").unwrap();
    let v6 = v6_only("[::]:15006");
    let health = TcpListener::bind("0.0.0.0:15021").unwrap();
    for (listener, to) in [
        (&v4, at("10.77.0.2:9080")),
        (&v6, at("[fd77::2]:9080")),
        (&health, at("10.77.0.2:15021")),
    ] {
        ask.send(to).unwrap();
        assert_eq!(accepted(listener), Some(to), "an inbound connection to {to}");
    }
}

/// A query of the application goes to the proxy's server, and the answer comes back from the resolver's address.
fn dns() {
    let server = as_user(1337, || UdpSocket::bind("127.0.0.1:15053").unwrap());
    let app = as_user(1000, || UdpSocket::bind("0.0.0.0:0").unwrap());
    for socket in [&server, &app] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let resolver = at("10.96.0.10:53");
    app.send_to(b"query", resolver).unwrap();
    let mut buffer = [0; 16];
    let (size, from) = server.recv_from(&mut buffer).expect("the query lands on 15053");
    assert_eq!(&buffer[..size], b"query");
    server.send_to(b"answer", from).unwrap();
    let (size, from) = app.recv_from(&mut buffer).expect("the answer comes back");
    assert_eq!((&buffer[..size], from), (&b"answer"[..], resolver));
}
