//! The ratings service: how many stars each reader gave. v1 keeps them in memory, v2 in Redis.
//! `GET /ratings/ID` reads them, `POST /ratings/ID` with `{"Reviewer1": 4}` changes them.

mod store;

use crate::settings::{self, Version};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::Store;
use tracing::warn;

/// Stars by reader.
pub type Stars = BTreeMap<String, u8>;

/// At most so many readers may rate one product.
const MAX_READERS: usize = 100;

pub fn pages(version: Version, settings: &settings::Store) -> anyhow::Result<Router> {
    let store = Arc::new(match version {
        Version::V1 => Store::memory(),
        Version::V2 | Version::V3 => Store::redis(&settings.redis_url)?,
    });
    Ok(Router::new()
        .route("/ratings/{id}", get(read).post(write))
        .with_state(store))
}

type Answer = (StatusCode, Json<Value>);

async fn read(State(store): State<Arc<Store>>, Path(id): Path<String>) -> Answer {
    let Ok(id) = id.parse::<u32>() else {
        return bad_request("the id of a product is a number");
    };
    answer(id, store.read(id).await)
}

async fn write(State(store): State<Arc<Store>>, Path(id): Path<String>, Json(stars): Json<Stars>) -> Answer {
    let Ok(id) = id.parse::<u32>() else {
        return bad_request("the id of a product is a number");
    };
    if let Err(why) = check(&stars) {
        return bad_request(why);
    }
    answer(id, store.write(id, &stars).await)
}

fn check(stars: &Stars) -> Result<(), &'static str> {
    if stars.len() > MAX_READERS || stars.keys().any(|reader| reader.len() > 64) {
        Err("too many readers, or a name longer than 64 bytes")
    } else if stars.values().any(|n| !(1..=5).contains(n)) {
        Err("a rating is one to five stars")
    } else {
        Ok(())
    }
}

fn bad_request(why: &str) -> Answer {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": why })))
}

fn answer(id: u32, stars: anyhow::Result<Stars>) -> Answer {
    match stars {
        Ok(stars) => (StatusCode::OK, Json(json!({ "id": id, "ratings": stars }))),
        Err(error) => {
            warn!("product {id}: {error:#}");
            let text = format!("the store of the ratings failed: {error:#}");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": text })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_one_to_five() {
        let stars = |n: u8| Stars::from([("Reviewer1".to_owned(), n)]);
        assert!(check(&stars(1)).is_ok() && check(&stars(5)).is_ok());
        assert!(check(&stars(0)).is_err() && check(&stars(6)).is_err());
        let many: Stars = (0..=MAX_READERS).map(|i| (i.to_string(), 3)).collect();
        assert!(check(&many).is_err());
    }
}
