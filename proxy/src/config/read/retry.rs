//! Retry policies.

use std::{mem::take, time::Duration};

use mesh_proto::envoy::config::route::v3::{self as pb, retry_policy};

use super::{At, Result, done, matcher, number, opt_duration, refuse};
use crate::config::action::{Retry, RetryOn};

const BACKOFF_BASE: Duration = Duration::from_millis(25);

pub fn retry(mut value: pb::RetryPolicy) -> Result<Retry> {
    let backoff = take(&mut value.retry_back_off).unwrap_or_default();
    let base = opt_duration(backoff.base_interval, "retry_back_off.base_interval")?.unwrap_or(BACKOFF_BASE);
    let max = opt_duration(backoff.max_interval, "retry_back_off.max_interval")?.unwrap_or(base * 10);
    if base.is_zero() || max < base {
        return refuse("the base must be above 0 and not above the maximum").at("retry_back_off");
    }
    let policy = Retry {
        on: conditions(&take(&mut value.retry_on)).at("retry_on")?,
        statuses: take(&mut value.retriable_status_codes)
            .into_iter()
            .map(|code| u16::try_from(code).or_else(|_| refuse(format!("{code} is not a status"))))
            .collect::<Result<_>>()
            .at("retriable_status_codes")?,
        headers: matcher::headers(take(&mut value.retriable_headers), "retriable_headers")?,
        request_headers: matcher::headers(
            take(&mut value.retriable_request_headers),
            "retriable_request_headers",
        )?,
        retries: number(&mut value.num_retries).unwrap_or(1),
        per_try_timeout: opt_duration(take(&mut value.per_try_timeout), "per_try_timeout")?
            .filter(|time| !time.is_zero()),
        per_try_idle_timeout: opt_duration(take(&mut value.per_try_idle_timeout), "per_try_idle_timeout")?
            .filter(|time| !time.is_zero()),
        backoff_base: base,
        backoff_max: max,
        previous_hosts: previous_hosts(&mut value)?,
        host_attempts: match take(&mut value.host_selection_retry_max_attempts) {
            0 => 1,
            n => u32::try_from(n)
                .or_else(|_| refuse("must not be negative").at("host_selection_retry_max_attempts"))?,
        },
        previous_priorities: previous_priorities(&mut value)?,
    };
    // A reset header only matters with the back-off that is refused below.
    done(&value)?;
    Ok(policy)
}

/// A list of conditions, separated by commas; numbers are statuses in Istio's lists, but not in Envoy's.
fn conditions(text: &str) -> Result<RetryOn> {
    let mut on = RetryOn::default();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match RetryOn::named(name) {
            Some(condition) => on = on.with(condition),
            None => return refuse(format!("{name:?} is not a condition")),
        }
    }
    Ok(on)
}

fn previous_hosts(value: &mut pb::RetryPolicy) -> Result<bool> {
    let predicates = take(&mut value.retry_host_predicate);
    for (n, predicate) in predicates.iter().enumerate() {
        let retry_policy::RetryHostPredicate { name, config_type } = predicate;
        let by_type = config_type.as_ref().is_none_or(|config| {
            let retry_policy::retry_host_predicate::ConfigType::TypedConfig(any) = config;
            any.type_url.ends_with(".PreviousHostsPredicate")
        });
        if name != "envoy.retry_host_predicates.previous_hosts" || !by_type {
            return refuse(format!("{name:?} is not supported by this proxy")).nth("retry_host_predicate", n);
        }
    }
    Ok(!predicates.is_empty())
}

fn previous_priorities(value: &mut pb::RetryPolicy) -> Result<Option<u32>> {
    use mesh_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig as Config;
    let Some(priority) = take(&mut value.retry_priority) else {
        return Ok(None);
    };
    let Some(retry_policy::retry_priority::ConfigType::TypedConfig(any)) = priority.config_type else {
        return refuse("is missing").at("retry_priority.typed_config");
    };
    let config: Config = super::must_open(&any).at("retry_priority.typed_config")?;
    Ok(Some(u32::try_from(config.update_frequency).unwrap_or(1).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_known_names() {
        let on = conditions("connect-failure, refused-stream,unavailable,,5xx").unwrap();
        assert!(
            on.has(RetryOn::SERVER_ERROR) && on.has(RetryOn::GRPC_UNAVAILABLE) && !on.has(RetryOn::RESET)
        );
        assert!(conditions("often").is_err());
    }

    #[test]
    fn defaults_are_envoys() {
        let policy = retry(pb::RetryPolicy::default()).unwrap();
        assert_eq!((policy.retries, policy.host_attempts), (1, 1));
        assert_eq!(
            (policy.backoff_base, policy.backoff_max),
            (BACKOFF_BASE, BACKOFF_BASE * 10)
        );
    }
}
