//! The table: one list of rows for each kind. A row is a claim about the whole mesh, from the object to the wire; it
//! changes in the commit that carries the field out.

use State::{Never, Partly, Planned, Refused, Supported};

use super::{Row, State};
use crate::kube::Kind;

const fn row(parent: &'static str, fields: &'static str, state: State) -> Row {
    Row {
        parent,
        fields,
        state,
    }
}

const POLICY_TARGET: State = Refused("not supported yet; use selector");

/// The state of all fields of a kind that no row names.
pub(super) fn whole(kind: Kind) -> Option<State> {
    match kind {
        Kind::WorkloadGroup => Some(Planned(
            "machines do not register by themselves yet, so a WorkloadGroup has no effect; write WorkloadEntries",
        )),
        Kind::EnvoyFilter => Some(Planned(
            "what is generated for proxies cannot be patched yet, so an EnvoyFilter has no effect",
        )),
        Kind::WasmPlugin | Kind::TrafficExtension => Some(Planned(
            "proxies do not run programs yet, so traffic is treated as if this object were not there",
        )),
        _ => None,
    }
}

pub(super) fn rows(kind: Kind) -> &'static [Row] {
    match kind {
        Kind::VirtualService => VIRTUAL_SERVICE,
        Kind::DestinationRule => DESTINATION_RULE,
        Kind::Gateway => GATEWAY,
        Kind::ServiceEntry => SERVICE_ENTRY,
        Kind::WorkloadEntry => WORKLOAD_ENTRY,
        Kind::Sidecar => SIDECAR,
        Kind::ProxyConfig => PROXY_CONFIG,
        Kind::PeerAuthentication => PEER_AUTHENTICATION,
        Kind::RequestAuthentication => REQUEST_AUTHENTICATION,
        Kind::AuthorizationPolicy => AUTHORIZATION_POLICY,
        Kind::Telemetry => TELEMETRY,
        _ => &[],
    }
}

const VIRTUAL_SERVICE: &[Row] = &[
    row("", "hosts gateways exportTo", Supported),
    row(
        "http[]",
        "name route redirect directResponse delegate rewrite timeout retries mirror mirrors mirrorPercentage mirrorPercent \
         mirror_percent corsPolicy headers",
        Supported,
    ),
    row(
        "http[].match[]",
        "name uri scheme method authority port sourceLabels gateways queryParams ignoreUriCase sourceNamespace",
        Supported,
    ),
    row(
        "http[].match[]",
        "headers withoutHeaders",
        Partly("claims of tokens (@request.auth.claims) are not taken"),
    ),
    row(
        "http[].match[]",
        "statPrefix",
        Partly("stock Envoys count by it; our proxy keeps no statistics by route"),
    ),
    row(
        "http[].fault",
        "delay.fixedDelay delay.percentage delay.percent abort.httpStatus abort.grpcStatus abort.percentage",
        Supported,
    ),
    row(
        "http[].fault.delay",
        "exponentialDelay",
        Never("it never had an effect; use fixedDelay"),
    ),
    row(
        "http[].fault.abort",
        "http2Error",
        Never("it never had an effect; use httpStatus or grpcStatus"),
    ),
    row(
        "tls[]",
        "match[].sniHosts match[].destinationSubnets match[].port match[].sourceLabels match[].gateways \
         match[].sourceNamespace route",
        Supported,
    ),
    row(
        "tcp[]",
        "match[].destinationSubnets match[].port match[].sourceLabels match[].gateways match[].sourceNamespace route",
        Supported,
    ),
    row("tcp[].match[]", "sourceSubnet", Never("it never had an effect")),
];

const DESTINATION_RULE: &[Row] = &[
    row("", "host exportTo workloadSelector", Supported),
    row("subsets[]", "name labels", Supported),
    row("trafficPolicy.portLevelSettings[]", "port", Supported),
    row(
        "trafficPolicy.loadBalancer",
        "simple consistentHash.httpHeaderName consistentHash.httpCookie consistentHash.useSourceIp consistentHash.httpQueryParameterName \
         consistentHash.ringHash consistentHash.maglev consistentHash.minimumRingSize localityLbSetting \
         warmup warmupDurationSecs",
        Supported,
    ),
    row(
        "trafficPolicy.loadBalancer",
        "backendUtilization",
        Planned("reported load does not count yet; endpoints are chosen by the fewest requests under way"),
    ),
    row(
        "trafficPolicy.loadBalancer",
        "zoneAwareLbSetting",
        Planned("has no effect yet; use localityLbSetting"),
    ),
    row(
        "trafficPolicy.connectionPool",
        "tcp.connectTimeout tcp.tcpKeepalive tcp.idleTimeout http.http2MaxRequests http.maxRequestsPerConnection \
         http.maxRetries http.idleTimeout http.h2UpgradePolicy http.useClientProtocol http.maxConcurrentStreams \
         http.http2KeepAlive",
        Supported,
    ),
    row(
        "trafficPolicy.connectionPool",
        "tcp.maxConnections tcp.maxConnectionDuration http.http1MaxPendingRequests",
        Partly(
            "stock Envoys keep to it, our proxy does not yet; http.http2MaxRequests bounds the requests of both",
        ),
    ),
    row(
        "trafficPolicy.outlierDetection",
        "consecutiveErrors splitExternalLocalOriginErrors consecutiveLocalOriginFailures consecutiveGatewayErrors \
         consecutive5xxErrors outlierDetectionHttpErrorCodes interval baseEjectionTime maxEjectionPercent \
         minHealthPercent",
        Supported,
    ),
    row("trafficPolicy", "tls proxyProtocol retryBudget", Supported),
    row(
        "trafficPolicy",
        "tunnel",
        Partly("the destinations of a route with weights must all have the same one, or none is used"),
    ),
];

const CIPHER_SUITES: State =
    Partly("our proxy leaves out what has no forward secrecy or does not authenticate what it encrypts");
const CURVES: State = Partly("our proxy leaves out P-521");

const GATEWAY: &[Row] = &[
    row("", "selector", Supported),
    row(
        "servers[]",
        "port.number port.protocol port.name bind hosts name",
        Supported,
    ),
    row(
        "servers[].port",
        "targetPort",
        Never("has no effect in a Gateway"),
    ),
    row("servers[]", "defaultEndpoint", Never("it never had an effect")),
    row(
        "servers[].tls",
        "httpsRedirect mode serverCertificate privateKey caCertificates caCrl credentialName credentialNames \
         tlsCertificates subjectAltNames verifyCertificateSpki verifyCertificateHash minProtocolVersion \
         maxProtocolVersion insecureSkipVerify",
        Supported,
    ),
    row("servers[].tls", "cipherSuites", CIPHER_SUITES),
    row("servers[].tls", "ecdhCurves", CURVES),
    row(
        "servers[].tls",
        "caCertCredentialName",
        Partly("the name of a Secret; ConfigMaps are not read for it"),
    ),
];

const SERVICE_ENTRY: &[Row] = &[
    row(
        "",
        "hosts addresses ports location workloadSelector exportTo subjectAltNames endpoints",
        Supported,
    ),
    row("", "resolution", Partly("DYNAMIC_DNS is not taken")),
];

const WORKLOAD_ENTRY: &[Row] = &[row(
    "",
    "address ports labels network locality weight serviceAccount",
    Supported,
)];

const SIDECAR_TARGET_PORT: State = Never("has no meaning in a Sidecar");
const HTTP2_KEEPALIVE: State = Supported;
const SIDECAR_HTTP_POOL: &str = "http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection maxRetries \
     idleTimeout h2UpgradePolicy useClientProtocol maxConcurrentStreams";

const SIDECAR: &[Row] = &[
    row("", "workloadSelector outboundTrafficPolicy", Supported),
    row("egress[]", "port hosts captureMode", Supported),
    row(
        "egress[]",
        "bind",
        Partly("IP addresses; Unix sockets are not taken"),
    ),
    row("ingress[]", "port bind captureMode", Supported),
    row(
        "ingress[]",
        "defaultEndpoint",
        Partly("IP addresses and ports; Unix sockets are not taken"),
    ),
    row("egress[].port", "targetPort", SIDECAR_TARGET_PORT),
    row("ingress[].port", "targetPort", SIDECAR_TARGET_PORT),
    row(
        "ingress[].tls",
        "mode serverCertificate privateKey caCertificates caCrl verifyCertificateSpki verifyCertificateHash \
         minProtocolVersion maxProtocolVersion insecureSkipVerify",
        Supported,
    ),
    row("ingress[].tls", "cipherSuites", CIPHER_SUITES),
    row("ingress[].tls", "ecdhCurves", CURVES),
    row(
        "ingress[].tls",
        "httpsRedirect credentialName credentialNames caCertCredentialName tlsCertificates subjectAltNames",
        Refused("is possible in a Gateway only; a Sidecar names one certificate in files of its pods"),
    ),
    row("ingress[].connectionPool", "tcp", Supported),
    row("ingress[].connectionPool.http", SIDECAR_HTTP_POOL, Supported),
    row("ingress[].connectionPool.http", "http2KeepAlive", HTTP2_KEEPALIVE),
    row("inboundConnectionPool", "tcp", Supported),
    row("inboundConnectionPool.http", SIDECAR_HTTP_POOL, Supported),
    row("inboundConnectionPool.http", "http2KeepAlive", HTTP2_KEEPALIVE),
];

const PROXY_CONFIG: &[Row] = &[row(
    "",
    "selector concurrency environmentVariables image",
    Supported,
)];

const PEER_AUTHENTICATION: &[Row] = &[row("", "selector mtls portLevelMtls", Supported)];

const REQUEST_AUTHENTICATION: &[Row] = &[
    row("", "selector", Supported),
    row("", "targetRef targetRefs", POLICY_TARGET),
    row(
        "jwtRules[]",
        "issuer audiences jwksUri jwks_uri jwks fromHeaders fromParams fromCookies outputPayloadToHeader \
         outputClaimToHeaders forwardOriginalToken spaceDelimitedClaims presence",
        Supported,
    ),
    row(
        "jwtRules[]",
        "timeout",
        Planned("has no effect yet; fetching keys may take 5s"),
    ),
];

const AUTHORIZATION_POLICY: &[Row] = &[
    row("", "selector", Supported),
    row("", "targetRef targetRefs", POLICY_TARGET),
    row("", "action", Partly("CUSTOM is not taken")),
    row(
        "",
        "provider",
        Partly("belongs to action CUSTOM, which is not taken"),
    ),
    row(
        "rules[]",
        "from[].source.principals from[].source.notPrincipals from[].source.requestPrincipals \
         from[].source.notRequestPrincipals from[].source.namespaces from[].source.notNamespaces \
         from[].source.serviceAccounts from[].source.notServiceAccounts from[].source.ipBlocks from[].source.notIpBlocks \
         from[].source.remoteIpBlocks from[].source.notRemoteIpBlocks to when[].values when[].notValues",
        Supported,
    ),
    row(
        "rules[].when[]",
        "key",
        Partly("source.trustDomain and attributes that begin with experimental. are not taken"),
    ),
    row(
        "rules[].from[].source",
        "trustDomains notTrustDomains",
        Refused("not supported yet; use principals, such as other.example.com/ns/*"),
    ),
];

const TELEMETRY: &[Row] = &[
    row("", "selector", Supported),
    row("", "targetRef targetRefs", POLICY_TARGET),
    row("accessLogging[]", "match providers disabled", Supported),
    row(
        "accessLogging[]",
        "filter",
        Planned("has no effect yet; all requests are logged"),
    ),
    row(
        "tracing[]",
        "match providers randomSamplingPercentage disableSpanReporting",
        Supported,
    ),
    row(
        "tracing[]",
        "customTags",
        Planned("spans get no tags of yours yet"),
    ),
    row(
        "tracing[]",
        "disableContextPropagation useRequestIdForTraceSampling enableIstioTags",
        Planned("has no effect yet"),
    ),
    row(
        "",
        "metrics",
        Planned("has no effect yet; the standard metrics are kept as they are"),
    ),
];
