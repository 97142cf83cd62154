//! What a worker keeps for one connection manager: its compiled logs, its counters, where its spans go.

use std::{rc::Rc, sync::Arc};

use super::filter::local_rate_limit::Known;
use crate::{
    config::{
        filter::HttpFilterKind,
        hcm::{Hcm, RouteSource, TracingProvider},
        route::RouteConfig,
    },
    observe::{
        Shard,
        access_log::Plan,
        stats::{HttpStats, Local},
        trace::{Sampling, Target},
    },
};

/// Ready to use by the exchanges of one worker.
pub struct HttpPlan {
    pub hcm: Arc<Hcm>,
    /// The routes, where they are part of it: a request takes a count of the worker's own.
    pub inline: Option<Rc<Arc<RouteConfig>>>,
    pub log: Arc<Plan>,
    pub stats: Local<HttpStats>,
    /// Tracing is on: requests get a trace context.
    pub traced: Option<Traced>,
    /// A filter changes the headers of answers.
    pub mutates: bool,
    /// The numbers of rate limits.
    pub limits: Known,
}

/// Tracing of one connection manager.
pub struct Traced {
    pub sampling: Sampling,
    /// Where spans go; `None`: headers only.
    pub target: Option<Arc<Target>>,
}

impl HttpPlan {
    pub fn new(hcm: Arc<Hcm>, shard: &Shard) -> Self {
        let log = Arc::new(Plan::compile(&hcm.access_log));
        let stats = shard.http(&hcm.stat_prefix);
        let traced = hcm.tracing.as_ref().map(|tracing| {
            let sampling = Sampling {
                client: tracing.client,
                random: tracing.random,
                overall: tracing.overall,
            };
            let target = match &tracing.provider {
                TracingProvider::None => None,
                TracingProvider::OpenTelemetry { cluster, service } => Some(Arc::new(Target {
                    cluster: cluster.clone(),
                    service_name: service.clone(),
                })),
            };
            Traced { sampling, target }
        });
        let inline = match &hcm.routes {
            RouteSource::Inline(config) => Some(Rc::new(config.clone())),
            RouteSource::Rds(_) => None,
        };
        let mutates = hcm
            .filters
            .iter()
            .any(|filter| matches!(filter.kind, HttpFilterKind::HeaderMutation(..)));
        Self {
            mutates,
            limits: Known::default(),
            inline,
            hcm,
            log,
            stats,
            traced,
        }
    }
}
