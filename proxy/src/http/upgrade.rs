//! Switching protocols (WebSocket, RFC 6455; any upgrade the configuration allows, RFC 9110 §7.8): the request goes over
//! a connection of its own, and once the upstream has switched, bytes go both ways until either side ends.

use std::rc::Rc;

use http::{Response, header};

use super::{
    answer,
    body::{Incoming, ResponseBody},
    exchange::{Exchange, Tail},
    head::Head,
    http1::Manner,
    router::Answer,
};
use crate::{
    config::action::Forward,
    conn::{
        copy::{Traffic, copy},
        io::Io,
    },
    decide::reply::Failure,
    worker::Endless,
};

/// Does the request ask to switch protocols, and may it?
pub fn asked(head: &Head, exchange: &Exchange, forward: &Forward) -> Result<bool, Failure> {
    let Some(wanted) = head
        .headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
    else {
        return Ok(false);
    };
    let asks = head
        .headers
        .get(header::CONNECTION)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|list| {
            list.split(',')
                .any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
        });
    // `Upgrade: h2c` is an offer that may be passed over in silence (RFC 9113 §3.1).
    if !asks || exchange.http.http2 || wanted.eq_ignore_ascii_case("h2c") {
        return Ok(false);
    }
    let by_route = forward
        .upgrades
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, on)| *on);
    let by_listener = exchange
        .plan
        .hcm
        .upgrades
        .iter()
        .find(|upgrade| upgrade.protocol.eq_ignore_ascii_case(wanted))
        .map(|upgrade| upgrade.enabled);
    if by_route.or(by_listener).unwrap_or(false) {
        return Ok(true);
    }
    exchange.plan.stats.downstream_rq_ws_on_non_ws_route.inc();
    Err(Failure::UpgradeRefused)
}

/// What follows the head of an answer that switches protocols.
pub struct Switched {
    upstream: Io,
    tail: Tail,
    /// How the answer was written.
    pub manner: Manner,
}

/// The upstream has switched: the downstream is told, and bytes are copied from then on.
pub fn switch(exchange: &Rc<Exchange>, answer: Answer) -> Result<Response<ResponseBody>, Failure> {
    let Answer {
        response,
        manner,
        held,
    } = answer;
    let (mut parts, body) = response.into_parts();
    let upstream = match &body {
        Incoming::Http1(body) => body.0.into_io(),
        Incoming::Http2(_) => None,
    };
    let Some(upstream) = upstream.filter(|_| !exchange.http.http2) else {
        let why = "the upstream switched protocols where that is not possible".to_owned();
        return Err(Failure::UpstreamProtocol { why });
    };
    answer::finish_head(exchange, &mut parts.headers, true);
    exchange.plan.stats.downstream_cx_upgrades_total.inc();
    exchange.details("via_upstream".into());
    let switched = Switched {
        upstream,
        tail: Tail::new(exchange.clone(), Some(Box::new(held))),
        manner,
    };
    let response = Response::from_parts(parts, ResponseBody::Switched(Box::new(switched)));
    exchange.answered(&response);
    Ok(response)
}

impl Switched {
    /// Copies until either side ends.
    pub async fn run(mut self, mut downstream: Io) {
        let stats = self.tail.plan().stats.clone();
        let _endless = Endless::new(self.tail.worker());
        stats.downstream_cx_upgrades_active.inc();
        let traffic = Traffic::default();
        copy(&mut downstream, &mut self.upstream, None, &traffic).await;
        stats.downstream_cx_upgrades_active.dec();
        self.tail
            .sent(usize::try_from(traffic.sent.get()).unwrap_or(usize::MAX));
        self.tail.end_of_upgrade();
    }
}
