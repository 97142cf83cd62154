//! Telemetry's admin pages.

use axum::Json;
use mesh_runtime::http::Pages;
use serde::Serialize;

use crate::receive::State;

#[derive(Serialize)]
struct Row {
    reporter: &'static str,
    source: String,
    destination: String,
    service: String,
    protocol: &'static str,
    requests: u64,
    errors: u64,
}

/// Adds telemetry's pages.
pub fn pages(pages: Pages, state: State) -> Pages {
    pages.get_local(
        "/debug/series",
        "every edge as it was reported, since it was first seen",
        move || {
            let rows: Vec<Row> = state
                .series
                .totals()
                .into_iter()
                .map(|(key, total)| Row {
                    reporter: key.reporter.as_str(),
                    source: format!(
                        "{}.{} {}",
                        key.source.name, key.source.namespace, key.source.principal
                    ),
                    destination: format!("{}.{}", key.destination.name, key.destination.namespace),
                    service: key.service.to_string(),
                    protocol: key.protocol.as_str(),
                    requests: total.counts.requests,
                    errors: total.counts.errors,
                })
                .collect();
            async move { Json(rows) }
        },
    )
}
