//! Which records are logged: [`decide::log`](crate::decide::log) decides, here a finished record is turned back into the
//! facts it asks for. Off the path.

use http::{HeaderMap, HeaderValue, header};

use crate::{
    config::{
        log::LogFilter,
        matcher::{Field, HeaderMatch},
    },
    decide::{
        facts::{Connection, Facts, PeerNames},
        log::{LogFacts, keep},
    },
};

use super::Wanted;
use crate::observe::record::{AccessRecord, HttpFacts};

/// The request headers that a filter looks at.
pub(super) fn wanted(filter: &LogFilter, wanted: &mut Wanted) {
    match filter {
        LogFilter::And(all) | LogFilter::Or(all) => {
            all.iter().for_each(|filter| self::wanted(filter, wanted))
        }
        LogFilter::Header(HeaderMatch {
            field: Field::Header(name),
            ..
        }) => super::add(&mut wanted.request, name),
        LogFilter::NotHealthCheck => super::add(&mut wanted.request, &header::USER_AGENT),
        _ => {}
    }
}

/// Whether the record is to be logged.
pub fn passes(filter: &LogFilter, record: &AccessRecord, wanted: &Wanted, random: u64) -> bool {
    let downstream = &*record.downstream;
    let peer = downstream
        .tls
        .as_ref()
        .filter(|tls| !tls.peer_uris.is_empty())
        .map(|tls| PeerNames {
            uris: tls.peer_uris.iter().map(|uri| Box::from(&**uri)).collect(),
            ..PeerNames::default()
        });
    let connection = Connection {
        source: downstream.direct_remote,
        destination: downstream.local,
        server_name: downstream.server_name.as_deref(),
        tls: downstream.tls.is_some(),
        peer: peer.as_ref(),
    };
    let http = record.http.as_deref();
    let headers = http.map(|http| headers(http, wanted)).unwrap_or_default();
    let request = http.map(|http| {
        let (path, query) = match http.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*http.path, None),
        };
        let (method, scheme, authority) = (&http.method, &*http.scheme, &*http.authority);
        let client = downstream.remote.ip();
        Facts {
            method,
            scheme,
            authority,
            path,
            query,
            headers: &headers,
            client,
            tokens: &[],
            connection: &connection,
        }
    });
    let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
    let facts = LogFacts {
        status: http.map_or(0, |http| http.status),
        duration_ms: u64::try_from(record.duration().as_millis()).unwrap_or(u64::MAX),
        flags: record.flags,
        // Without a gRPC status the HTTP status stands for it, as gRPC's own mapping has it.
        grpc: http.map(|http| http.grpc_status.unwrap_or_else(|| from_http(http.status))),
        // Envoy's health checker names itself so.
        health_check: agent.is_some_and(|agent| agent.starts_with(b"Envoy/HC")),
        traced: record.trace.is_some_and(|trace| trace.sampled),
        kind: record.moment,
        random,
        request: request.as_ref(),
    };
    keep(filter, &facts)
}

/// The headers the record kept.
fn headers(http: &HttpFacts, wanted: &Wanted) -> HeaderMap {
    let kept = wanted.request.iter().zip(&http.request_headers);
    kept.filter_map(|(name, value)| Some((name.clone(), HeaderValue::from_str(value.as_deref()?).ok()?)))
        .collect()
}

/// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>
fn from_http(status: u16) -> u32 {
    match status {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{
            flag::{Flag, Flags},
            log::{Compare, CompareOp},
            matcher::{HeaderRule, StringMatch},
        },
        observe::record,
    };

    fn check(filter: LogFilter, expect: bool) {
        let mut record = record::example();
        record.flags = Flags::of(Flag::NoRouteFound);
        let mut wanted = Wanted {
            request: vec![header::ACCEPT, header::USER_AGENT],
            ..Wanted::default()
        };
        super::wanted(&filter, &mut wanted);
        assert_eq!(passes(&filter, &record, &wanted, 0), expect, "{filter:?}");
    }

    #[test]
    fn a_record_answers_what_filters_ask() {
        let compare = |op, value| Compare { op, value };
        check(LogFilter::Status(compare(CompareOp::Eq, 200)), true);
        check(LogFilter::Duration(compare(CompareOp::Le, 6)), false);
        check(LogFilter::NotHealthCheck, true);
        check(LogFilter::Traceable, false);
        check(LogFilter::ResponseFlag(Flags::of(Flag::NoRouteFound)), true);
        check(
            LogFilter::GrpcStatus {
                statuses: vec![0],
                exclude: true,
            },
            false,
        );
        let curl = StringMatch::Prefix {
            value: (*b"curl").into(),
            ignore_case: false,
        };
        let rule = |field, rule| {
            LogFilter::Header(HeaderMatch {
                field,
                rule,
                invert: false,
                absent_is_empty: false,
            })
        };
        check(
            rule(Field::Header(header::USER_AGENT), HeaderRule::Value(curl)),
            true,
        );
        check(
            rule(Field::Header(header::ACCEPT), HeaderRule::Present(true)),
            false,
        );
        let path = StringMatch::Exact {
            value: (*b"/reviews/0").into(),
            ignore_case: false,
        };
        check(rule(Field::Path, HeaderRule::Value(path)), true);
    }
}
