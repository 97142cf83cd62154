//! 5. Who may do what, and what the log says of those who may not.

use anyhow::ensure;
use mesh_e2e::{client::load::Report, mesh::Mesh, process::eventually};
use std::time::Duration;

const PRINCIPAL: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-client, namespace: e2e}
spec:
  selector: {matchLabels: {app: echo}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/e2e/sa/client]}}]
";

const PATH_AND_METHOD: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: e2e}
spec:
  selector: {matchLabels: {app: echo}}
  action: DENY
  rules:
  - to: [{operation: {paths: ['/secret/*']}}]
  - to: [{operation: {methods: [DELETE], ports: ['8080']}}]
";

/// The only status that came back.
fn status(mesh: &Mesh, pod: &str, method: &str, path: &str) -> anyhow::Result<u16> {
    let url = format!("http://echo.e2e:8080{path}");
    let arguments = [
        "load",
        "--requests",
        "5",
        "--concurrency",
        "1",
        "--method",
        method,
        "--url",
        &url,
    ];
    let report: Report = mesh.client(pod, &arguments)?;
    ensure!(
        report.by_status.len() == 1 && report.errors.is_empty(),
        "{method} {path} from {pod}: {report:?}"
    );
    Ok(report.by_status.keys().next().copied().unwrap_or_default())
}

pub fn by_principal(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply_acked(PRINCIPAL)?;
    let got = (
        status(mesh, "client", "GET", "/"),
        status(mesh, "stranger", "GET", "/"),
        status(mesh, "outsider", "GET", "/"),
    );
    mesh.delete(PRINCIPAL)?;
    let got = (got.0?, got.1?, got.2?);
    ensure!(got == (200, 403, 403), "client, stranger, outsider: {got:?}");
    ensure!(
        status(mesh, "stranger", "GET", "/")? == 200,
        "without the policy a stranger passes"
    );
    Ok(())
}

pub fn by_path_and_method(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply_acked(PATH_AND_METHOD)?;
    let cases = [
        ("GET", "/open", 200),
        ("GET", "/secret/a", 403),
        // The same path, written in ways that a careless policy would miss.
        ("GET", "/open/../secret/a", 403),
        ("GET", "/%73ecret/a", 403),
        ("POST", "/open", 200),
        ("DELETE", "/open", 403),
    ];
    let mut wrong = Vec::new();
    for (method, path, expect) in cases {
        let got = status(mesh, "client", method, path)?;
        if got != expect {
            wrong.push(format!("{method} {path}: {got}, expected {expect}"));
        }
    }
    mesh.delete(PATH_AND_METHOD)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

pub fn denial_names_the_policy(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.apply_acked(PATH_AND_METHOD)?;
    let got = status(mesh, "client", "GET", "/secret/named-in-the-log");
    mesh.delete(PATH_AND_METHOD)?;
    ensure!(got? == 403, "the policy does not deny");
    let pod = mesh.pod("e2e", "echo")?;
    eventually(
        Duration::from_secs(10),
        "the denial in the log of the server's proxy",
        || {
            let log = mesh.logs("e2e", &pod, "istio-proxy")?;
            let line = log.lines().find(|line| line.contains("/secret/named-in-the-log"));
            ensure!(
                line.is_some_and(|line| line.contains("ns[e2e]-policy[no-secrets]-rule[0]")),
                "the line is {line:?}"
            );
            Ok(())
        },
    )
}
