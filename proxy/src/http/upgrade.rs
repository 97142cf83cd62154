//! Switching protocols (WebSocket, RFC 6455; any upgrade the configuration allows, RFC 9110 §7.8): the request goes over
//! a connection of its own, and once the upstream has switched, bytes go both ways until either side ends.

use std::rc::Rc;

use bytes::Bytes;
use http::{Response, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{
    answer,
    body::ResponseBody,
    exchange::{Exchange, Held, Tail},
    head::Head,
};
use crate::{
    config::action::Forward,
    conn::copy::{Traffic, copy},
    decide::reply::Failure,
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

/// The upstream has switched: answer the downstream and copy from then on.
pub fn switch(
    exchange: &Rc<Exchange>,
    mut response: Response<Incoming>,
    held: Held,
    downstream: Option<OnUpgrade>,
) -> Result<Response<ResponseBody>, Failure> {
    let Some(downstream) = downstream else {
        let why = "the upstream switched protocols, but the downstream cannot".to_owned();
        return Err(Failure::UpstreamProtocol { why });
    };
    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    answer::finish_head(exchange, &mut parts.headers, true);
    let stats = exchange.plan.stats.clone();
    stats.downstream_cx_upgrades_total.inc();
    exchange.details("via_upstream".into());
    let response = Response::from_parts(
        parts,
        ResponseBody::Local {
            bytes: None::<Bytes>,
            tail: None,
        },
    );
    exchange.answered(&response);
    let tail = Tail::new(exchange.clone(), Some(Box::new(held)));
    tokio::task::spawn_local(async move {
        let Ok((downstream, upstream)) = tokio::try_join!(downstream, upstream) else {
            return;
        };
        stats.downstream_cx_upgrades_active.inc();
        let traffic = Traffic::default();
        copy(
            &mut TokioIo::new(downstream),
            &mut TokioIo::new(upstream),
            None,
            &traffic,
        )
        .await;
        stats.downstream_cx_upgrades_active.dec();
        tail.sent(usize::try_from(traffic.sent.get()).unwrap_or(usize::MAX));
        tail.end_of_upgrade();
    });
    Ok(response)
}
