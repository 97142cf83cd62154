//! Other people's programs that the mesh must work with, as pods of it: Envoy as a second gateway, and Prometheus.

use crate::{mesh::APP_IMAGE, need};
use serde_json::{Value, json};

/// Where the stock gateway keeps its certificate and its bootstrap, inside its pod.
const FOLDER: &str = "/var/lib/stock-envoy";
/// Labels by which a Gateway selects the stock Envoy.
pub const ENVOY_LABEL: &str = "stock-envoy";
pub const ENVOY_PORT: u16 = 8090;
/// Envoy's own admin port, on loopback in its pod.
pub const ENVOY_ADMIN: u16 = 19000;
pub const PROMETHEUS: &str = "prometheus";
pub const PROMETHEUS_PORT: u16 = 9099;

/// The bootstrap of a stock Envoy that gets everything from pilot. It proves itself with files, as any Envoy can; what it is goes
/// into the node's metadata, under the names that Istio's agents use.
pub fn envoy_bootstrap(namespace: &str, account: &str) -> Value {
    let file = |name: &str| json!({ "filename": format!("{FOLDER}/{name}") });
    json!({
        "node": {
            "id": format!("router~$(POD_IP)~$(POD_NAME).{namespace}~{namespace}.svc.cluster.local"),
            "cluster": "stock-envoy.istio-system",
            "metadata": {
                "NAME": "$(POD_NAME)",
                "NAMESPACE": namespace,
                "SERVICE_ACCOUNT": account,
                "CLUSTER_ID": "Kubernetes",
                "INSTANCE_IPS": "$(POD_IP)",
                "LABELS": { "app": ENVOY_LABEL, "istio": ENVOY_LABEL },
                "TLS_CLIENT_CERT_CHAIN": format!("{FOLDER}/chain.pem"),
                "TLS_CLIENT_KEY": format!("{FOLDER}/key.pem"),
                "TLS_CLIENT_ROOT_CERT": format!("{FOLDER}/root.pem"),
            },
        },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": ENVOY_ADMIN } } },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "pilot" } }],
            },
            "cds_config": { "ads": {}, "resource_api_version": "V3" },
            "lds_config": { "ads": {}, "resource_api_version": "V3" },
        },
        "static_resources": { "clusters": [{
            "name": "pilot",
            "type": "STRICT_DNS",
            "connect_timeout": "5s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": { "http2_protocol_options": {} },
                },
            },
            "load_assignment": { "cluster_name": "pilot", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                "address": { "socket_address": { "address": "pilot.istio-system.svc.cluster.local", "port_value": 15012 } },
            } }] }] },
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": {
                        "alpn_protocols": ["h2"],
                        "tls_certificates": [{ "certificate_chain": file("chain.pem"), "private_key": file("key.pem") }],
                        "validation_context": {
                            "trusted_ca": file("root.pem"),
                            "match_typed_subject_alt_names": [{
                                "san_type": "URI",
                                "matcher": { "exact": "spiffe://cluster.local/ns/istio-system/sa/pilot" },
                            }],
                        },
                    },
                },
            },
        }] },
    })
}

/// A pod with that Envoy, its Service, and a Gateway and VirtualService that lead from it to Bookinfo.
pub fn envoy_gateway() -> anyhow::Result<String> {
    let envoy = need::envoy()?.display().to_string();
    let namespace = "istio-system";
    let account = "stock-envoy";
    let bootstrap = envoy_bootstrap(namespace, account).to_string();
    let objects = [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": account, "namespace": namespace } }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": ENVOY_LABEL, "namespace": namespace },
            "spec": {
                "selector": { "app": ENVOY_LABEL },
                "ports": [{ "name": "http", "port": ENVOY_PORT, "targetPort": ENVOY_PORT }],
            },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": ENVOY_LABEL, "namespace": namespace },
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": { "app": ENVOY_LABEL } },
                "template": {
                    "metadata": { "labels": { "app": ENVOY_LABEL, "istio": ENVOY_LABEL, "sidecar.istio.io/inject": "false" } },
                    "spec": {
                        "serviceAccountName": account,
                        "volumes": [
                            { "name": "token", "projected": { "sources": [{ "serviceAccountToken": {
                                "audience": mesh_proto::names::TOKEN_AUDIENCE, "expirationSeconds": 43200, "path": "istio-token",
                            } }] } },
                            { "name": "root", "configMap": { "name": "istio-ca-root-cert" } },
                            { "name": "own", "emptyDir": {} },
                        ],
                        "containers": [{
                            "name": "envoy",
                            "image": APP_IMAGE,
                            "env": [
                                { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                                { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                            ],
                            "args": [
                                "with-certificate", "--out", FOLDER, "--",
                                envoy, "--concurrency", "1", "--log-level", "info", "--use-dynamic-base-id",
                                "--config-yaml", bootstrap,
                            ],
                            "volumeMounts": [
                                { "name": "token", "mountPath": "/var/run/secrets/tokens" },
                                { "name": "root", "mountPath": "/var/run/secrets/istio" },
                                { "name": "own", "mountPath": FOLDER },
                            ],
                        }],
                    },
                },
            },
        }),
    ];
    Ok(yaml(&objects))
}

/// The way from the stock Envoy to Bookinfo.
pub fn envoy_routes() -> String {
    let meta = json!({ "name": "stock", "namespace": "default" });
    yaml(&[
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": meta,
            "spec": {
                "selector": { "istio": ENVOY_LABEL },
                "servers": [{ "port": { "number": ENVOY_PORT, "name": "http", "protocol": "HTTP" }, "hosts": ["*"] }],
            },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta,
            "spec": {
                "hosts": ["*"], "gateways": ["stock"],
                "http": [{ "route": [{ "destination": { "host": "productpage", "port": { "number": 9080 } } }] }],
            },
        }),
    ])
}

/// Prometheus, scraping each second what it is told to.
pub fn prometheus(targets: &[String]) -> anyhow::Result<String> {
    let program = need::program("prometheus", "prometheus")?.display().to_string();
    let config = json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
        "scrape_configs": [{
            "job_name": "mesh",
            "metrics_path": "/stats/prometheus",
            "static_configs": [{ "targets": targets }],
        }],
    });
    let meta = |name: &str| json!({ "name": name, "namespace": "e2e" });
    Ok(yaml(&[
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(PROMETHEUS),
            "data": { "prometheus.yml": config.to_string() },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(PROMETHEUS),
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": { "app": PROMETHEUS } },
                "template": {
                    "metadata": { "labels": { "app": PROMETHEUS, "sidecar.istio.io/inject": "false" } },
                    "spec": {
                        "volumes": [
                            { "name": "config", "configMap": { "name": PROMETHEUS } },
                            { "name": "data", "emptyDir": {} },
                        ],
                        "containers": [{
                            "name": PROMETHEUS,
                            "image": APP_IMAGE,
                            "command": [program],
                            "args": [
                                "--config.file=/etc/prometheus-e2e/prometheus.yml",
                                "--storage.tsdb.path=/var/lib/prometheus-e2e",
                                format!("--web.listen-address=0.0.0.0:{PROMETHEUS_PORT}"),
                            ],
                            "readinessProbe": { "httpGet": { "path": "/-/ready", "port": PROMETHEUS_PORT }, "periodSeconds": 1 },
                            "volumeMounts": [
                                { "name": "config", "mountPath": "/etc/prometheus-e2e" },
                                { "name": "data", "mountPath": "/var/lib/prometheus-e2e" },
                            ],
                        }],
                    },
                },
            },
        }),
    ]))
}

/// JSON is YAML.
fn yaml(objects: &[Value]) -> String {
    objects
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n---\n")
}
