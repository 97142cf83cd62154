//! 6. Everything that applications speak, through both sidecars.

use anyhow::ensure;
use mesh_e2e::{
    client::{grpc, idle, load::Report, tcp, websocket},
    mesh::Mesh,
    site::Site,
};

pub fn grpc(mesh: &mut Mesh) -> anyhow::Result<()> {
    let arguments = [
        "grpc",
        "--target",
        "echo.e2e:9090",
        "--unary",
        "50",
        "--answers",
        "2000",
        "--talk",
        "200",
    ];
    let report: grpc::Report = mesh.client("client", &arguments)?;
    ensure!(
        (report.unary, report.answers, report.talk) == (50, 2000, 200),
        "{report:?}"
    );
    ensure!(
        report.failed_code == 9 && report.failed_message == "as asked: no",
        "a failing call: {report:?}"
    );
    ensure!(
        report.failed_trailer.as_deref() == Some("kept"),
        "its trailer: {report:?}"
    );
    ensure!(
        report.stream_failed_code == 10,
        "a stream that fails at its end: {report:?}"
    );
    Ok(())
}

pub fn websocket(mesh: &mut Mesh) -> anyhow::Result<()> {
    let arguments = [
        "websocket",
        "--url",
        "ws://echo.e2e:8080/ws",
        "--messages",
        "200",
        "--pause-ms",
        "2000",
    ];
    let report: websocket::Report = mesh.client("client", &arguments)?;
    ensure!(
        report
            == websocket::Report {
                messages: 200,
                status: 101
            },
        "{report:?}"
    );
    Ok(())
}

/// The port's name says nothing of its protocol, and the server speaks first: it must not be made to wait.
pub fn server_first(mesh: &mut Mesh) -> anyhow::Result<()> {
    for _ in 0..3 {
        let report: tcp::FirstReport =
            mesh.client("client", &["server-first", "--target", "echo.e2e:7002"])?;
        ensure!(report.answer == "250 hello\r\n", "{report:?}");
        println!("    greeted after {:.1} ms", report.greeted_after_ms);
    }
    Ok(())
}

/// A port without a declared protocol: HTTP is found out, and counted and routed as such.
pub fn sniffed_http(mesh: &mut Mesh) -> anyhow::Result<()> {
    for h2c in [false, true] {
        let mut arguments = vec![
            "load",
            "--requests",
            "20",
            "--label-json",
            "/version",
            "--url",
            "http://echo.e2e:8081/",
        ];
        if h2c {
            arguments.push("--h2c");
        }
        let report: Report = mesh.client("client", &arguments)?;
        report.ensure_all_ok()?;
        let expect = if h2c { "HTTP/2.0" } else { "HTTP/1.1" };
        ensure!(
            report.labels.len() == 1 && report.labels.contains_key(expect),
            "the server saw {:?}",
            report.labels
        );
    }
    let metrics = mesh.proxy_page("e2e", "client", "/stats/prometheus")?;
    let counted = metrics.lines().any(|line| {
        line.starts_with("istio_requests_total{") && line.contains("destination_service_name=\"echo\"")
    });
    ensure!(counted, "no istio_requests_total for echo");
    Ok(())
}

/// Between the two proxies it is HTTP/2; the applications see what the other one wrote.
pub fn spelling_is_kept(mesh: &mut Mesh) -> anyhow::Result<()> {
    let words = [
        "curl",
        "-sS",
        "-i",
        "-m",
        "10",
        "-H",
        "X-ODD-Case: Kept",
        "-H",
        "a-header: after it",
        "http://echo.e2e:7004/raw",
    ];
    let text = mesh.exec("e2e", "client", "app", &words)?.ok()?;
    ensure!(text.contains("X-Mixed-CASE: Kept"), "the answer's header: {text}");
    ensure!(
        text.starts_with("HTTP/1.1 200 Fine So Far"),
        "the answer's reason: {text}"
    );
    ensure!(
        text.contains("GET /raw HTTP/1.1\r\nHost: "),
        "the request line and what follows: {text}"
    );
    ensure!(
        text.contains("X-ODD-Case: Kept\r\na-header: after it\r\n"),
        "the request's headers, in their order: {text}"
    );
    Ok(())
}

const REDIS: &str = "
apiVersion: v1
kind: Service
metadata: {name: store, namespace: e2e}
spec:
  selector: {app: store}
  ports: [{name: redis, port: 6379, targetPort: 6379}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: store, namespace: e2e}
spec:
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store, version: v1}}
    spec:
      containers:
      - name: redis
        image: redis:7
        args: [--bind, 0.0.0.0, --protected-mode, 'no', --save, '', --appendonly, 'no']
        readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
";

/// The real Redis, by its own client.
pub fn redis_client(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply(REDIS)?;
    mesh.wait_ready()?;
    let redis = |words: &[&str]| -> anyhow::Result<String> {
        let all: Vec<&str> = ["redis-cli", "-h", "store.e2e"]
            .iter()
            .chain(words)
            .copied()
            .collect();
        Ok(mesh.exec("e2e", "client", "app", &all)?.ok()?.trim().to_owned())
    };
    ensure!(redis(&["ping"])? == "PONG", "no PONG");
    ensure!(redis(&["set", "mesh", "works"])? == "OK", "not set");
    ensure!(redis(&["get", "mesh"])? == "works", "not got");
    mesh.delete(REDIS)
}

const GIB: u64 = 1 << 30;

fn bulk(mesh: &Mesh, direction: &str) -> anyhow::Result<()> {
    let bytes = GIB.to_string();
    let arguments = [
        "bulk",
        "--target",
        "echo.e2e:7003",
        "--direction",
        direction,
        "--bytes",
        &bytes,
    ];
    let report: tcp::BulkReport = mesh.client("client", &arguments)?;
    ensure!(
        report.bytes == GIB,
        "{} of {GIB} bytes arrived as they were sent",
        report.bytes
    );
    println!("    1 GiB in {:.1} s", report.seconds);
    Ok(())
}

pub fn upload_1_gib(mesh: &mut Mesh) -> anyhow::Result<()> {
    bulk(mesh, "upload")
}

pub fn download_1_gib(mesh: &mut Mesh) -> anyhow::Result<()> {
    bulk(mesh, "download")
}

pub fn idle_connections_8000(mesh: &mut Mesh) -> anyhow::Result<()> {
    let arguments = [
        "idle",
        "--target",
        "echo.e2e:7001",
        "--count",
        "8000",
        "--hold-seconds",
        "5",
    ];
    let report: idle::Report = mesh.client("client", &arguments)?;
    ensure!(
        (report.opened, report.alive_at_the_end) == (8000, 8000),
        "{report:?}"
    );
    println!("    8000 connections open in {:.1} s", report.open_seconds);
    Ok(())
}
