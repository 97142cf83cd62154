//! Load balancing of clusters: the older fields, and the extensible policies that mean the same.

use std::mem::take;

use mesh_proto::{
    envoy::{
        config::{
            cluster::v3::{self as pb, cluster as parts},
            core::v3::RuntimeDouble,
        },
        extensions::load_balancing_policies::{
            cluster_provided::v3::ClusterProvided, common::v3 as common_pb, least_request::v3::LeastRequest,
            maglev::v3::Maglev, random::v3::Random, ring_hash::v3::RingHash, round_robin::v3::RoundRobin,
        },
        r#type::v3::Percent,
    },
    pb::google::protobuf,
};

use super::{At, Result, done, number, open, opt_duration, refuse, required, scalar, unsupported};
use crate::config::cluster::{Balance, Kind, SlowStart};

const CHOICES: u32 = 2;
const RING_MIN: u64 = 1024;
const RING_MAX: u64 = 8 << 20;
/// A prime, as the tables of Maglev must have.
const MAGLEV_SIZE: u64 = 65_537;

/// What clusters of every policy may say.
pub struct Common {
    pub panic_threshold: u32,
    pub locality_weighted: bool,
}

pub fn common(mut value: parts::CommonLbConfig) -> Result<Common> {
    use parts::common_lb_config::LocalityConfigSpecifier as Locality;
    let locality_weighted = match take(&mut value.locality_config_specifier) {
        None => false,
        Some(Locality::LocalityWeightedLbConfig(_)) => true,
        // Without a local cluster, which the bootstrap would name, zone-aware routing does nothing.
        Some(Locality::ZoneAwareLbConfig(_)) => false,
    };
    let common = Common {
        panic_threshold: take(&mut value.healthy_panic_threshold)
            .map_or(50, |percent| percent.value.clamp(0.0, 100.0) as u32),
        locality_weighted,
    };
    // When changes are taken over, and what is done to connections that go on.
    value.update_merge_window = None;
    value.close_connections_on_host_set_change = false;
    value.ignore_new_hosts_until_first_hc = false;
    value.override_host_status = None;
    done(&value)?;
    Ok(common)
}

/// The balancer of a cluster, and how it treats new hosts.
pub type Balancer = (Balance, Option<SlowStart>);

pub fn balance(value: &mut pb::Cluster) -> Result<Balancer> {
    use parts::{LbConfig, LbPolicy};
    let policy = take(&mut value.lb_policy);
    let config = take(&mut value.lb_config);
    if let Some(given) = take(&mut value.load_balancing_policy) {
        return extensible(given).at("load_balancing_policy");
    }
    let balance = match LbPolicy::try_from(policy) {
        Ok(LbPolicy::RoundRobin) => Balance::RoundRobin,
        Ok(LbPolicy::LeastRequest) => Balance::LeastRequest { choices: CHOICES },
        Ok(LbPolicy::Random) => Balance::Random,
        Ok(LbPolicy::RingHash) => Balance::RingHash {
            min: RING_MIN,
            max: RING_MAX,
        },
        Ok(LbPolicy::Maglev) => Balance::Maglev { size: MAGLEV_SIZE },
        Ok(LbPolicy::ClusterProvided) => Balance::ClusterProvided,
        _ => return refuse("is not known").at("lb_policy"),
    };
    let balance = match (balance, config) {
        (Balance::LeastRequest { .. }, Some(LbConfig::LeastRequestLbConfig(mut config))) => {
            let choices = number(&mut config.choice_count).unwrap_or(CHOICES);
            // The bias is how much active requests count; powers of one are what power-of-two choices does.
            config.active_request_bias = None;
            let slow = take(&mut config.slow_start_config)
                .map_or(Ok(None), older_slow_start)
                .at("least_request_lb_config.slow_start_config")?;
            done(&config).at("least_request_lb_config")?;
            let choices = choices.max(2);
            return Ok((Balance::LeastRequest { choices }, slow));
        }
        (Balance::RingHash { .. }, Some(LbConfig::RingHashLbConfig(config))) => {
            let min = config.minimum_ring_size.map_or(RING_MIN, |size| size.value);
            let max = config.maximum_ring_size.map_or(RING_MAX, |size| size.value);
            ring(min, max).at("ring_hash_lb_config")?
        }
        (Balance::Maglev { .. }, Some(LbConfig::MaglevLbConfig(config))) => {
            maglev(config.table_size.map_or(MAGLEV_SIZE, |size| size.value))
                .at("maglev_lb_config.table_size")?
        }
        (Balance::RoundRobin, Some(LbConfig::RoundRobinLbConfig(mut config))) => {
            let slow = take(&mut config.slow_start_config)
                .map_or(Ok(None), older_slow_start)
                .at("round_robin_lb_config.slow_start_config")?;
            done(&config).at("round_robin_lb_config")?;
            return Ok((Balance::RoundRobin, slow));
        }
        // A configuration of another policy has no effect.
        (balance, _) => balance,
    };
    Ok((balance, None))
}

fn older_slow_start(value: parts::SlowStartConfig) -> Result<Option<SlowStart>> {
    slow_start(
        value.slow_start_window,
        value.aggression,
        value.min_weight_percent,
    )
}

fn newer_slow_start(value: common_pb::SlowStartConfig) -> Result<Option<SlowStart>> {
    slow_start(
        value.slow_start_window,
        value.aggression,
        value.min_weight_percent,
    )
}

/// Without a window there is none. There is no runtime layer: the default of the aggression counts.
fn slow_start(
    window: Option<protobuf::Duration>,
    aggression: Option<RuntimeDouble>,
    least: Option<Percent>,
) -> Result<Option<SlowStart>> {
    let Some(window) = opt_duration(window, "slow_start_window")?.filter(|window| !window.is_zero()) else {
        return Ok(None);
    };
    let aggression = aggression.map_or(1.0, |value| value.default_value);
    if !(aggression.is_finite() && aggression > 0.0) {
        return refuse("must be above 0").at("aggression.default_value");
    }
    let least = least.map_or(10.0, |percent| percent.value).clamp(0.0, 100.0) / 100.0;
    Ok(Some(SlowStart {
        window,
        aggression,
        least,
    }))
}

fn extensible(value: pb::LoadBalancingPolicy) -> Result<Balancer> {
    // The first policy that is known counts.
    for (n, policy) in value.policies.into_iter().enumerate() {
        let extension =
            required(policy.typed_extension_config, "typed_extension_config").nth("policies", n)?;
        let any =
            required(extension.typed_config, "typed_extension_config.typed_config").nth("policies", n)?;
        let slow = |config: Option<common_pb::SlowStartConfig>| {
            config
                .map_or(Ok(None), newer_slow_start)
                .at("slow_start_config")
                .nth("policies", n)
        };
        if let Some(config) = open::<RoundRobin>(&any)? {
            return Ok((Balance::RoundRobin, slow(config.slow_start_config)?));
        }
        if let Some(mut config) = open::<LeastRequest>(&any)? {
            let choices = number(&mut config.choice_count).unwrap_or(CHOICES).max(2);
            return Ok((Balance::LeastRequest { choices }, slow(config.slow_start_config)?));
        }
        if open::<Random>(&any)?.is_some() {
            return Ok((Balance::Random, None));
        }
        if let Some(config) = open::<RingHash>(&any)? {
            let min = config.minimum_ring_size.map_or(RING_MIN, |size| size.value);
            let ring = ring(min, config.maximum_ring_size.map_or(RING_MAX, |size| size.value));
            return Ok((ring.nth("policies", n)?, None));
        }
        if let Some(config) = open::<Maglev>(&any)? {
            let table = maglev(config.table_size.map_or(MAGLEV_SIZE, |size| size.value));
            return Ok((table.nth("policies", n)?, None));
        }
        if open::<ClusterProvided>(&any)?.is_some() {
            return Ok((Balance::ClusterProvided, None));
        }
    }
    refuse("none of them is supported by this proxy").at("policies")
}

fn ring(min: u64, max: u64) -> Result<Balance> {
    if min > max || max > RING_MAX || max == 0 {
        return refuse(format!(
            "sizes must be above 0, the least not above the greatest, both at most {RING_MAX}"
        ));
    }
    Ok(Balance::RingHash { min, max })
}

fn maglev(size: u64) -> Result<Balance> {
    let prime = size > 1
        && (2..)
            .take_while(|n| n * n <= size)
            .all(|n| !size.is_multiple_of(n));
    if !prime || size > 5_000_011 {
        return refuse(format!("{size} is not a prime number up to 5000011"));
    }
    Ok(Balance::Maglev { size })
}

/// What an ORIGINAL_DST cluster's balancer says.
pub fn original_dst(value: &mut pb::Cluster) -> Result<Kind> {
    let Some(parts::LbConfig::OriginalDstLbConfig(mut config)) = value
        .lb_config
        .take_if(|config| matches!(config, parts::LbConfig::OriginalDstLbConfig(_)))
    else {
        return Ok(Kind::OriginalDst {
            use_header: None,
            port: None,
        });
    };
    let name = take(&mut config.http_header_name);
    let name = if name.is_empty() {
        "x-envoy-original-dst-host"
    } else {
        &name
    };
    let use_header = take(&mut config.use_http_header)
        .then(|| scalar::header_name(name))
        .transpose();
    let port = number(&mut config.upstream_port_override)
        .map(|port| u16::try_from(port).or_else(|_| refuse(format!("{port} is not a port"))))
        .transpose()
        .at("original_dst_lb_config.upstream_port_override")?;
    if config.metadata_key.is_some() {
        return unsupported("original_dst_lb_config.metadata_key");
    }
    Ok(Kind::OriginalDst {
        use_header: use_header.at("original_dst_lb_config.http_header_name")?,
        port,
    })
}
