//! The configuration files of all contestants, made from the same few facts. The bootstraps are read by Envoy and by our proxy as
//! they are.

use super::{FRONT, MIDDLE, UPSTREAM, certificates};
use anyhow::Context;
use serde_json::{Value, json};
use std::path::Path;

const TYPES: &str = "type.googleapis.com/envoy.extensions";
/// Size of the large configuration.
const CLUSTERS: u32 = 1000;
const ENDPOINTS: u32 = 10;
const ROUTES: u32 = 5000;

pub fn write_all(folder: &Path) -> anyhow::Result<()> {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    certificates::write(folder)?;
    let plain = |cluster: &str| vec![route("/", cluster)];
    let hop = [listener(FRONT, plain("app"), vec![router()], None)];
    write("hop.json", bootstrap(&hop, &[cluster("app", &[UPSTREAM], None)]))?;
    write("client.json", client(folder))?;
    write("server.json", server(folder))?;
    write("large.json", large())?;
    write(
        "nginx.conf",
        nginx(
            folder,
            FRONT,
            &format!(
                "upstream app {{ server 127.0.0.1:{UPSTREAM}; keepalive 128; }}\n  server {{ listen 127.0.0.1:{FRONT}; location / {{ \
         proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
            ),
        ),
    )?;
    let answer = "0123456789".repeat(10);
    write(
        "upstream.conf",
        nginx(
            folder,
            UPSTREAM,
            &format!(
                "server {{ listen 127.0.0.1:{UPSTREAM} backlog=4096; location / {{ default_type text/plain; return 200 \"{answer}\"; }} }}"
            ),
        ),
    )?;
    write(
        "haproxy.cfg",
        format!(
            "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
         http-reuse always\nfrontend front\n  bind 127.0.0.1:{FRONT}\n  default_backend app\nbackend app\n  server one 127.0.0.1:{UPSTREAM}\n"
        ),
    )
}

fn nginx(folder: &Path, port: u16, http: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {folder}/nginx-{port}.pid;\nerror_log {folder}/nginx-{port}.log error;\n\
         events {{ worker_connections 8192; }}\nhttp {{\n  access_log off;\n  keepalive_requests 100000000;\n  keepalive_timeout 600s;\n  \
         client_body_temp_path {folder}/nginx-a;\n  proxy_temp_path {folder}/nginx-b;\n  fastcgi_temp_path {folder}/nginx-c;\n  \
         uwsgi_temp_path {folder}/nginx-d;\n  scgi_temp_path {folder}/nginx-e;\n  {http}\n}}\n"
    )
}

fn bootstrap(listeners: &[Value], clusters: &[Value]) -> String {
    json!({
        "node": { "id": "bench", "cluster": "bench" },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
    .to_string()
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
    })
}

fn route(prefix: &str, cluster: &str) -> Value {
    json!({ "match": { "prefix": prefix }, "route": { "cluster": cluster } })
}

fn listener(port: u16, routes: Vec<Value>, filters: Vec<Value>, tls: Option<Value>) -> Value {
    let mut chain = json!({ "filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": format!("port_{port}"),
            "http_filters": filters,
            "route_config": { "name": "local", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        },
    }] });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({ "name": format!("port_{port}"), "address": address(port), "filter_chains": [chain] })
}

fn cluster(name: &str, ports: &[u16], transport: Option<Value>) -> Value {
    let endpoints: Vec<Value> = ports
        .iter()
        .map(|port| json!({ "endpoint": { "address": address(*port) } }))
        .collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    });
    if let Some(transport) = transport {
        cluster["transport_socket"] = transport;
        let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster["typed_extension_protocol_options"] = json!({
            name: { "@type": format!("type.googleapis.com/{name}"), "explicit_http_config": { "http2_protocol_options": {} } },
        });
    }
    cluster
}

fn tls(context: &str, folder: &Path, own: &str, peer: &str, more: Value) -> Value {
    let file = |name: String| json!({ "filename": folder.join(name).display().to_string() });
    let mut config = json!({
        "@type": format!("{TYPES}.transport_sockets.tls.v3.{context}"),
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [{ "certificate_chain": file(format!("{own}.pem")), "private_key": file(format!("{own}.key")) }],
            "validation_context": {
                "trusted_ca": file("root.pem".to_owned()),
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
            },
        },
    });
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}

/// The client's proxy: routes as a mesh has them, and TLS towards the server's proxy.
fn client(folder: &Path) -> String {
    let to = |weight: u32, cluster: &str| json!({ "name": cluster, "weight": weight });
    let routes = vec![
        json!({
            "match": { "prefix": "/", "headers": [{ "name": "end-user", "string_match": { "exact": "jason" } }] },
            "route": { "cluster": "reviews-v2", "timeout": "15s" },
        }),
        json!({
            "match": { "prefix": "/reviews" },
            "route": { "timeout": "15s", "weighted_clusters": { "clusters": [to(80, "reviews-v1"), to(20, "reviews-v2")] } },
        }),
        route("/", "reviews-v1"),
    ];
    let clusters: Vec<Value> = ["reviews-v1", "reviews-v2"]
        .iter()
        .map(|name| {
            let socket = tls(
                "UpstreamTlsContext",
                folder,
                "client",
                certificates::SERVER,
                json!({ "sni": "reviews.default" }),
            );
            cluster(name, &[MIDDLE], Some(socket))
        })
        .collect();
    bootstrap(&[listener(FRONT, routes, vec![router()], None)], &clusters)
}

/// The server's proxy: TLS with the client's certificate, an authorization rule on it, and the application.
fn server(folder: &Path) -> String {
    let principal = json!({ "authenticated": { "principal_name": { "exact": certificates::CLIENT } } });
    let permission = json!({ "header": { "name": ":method", "string_match": { "exact": "GET" } } });
    let rbac = json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": format!("{TYPES}.filters.http.rbac.v3.RBAC"),
            "rules": { "action": "ALLOW", "policies": {
                "ns[default]-policy[client]-rule[0]": { "permissions": [permission], "principals": [principal] },
            } },
        },
    });
    let socket = tls(
        "DownstreamTlsContext",
        folder,
        "server",
        certificates::CLIENT,
        json!({ "require_client_certificate": true }),
    );
    let listener = listener(
        MIDDLE,
        vec![route("/", "app")],
        vec![rbac, router()],
        Some(socket),
    );
    bootstrap(&[listener], &[cluster("app", &[UPSTREAM], None)])
}

fn large() -> String {
    let name = |i: u32| format!("outbound|9080||service-{i}.default.svc.cluster.local");
    let mut routes: Vec<Value> = (0..ROUTES)
        .map(|i| route(&format!("/path/{i}/"), &name(i % CLUSTERS)))
        .collect();
    routes.push(route("/", "app"));
    let ports: Vec<u16> = (0..ENDPOINTS).map(|i| 20_000 + i as u16).collect();
    let mut clusters: Vec<Value> = (0..CLUSTERS).map(|i| cluster(&name(i), &ports, None)).collect();
    clusters.push(cluster("app", &[UPSTREAM], None));
    bootstrap(&[listener(FRONT, routes, vec![router()], None)], &clusters)
}
