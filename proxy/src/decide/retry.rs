//! Should an attempt be made again? Pure: the outcome goes in, yes or no and a waiting time come out; who counts the
//! attempts and sleeps is the router.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::{facts::Facts, matching};
use crate::config::{
    action::{GATEWAY_ERRORS, Retry, RetryOn},
    matcher::{HeaderMatch, HeaderRule},
};

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// An answer has begun. `grpc` is the status in its headers (a trailers-only answer).
    Response {
        status: StatusCode,
        grpc: Option<u32>,
        headers: &'a HeaderMap,
    },
    /// No connection could be made.
    ConnectFailure,
    /// The upstream refused the stream before it looked at it (HTTP/2 REFUSED_STREAM, or GOAWAY below it).
    Refused,
    /// The connection or the stream broke before an answer began.
    Reset { request_sent: bool },
    /// This attempt took longer than it may.
    PerTryTimeout,
    /// A circuit breaker of this side is open.
    Overflow,
}

/// May requests like this be retried at all?
pub fn allowed_request(policy: &Retry, facts: &Facts<'_>) -> bool {
    policy.request_headers.is_empty()
        || policy
            .request_headers
            .iter()
            .any(|rule| matching::header(rule, facts))
}

/// Does the policy want another attempt after this outcome?
pub fn wanted(policy: &Retry, outcome: &Outcome<'_>) -> bool {
    let on = policy.on;
    let any_error = on.has(RetryOn::SERVER_ERROR) || on.has(RetryOn::GATEWAY_ERROR) || on.has(RetryOn::RESET);
    match outcome {
        Outcome::Overflow => false,
        Outcome::ConnectFailure => {
            any_error || on.has(RetryOn::CONNECT_FAILURE) || on.has(RetryOn::RESET_BEFORE_REQUEST)
        }
        Outcome::Refused => any_error || on.has(RetryOn::REFUSED_STREAM),
        Outcome::Reset { request_sent } => {
            any_error || (on.has(RetryOn::RESET_BEFORE_REQUEST) && !request_sent)
        }
        Outcome::PerTryTimeout => any_error,
        Outcome::Response {
            status,
            grpc,
            headers,
        } => response(policy, *status, *grpc, headers),
    }
}

fn response(policy: &Retry, status: StatusCode, grpc: Option<u32>, headers: &HeaderMap) -> bool {
    let on = policy.on;
    let code = status.as_u16();
    // A rate limit of the other side is not helped by asking again, unless the policy says so.
    if headers.contains_key("x-envoy-ratelimited") && !on.has(RetryOn::ENVOY_RATE_LIMITED) {
        return false;
    }
    (on.has(RetryOn::ENVOY_RATE_LIMITED) && headers.contains_key("x-envoy-ratelimited"))
        || (on.has(RetryOn::SERVER_ERROR) && status.is_server_error())
        || (on.has(RetryOn::GATEWAY_ERROR) && GATEWAY_ERRORS.contains(&code))
        || (on.has(RetryOn::RETRIABLE_4XX) && code == 409)
        || (on.has(RetryOn::STATUSES) && policy.statuses.contains(&code))
        || (on.has(RetryOn::HEADERS) && policy.headers.iter().any(|rule| response_header(rule, headers)))
        || grpc
            .and_then(grpc_condition)
            .is_some_and(|condition| on.has(condition))
}

fn grpc_condition(status: u32) -> Option<RetryOn> {
    Some(match status {
        1 => RetryOn::GRPC_CANCELLED,
        4 => RetryOn::GRPC_DEADLINE_EXCEEDED,
        8 => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        13 => RetryOn::GRPC_INTERNAL,
        14 => RetryOn::GRPC_UNAVAILABLE,
        _ => return None,
    })
}

/// A matcher on response headers; parts of the request line do not exist there.
fn response_header(rule: &HeaderMatch, headers: &HeaderMap) -> bool {
    let crate::config::matcher::Field::Header(name) = &rule.field else {
        return false;
    };
    let value = headers.get(name);
    match (&rule.rule, value) {
        (HeaderRule::Present(want), value) => (value.is_some() == *want) != rule.invert,
        (HeaderRule::Value(want), Some(value)) => matching::string(want, value.as_bytes()) != rule.invert,
        (HeaderRule::Range(range), Some(value)) => {
            let number = value.to_str().ok().and_then(|text| text.parse().ok());
            number.is_some_and(|number| range.contains(&number)) != rule.invert
        }
        (_, None) => false,
    }
}

/// How long to wait before retry number `attempt` (the first is 1): a random time that doubles its bound each time, up
/// to the maximum.
pub fn backoff(policy: &Retry, attempt: u32, random: u64) -> Duration {
    let base = policy.backoff_base.as_micros().max(1) as u64;
    let max = policy.backoff_max.as_micros().max(1) as u64;
    let factor = 1u64
        .checked_shl(attempt.min(32))
        .map_or(u64::MAX, |power| power - 1)
        .max(1);
    let bound = base.saturating_mul(factor).min(max);
    Duration::from_micros(random % bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &[RetryOn]) -> Retry {
        Retry {
            on: on.iter().fold(RetryOn::default(), |all, one| all.with(*one)),
            statuses: vec![418],
            headers: Vec::new(),
            request_headers: Vec::new(),
            retries: 2,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            previous_hosts: false,
            host_attempts: 1,
            previous_priorities: None,
        }
    }

    #[test]
    fn outcomes() {
        let headers = HeaderMap::new();
        let answer = |code: u16, grpc| Outcome::Response {
            status: StatusCode::from_u16(code).unwrap(),
            grpc,
            headers: &headers,
        };
        // Istio's default policy.
        let usual = policy(&[
            RetryOn::CONNECT_FAILURE,
            RetryOn::REFUSED_STREAM,
            RetryOn::GRPC_UNAVAILABLE,
            RetryOn::GRPC_CANCELLED,
            RetryOn::STATUSES,
        ]);
        let server = policy(&[RetryOn::SERVER_ERROR]);
        let gateway = policy(&[RetryOn::GATEWAY_ERROR]);
        let before = policy(&[RetryOn::RESET_BEFORE_REQUEST]);
        for (policy, outcome, expect) in [
            (&usual, Outcome::ConnectFailure, true),
            (&usual, Outcome::Refused, true),
            (&usual, Outcome::Reset { request_sent: true }, false),
            (&usual, answer(503, None), false),
            (&usual, answer(418, None), true),
            (&usual, answer(200, Some(14)), true),
            (&usual, answer(200, Some(13)), false),
            (&usual, Outcome::Overflow, false),
            (&server, answer(500, None), true),
            (&server, answer(404, None), false),
            (&server, Outcome::PerTryTimeout, true),
            (&server, Outcome::Reset { request_sent: true }, true),
            (&gateway, answer(500, None), false),
            (&gateway, answer(504, None), true),
            (&before, Outcome::Reset { request_sent: true }, false),
            (&before, Outcome::Reset { request_sent: false }, true),
        ] {
            assert_eq!(wanted(policy, &outcome), expect, "{:?} {outcome:?}", policy.on);
        }
    }

    #[test]
    fn waiting_is_bounded_and_grows() {
        let policy = policy(&[]);
        for attempt in 1..50 {
            for random in [0, 1, 999_999, u64::MAX] {
                assert!(backoff(&policy, attempt, random) < policy.backoff_max);
            }
        }
        assert!(backoff(&policy, 1, u64::MAX) < policy.backoff_base);
    }
}
