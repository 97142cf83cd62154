//! What a Sidecar says, on the wire: where the client's proxy listens and for whom, where unknown traffic goes, and what the
//! server's proxy takes in.

use anyhow::{Context, ensure};
use mesh_e2e::{client::load::Report, mesh::Mesh, site::Site};
use rcgen::{CertificateParams, KeyPair};
use std::os::unix::fs::PermissionsExt;

fn client(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: scope, namespace: e2e}}\nspec:\n  \
         workloadSelector: {{labels: {{app: client}}}}\n{spec}"
    )
}

/// Some requests from a pod, one after another.
fn ask(mesh: &Mesh, pod: &str, url: &str, more: &[&str]) -> anyhow::Result<Report> {
    load(
        mesh,
        pod,
        url,
        &[&["--requests", "4", "--concurrency", "1"], more].concat(),
    )
}

fn load(mesh: &Mesh, pod: &str, url: &str, more: &[&str]) -> anyhow::Result<Report> {
    mesh.client(
        pod,
        &[&["load", "--timeout-ms", "3000", "--url", url], more].concat(),
    )
}

/// Does nobody answer as the server would?
fn ensure_none(report: &Report, what: &str) -> anyhow::Result<()> {
    ensure!(
        report.ok == 0,
        "{what}: {} of {} requests passed",
        report.ok,
        report.requests
    );
    Ok(())
}

fn with(mesh: &Mesh, yaml: &str, look: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    mesh.apply_acked(yaml)?;
    let outcome = look();
    mesh.delete(yaml)?;
    outcome
}

/// A host counts on its listener's port, and a listener with captureMode NONE has a socket of its own.
pub fn egress_by_port(mesh: &mut Mesh) -> anyhow::Result<()> {
    let narrow = client(
        "  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n  egress:\n  \
         - {port: {number: 8080, protocol: HTTP, name: http}, hosts: [./echo.e2e.svc.cluster.local]}\n  \
         - {hosts: [istio-system/*]}\n",
    );
    with(mesh, &narrow, || {
        ask(mesh, "client", "http://echo.e2e:8080/who", &[])?.ensure_all_ok()?;
        let other = ask(mesh, "client", "http://echo.e2e:8081/who", &[])?;
        ensure_none(&other, "the port of no listener")
    })?;
    let bound = client(
        "  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n  egress:\n  \
         - {port: {number: 8080, protocol: HTTP, name: http}, bind: 127.0.0.1, captureMode: NONE, \
         hosts: [./echo.e2e.svc.cluster.local]}\n  \
         - {port: {number: 7001, protocol: TCP, name: tcp}, captureMode: NONE, hosts: ['./*']}\n",
    );
    with(mesh, &bound, || {
        ask(
            mesh,
            "client",
            "http://127.0.0.1:8080/who",
            &["--header", "host:echo.e2e"],
        )?
        .ensure_all_ok()?;
        let unknown = ask(
            mesh,
            "client",
            "http://127.0.0.1:8080/who",
            &["--header", "host:nobody"],
        )?;
        ensure_none(&unknown, "a host that the listener does not have")?;
        let redirected = ask(mesh, "client", "http://echo.e2e:8080/who", &[])?;
        ensure_none(&redirected, "what is redirected, where the listener is bound")?;
        let listeners = mesh.proxy_page("e2e", "client", "/listeners")?;
        ensure!(
            listeners.contains("127.0.0.1:7001"),
            "TCP has no socket: {listeners}"
        );
        Ok(())
    })?;
    ask(mesh, "client", "http://echo.e2e:8081/who", &[])?.ensure_all_ok()
}

/// What nobody knows goes to the egress proxy in place of its destination.
pub fn egress_proxy(mesh: &mut Mesh) -> anyhow::Result<()> {
    const NOWHERE: &str = "http://198.51.100.7:5555/who";
    let proxy = client(
        "  outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: echo, port: {number: 8080}}}\n",
    );
    with(mesh, &proxy, || {
        let report = ask(mesh, "client", NOWHERE, &["--label-json", "/pod"])?;
        report.ensure_all_ok()
    })?;
    ensure_none(
        &ask(mesh, "client", NOWHERE, &[])?,
        "an address that does not exist",
    )
}

/// The server's Sidecar: a port in front of another one, with a bound; one with its own TLS; one that the proxy is bound to.
pub fn ingress(mesh: &mut Mesh) -> anyhow::Result<()> {
    let folder = mesh.dir.with_file_name("sidecar-tls");
    std::fs::create_dir_all(&folder)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["secure.example.com".to_owned()])?.self_signed(&key)?;
    for (name, text) in [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())] {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        // The proxy runs as another user.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644))?;
    }
    let path = |name: &str| folder.join(name).display().to_string();
    let objects = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: echo-in, namespace: e2e}}\nspec:\n  selector: {{app: echo}}\n  \
         ports: [{{name: http, port: 80, targetPort: 8085}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: server, namespace: e2e}}\nspec:\n  \
         workloadSelector: {{labels: {{app: echo}}}}\n  ingress:\n  \
         - {{port: {{number: 8085, protocol: HTTP, name: http}}, defaultEndpoint: '127.0.0.1:8080', \
         connectionPool: {{http: {{http2MaxRequests: 1}}}}}}\n  \
         - {{port: {{number: 8086, protocol: HTTP, name: bound}}, captureMode: NONE, defaultEndpoint: '0.0.0.0:8080'}}\n  \
         - {{port: {{number: 8443, protocol: HTTPS, name: https}}, defaultEndpoint: '127.0.0.1:8080', \
         tls: {{mode: SIMPLE, serverCertificate: {}, privateKey: {}}}}}\n",
        path("tls.crt"),
        path("tls.key"),
    );
    let address = mesh.pod_address("e2e", "echo")?;
    with(mesh, &objects, || {
        ask(mesh, "client", "http://echo-in.e2e/who", &[])?.ensure_all_ok()?;
        ask(mesh, "outsider", "http://echo-in.e2e/who", &[])?.ensure_all_ok()?;
        ask(mesh, "outsider", &format!("http://{address}:8086/who"), &[])?.ensure_all_ok()?;
        crowd(mesh)?;
        tls(mesh, &address, &path("tls.crt"))
    })?;
    ensure_none(
        &ask(mesh, "outsider", &format!("http://{address}:8085/who"), &[])?,
        "the port that only the Sidecar had",
    )
}

/// One request at a time, on each of the proxy's workers; the others are told that there are too many.
fn crowd(mesh: &Mesh) -> anyhow::Result<()> {
    let url = "http://echo-in.e2e/who?delay_ms=700";
    let report = load(
        mesh,
        "outsider",
        url,
        &["--requests", "12", "--concurrency", "12"],
    )?;
    let refused = report.by_status.get(&503).copied().unwrap_or_default();
    ensure!(
        report.ok > 0 && refused > 0 && report.ok + refused == report.requests,
        "a bound of 1 gave {:?} {:?}",
        report.by_status,
        report.errors
    );
    Ok(())
}

fn tls(mesh: &Mesh, address: &str, root: &str) -> anyhow::Result<()> {
    let curl = |scheme: &str| {
        let resolve = format!("secure.example.com:8443:{address}");
        let url = format!("{scheme}://secure.example.com:8443/who");
        let words = [
            "curl",
            "-sS",
            "--fail",
            "-m",
            "10",
            "--cacert",
            root,
            "--resolve",
            &resolve,
            &url,
        ];
        mesh.exec("e2e", "outsider", "app", &words)
    };
    let page = curl("https")?.ok()?;
    ensure!(page.contains("echo"), "somebody else answered: {page}");
    let plain = curl("http")?;
    ensure!(plain.code != Some(0), "without TLS came {}", plain.said());
    Ok(())
}

/// A ProxyConfig shapes the proxies of pods that start after it: threads (each has a socket of its own), environment, image.
pub fn proxy_config(mesh: &mut Mesh) -> anyhow::Result<()> {
    let config = "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\n\
        metadata: {name: shaped, namespace: e2e}\nspec:\n  selector: {matchLabels: {app: shaped}}\n  \
        concurrency: 3\n  environmentVariables: {GOSSAMER_SHAPED: by-object}\n  image: {imageType: debug}\n";
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shaped, namespace: e2e, labels: {app: shaped}}\n\
        spec:\n  replicas: 1\n  selector: {matchLabels: {app: shaped}}\n  template:\n    \
        metadata: {labels: {app: shaped}, annotations: {proxy.istio.io/config: '{concurrency: 1}'}}\n    spec:\n      \
        serviceAccountName: client\n      containers:\n      \
        - {name: app, image: gossamer/e2e-app:0.1.0, args: [sleep]}\n";
    mesh.apply(config)?;
    mesh.apply(deployment)?;
    mesh.wait_ready()?;
    let outcome = shaped(mesh);
    mesh.delete(deployment)?;
    mesh.delete(config)?;
    outcome
}

fn shaped(mesh: &Mesh) -> anyhow::Result<()> {
    let beside = |words: &[&str]| {
        mesh.exec("e2e", "shaped", mesh_proto::names::container::PROXY, words)?
            .ok()
    };
    let sockets = beside(&["ss", "-Hltn", "sport = :15006"])?;
    let count = sockets.lines().filter(|line| line.contains(":15006")).count();
    ensure!(count == 3, "3 threads were wanted, and {count} listen: {sockets}");
    let environment = beside(&["env"])?;
    ensure!(
        environment
            .lines()
            .any(|line| line == "GOSSAMER_SHAPED=by-object"),
        "the variable is not there: {environment}"
    );
    let pods = mesh.pods("e2e", "shaped")?;
    let pod = pods.first().context("no pod")?.to_string();
    ensure!(pod.contains("-debug\""), "the image is not of the type: {pod}");
    Ok(())
}
