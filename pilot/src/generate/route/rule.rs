//! One rule as Envoy's routes: one for each of its conditions.

use std::collections::HashMap;

use mesh_proto::{
    envoy::config::route::v3::{Decorator, Route},
    names,
    pb::google::protobuf::Any,
};
use serde_json::json;

use super::{Rule, action, matching};
use crate::{
    generate::{
        filter,
        value::{boolean, metadata},
    },
    model::route::{HttpAction, HttpMatch, Retries},
};

pub fn routes(rule: &Rule, retries: &Retries) -> Vec<Route> {
    if rule.matches.is_empty() {
        return vec![route(rule, None, retries)];
    }
    let mut routes = Vec::with_capacity(rule.matches.len());
    for wanted in &rule.matches {
        routes.push(route(rule, Some(wanted), retries));
        if wanted.takes_any_request() {
            break;
        }
    }
    routes
}

/// Whether nothing can pass this rule, so that later ones are never asked.
pub fn takes_everything(rule: &Rule) -> bool {
    rule.matches.is_empty() || rule.matches.iter().any(HttpMatch::takes_any_request)
}

fn route(rule: &Rule, wanted: Option<&HttpMatch>, retries: &Retries) -> Route {
    let headers = &rule.route.headers;
    let mut route = Route {
        name: name(rule, wanted),
        stat_prefix: wanted
            .map(|wanted| wanted.stat_prefix.clone())
            .unwrap_or_default(),
        r#match: Some(wanted.map_or_else(matching::everything, matching::generate)),
        metadata: rule.origin.as_ref().map(|origin| {
            let cause = json!({ "object": origin.to_string(), "version": origin.version });
            metadata([
                (names::metadata::ISTIO, json!({ "config": origin.config_path() })),
                (names::metadata::GOSSAMER, cause),
            ])
        }),
        decorator: Some(Decorator {
            operation: rule.operation.clone(),
            // For spans here; the application and the other side need no header about it.
            propagate: Some(boolean(false)),
        }),
        request_headers_to_add: action::additions(&headers.request),
        request_headers_to_remove: action::removals(&headers.request),
        response_headers_to_add: action::additions(&headers.response),
        response_headers_to_remove: action::removals(&headers.response),
        typed_per_filter_config: filters(rule),
        action: Some(action::generate(rule, wanted, retries)),
        ..Route::default()
    };
    // One target needs no weighing, so its header changes stand on the route itself.
    if let (HttpAction::Forward { .. }, [only]) = (&rule.route.action, rule.targets.as_slice()) {
        route
            .request_headers_to_add
            .extend(action::additions(&only.headers.request));
        route
            .request_headers_to_remove
            .extend(action::removals(&only.headers.request));
        route
            .response_headers_to_add
            .extend(action::additions(&only.headers.response));
        route
            .response_headers_to_remove
            .extend(action::removals(&only.headers.response));
    }
    route
}

/// `route.match`, each where the user gave it a name.
fn name(rule: &Rule, wanted: Option<&HttpMatch>) -> String {
    let own = wanted.map(|wanted| wanted.name.as_str()).unwrap_or_default();
    match (rule.route.name.as_str(), own) {
        ("", "") if rule.origin.is_none() => "default".to_owned(),
        (route, "") => route.to_owned(),
        ("", own) => own.to_owned(),
        (route, own) => format!("{route}.{own}"),
    }
}

fn filters(rule: &Rule) -> HashMap<String, Any> {
    let fault = rule.route.fault.as_ref().and_then(filter::fault::generate);
    let fault = fault.map(|any| (filter::fault::NAME.to_owned(), any));
    let cors = rule
        .route
        .cors
        .as_ref()
        .map(|cors| (filter::cors::NAME.to_owned(), filter::cors::generate(cors)));
    fault.into_iter().chain(cors).collect()
}
