//! Every magic string of the mesh that more than one part must agree on. Users know these names from Istio and Envoy;
//! we invent one only where they have none.

/// Where the control plane lives.
pub const SYSTEM_NAMESPACE: &str = "istio-system";
/// The revision of a control plane that was installed without one.
pub const DEFAULT_REVISION: &str = "default";
/// The ConfigMap of the system namespace with the settings of the mesh, under the key `mesh`.
pub const MESH_CONFIG_MAP: &str = "istio";
/// The ConfigMap of the system namespace with the settings of injection, under the key `values`.
pub const INJECTION_CONFIG_MAP: &str = "istio-sidecar-injector";
/// The default trust domain, and the default DNS suffix of services.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// User and group of the proxy; its traffic is never redirected.
pub const PROXY_UID: u32 = 1337;

/// Containers of an injected pod.
pub mod container {
    pub const PROXY: &str = "istio-proxy";
    pub const INIT: &str = "istio-init";
}

/// Images of our own parts.
pub mod image {
    pub const PROXY: &str = "gossamer/proxy";
    /// The same program, with a stock Envoy beside it.
    pub const PROXY_ENVOY: &str = "gossamer/proxy-envoy";
    pub const PILOT: &str = "gossamer/pilot";
    pub const CITADEL: &str = "gossamer/citadel";
    pub const TELEMETRY: &str = "gossamer/telemetry";
}

/// Ports, as in Istio's table of ports.
pub mod port {
    pub const OUTBOUND: u16 = 15001;
    pub const INBOUND: u16 = 15006;
    pub const HBONE: u16 = 15008;
    pub const ADMIN: u16 = 15000;
    pub const XDS_PLAINTEXT: u16 = 15010;
    pub const XDS: u16 = 15012;
    pub const CA: u16 = 15013;
    pub const CONTROL: u16 = 15014;
    pub const WEBHOOK: u16 = 15017;
    pub const METRICS: u16 = 15020;
    pub const HEALTH: u16 = 15021;
    pub const DNS: u16 = 15053;
    pub const STATS: u16 = 15090;
    pub const TELEMETRY: u16 = 9091;
    pub const POLICY: u16 = 9092;
    pub const DASHBOARD: u16 = 20001;
}

pub mod label {
    pub const INJECTION: &str = "istio-injection";
    pub const REVISION: &str = "istio.io/rev";
    pub const INJECT: &str = "sidecar.istio.io/inject";
    pub const TLS_MODE: &str = "security.istio.io/tlsMode";
    pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
    pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
    pub const APP: &str = "app";
    pub const APP_NAME: &str = "app.kubernetes.io/name";
    pub const VERSION: &str = "version";
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    pub const REGION: &str = "topology.kubernetes.io/region";
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    pub const SUBZONE: &str = "topology.istio.io/subzone";
    pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
    /// On a Service: a Gateway's port is never taken for a port of this Service.
    pub const NO_GATEWAY_PORT_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";
}

pub mod annotation {
    pub const STATUS: &str = "sidecar.istio.io/status";
    pub const INJECT: &str = "sidecar.istio.io/inject";
    pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
    /// Which program is the data plane of a pod: `gossamer` (the default) or `envoy`.
    pub const DATA_PLANE: &str = "sidecar.gossamer.dev/dataPlane";
    pub const TEMPLATES: &str = "inject.istio.io/templates";
    pub const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";
    pub const NATIVE_SIDECAR: &str = "sidecar.istio.io/nativeSidecar";
    pub const REWRITE_PROBES: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
    pub const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
    pub const DISCOVERY_ADDRESS: &str = "sidecar.istio.io/discoveryAddress";
    pub const USER_VOLUME: &str = "sidecar.istio.io/userVolume";
    pub const USER_VOLUME_MOUNT: &str = "sidecar.istio.io/userVolumeMount";
    pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
    pub const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
    pub const INCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeOutboundPorts";
    pub const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
    pub const INCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
    pub const EXCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
    pub const INCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
    pub const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
    pub const PROXY_CPU: &str = "sidecar.istio.io/proxyCPU";
    pub const PROXY_MEMORY: &str = "sidecar.istio.io/proxyMemory";
    pub const PROXY_CPU_LIMIT: &str = "sidecar.istio.io/proxyCPULimit";
    pub const PROXY_MEMORY_LIMIT: &str = "sidecar.istio.io/proxyMemoryLimit";
    pub const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
    pub const PROMETHEUS_SCRAPE: &str = "prometheus.io/scrape";
    pub const PROMETHEUS_PORT: &str = "prometheus.io/port";
    pub const PROMETHEUS_PATH: &str = "prometheus.io/path";
}

/// Paths inside a pod.
pub mod path {
    pub const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
    pub const ROOT_CERT: &str = "/var/run/secrets/istio/root-cert.pem";
}

/// The audience of a token that citadel accepts.
pub const TOKEN_AUDIENCE: &str = "istio-ca";
/// Names of the workload's own certificate and trust bundle in SDS.
pub const SECRET_WORKLOAD: &str = "default";
pub const SECRET_ROOT: &str = "ROOTCA";
/// Prefix of a gateway's credential in SDS.
pub const SECRET_CREDENTIAL_PREFIX: &str = "kubernetes://";

/// Clusters that always exist.
pub mod cluster {
    pub const PASSTHROUGH: &str = "PassthroughCluster";
    pub const BLACK_HOLE: &str = "BlackHoleCluster";
    pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
    pub const SDS: &str = "sds-grpc";
}

/// Application protocols inside the mesh's TLS.
pub mod alpn {
    pub const TCP: &str = "istio";
    pub const HTTP_10: &str = "istio-http/1.0";
    pub const HTTP_11: &str = "istio-http/1.1";
    pub const HTTP_2: &str = "istio-h2";
    /// Between two of our own proxies: HTTP/2 frames that may carry an application's HTTP/1.1.
    pub const CARRIER: &str = "gossamer-h2";
}

/// Metadata namespaces in xDS resources.
pub mod metadata {
    pub const ISTIO: &str = "istio";
    pub const GOSSAMER: &str = "gossamer";
    pub const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";
    pub const TLS_MODE: &str = "tlsMode";
    /// In an access-log entry, under [`GOSSAMER`]: how many records its proxy lost since the last entry that told so.
    pub const DROPPED: &str = "dropped";
}

/// `outbound|9080|v1|reviews.default.svc.cluster.local`
pub fn outbound_cluster(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `inbound|9080||`
pub fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

/// `outbound_.9080_.v1_.reviews.default.svc.cluster.local`: the server name inside the mesh's TLS.
pub fn outbound_sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}
