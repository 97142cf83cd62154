//! DestinationRule → destination policy.

use mesh_proto::kube::{Object, networking as api};

use super::{DOMAIN, port, visibility};
use crate::model::{
    DestinationPolicy, Host, MeshConfig, Origin, Percent, Selector, TrafficPolicy,
    endpoint::Locality,
    policy::{
        Algorithm, Balancer, ClientTls, ClientTlsMode, ConnectionPool, HashKey, HashTable, Keepalive,
        LocalityBalancing, Outliers, Pings, PortPolicy, ProxyProtocol, RetryBudget, Subset, Tunnel, Warmup,
    },
};

/// Envoy's defaults, which Istio leaves as they are.
const RING_SIZE: u64 = 1024;
const MAGLEV_SIZE: u64 = 65_537;

pub fn convert(
    object: &Object<api::DestinationRule>,
    origin: Origin,
    mesh: &MeshConfig,
) -> DestinationPolicy {
    let spec = &object.spec;
    DestinationPolicy {
        host: Host::resolve(&spec.host, &origin.namespace, DOMAIN),
        visibility: visibility(
            &spec.export_to,
            &origin.namespace,
            &mesh.default_destination_rule_export_to,
        ),
        selector: spec
            .workload_selector
            .as_ref()
            .filter(|selector| !selector.match_labels.is_empty())
            .map(|selector| Selector(selector.match_labels.clone())),
        policy: spec
            .traffic_policy
            .as_ref()
            .map(traffic_policy)
            .unwrap_or_default(),
        subsets: spec
            .subsets
            .iter()
            .map(|subset| Subset {
                name: subset.name.clone(),
                labels: subset.labels.clone(),
                policy: subset
                    .traffic_policy
                    .as_ref()
                    .map(traffic_policy)
                    .unwrap_or_default(),
            })
            .collect(),
        origin,
    }
}

fn traffic_policy(policy: &api::TrafficPolicy) -> TrafficPolicy {
    let all = port_policy(policy);
    let ports = policy.port_level_settings.iter().filter_map(|entry| {
        let number = port(entry.port.as_ref()?.number);
        let own = port_policy(&entry.as_policy());
        // What a port cannot say holds for it as for all.
        let own = PortPolicy {
            proxy_protocol: all.proxy_protocol,
            retry_budget: all.retry_budget.clone(),
            tunnel: all.tunnel.clone(),
            ..own
        };
        Some((number, own))
    });
    TrafficPolicy {
        ports: ports.collect(),
        all: all.clone(),
    }
}

fn port_policy(policy: &api::TrafficPolicy) -> PortPolicy {
    PortPolicy {
        balancer: policy.load_balancer.as_ref().map(balancer),
        pool: policy.connection_pool.as_ref().map(pool),
        outliers: policy.outlier_detection.as_ref().map(outliers),
        tls: policy.tls.as_ref().map(tls),
        proxy_protocol: policy
            .proxy_protocol
            .as_ref()
            .map(|protocol| match protocol.version {
                api::ProxyProtocolVersion::V1 => ProxyProtocol::V1,
                api::ProxyProtocolVersion::V2 => ProxyProtocol::V2,
            }),
        retry_budget: policy.retry_budget.as_ref().map(|budget| RetryBudget {
            percent: budget.percent,
            min_concurrency: budget.min_retry_concurrency,
            interval: budget
                .budget_interval
                .map(|span| span.0)
                .filter(|span| !span.is_zero()),
        }),
        tunnel: policy.tunnel.as_ref().map(|tunnel| Tunnel {
            post: tunnel.protocol == "POST",
            target: match tunnel.target_host.parse::<std::net::Ipv6Addr>() {
                Ok(address) => format!("[{address}]:{}", tunnel.target_port),
                Err(_) => format!("{}:{}", tunnel.target_host, tunnel.target_port),
            },
        }),
    }
}

fn warmup(balancer: &api::LoadBalancer) -> Option<Warmup> {
    let said = balancer.warmup.as_ref();
    // 1000 as a thousand thousandths; `validate` has seen that it is above 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let thousandths = |value: f64| ((value * 1000.0).round() as u32).max(1);
    Some(Warmup {
        duration: said
            .and_then(|warmup| warmup.duration)
            .or(balancer.warmup_duration_secs)?
            .0,
        least: said
            .and_then(|warmup| warmup.minimum_percent)
            .and_then(Percent::new),
        aggression: said.and_then(|warmup| warmup.aggression).map(thousandths),
    })
}

fn balancer(balancer: &api::LoadBalancer) -> Balancer {
    let algorithm = match (&balancer.consistent_hash, balancer.simple) {
        (Some(hash), _) => hashing(hash),
        (None, Some(api::SimpleBalancer::RoundRobin)) => Algorithm::RoundRobin,
        (None, Some(api::SimpleBalancer::Random)) => Algorithm::Random,
        (None, Some(api::SimpleBalancer::Passthrough)) => Algorithm::Passthrough,
        (None, _) => Algorithm::LeastRequest,
    };
    let locality = balancer
        .locality_lb_setting
        .as_ref()
        .map(|setting| LocalityBalancing {
            enabled: setting.enabled.unwrap_or(true),
            distribute: setting
                .distribute
                .iter()
                .map(|entry| {
                    let to = entry
                        .to
                        .iter()
                        .map(|(locality, weight)| (Locality::parse(locality), *weight))
                        .collect();
                    (Locality::parse(&entry.from), to)
                })
                .collect(),
            failover: setting
                .failover
                .iter()
                .map(|entry| (entry.from.clone(), entry.to.clone()))
                .collect(),
            failover_priority: setting.failover_priority.clone(),
        });
    Balancer {
        algorithm,
        locality,
        warmup: warmup(balancer),
    }
}

fn hashing(hash: &api::ConsistentHash) -> Algorithm {
    let on = match (
        &hash.http_header_name,
        &hash.http_cookie,
        &hash.http_query_parameter_name,
    ) {
        (Some(name), _, _) => HashKey::Header(name.to_ascii_lowercase()),
        (None, Some(cookie), _) => HashKey::Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            ttl: cookie.ttl.map(|span| span.0),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| (attribute.name.clone(), attribute.value.clone()))
                .collect(),
        },
        (None, None, Some(name)) => HashKey::Query(name.clone()),
        (None, None, None) => HashKey::SourceIp,
    };
    let table = match &hash.maglev {
        Some(maglev) => HashTable::Maglev {
            size: maglev.table_size.unwrap_or(MAGLEV_SIZE),
        },
        None => {
            let ring = hash.ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size);
            HashTable::Ring {
                minimum: ring.or(hash.minimum_ring_size).unwrap_or(RING_SIZE),
            }
        }
    };
    Algorithm::Hash { on, table }
}

pub fn pool(pool: &api::ConnectionPool) -> ConnectionPool {
    let tcp = pool.tcp.clone().unwrap_or_default();
    let http = pool.http.clone().unwrap_or_default();
    // 0 means unlimited, as in Istio; `validate` has seen the rest.
    let count = |value: Option<i64>| {
        value
            .and_then(|value| u32::try_from(value).ok())
            .filter(|value| *value > 0)
    };
    ConnectionPool {
        max_connections: count(tcp.max_connections),
        connect_timeout: tcp.connect_timeout.map(|span| span.0),
        keepalive: tcp.tcp_keepalive.map(|keepalive| Keepalive {
            probes: keepalive.probes,
            time: keepalive.time.map(|span| span.0),
            interval: keepalive.interval.map(|span| span.0),
        }),
        max_connection_duration: tcp.max_connection_duration.map(|span| span.0),
        tcp_idle_timeout: tcp.idle_timeout.map(|span| span.0),
        max_pending: count(http.http1_max_pending_requests),
        max_requests: count(http.http2_max_requests),
        max_requests_per_connection: count(http.max_requests_per_connection),
        max_retries: http.max_retries.and_then(|value| u32::try_from(value).ok()),
        http_idle_timeout: http.idle_timeout.map(|span| span.0),
        h2_upgrade: match http.h2_upgrade_policy {
            Some(api::H2Upgrade::Upgrade) => Some(true),
            Some(api::H2Upgrade::DoNotUpgrade) => Some(false),
            Some(api::H2Upgrade::Default) | None => None,
        },
        use_client_protocol: http.use_client_protocol,
        max_concurrent_streams: count(http.max_concurrent_streams),
        http2_keepalive: http.http2_keep_alive.as_ref().and_then(|pings| {
            Some(Pings {
                interval: pings.interval?.0,
                timeout: pings.timeout?.0,
            })
        }),
    }
}

fn outliers(outliers: &api::OutlierDetection) -> Outliers {
    let percent = |value: Option<i64>| {
        value
            .and_then(|value| u32::try_from(value).ok())
            .and_then(|value| Percent::new(f64::from(value)))
    };
    Outliers {
        consecutive_5xx: outliers.consecutive_5xx_errors.or(outliers.consecutive_errors),
        consecutive_gateway_errors: outliers.consecutive_gateway_errors,
        split_local_origin: outliers.split_external_local_origin_errors,
        consecutive_local_origin_failures: outliers.consecutive_local_origin_failures,
        interval: outliers.interval.map(|span| span.0),
        base_ejection_time: outliers.base_ejection_time.map(|span| span.0),
        max_ejection_percent: percent(outliers.max_ejection_percent),
        min_health_percent: percent(outliers.min_health_percent),
        http_errors: outliers.outlier_detection_http_error_codes.clone(),
    }
}

fn tls(tls: &api::ClientTls) -> ClientTls {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ClientTls {
        mode: match tls.mode {
            api::ClientTlsMode::Disable => ClientTlsMode::Disable,
            api::ClientTlsMode::Simple => ClientTlsMode::Simple,
            api::ClientTlsMode::Mutual => ClientTlsMode::Mutual,
            api::ClientTlsMode::IstioMutual => ClientTlsMode::MeshMutual,
        },
        credential: some(&tls.credential_name),
        certificate: some(&tls.client_certificate),
        private_key: some(&tls.private_key),
        ca_certificates: some(&tls.ca_certificates),
        ca_crl: some(&tls.ca_crl),
        subject_alt_names: tls.subject_alt_names.clone(),
        sni: some(&tls.sni),
        insecure_skip_verify: tls.insecure_skip_verify.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::testing::of_spec,
        model::{Item, Kind},
    };
    use std::{sync::Arc, time::Duration};

    fn policy(spec: &str) -> Arc<DestinationPolicy> {
        match of_spec(Kind::DestinationRule, spec) {
            Item::DestinationPolicy(policy) => policy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_nearest_setting_counts() {
        let policy = policy(
            "host: reviews\n\
             trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {maxConnections: 100}}, \
             portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: RANDOM}}]}\n\
             subsets:\n- {name: v1, labels: {version: v1}}\n\
             - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}\n",
        );
        assert_eq!(policy.host.as_str(), "reviews.ns.svc.cluster.local");
        let check = |port: u16, subset: Option<&str>, algorithm: Algorithm, connections: Option<u32>| {
            let effective = policy.effective(port, subset);
            assert_eq!(
                effective.balancer.map(|balancer| balancer.algorithm),
                Some(algorithm),
                "{port} {subset:?}"
            );
            assert_eq!(
                effective.pool.and_then(|pool| pool.max_connections),
                connections,
                "{port} {subset:?}"
            );
        };
        check(80, None, Algorithm::RoundRobin, Some(100));
        check(81, None, Algorithm::Random, None);
        check(80, Some("v1"), Algorithm::RoundRobin, Some(100));
        check(80, Some("v2"), Algorithm::Passthrough, Some(100));
        check(80, Some("v3"), Algorithm::RoundRobin, Some(100));
    }

    #[test]
    fn what_a_port_cannot_say_holds_for_it_as_for_all() {
        let policy = policy(
            "host: reviews\n\
             trafficPolicy: {proxyProtocol: {version: V2}, retryBudget: {percent: 50, budgetInterval: 1s}, \
             tunnel: {targetHost: 'fd00::1', targetPort: 443}, \
             portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: RANDOM}}]}\n",
        );
        for port in [80, 81] {
            let effective = policy.effective(port, None);
            assert_eq!(effective.proxy_protocol, Some(ProxyProtocol::V2), "{port}");
            assert_eq!(
                effective.retry_budget.and_then(|budget| budget.interval),
                Some(Duration::from_secs(1))
            );
            assert_eq!(
                effective.tunnel.map(|tunnel| tunnel.target).as_deref(),
                Some("[fd00::1]:443")
            );
        }
    }

    #[test]
    fn settings() {
        let policy = policy(
            "host: a.example.com\n\
             trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s}}, warmupDurationSecs: 10s}, \
             tls: {mode: SIMPLE, sni: a.example.com}, outlierDetection: {consecutive5xxErrors: 3, maxEjectionPercent: 50}}\n",
        );
        let all = &policy.policy.all;
        let balancer = all.balancer.clone().unwrap();
        let warmup = balancer.warmup.unwrap();
        assert_eq!(
            (warmup.duration, warmup.least, warmup.aggression),
            (Duration::from_secs(10), None, None)
        );
        let cookie = HashKey::Cookie {
            name: "c".into(),
            path: String::new(),
            ttl: Some(Duration::ZERO),
            attributes: Vec::new(),
        };
        assert_eq!(
            balancer.algorithm,
            Algorithm::Hash {
                on: cookie,
                table: HashTable::Ring { minimum: 1024 }
            }
        );
        assert_eq!(all.tls.as_ref().map(|tls| tls.mode), Some(ClientTlsMode::Simple));
        let outliers = all.outliers.clone().unwrap();
        assert_eq!(
            (outliers.consecutive_5xx, outliers.max_ejection_percent),
            (Some(3), Percent::new(50.0))
        );
    }
}
