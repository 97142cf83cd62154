//! What counts: which log entries are records, which outcomes are errors, and which of two reports about the same
//! traffic is used. Pure.

use std::collections::HashSet;

use mesh_proto::envoy::data::accesslog::v3::AccessLogType;

use crate::{
    attribute::{Reporter, Workload},
    query::View,
    record::{Outcome, Protocol},
};

/// Whether an entry tells of something finished. Entries about beginnings and about progress would count it twice.
pub fn is_final(log_type: i32, intermediate: bool) -> bool {
    let kind = AccessLogType::try_from(log_type).unwrap_or(AccessLogType::NotSet);
    !intermediate
        && matches!(
            kind,
            AccessLogType::NotSet | AccessLogType::TcpConnectionEnd | AccessLogType::DownstreamEnd
        )
}

/// Whether the service failed its caller: 5xx, the gRPC codes that mean the same, a connection that could not be made.
/// A client that leaves, a 4xx and an answer such as NOT_FOUND are not the service's failure.
pub fn is_error(protocol: Protocol, outcome: &Outcome) -> bool {
    if outcome.client_left {
        return false;
    }
    match (protocol, outcome.grpc_status) {
        (Protocol::Tcp, _) => outcome.upstream_failed,
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
        (_, Some(status)) => matches!(status, 2 | 4 | 12..=15),
        (_, None) => outcome.status >= 500 || (outcome.status == 0 && outcome.upstream_failed),
    }
}

/// Of the reports of both ends, those to believe: the source's, as it knows what its caller saw. A destination's report
/// is used when no source told of the same traffic: its source has no proxy, or one whose reports are lost.
pub fn prefer(views: Vec<View>) -> Vec<View> {
    let told: HashSet<Meeting> = views
        .iter()
        .filter(|view| view.key.reporter == Reporter::Source)
        .flat_map(|view| {
            let destination = place(&view.key.destination).or_else(|| app(&view.key.destination));
            meetings(view, destination)
        })
        .collect();
    let believed = |view: &View| {
        let destinations = [place(&view.key.destination), app(&view.key.destination)];
        view.key.reporter == Reporter::Source
            || !destinations
                .into_iter()
                .flat_map(|end| meetings(view, end))
                .any(|meeting| told.contains(&meeting))
    };
    views.into_iter().filter(|view| believed(view)).collect()
}

/// One way to name the traffic between two ends, under which the reports of both meet.
type Meeting = (End, End, Protocol);

/// A name of one end: a destination knows its source by certificate, and by name only if that was told to it; a stock
/// Envoy knows its destination only by service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum End {
    Principal(Box<str>),
    Workload(Box<str>, Box<str>),
    App(Box<str>, Box<str>),
}

fn place(workload: &Workload) -> Option<End> {
    workload
        .is_known()
        .then(|| End::Workload(workload.name.clone(), workload.namespace.clone()))
}

fn app(workload: &Workload) -> Option<End> {
    (!workload.app.is_empty()).then(|| End::App(workload.app.clone(), workload.namespace.clone()))
}

fn meetings(view: &View, destination: Option<End>) -> Vec<Meeting> {
    let (source, protocol) = (&view.key.source, view.key.protocol);
    let principal = (!source.principal.is_empty()).then(|| End::Principal(source.principal.clone()));
    let sources = [principal, place(source)].into_iter().flatten();
    let Some(destination) = destination else {
        return Vec::new();
    };
    sources
        .map(|source| (source, destination.clone(), protocol))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{aggregate::edge::Slot, record::EdgeKey};

    #[test]
    fn finals() {
        for (kind, intermediate, expect) in [
            (AccessLogType::NotSet, false, true),
            (AccessLogType::DownstreamEnd, false, true),
            (AccessLogType::TcpConnectionEnd, false, true),
            (AccessLogType::NotSet, true, false),
            (AccessLogType::DownstreamStart, false, false),
            (AccessLogType::TcpPeriodic, false, false),
            (AccessLogType::UpstreamEnd, false, false),
        ] {
            assert_eq!(is_final(kind as i32, intermediate), expect, "{kind:?}");
        }
    }

    #[test]
    fn errors() {
        let http = |status, upstream_failed| Outcome {
            status,
            upstream_failed,
            ..Outcome::default()
        };
        let grpc = |code| Outcome {
            status: 200,
            grpc_status: Some(code),
            ..Outcome::default()
        };
        for (protocol, outcome, expect) in [
            (Protocol::Http, http(200, false), false),
            (Protocol::Http, http(404, false), false),
            (Protocol::Http, http(503, true), true),
            (Protocol::Http, http(0, true), true),
            (Protocol::Http, http(0, false), false),
            (
                Protocol::Http,
                Outcome {
                    client_left: true,
                    ..http(500, true)
                },
                false,
            ),
            (Protocol::Grpc, grpc(0), false),
            (Protocol::Grpc, grpc(5), false),
            (Protocol::Grpc, grpc(14), true),
            (Protocol::Tcp, http(0, true), true),
            (Protocol::Tcp, http(0, false), false),
        ] {
            assert_eq!(is_error(protocol, &outcome), expect, "{protocol:?} {outcome:?}");
        }
    }

    fn view(reporter: Reporter, source: (&str, &str), destination: &str) -> View {
        let workload = |name: &str, principal: &str| Workload {
            name: name.into(),
            namespace: if name.is_empty() {
                "".into()
            } else {
                "default".into()
            },
            principal: principal.into(),
            ..Workload::default()
        };
        let key = EdgeKey {
            reporter,
            source: workload(source.0, source.1),
            destination: workload(destination, ""),
            service: "s".into(),
            protocol: Protocol::Http,
        };
        View {
            key: key.into(),
            slot: Slot::default(),
            seconds: 60.0,
        }
    }

    #[test]
    fn the_sources_report_is_preferred() {
        use Reporter::{Destination, Source};
        let left: Vec<(Reporter, Box<str>, Box<str>)> = prefer(vec![
            view(Source, ("a", "spiffe://a"), "b"),
            view(Destination, ("", "spiffe://a"), "b"),
            view(Destination, ("a", ""), "b"),
            view(Destination, ("", ""), "b"),
            view(Destination, ("", "spiffe://silent"), "b"),
            view(Destination, ("", "spiffe://a"), "c"),
        ])
        .into_iter()
        .map(|view| {
            (
                view.key.reporter,
                view.key.source.principal.clone(),
                view.key.destination.name.clone(),
            )
        })
        .collect();
        assert_eq!(
            left,
            [
                (Source, "spiffe://a".into(), "b".into()),
                (Destination, "".into(), "b".into()),
                (Destination, "spiffe://silent".into(), "b".into()),
                (Destination, "spiffe://a".into(), "c".into()),
            ]
        );
    }
}
