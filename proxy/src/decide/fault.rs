//! Which delay and which error does the fault filter put on a request?

use std::time::Duration;

use http::StatusCode;

use super::{facts::Facts, matching};
use crate::config::{
    filter::{AbortWith, Fault},
    scalar::Fraction,
};

/// What to do: wait first, then abort (or go on).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    pub delay: Option<Duration>,
    pub abort: Option<Abort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    Status(StatusCode),
    Grpc(u32),
}

impl FaultPlan {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The plan for this request to this cluster. Two random numbers, as delay and abort are independent.
pub fn plan(fault: &Fault, facts: &Facts<'_>, cluster: Option<&str>, random: (u64, u64)) -> FaultPlan {
    let for_other_cluster = fault.cluster.as_deref().is_some_and(|want| cluster != Some(want));
    if for_other_cluster || !fault.headers.iter().all(|rule| matching::header(rule, facts)) {
        return FaultPlan::default();
    }
    let delay = fault.delay.as_ref().and_then(|delay| {
        let hit = chance(delay.chance, facts, "x-envoy-fault-delay-request-percentage").hit(random.0);
        let time = delay.fixed.or_else(|| {
            number(facts, "x-envoy-fault-delay-request")
                .map(|millis| Duration::from_millis(u64::from(millis)))
        });
        time.filter(|time| hit && !time.is_zero())
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let hit = chance(abort.chance, facts, "x-envoy-fault-abort-request-percentage").hit(random.1);
        let with = match abort.with {
            AbortWith::Status(status) => Some(Abort::Status(status)),
            AbortWith::Grpc(status) => Some(Abort::Grpc(status)),
            AbortWith::Header => number(facts, "x-envoy-fault-abort-request")
                .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok())
                .filter(|status| status.as_u16() < 600)
                .map(Abort::Status)
                .or_else(|| number(facts, "x-envoy-fault-abort-grpc-request").map(Abort::Grpc)),
        };
        with.filter(|_| hit)
    });
    FaultPlan { delay, abort }
}

/// A request may lower the configured chance by a header, not raise it.
fn chance(configured: Fraction, facts: &Facts<'_>, header: &str) -> Fraction {
    number(facts, header).map_or(configured, |asked| Fraction {
        numerator: asked.min(configured.numerator),
        denominator: configured.denominator,
    })
}

fn number(facts: &Facts<'_>, header: &str) -> Option<u32> {
    facts.headers.get(header)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::{
        config::filter::{FaultAbort, FaultDelay},
        decide::testing::with_facts,
    };

    #[test]
    fn chances_are_independent() {
        let fault = Fault {
            delay: Some(FaultDelay {
                fixed: Some(Duration::from_secs(7)),
                chance: Fraction::percent(10.0),
            }),
            abort: Some(FaultAbort {
                with: AbortWith::Status(StatusCode::IM_A_TEAPOT),
                chance: Fraction::ALWAYS,
            }),
            ..Fault::default()
        };
        with_facts("GET", "x", "/", &HeaderMap::new(), |facts| {
            let hit = plan(&fault, facts, None, (0, 0));
            assert_eq!(hit.delay, Some(Duration::from_secs(7)));
            assert_eq!(hit.abort, Some(Abort::Status(StatusCode::IM_A_TEAPOT)));
            assert_eq!(plan(&fault, facts, None, (999_999, 0)).delay, None);
            let other = Fault {
                cluster: Some("b".into()),
                ..fault.clone()
            };
            assert!(plan(&other, facts, Some("a"), (0, 0)).is_nothing());
        });
    }

    #[test]
    fn headers_can_control_it() {
        let fault = Fault {
            delay: Some(FaultDelay {
                fixed: None,
                chance: Fraction::ALWAYS,
            }),
            abort: Some(FaultAbort {
                with: AbortWith::Header,
                chance: Fraction::ALWAYS,
            }),
            ..Fault::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-envoy-fault-delay-request", HeaderValue::from_static("20"));
        headers.insert("x-envoy-fault-abort-grpc-request", HeaderValue::from_static("14"));
        with_facts("GET", "x", "/", &headers, |facts| {
            let expect = FaultPlan {
                delay: Some(Duration::from_millis(20)),
                abort: Some(Abort::Grpc(14)),
            };
            assert_eq!(plan(&fault, facts, None, (1, 1)), expect);
        });
        with_facts("GET", "x", "/", &HeaderMap::new(), |facts| {
            assert!(plan(&fault, facts, None, (1, 1)).is_nothing());
        });
    }
}
