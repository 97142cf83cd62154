//! Is this exchange worth a line in this access log?

use super::{facts::Facts, matching};
use crate::config::{
    flag::Flags,
    log::{LogFilter, LogType},
};

/// What a log's filter may ask.
#[derive(Clone, Copy, Debug)]
pub struct LogFacts<'a> {
    /// 0 if there was no answer.
    pub status: u16,
    pub duration_ms: u64,
    pub flags: Flags,
    pub grpc: Option<u32>,
    pub health_check: bool,
    pub traced: bool,
    pub kind: LogType,
    pub random: u64,
    /// Nothing for a connection.
    pub request: Option<&'a Facts<'a>>,
}

pub fn keep(filter: &LogFilter, facts: &LogFacts<'_>) -> bool {
    match filter {
        LogFilter::Status(compare) => compare.holds(u64::from(facts.status)),
        LogFilter::Duration(compare) => compare.holds(facts.duration_ms),
        LogFilter::NotHealthCheck => !facts.health_check,
        LogFilter::Traceable => facts.traced,
        LogFilter::Chance(fraction) => fraction.hit(facts.random),
        LogFilter::And(filters) => filters.iter().all(|filter| keep(filter, facts)),
        LogFilter::Or(filters) => filters.iter().any(|filter| keep(filter, facts)),
        LogFilter::Header(rule) => facts
            .request
            .is_some_and(|request| matching::header(rule, request)),
        LogFilter::ResponseFlag(flags) if flags.is_empty() => !facts.flags.is_empty(),
        LogFilter::ResponseFlag(flags) => facts.flags.intersects(*flags),
        LogFilter::GrpcStatus { statuses, exclude } => {
            facts.grpc.is_some_and(|status| statuses.contains(&status)) != *exclude
        }
        LogFilter::LogType { types, exclude } => types.contains(&facts.kind) != *exclude,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        flag::Flag,
        log::{Compare, CompareOp},
    };

    #[test]
    fn filters_combine() {
        let at_least = |value| {
            LogFilter::Status(Compare {
                op: CompareOp::Ge,
                value,
            })
        };
        let facts = LogFacts {
            status: 503,
            duration_ms: 20,
            flags: Flags::of(Flag::NoHealthyUpstream),
            grpc: None,
            health_check: false,
            traced: false,
            kind: LogType::DownstreamEnd,
            random: 0,
            request: None,
        };
        for (filter, expect) in [
            (at_least(500), true),
            (at_least(504), false),
            (
                LogFilter::And(vec![at_least(500), LogFilter::NotHealthCheck]),
                true,
            ),
            (LogFilter::Or(vec![at_least(504), LogFilter::Traceable]), false),
            (LogFilter::ResponseFlag(Flags::none()), true),
            (LogFilter::ResponseFlag(Flags::of(Flag::NoRouteFound)), false),
            (
                LogFilter::GrpcStatus {
                    statuses: vec![0],
                    exclude: true,
                },
                true,
            ),
            (
                LogFilter::LogType {
                    types: vec![LogType::DownstreamEnd],
                    exclude: false,
                },
                true,
            ),
        ] {
            assert_eq!(keep(&filter, &facts), expect, "{filter:?}");
        }
    }
}
