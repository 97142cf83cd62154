//! Injected faults of a VirtualService.

use super::GRPC_STATUSES;
use crate::{
    finding::Report,
    kube::networking::{Delay, Fault},
    validate::field,
};

pub(super) fn faults(fault: &Fault, at: &str, report: &mut Report) {
    if fault.delay.is_none() && fault.abort.is_none() {
        report.error(at, "must say delay or abort");
    }
    if let Some(delay) = &fault.delay {
        delays(delay, &format!("{at}.delay"), report);
    }
    if let Some(abort) = &fault.abort {
        let at = format!("{at}.abort");
        let said = [
            ("httpStatus", abort.http_status.is_some()),
            ("grpcStatus", abort.grpc_status.is_some()),
            ("http2Error", abort.http2_error.is_some()),
        ];
        field::at_most_one(&said, &at, report);
        if !said.iter().any(|(_, said)| *said) {
            report.error(&at, "must say httpStatus or grpcStatus");
        }
        if abort
            .http_status
            .is_some_and(|status| !(200..=599).contains(&status))
        {
            report.error(format!("{at}.httpStatus"), "must be from 200 to 599");
        }
        if abort
            .grpc_status
            .as_deref()
            .is_some_and(|name| !GRPC_STATUSES.contains(&name))
        {
            report.error(
                format!("{at}.grpcStatus"),
                format!("must be one of {}", GRPC_STATUSES.join(", ")),
            );
        }
    }
}

fn delays(delay: &Delay, at: &str, report: &mut Report) {
    if delay.exponential_delay.is_none() && delay.fixed_delay.is_none() {
        report.error(at, "must say fixedDelay");
    }
    field::positive(delay.fixed_delay, &format!("{at}.fixedDelay"), report);
    if delay.percent.is_some_and(|percent| percent > 100) {
        report.error(format!("{at}.percent"), "must be from 0 to 100");
    }
}
