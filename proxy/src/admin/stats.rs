//! `/stats` in its three formats, and the public metrics. What belongs to the process as a whole is read here, at the scrape.

use axum::{
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use regex::RegexBuilder;

use super::{Admin, Query, bad_request, merge::Application};
use crate::observe::stats::{self, Sample, Value};

/// A filter that an operator writes may not grow beyond this when compiled.
const MAX_REGEX: usize = 1 << 20;
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub async fn page(admin: &Admin, query: Query) -> Response {
    let filter = match query
        .get("filter")
        .map(|text| RegexBuilder::new(&text).size_limit(MAX_REGEX).build())
        .transpose()
    {
        Ok(filter) => filter,
        Err(error) => return bad_request(format!("filter: {error}")),
    };
    let mut samples = collect(admin);
    if query.get("usedonly").is_some() {
        samples.retain(is_used);
    }
    let wanted = |name: &str| filter.as_ref().is_none_or(|filter| filter.is_match(name));
    match query.get("format").as_deref() {
        Some("json") => super::json(&stats::json(&samples, wanted)),
        Some("prometheus") => {
            samples.retain(|sample| wanted(&sample.text_name()));
            exposition(&samples)
        }
        None | Some("text") => stats::text(&samples, wanted).into_response(),
        Some(other) => bad_request(format!("format {other:?} is none of text, json, prometheus")),
    }
}

pub async fn prometheus(admin: &Admin, query: Query) -> Response {
    merged(admin, None, &query, &HeaderMap::new()).await
}

/// The same, with the application's own metrics behind them.
pub async fn merged(
    admin: &Admin,
    application: Option<&Application>,
    query: &Query,
    headers: &HeaderMap,
) -> Response {
    let mut samples = collect(admin);
    if query.get("usedonly").is_some() {
        samples.retain(is_used);
    }
    let mut page = stats::prometheus(&samples);
    if let Some(application) = application {
        application.append(&mut page, headers).await;
    }
    text(page)
}

fn exposition(samples: &[Sample]) -> Response {
    text(stats::prometheus(samples))
}

fn text(page: String) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS)], page).into_response()
}

fn is_used(sample: &Sample) -> bool {
    match &sample.value {
        Value::Counter(n) => *n > 0,
        Value::Gauge(n) => *n != 0,
        Value::Histogram(total) => total.count() > 0,
    }
}

fn collect(admin: &Admin) -> Vec<Sample> {
    // What is in force, from whatever source it came.
    let (snapshot, control) = (admin.store.snapshot(), admin.stats.control());
    control.active_clusters.set(snapshot.clusters.len() as u64);
    control
        .total_listeners_active
        .set(snapshot.listeners.len() as u64);
    let mut samples = admin.stats.collect();
    let live = i64::from(admin.gates.ready());
    let uptime = i64::try_from(admin.stats.uptime().as_secs()).unwrap_or(i64::MAX);
    samples.push(Sample::gauge("server.live", live));
    // Envoy's order: live, draining, pre-initializing, initializing.
    samples.push(Sample::gauge(
        "server.state",
        if admin.store.is_closed() {
            1
        } else if live == 1 {
            0
        } else {
            3
        },
    ));
    samples.push(Sample::gauge("server.uptime", uptime));
    samples.push(Sample::gauge("server.memory_allocated", resident_bytes()));
    if let Some(identity) = admin.identity.get() {
        let left = identity
            .not_after
            .duration_since(std::time::SystemTime::now())
            .unwrap_or_default();
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        samples.push(Sample::gauge(
            "server.days_until_first_cert_expiring",
            seconds / 86_400,
        ));
        samples.push(Sample::gauge("server.seconds_until_first_cert_expiring", seconds));
    }
    samples
}

/// Resident memory of this process, from `/proc/self/statm` (proc(5)); 0 where it cannot be read.
pub(super) fn resident_bytes() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: i64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096);
    pages.saturating_mul(size)
}
