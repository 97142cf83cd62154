//! When a request is tried again. Without a word from the user only what provably was not processed is tried again:
//! the connection failed, the stream was refused, or it was reset before the request had left.

use mesh_proto::{
    envoy::{
        config::route::v3::{
            RetryPolicy,
            retry_policy::{
                RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
            },
        },
        extensions::retry::{
            host::previous_hosts::v3::PreviousHostsPredicate,
            priority::previous_priorities::v3::PreviousPrioritiesConfig,
        },
    },
    mesh::MeshConfig,
};

use crate::{
    generate::value::{any, duration, uint},
    model::route::Retries,
};

/// See the module's text.
pub const SAFE: &[&str] = &["connect-failure", "refused-stream", "reset-before-request"];
const SAFE_ATTEMPTS: u32 = 2;
/// How often another endpoint is picked when the balancer offers one that was already tried.
const OTHER_HOST_ATTEMPTS: i64 = 5;
/// The condition that makes `retriable_status_codes` count.
const STATUS_CODES: &str = "retriable-status-codes";

/// What counts where a rule says nothing.
pub fn default(mesh: &MeshConfig) -> Retries {
    let mut retries = Retries {
        attempts: SAFE_ATTEMPTS,
        per_try_timeout: None,
        backoff: None,
        on: SAFE.iter().map(|on| (*on).to_owned()).collect(),
        statuses: Vec::new(),
        retry_remote_localities: false,
        ignore_previous_hosts: true,
    };
    if let Some(own) = &mesh.default_http_retry_policy {
        retries.attempts = own.attempts;
        retries.per_try_timeout = own.per_try_timeout.map(|span| span.0);
        retries.backoff = own.backoff.map(|span| span.0);
        if !own.retry_on.is_empty() {
            let (codes, on): (Vec<&str>, Vec<&str>) = own
                .retry_on
                .split(',')
                .map(str::trim)
                .partition(|word| word.parse::<u16>().is_ok());
            retries.on = on.into_iter().map(str::to_owned).collect();
            retries.statuses = codes.into_iter().filter_map(|code| code.parse().ok()).collect();
        }
    }
    retries
}

/// `None`: never.
pub fn generate(own: Option<&Retries>, default: &Retries) -> Option<RetryPolicy> {
    let retries = own.unwrap_or(default);
    if retries.attempts == 0 {
        return None;
    }
    let said_nothing = retries.on.is_empty() && retries.statuses.is_empty();
    let source = if said_nothing { default } else { retries };
    let mut on: Vec<&str> = source.on.iter().map(String::as_str).collect();
    if !source.statuses.is_empty() && !on.contains(&STATUS_CODES) {
        on.push(STATUS_CODES);
    }
    let mut policy = RetryPolicy {
        retry_on: on.join(","),
        num_retries: Some(uint(retries.attempts)),
        per_try_timeout: retries.per_try_timeout.map(duration),
        retriable_status_codes: source.statuses.iter().map(|code| u32::from(*code)).collect(),
        retry_back_off: retries.backoff.map(|base| RetryBackOff {
            base_interval: Some(duration(base)),
            max_interval: None,
        }),
        ..RetryPolicy::default()
    };
    if retries.ignore_previous_hosts {
        policy.host_selection_retry_max_attempts = OTHER_HOST_ATTEMPTS;
        policy.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate {},
            ))),
        }];
    }
    if retries.retry_remote_localities {
        let config = PreviousPrioritiesConfig { update_frequency: 2 };
        policy.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(any(&config))),
        });
    }
    Some(policy)
}
