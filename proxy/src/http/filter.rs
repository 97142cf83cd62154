//! The filters before the router, in the order of the configuration. Each is a plain call; only a filter that waits (an
//! injected delay) makes the exchange wait.

pub mod header_mutation;
pub mod jwt;
pub mod local_rate_limit;
#[cfg(test)]
mod tests;

use std::{cell::Cell, rc::Rc, sync::Arc};

use http::{HeaderMap, Response};

use local_rate_limit::Limited;

use super::{answer, body::ResponseBody, exchange::Exchange, head::Head};
use crate::{
    config::{
        filter::{CorsPolicy, Fault, FilterOverride, HttpFilterKind, HttpRbac, LocalRateLimit},
        flag::Flag,
        route::{Mutation, RouteConfig},
    },
    decide::{
        self,
        cors::Cors,
        fault::{Abort, FaultPlan},
        reply::Failure,
        route::Decision,
    },
};

/// What the filters say.
pub enum Filtered {
    /// Go on; these headers go onto the answer.
    Continue(Option<HeaderMap>),
    Answer(Box<Response<ResponseBody>>),
}

thread_local! {
    /// Faults in progress on this worker.
    static FAULTS: Cell<u32> = const { Cell::new(0) };
}

/// Runs the filters.
pub async fn run(
    exchange: &Rc<Exchange>,
    head: &mut Head,
    config: &Rc<Arc<RouteConfig>>,
    decision: Decision,
) -> Result<Filtered, Failure> {
    let mut extra: Option<HeaderMap> = None;
    for filter in &exchange.plan.hcm.filters {
        let chosen = decision.per_filter(config, &filter.name);
        match chosen {
            Some(FilterOverride::Disabled) => continue,
            None if filter.disabled => continue,
            _ => {}
        }
        match (&filter.kind, chosen) {
            (HttpFilterKind::Rbac(_), Some(FilterOverride::Rbac(rules))) => permit(exchange, head, rules)?,
            (HttpFilterKind::Rbac(rules), _) => permit(exchange, head, rules)?,
            (HttpFilterKind::Jwt(own), chosen) => {
                let asked = match chosen {
                    Some(FilterOverride::Jwt(name)) => jwt::Asked::Named(name),
                    _ => jwt::Asked::Rules,
                };
                if let Filtered::Answer(response) = jwt::run(exchange, head, own, &asked) {
                    return Ok(Filtered::Answer(response));
                }
            }
            (HttpFilterKind::Fault(_), Some(FilterOverride::Fault(fault))) => {
                fail(exchange, head, fault).await?
            }
            (HttpFilterKind::Fault(fault), _) => fail(exchange, head, fault).await?,
            (HttpFilterKind::Cors, Some(FilterOverride::Cors(policy))) => {
                match cors(exchange, head, policy) {
                    Cors::Pass => {}
                    Cors::Add(headers) => extra.get_or_insert_default().extend(headers),
                    Cors::Preflight(headers) => {
                        return Ok(Filtered::Answer(Box::new(answer::preflight(exchange, headers))));
                    }
                }
            }
            (HttpFilterKind::Cors, _) => {}
            (HttpFilterKind::LocalRateLimit(own), chosen) => {
                if let Limited::Refused(response) = limit(exchange, head, own, chosen, &mut extra) {
                    return Ok(Filtered::Answer(response));
                }
            }
            (HttpFilterKind::HeaderMutation(own, _), chosen) => {
                let of_route: &[Mutation] = match chosen {
                    Some(FilterOverride::HeaderMutation(request, _)) => request,
                    _ => &[],
                };
                header_mutation::request(exchange, head, own, of_route);
            }
        }
    }
    Ok(Filtered::Continue(extra))
}

/// The route's limit stands in for the filter's own.
fn limit(
    exchange: &Rc<Exchange>,
    head: &mut Head,
    own: &LocalRateLimit,
    chosen: Option<&FilterOverride>,
    extra: &mut Option<HeaderMap>,
) -> Limited {
    let limit = match chosen {
        Some(FilterOverride::LocalRateLimit(limit)) => limit,
        _ => own,
    };
    let limited = local_rate_limit::check(exchange, head, limit);
    if let Limited::Pass(Some(told)) = &limited {
        extra.get_or_insert_default().extend(told.clone());
    }
    limited
}

fn permit(exchange: &Rc<Exchange>, head: &Head, rules: &HttpRbac) -> Result<(), Failure> {
    let conn = exchange.http.conn.connection();
    let facts = head.facts(&conn);
    let stats = &exchange.plan.stats;
    if let Some(shadow) = &rules.shadow {
        let verdict = decide::permit::request(shadow, &facts);
        if verdict.allowed {
            stats.rbac_shadow_allowed.inc()
        } else {
            stats.rbac_shadow_denied.inc()
        }
    }
    let Some(rules) = &rules.rules else { return Ok(()) };
    let verdict = decide::permit::request(rules, &facts);
    if verdict.allowed {
        stats.rbac_allowed.inc();
        return Ok(());
    }
    stats.rbac_denied.inc();
    Err(Failure::Denied {
        details: decide::permit::details(rules, &verdict),
    })
}

fn cors(exchange: &Exchange, head: &Head, policy: &CorsPolicy) -> Cors {
    let conn = exchange.http.conn.connection();
    decide::cors::cors(policy, &head.facts(&conn), exchange.http.conn.worker.random())
}

async fn fail(exchange: &Rc<Exchange>, head: &Head, fault: &Fault) -> Result<(), Failure> {
    let plan = fault_plan(exchange, head, fault);
    if plan.is_nothing() {
        return Ok(());
    }
    let stats = &exchange.plan.stats;
    if fault.max_active.is_some_and(|max| FAULTS.get() >= max) {
        stats.fault_faults_overflow.inc();
        return Ok(());
    }
    FAULTS.set(FAULTS.get() + 1);
    let _active = ActiveFault;
    if let Some(delay) = plan.delay {
        exchange.flag(Flag::DelayInjected);
        stats.fault_delays_injected.inc();
        tokio::time::sleep(delay).await;
    }
    match plan.abort {
        None => Ok(()),
        Some(abort) => {
            stats.fault_aborts_injected.inc();
            Err(match abort {
                Abort::Status(status) => Failure::FaultAbort { status },
                Abort::Grpc(status) => Failure::FaultAbortGrpc { status },
            })
        }
    }
}

fn fault_plan(exchange: &Exchange, head: &Head, fault: &Fault) -> FaultPlan {
    let conn = exchange.http.conn.connection();
    let cluster = exchange.cluster.borrow().clone();
    let worker = &exchange.http.conn.worker;
    let random = (worker.random(), worker.random());
    let name = cluster.as_ref().map(|upstream| &*upstream.cluster.name);
    decide::fault::plan(fault, &head.facts(&conn), name, random)
}

struct ActiveFault;

impl Drop for ActiveFault {
    fn drop(&mut self) {
        FAULTS.set(FAULTS.get().saturating_sub(1));
    }
}
