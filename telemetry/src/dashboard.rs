//! The dashboard: one page without foreign parts, and the JSON that it draws. Read only.

use std::{sync::PoisonError, time::Duration, time::SystemTime};

use axum::{
    Json,
    extract::Query,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use mesh_runtime::{http::Pages, settings::duration};
use serde::{Deserialize, Serialize};

use crate::{
    metrics::Lost,
    query::{
        graph::{self, Graph, Group},
        top::{self, By},
        traces::Filter,
    },
    receive::State,
};

const PAGE: &str = include_str!("dashboard/index.html");
/// The page is alone in its world: nothing is loaded from elsewhere, and nobody frames it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
const MAX_WINDOW: Duration = Duration::from_secs(300);
const MAX_ROWS: usize = 500;

/// The pages of the dashboard's server.
pub fn pages(state: State) -> Pages {
    let (for_graph, for_top, for_traces) = (state.clone(), state.clone(), state);
    Pages::new()
        .get("/", "the service graph, live", || async { page() })
        .get(
            "/api/graph",
            "?window=60s&group=workload|app: the service graph",
            move |query| {
                let answer = answer_graph(&for_graph, query);
                async move { answer }
            },
        )
        .get(
            "/api/top",
            "?window=60s&by=rps|errors|p99&limit=20: the top services",
            move |query| {
                let answer = answer_top(&for_top, query);
                async move { answer }
            },
        )
        .get(
            "/api/traces",
            "?limit=20&service=NAME&min_ms=0&errors=true: traces; ?id=TRACE: the spans of one",
            move |query| {
                let answer = answer_traces(&for_traces, query);
                async move { answer }
            },
        )
}

fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE).into_response()
}

#[derive(Deserialize)]
struct GraphQuery {
    window: Option<String>,
    #[serde(default)]
    group: Group,
}

#[derive(Serialize)]
struct GraphPage {
    /// Unix milliseconds.
    time: u64,
    window_seconds: u64,
    #[serde(flatten)]
    graph: Graph,
    lost: Lost,
    version: &'static str,
}

fn window(text: Option<&str>) -> Result<Duration, String> {
    let window = text.map_or(Ok(DEFAULT_WINDOW), duration)?;
    if window.is_zero() || window > MAX_WINDOW {
        return Err(format!("window {window:?} is not within 1s and {MAX_WINDOW:?}"));
    }
    Ok(window)
}

fn wrong(reason: String) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

fn answer_graph(state: &State, Query(query): Query<GraphQuery>) -> Response {
    let window = match window(query.window.as_deref()) {
        Ok(window) => window,
        Err(reason) => return wrong(reason),
    };
    let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    Json(GraphPage {
        time: u64::try_from(time).unwrap_or(u64::MAX),
        window_seconds: window.as_secs(),
        graph: graph::graph(state.series.views(state.now(), window), query.group),
        lost: state.metrics.lost(),
        version: mesh_runtime::build::VERSION,
    })
    .into_response()
}

#[derive(Deserialize)]
struct TopQuery {
    window: Option<String>,
    #[serde(default)]
    by: By,
    limit: Option<usize>,
}

fn answer_top(state: &State, Query(query): Query<TopQuery>) -> Response {
    let window = match window(query.window.as_deref()) {
        Ok(window) => window,
        Err(reason) => return wrong(reason),
    };
    let limit = query.limit.unwrap_or(20).min(MAX_ROWS);
    Json(top::top(state.series.views(state.now(), window), query.by, limit)).into_response()
}

#[derive(Deserialize)]
struct TracesQuery {
    id: Option<String>,
    service: Option<String>,
    #[serde(default)]
    min_ms: f64,
    #[serde(default)]
    errors: bool,
    limit: Option<usize>,
}

fn answer_traces(state: &State, Query(query): Query<TracesQuery>) -> Response {
    let traces = state.traces.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(id) = &query.id {
        return match traces.get(id) {
            Some(spans) => Json(spans).into_response(),
            None => (StatusCode::NOT_FOUND, "no such trace, or it is forgotten\n").into_response(),
        };
    }
    let limit = query.limit.unwrap_or(20).min(MAX_ROWS);
    let (service, min_ms, errors_only) = (query.service, query.min_ms, query.errors);
    Json(traces.list(&Filter {
        service,
        min_ms,
        errors_only,
        limit,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        assert_eq!(window(None), Ok(DEFAULT_WINDOW));
        assert_eq!(window(Some("5m")), Ok(MAX_WINDOW));
        for text in ["0s", "6m", "soon"] {
            assert!(window(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let foreign = ["http://", "https://", "src=", "@import", "url("];
        let allowed = PAGE.replace("http://www.w3.org/2000/svg", "");
        for part in foreign {
            assert!(!allowed.contains(part), "{part}");
        }
    }
}
