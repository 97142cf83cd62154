//! The product page: asks details and reviews at the same time, and shows a page that says of each part what came, from which
//! pod and how fast, or that it could not be had. A part that fails never takes the page with it.
//!
//! It waits 3 s for the reviews, twice; see `reviews` for the lesson in that.

mod page;

use crate::{
    fetch::{Failure, Upstream},
    headers, session,
    settings::Upstreams,
};
use axum::{
    Form, Json, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::warn;

/// How long one question may take; reviews are asked twice.
const PATIENCE: Duration = Duration::from_secs(3);

struct Service {
    details: Upstream,
    reviews: Upstream,
    ratings: Upstream,
}

/// What became of the question to one service.
pub struct Part {
    pub answer: Result<Value, Problem>,
    pub took: Duration,
}

/// Why a part is missing: the status to answer with, a sentence for people, and what exactly happened.
pub struct Problem {
    pub status: StatusCode,
    pub text: String,
    pub reason: String,
}

pub fn pages(upstreams: &Upstreams) -> anyhow::Result<Router> {
    let domain = &upstreams.ratings.domain;
    let service = Arc::new(Service {
        details: Upstream::new(domain.base(&upstreams.details_host, upstreams.details_port))?,
        reviews: Upstream::new(domain.base(&upstreams.reviews_host, upstreams.reviews_port))?,
        ratings: Upstream::new(domain.base(&upstreams.ratings.ratings_host, upstreams.ratings.ratings_port))?,
    });
    Ok(Router::new()
        .route("/", get(async || Html(page::front())))
        .route("/index.html", get(async || Html(page::front())))
        .route("/productpage", get(product_page))
        .route("/login", post(login))
        .route("/logout", get(logout))
        .route("/api/v1/products", get(async || Json(json!([product()]))))
        .route("/api/v1/products/{id}", get(api_product))
        .route("/api/v1/products/{id}/reviews", get(api_reviews))
        .route("/api/v1/products/{id}/ratings", get(api_ratings))
        .with_state(service))
}

/// The only product of the shop.
fn product() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "Two pairs of twins, parted in a storm as children, come to the same town on the same day; \
            neither pair knows of the other. Wives, merchants and a goldsmith mistake one for the next, until nobody in \
            <a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">The Comedy of Errors</a> is sure who they are. \
            It is Shakespeare's shortest play, and his quickest.",
    })
}

/// The headers for the questions that a request causes: what travels on, and the signed-in user.
fn outgoing(incoming: &HeaderMap, user: Option<&str>) -> HeaderMap {
    let mut out = headers::travelling(incoming);
    let name = HeaderName::from_static("end-user");
    out.remove(&name);
    if let Some(value) = user.and_then(|user| HeaderValue::from_str(user).ok()) {
        out.insert(name, value);
    }
    out
}

async fn product_page(State(service): State<Arc<Service>>, incoming: HeaderMap) -> Html<String> {
    let user = session::user(&incoming);
    let out = outgoing(&incoming, user.as_deref());
    let (details, reviews) = tokio::join!(
        ask(&service.details, "details", "/details/0", &out, 1),
        ask(&service.reviews, "reviews", "/reviews/0", &out, 2),
    );
    Html(page::product(&product(), user.as_deref(), &details, &reviews))
}

/// Asks up to `tries` times, each within [`PATIENCE`].
async fn ask(service: &Upstream, what: &str, path: &str, headers: &HeaderMap, tries: usize) -> Part {
    let begin = Instant::now();
    let mut last = None;
    for _ in 0..tries {
        match service.get(path, headers, PATIENCE).await {
            Ok(answer) => {
                return Part {
                    answer: Ok(answer),
                    took: begin.elapsed(),
                };
            }
            Err(failure) => {
                warn!(from = service.base(), "no {what}: {failure}");
                last = Some(failure);
            }
        }
    }
    let status = match &last {
        Some(Failure::Status(status, _)) => *status,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let reason = last.map(|failure| failure.to_string()).unwrap_or_default();
    let text = format!("Sorry, product {what} are currently unavailable for this book.");
    Part {
        answer: Err(Problem { status, text, reason }),
        took: begin.elapsed(),
    }
}

#[derive(Deserialize)]
struct Login {
    username: String,
}

async fn login(Form(login): Form<Login>) -> Response {
    if !session::usable(&login.username) {
        let text = "A user name is 1 to 64 letters, digits and . _ - @ +";
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let cookie = session::sign_in(&login.username);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/productpage")).into_response()
}

async fn logout() -> Response {
    (
        [(header::SET_COOKIE, session::sign_out())],
        Redirect::to("/productpage"),
    )
        .into_response()
}

type Answer = (StatusCode, Json<Value>);

async fn api(service: &Upstream, what: &str, id: &str, incoming: &HeaderMap, tries: usize) -> Answer {
    if id.parse::<u32>().is_err() {
        return (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "the id of a product is a number" })),
        );
    }
    let out = outgoing(incoming, session::user(incoming).as_deref());
    match ask(service, what, &format!("/{what}/{id}"), &out, tries)
        .await
        .answer
    {
        Ok(answer) => (StatusCode::OK, Json(answer)),
        Err(problem) => (
            problem.status,
            Json(json!({ "error": problem.text, "reason": problem.reason })),
        ),
    }
}

async fn api_product(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    incoming: HeaderMap,
) -> Answer {
    api(&service.details, "details", &id, &incoming, 1).await
}

async fn api_reviews(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    incoming: HeaderMap,
) -> Answer {
    api(&service.reviews, "reviews", &id, &incoming, 2).await
}

async fn api_ratings(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    incoming: HeaderMap,
) -> Answer {
    api(&service.ratings, "ratings", &id, &incoming, 1).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_session_says_who_the_user_is() {
        let mut incoming = HeaderMap::new();
        incoming.insert("end-user", HeaderValue::from_static("mallory"));
        incoming.insert("x-request-id", HeaderValue::from_static("1"));
        assert!(!outgoing(&incoming, None).contains_key("end-user"));
        let out = outgoing(&incoming, Some("jason"));
        assert_eq!(out["end-user"], "jason");
        assert_eq!(out["x-request-id"], "1");
    }
}
