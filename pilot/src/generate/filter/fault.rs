//! Injected faults: a delay, then an error, each for a share of the requests.

use mesh_proto::{
    envoy::extensions::filters::{
        common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
        http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
    },
    pb::google::protobuf::Any,
};

use crate::{
    generate::value::{any, duration, fraction},
    model::route::{AbortStatus, Fault},
};

pub const NAME: &str = "envoy.filters.http.fault";

/// The filter in the chain: it does nothing but where a route says so.
pub fn chain() -> Any {
    any(&HttpFault::default())
}

/// One route's faults; `None` when there is none.
pub fn generate(fault: &Fault) -> Option<Any> {
    let delay = fault.delay.as_ref().map(|delay| FaultDelay {
        percentage: Some(fraction(delay.percent)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(delay.duration))),
    });
    let abort = fault.abort.as_ref().map(|abort| FaultAbort {
        percentage: Some(fraction(abort.percent)),
        error_type: Some(match abort.status {
            AbortStatus::Http(status) => ErrorType::HttpStatus(u32::from(status)),
            AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status),
        }),
        ..FaultAbort::default()
    });
    (delay.is_some() || abort.is_some()).then(|| {
        any(&HttpFault {
            delay,
            abort,
            ..HttpFault::default()
        })
    })
}
