//! How a cluster balances, what it bounds, and when it stops trusting an endpoint.

use mesh_proto::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster, OutlierDetection,
            circuit_breakers::{Thresholds, thresholds},
            cluster::{
                CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
                RoundRobinLbConfig, SlowStartConfig,
                common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
            },
        },
        common::matcher::v3::{HttpHeadersMatch, MatchPredicate, match_predicate},
        core::v3::RuntimeDouble,
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    extensions::upstreams::http::v3::http_protocol_options,
    r#type::v3::Percent,
};

use crate::{
    generate::value::{duration, exact, uint, uint64},
    model::policy::{Algorithm, Balancer, HashTable, Outliers, PortPolicy, RetryBudget, Warmup},
};

/// Without limits of the user's there are none: Envoy's own defaults (1024) surprise people, and a proxy that serves one
/// workload is bounded by that workload.
pub fn breakers(policy: &PortPolicy) -> CircuitBreakers {
    let limit = |value: Option<u32>| Some(uint(value.filter(|n| *n > 0).unwrap_or(u32::MAX)));
    let pool = policy.pool.clone().unwrap_or_default();
    let thresholds = Thresholds {
        max_connections: limit(pool.max_connections),
        max_pending_requests: limit(pool.max_pending),
        max_requests: limit(pool.max_requests),
        max_retries: limit(pool.max_retries),
        track_remaining: true,
        retry_budget: policy.retry_budget.as_ref().map(retry_budget),
        ..Thresholds::default()
    };
    CircuitBreakers {
        thresholds: vec![thresholds],
        ..CircuitBreakers::default()
    }
}

/// What the user leaves out is Envoy's default, which is Istio's: 20 %, at least 3.
fn retry_budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    thresholds::RetryBudget {
        budget_percent: budget.percent.map(|percent| Percent {
            value: percent.as_f64(),
        }),
        min_retry_concurrency: budget.min_concurrency.map(uint),
        budget_interval: budget.interval.map(duration),
    }
}

/// Which answers are errors, where the user says so.
pub fn errors(outliers: &Outliers) -> Option<http_protocol_options::OutlierDetection> {
    use match_predicate::{MatchSet, Rule};
    let is = |status: &u32| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![HeaderMatcher {
                name: ":status".to_owned(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact(&status.to_string()))),
                ..HeaderMatcher::default()
            }],
        })),
    };
    let mut rules: Vec<MatchPredicate> = outliers.http_errors.iter().map(is).collect();
    let matcher = match rules.len() {
        0 => return None,
        1 => rules.pop(),
        // Envoy wants at least two in a set.
        _ => Some(MatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet { rules })),
        }),
    };
    Some(http_protocol_options::OutlierDetection {
        error_matcher: matcher,
    })
}

pub fn outliers(outliers: &Outliers) -> OutlierDetection {
    // A count of 0 switches its detector off; a count that is not said keeps Envoy's default for 5xx and is off for the rest.
    let enforce = |count: Option<u32>| count.map(|n| uint(if n == 0 { 0 } else { 100 }));
    let count = |count: Option<u32>| count.filter(|n| *n > 0).map(uint);
    OutlierDetection {
        consecutive_5xx: count(outliers.consecutive_5xx),
        enforcing_consecutive_5xx: enforce(outliers.consecutive_5xx),
        consecutive_gateway_failure: count(outliers.consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure: enforce(outliers.consecutive_gateway_errors),
        split_external_local_origin_errors: outliers.split_local_origin,
        consecutive_local_origin_failure: count(outliers.consecutive_local_origin_failures),
        enforcing_consecutive_local_origin_failure: enforce(outliers.consecutive_local_origin_failures),
        enforcing_local_origin_success_rate: outliers.split_local_origin.then(|| uint(0)),
        enforcing_success_rate: Some(uint(0)),
        interval: outliers.interval.map(duration),
        base_ejection_time: outliers.base_ejection_time.map(duration),
        max_ejection_percent: outliers
            .max_ejection_percent
            .map(|percent| uint(percent.per_million() / 10_000)),
        ..OutlierDetection::default()
    }
}

pub fn common(policy: &PortPolicy) -> CommonLbConfig {
    let minimum = policy
        .outliers
        .as_ref()
        .and_then(|outliers| outliers.min_health_percent);
    let locality = policy
        .balancer
        .as_ref()
        .and_then(|balancer| balancer.locality.as_ref());
    let weighted = locality.is_some_and(|locality| locality.enabled && !locality.distribute.is_empty());
    CommonLbConfig {
        // 0: an endpoint that is not healthy is not used, however few the others are.
        healthy_panic_threshold: Some(Percent {
            value: minimum.map_or(0.0, |percent| percent.as_f64()),
        }),
        locality_config_specifier: weighted
            .then(|| LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default())),
        ..CommonLbConfig::default()
    }
}

pub fn balance(cluster: &mut Cluster, balancer: Option<&Balancer>) {
    let default = Balancer::default();
    let balancer = balancer.unwrap_or(&default);
    let slow_start = balancer.warmup.map(slow_start);
    let policy = match &balancer.algorithm {
        Algorithm::RoundRobin => {
            cluster.lb_config = slow_start.map(|slow_start| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
                    slow_start_config: Some(slow_start),
                })
            });
            LbPolicy::RoundRobin
        }
        Algorithm::LeastRequest => {
            cluster.lb_config = slow_start.map(|slow_start| {
                let config = LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..Default::default()
                };
                LbConfig::LeastRequestLbConfig(config)
            });
            LbPolicy::LeastRequest
        }
        Algorithm::Random => LbPolicy::Random,
        Algorithm::Passthrough => LbPolicy::ClusterProvided,
        Algorithm::Hash {
            table: HashTable::Ring { minimum },
            ..
        } => {
            cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: Some(uint64(*minimum)),
                ..RingHashLbConfig::default()
            }));
            LbPolicy::RingHash
        }
        Algorithm::Hash {
            table: HashTable::Maglev { size },
            ..
        } => {
            let table_size = (*size > 0).then(|| uint64(*size));
            cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size }));
            LbPolicy::Maglev
        }
    };
    cluster.set_lb_policy(policy);
}

/// Envoy names a key under which the aggression could be changed at run time; nobody does.
fn slow_start(warmup: Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(duration(warmup.duration)),
        aggression: warmup.aggression.map(|thousandths| RuntimeDouble {
            default_value: f64::from(thousandths) / 1000.0,
            runtime_key: "slow_start.aggression".to_owned(),
        }),
        min_weight_percent: warmup.least.map(|percent| Percent {
            value: percent.as_f64(),
        }),
    }
}
