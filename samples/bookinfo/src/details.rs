//! The details service: facts about the one book of the shop.

use axum::{Json, Router, extract::Path, http::StatusCode, routing::get};
use serde_json::{Value, json};

pub fn pages() -> Router {
    Router::new().route("/details/{id}", get(details))
}

async fn details(Path(id): Path<String>) -> (StatusCode, Json<Value>) {
    match id.parse::<u32>() {
        Ok(id) => (StatusCode::OK, Json(book(id))),
        Err(_) => (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "the id of a product is a number" })),
        ),
    }
}

fn book(id: u32) -> Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}
