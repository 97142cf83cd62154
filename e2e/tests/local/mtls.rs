//! 4. Who may speak without TLS, and what is on the wire.

use anyhow::ensure;
use mesh_e2e::{
    capture::{self, Capture},
    client::load::Report,
    mesh::Mesh,
};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: e2e}
spec: {mtls: {mode: STRICT}}
";

fn ask(mesh: &Mesh, pod: &str) -> anyhow::Result<Report> {
    let url = "http://echo.e2e:8080/who";
    mesh.client(
        pod,
        &[
            "load",
            "--requests",
            "10",
            "--concurrency",
            "2",
            "--timeout-ms",
            "5000",
            "--url",
            url,
        ],
    )
}

pub fn permissive_takes_both(mesh: &mut Mesh) -> anyhow::Result<()> {
    ask(mesh, "client")?.ensure_all_ok()?;
    ask(mesh, "outsider")?.ensure_all_ok()
}

pub fn strict_refuses_plaintext(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply_acked(STRICT)?;
    let (inside, outside) = (ask(mesh, "client"), ask(mesh, "outsider"));
    mesh.delete(STRICT)?;
    inside?.ensure_all_ok()?;
    let outside = outside?;
    ensure!(
        outside.ok == 0,
        "{} of {} plaintext requests passed",
        outside.ok,
        outside.requests
    );
    ensure!(
        outside.by_status.is_empty(),
        "refused at the connection, not by an answer: {:?}",
        outside.by_status
    );
    ask(mesh, "outsider")?.ensure_all_ok()
}

/// Everything between the two pods is TLS from the first byte, and the words of the request are nowhere.
pub fn wire_is_tls_only(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (client, echo) = (
        mesh.pod_address("e2e", "client")?,
        mesh.pod_address("e2e", "echo")?,
    );
    let filter = format!("tcp and host {client} and host {echo}");
    let file = mesh.artifacts().join("wire.pcap");
    let capture = Capture::start(&mesh.node_namespace()?, &filter, &file)?;
    let url = "http://echo.e2e:8080/in-the-clear?secret=sesame";
    let report: Report = mesh.client("client", &["load", "--requests", "50", "--url", url])?;
    let line: serde_json::Value = mesh.client(
        "client",
        &["line", "--target", "echo.e2e:7001", "--line", "in-the-clear"],
    )?;
    let flows = capture.finish()?;
    report.ensure_all_ok()?;
    ensure!(line["answer"] == "in-the-clear\n", "{line}");
    ensure!(
        !flows.is_empty(),
        "nothing was captured between {client} and {echo}"
    );
    for (flow, payload) in &flows {
        ensure!(
            !capture::contains(payload, "in-the-clear"),
            "{flow:?} carries the request as it is"
        );
        ensure!(
            !capture::contains(payload, "HTTP/1.1"),
            "{flow:?} carries HTTP as it is"
        );
    }
    let ports = [8080, 7001];
    let firsts: Vec<_> = flows
        .iter()
        .filter(|(flow, _)| ports.contains(&flow.destination.1))
        .collect();
    // A connection that was open before the capture begins in the middle; the one for TCP is new for certain.
    ensure!(
        firsts
            .iter()
            .any(|(flow, payload)| flow.destination.1 == 7001 && capture::begins_with_tls(payload)),
        "no TLS handshake on port 7001 among {:?}",
        flows.keys()
    );
    Ok(())
}
