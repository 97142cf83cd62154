//! What it means when an attempt fails after a connection was there: a failure to answer with, and whether another attempt
//! may help.

use super::{Attempt, Ended, Plan};
use crate::{
    cluster::pool::Single,
    decide::reply::Failure,
    http::{carry, http1, http2::client::SendError},
};

impl Plan<'_> {
    /// The downstream broke its own request off: nobody waits for an answer.
    fn downstream_failed(&self) -> Option<Attempt> {
        let source = self.exchange.source.borrow();
        let source = source.as_ref().filter(|source| source.failed.get())?;
        let failure = if source.malformed.get() {
            self.exchange.plan.stats.downstream_cx_protocol_error.inc();
            Failure::BadRequest {
                why: "the chunks or trailers of the request's body are malformed",
            }
        } else {
            Failure::DownstreamClosed
        };
        Some(Attempt::Failed {
            failure,
            outcome: Ended::Final,
        })
    }

    /// What a failed exchange on an HTTP/1.x connection means.
    pub(super) fn failed_single(&self, error: &http1::Error, single: &Single) -> Attempt {
        if let Some(failed) = self.downstream_failed() {
            return failed;
        }
        let request_sent = single.wire.flushed.get() > 0;
        let failure = match error {
            // Whether by FIN or by RST: the connection ended.
            http1::Error::Closed | http1::Error::Io(_) => Failure::UpstreamClosed,
            http1::Error::Head(_) | http1::Error::Body(_) => {
                self.upstream.stats.upstream_cx_protocol_error.inc();
                let why = error.to_string();
                Failure::UpstreamProtocol { why }
            }
            http1::Error::Length | http1::Error::Source => {
                let why = error.to_string();
                Failure::UpstreamReset { why }
            }
        };
        // A server may close an idle connection at any time; the request that it crosses may be repeated if that does no harm
        // (RFC 9110, 9.2.2; RFC 9112, 9.3.1).
        let gone = matches!(error, http1::Error::Closed | http1::Error::Io(_));
        let harmless = self.method.is_idempotent() && self.can_be_sent_again();
        let outcome = if single.served > 0 && gone && harmless {
            Ended::Stale
        } else {
            Ended::Reset { request_sent }
        };
        Attempt::Failed { failure, outcome }
    }

    /// What a failed exchange on a shared connection means.
    pub(super) fn failed_shared(&mut self, error: SendError) -> Attempt {
        let why = error.to_string();
        if let Some(failed) = self.downstream_failed() {
            return failed;
        }
        let (error, request_sent) = match error {
            SendError::Unsent(error, request) => {
                if self.headers.is_empty() {
                    self.headers = request.into_parts().0.headers;
                    carry::unpack(&mut self.headers);
                }
                (Some(error), false)
            }
            SendError::Stream(error) => (Some(error), true),
            SendError::Source => (None, true),
        };
        let outcome = match &error {
            Some(error) if refused_stream(error) => Ended::Refused,
            _ => Ended::Reset { request_sent },
        };
        let failure = match error {
            Some(error) if error.is_io() || error.is_go_away() => Failure::UpstreamClosed,
            Some(error) if error.is_library() && !error.is_reset() => {
                self.upstream.stats.upstream_cx_protocol_error.inc();
                Failure::UpstreamProtocol { why }
            }
            _ => Failure::UpstreamReset { why },
        };
        Attempt::Failed { failure, outcome }
    }
}

/// Did the peer say that it did not look at the request? (RFC 9113 §8.7)
fn refused_stream(error: &h2::Error) -> bool {
    error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
        || error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}
