//! DestinationRule alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{
        Object,
        networking::{
            ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, DestinationRule, H2Upgrade,
            LoadBalancer, LocalityBalancer, OutlierDetection, TrafficPolicy, Tunnel,
        },
    },
};

impl Validate for DestinationRule {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if self.host.is_empty() {
            report.error("spec.host", "a DestinationRule needs a host");
        } else {
            field::host_or_address(&self.host, "spec.host", report);
        }
        field::export_to(&self.export_to, "spec.exportTo", report);
        if let Some(selector) = &self.workload_selector {
            field::labels(
                &selector.match_labels,
                "spec.workloadSelector.matchLabels",
                report,
            );
        }
        if let Some(policy) = &self.traffic_policy {
            traffic_policy(policy, "spec.trafficPolicy", report);
        }
        for (i, subset) in self.subsets.iter().enumerate() {
            let at = format!("spec.subsets[{i}]");
            if subset.name.is_empty() || subset.name.len() > 63 || subset.name.contains(['|', ' ', '/']) {
                report.error(
                    format!("{at}.name"),
                    format!("{:?} is not a subset's name", subset.name),
                );
            }
            if self.subsets[..i].iter().any(|other| other.name == subset.name) {
                report.error(
                    format!("{at}.name"),
                    format!("subset {:?} is there twice", subset.name),
                );
            }
            field::labels(&subset.labels, &format!("{at}.labels"), report);
            if let Some(policy) = &subset.traffic_policy {
                traffic_policy(policy, &format!("{at}.trafficPolicy"), report);
            }
        }
    }
}

fn traffic_policy(policy: &TrafficPolicy, at: &str, report: &mut Report) {
    port_policy(policy, at, report);
    if let Some(tunnel) = &policy.tunnel {
        check_tunnel(tunnel, &format!("{at}.tunnel"), report);
    }
    for (i, entry) in policy.port_level_settings.iter().enumerate() {
        let at = format!("{at}.portLevelSettings[{i}]");
        match &entry.port {
            None => report.error(format!("{at}.port"), "must say which port"),
            Some(port) => {
                field::port(port.number, &format!("{at}.port.number"), report);
                let twice = policy.port_level_settings[..i]
                    .iter()
                    .any(|other| other.port == entry.port);
                if twice {
                    report.error(
                        format!("{at}.port.number"),
                        format!("port {} is there twice", port.number),
                    );
                }
            }
        }
        port_policy(&entry.as_policy(), &at, report);
    }
}

fn check_tunnel(tunnel: &Tunnel, at: &str, report: &mut Report) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        report.error(format!("{at}.protocol"), "must be CONNECT or POST");
    }
    if tunnel.target_host.parse::<std::net::IpAddr>().is_err() {
        field::host(&tunnel.target_host, &format!("{at}.targetHost"), false, report);
    }
    field::port(tunnel.target_port, &format!("{at}.targetPort"), report);
}

fn port_policy(policy: &TrafficPolicy, at: &str, report: &mut Report) {
    if let Some(balancer) = &policy.load_balancer {
        load_balancer(balancer, &format!("{at}.loadBalancer"), report);
    }
    if let Some(pool) = &policy.connection_pool {
        connection_pool(pool, &format!("{at}.connectionPool"), report);
    }
    if let Some(outliers) = &policy.outlier_detection {
        outlier_detection(outliers, &format!("{at}.outlierDetection"), report);
    }
    if let Some(tls) = &policy.tls {
        client_tls(tls, &format!("{at}.tls"), report);
    }
}

fn load_balancer(balancer: &LoadBalancer, at: &str, report: &mut Report) {
    field::at_most_one(
        &[
            ("simple", balancer.simple.is_some()),
            ("consistentHash", balancer.consistent_hash.is_some()),
            ("backendUtilization", balancer.backend_utilization.is_some()),
        ],
        at,
        report,
    );
    field::at_most_one(
        &[
            ("localityLbSetting", balancer.locality_lb_setting.is_some()),
            ("zoneAwareLbSetting", balancer.zone_aware_lb_setting.is_some()),
        ],
        at,
        report,
    );
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(hash, &format!("{at}.consistentHash"), report);
    }
    if let Some(locality) = &balancer.locality_lb_setting {
        locality_balancer(locality, &format!("{at}.localityLbSetting"), report);
    }
    if let Some(warmup) = &balancer.warmup {
        if warmup.duration.is_none() {
            report.error(format!("{at}.warmup.duration"), "must be given");
        }
        field::positive(warmup.duration, &format!("{at}.warmup.duration"), report);
        if warmup
            .minimum_percent
            .is_some_and(|percent| !(0.0..=100.0).contains(&percent))
        {
            report.error(format!("{at}.warmup.minimumPercent"), "must be from 0 to 100");
        }
        if warmup.aggression.is_some_and(|aggression| aggression <= 0.0) {
            report.error(format!("{at}.warmup.aggression"), "must be greater than 0");
        }
    }
}

fn consistent_hash(hash: &ConsistentHash, at: &str, report: &mut Report) {
    let keys = [
        ("httpHeaderName", hash.http_header_name.is_some()),
        ("httpCookie", hash.http_cookie.is_some()),
        ("useSourceIp", hash.use_source_ip.is_some()),
        ("httpQueryParameterName", hash.http_query_parameter_name.is_some()),
    ];
    field::at_most_one(&keys, at, report);
    if !keys.iter().any(|(_, said)| *said) {
        report.error(
            at,
            "must say what to hash: httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName",
        );
    }
    field::at_most_one(
        &[
            ("ringHash", hash.ring_hash.is_some()),
            ("maglev", hash.maglev.is_some()),
        ],
        at,
        report,
    );
    if let Some(name) = &hash.http_header_name {
        field::header_name(name, &format!("{at}.httpHeaderName"), false, report);
    }
    if let Some(cookie) = &hash.http_cookie {
        if cookie.name.is_empty() {
            report.error(format!("{at}.httpCookie.name"), "must be given");
        }
        for (i, attribute) in cookie.attributes.iter().enumerate() {
            let earlier = &cookie.attributes[..i];
            let path = format!("{at}.httpCookie.attributes[{i}].name");
            if attribute.name.is_empty() {
                report.error(path, "must be given");
            } else if earlier.iter().any(|other| other.name == attribute.name) {
                report.error(path, format!("attribute {:?} is there twice", attribute.name));
            }
        }
    }
    let ring = hash
        .ring_hash
        .as_ref()
        .and_then(|ring| ring.minimum_ring_size)
        .or(hash.minimum_ring_size);
    if ring.is_some_and(|size| size > 8 << 20) {
        report.error(
            format!("{at}.ringHash.minimumRingSize"),
            "a ring may have 8388608 entries",
        );
    }
    if let Some(size) = hash.maglev.as_ref().and_then(|maglev| maglev.table_size) {
        let prime = size > 1
            && (2..)
                .take_while(|factor| factor * factor <= size)
                .all(|factor| size % factor != 0);
        if size > 5_000_011 || !prime {
            report.error(
                format!("{at}.maglev.tableSize"),
                "must be a prime number up to 5000011",
            );
        }
    }
}

fn locality_balancer(locality: &LocalityBalancer, at: &str, report: &mut Report) {
    let said = [
        ("distribute", !locality.distribute.is_empty()),
        ("failover", !locality.failover.is_empty()),
        ("failoverPriority", !locality.failover_priority.is_empty()),
    ];
    if said[0].1 && (said[1].1 || said[2].1) {
        report.error(at, "distribute cannot stand beside failover or failoverPriority");
    }
    for (i, entry) in locality.distribute.iter().enumerate() {
        let sum: u64 = entry.to.values().copied().map(u64::from).sum();
        if sum != 100 {
            report.error(
                format!("{at}.distribute[{i}].to"),
                format!("the weights add up to {sum}; they must add up to 100"),
            );
        }
    }
    for (i, entry) in locality.failover.iter().enumerate() {
        if entry.from == entry.to {
            report.error(format!("{at}.failover[{i}]"), "leads from a region to itself");
        }
        if entry.from.contains(['/', '*']) || entry.to.contains(['/', '*']) {
            report.error(
                format!("{at}.failover[{i}]"),
                "takes regions only, without zones or wildcards",
            );
        }
    }
}

pub(super) fn connection_pool(pool: &ConnectionPool, at: &str, report: &mut Report) {
    if pool.tcp.is_none() && pool.http.is_none() {
        report.error(at, "must say tcp or http");
    }
    let counts = [
        (
            "tcp.maxConnections",
            pool.tcp.as_ref().and_then(|tcp| tcp.max_connections),
        ),
        (
            "http.http1MaxPendingRequests",
            pool.http
                .as_ref()
                .and_then(|http| http.http1_max_pending_requests),
        ),
        (
            "http.http2MaxRequests",
            pool.http.as_ref().and_then(|http| http.http2_max_requests),
        ),
        (
            "http.maxRequestsPerConnection",
            pool.http
                .as_ref()
                .and_then(|http| http.max_requests_per_connection),
        ),
        (
            "http.maxRetries",
            pool.http.as_ref().and_then(|http| http.max_retries),
        ),
        (
            "http.maxConcurrentStreams",
            pool.http.as_ref().and_then(|http| http.max_concurrent_streams),
        ),
    ];
    for (name, count) in counts {
        if count.is_some_and(|count| !(0..=i64::from(i32::MAX)).contains(&count)) {
            report.error(format!("{at}.{name}"), "must be from 0 to 2147483647");
        }
    }
    if let Some(tcp) = &pool.tcp {
        field::positive(tcp.connect_timeout, &format!("{at}.tcp.connectTimeout"), report);
        field::positive(
            tcp.max_connection_duration,
            &format!("{at}.tcp.maxConnectionDuration"),
            report,
        );
    }
    let Some(http) = &pool.http else { return };
    field::positive(http.idle_timeout, &format!("{at}.http.idleTimeout"), report);
    if http.use_client_protocol && http.h2_upgrade_policy == Some(H2Upgrade::Upgrade) {
        report.error(
            format!("{at}.http.useClientProtocol"),
            "contradicts h2UpgradePolicy: UPGRADE",
        );
    }
    if let Some(pings) = &http.http2_keep_alive {
        let at = format!("{at}.http.http2KeepAlive");
        for (name, span) in [("interval", pings.interval), ("timeout", pings.timeout)] {
            if span.is_none() {
                report.error(format!("{at}.{name}"), "must be given");
            }
            field::positive(span, &format!("{at}.{name}"), report);
        }
    }
}

fn outlier_detection(outliers: &OutlierDetection, at: &str, report: &mut Report) {
    field::positive(outliers.interval, &format!("{at}.interval"), report);
    field::positive(
        outliers.base_ejection_time,
        &format!("{at}.baseEjectionTime"),
        report,
    );
    let percents = [
        ("maxEjectionPercent", outliers.max_ejection_percent),
        ("minHealthPercent", outliers.min_health_percent),
    ];
    for (name, percent) in percents {
        if percent.is_some_and(|percent| !(0..=100).contains(&percent)) {
            report.error(format!("{at}.{name}"), "must be from 0 to 100");
        }
    }
    for (i, status) in outliers.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..=599).contains(status) {
            report.error(
                format!("{at}.outlierDetectionHttpErrorCodes[{i}]"),
                format!("{status} is not a status from 100 to 599"),
            );
        }
    }
    if outliers.consecutive_errors.is_some() {
        report.warn(
            format!("{at}.consecutiveErrors"),
            "is deprecated; use consecutive5xxErrors",
        );
    }
    if outliers.consecutive_local_origin_failures.is_some() && !outliers.split_external_local_origin_errors {
        report.error(
            format!("{at}.consecutiveLocalOriginFailures"),
            "counts only with splitExternalLocalOriginErrors: true",
        );
    }
}

fn client_tls(tls: &ClientTls, at: &str, report: &mut Report) {
    let files = !tls.client_certificate.is_empty() || !tls.private_key.is_empty();
    match tls.mode {
        ClientTlsMode::Mutual if !tls.credential_name.is_empty() => {
            if files || !tls.ca_certificates.is_empty() {
                report.error(
                    at,
                    "credentialName cannot stand beside clientCertificate, privateKey or caCertificates",
                );
            }
        }
        ClientTlsMode::Mutual => {
            if tls.client_certificate.is_empty() {
                report.error(
                    format!("{at}.clientCertificate"),
                    "MUTUAL needs it, or credentialName",
                );
            }
            if tls.private_key.is_empty() {
                report.error(format!("{at}.privateKey"), "MUTUAL needs it, or credentialName");
            }
        }
        ClientTlsMode::IstioMutual | ClientTlsMode::Disable if files || !tls.ca_certificates.is_empty() => {
            report.error(
                at,
                format!(
                    "{} uses no certificates of yours; remove them, or use MUTUAL",
                    tls.mode.as_str()
                ),
            );
        }
        ClientTlsMode::IstioMutual | ClientTlsMode::Disable | ClientTlsMode::Simple => {}
    }
    if tls.insecure_skip_verify == Some(true)
        && (!tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty())
    {
        report.error(
            format!("{at}.insecureSkipVerify"),
            "cannot stand beside caCertificates or subjectAltNames, which it would ignore",
        );
    }
    if !tls.sni.is_empty() {
        field::host(&tls.sni, &format!("{at}.sni"), false, report);
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    fn check(spec: &str, found: &[&str]) {
        expect(Kind::DestinationRule, spec, found);
    }

    #[test]
    fn rules() {
        check("host: reviews\nsubsets: [{name: v1, labels: {version: v1}}]", &[]);
        check("subsets: []", &["Error spec.host"]);
        check(
            "host: a\nsubsets: [{name: v1}, {name: v1}]",
            &["Error spec.subsets[1].name"],
        );
        check(
            "host: a\nsubsets: [{name: v1, labels: {version: 'v*'}}]",
            &["Error spec.subsets[0].labels.version"],
        );
        check(
            "host: a\ntrafficPolicy: {loadBalancer: {simple: FASTEST}}",
            &["Error spec.trafficPolicy.loadBalancer.simple"],
        );
        check(
            "host: a\ntrafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}",
            &["Error spec.trafficPolicy.loadBalancer"],
        );
        check(
            "host: a\ntrafficPolicy: {tls: {mode: MUTUAL}}",
            &[
                "Error spec.trafficPolicy.tls.clientCertificate",
                "Error spec.trafficPolicy.tls.privateKey",
            ],
        );
        check(
            "host: a\ntrafficPolicy: {portLevelSettings: [{port: {number: 0}, connectionPool: {tcp: {maxConnections: -1}}}]}",
            &[
                "Error spec.trafficPolicy.portLevelSettings[0].port.number",
                "Error spec.trafficPolicy.portLevelSettings[0].connectionPool.tcp.maxConnections",
            ],
        );
        check(
            "host: a\ntrafficPolicy: {outlierDetection: {interval: 0s}}",
            &["Error spec.trafficPolicy.outlierDetection.interval"],
        );
        check(
            "host: a\ntrafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 10}}}}",
            &["Error spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize"],
        );
    }
}
