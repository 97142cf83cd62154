//! The reviews service: what two readers say. v1 says no more; v2 and v3 ask the ratings service for stars and colour them,
//! v2 black, v3 red. When ratings cannot be had the reviews are still answered, with an error in place of the stars.
//!
//! v2 waits up to 10 s for the stars, longer than the product page waits for the reviews. That is the classic mistake that the
//! delay lesson uncovers; v3 has it mended and waits 2.5 s.

use crate::{
    fetch::Upstream,
    headers,
    settings::{RatingsAddress, Version},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tracing::warn;

/// The reviewers, by the names under which the ratings service keeps their stars, and what they wrote.
const TEXTS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Mistaken twins, a locked door and a gold chain: I laughed from the first scene to the last.",
    ),
    (
        "Reviewer2",
        "Lighter than his later plays and none the worse for it. Read it aloud, with friends.",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stars {
    color: &'static str,
    patience: Duration,
}

fn stars(version: Version) -> Option<Stars> {
    match version {
        Version::V1 => None,
        Version::V2 => Some(Stars {
            color: "black",
            patience: Duration::from_secs(10),
        }),
        Version::V3 => Some(Stars {
            color: "red",
            patience: Duration::from_millis(2500),
        }),
    }
}

struct Service {
    stars: Option<Stars>,
    ratings: Upstream,
    pod: String,
}

pub fn pages(version: Version, ratings: &RatingsAddress) -> anyhow::Result<Router> {
    let ratings = Upstream::new(ratings.domain.base(&ratings.ratings_host, ratings.ratings_port))?;
    let pod = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let pod = pod.or_else(|| {
        std::fs::read_to_string("/etc/hostname")
            .ok()
            .map(|name| name.trim().to_owned())
    });
    let pod = pod.unwrap_or_else(|| format!("reviews-{version:?}").to_lowercase());
    let service = Arc::new(Service {
        stars: stars(version),
        ratings,
        pod,
    });
    Ok(Router::new()
        .route("/reviews/{id}", get(reviews))
        .with_state(service))
}

async fn reviews(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    incoming: HeaderMap,
) -> (StatusCode, Json<Value>) {
    let Ok(id) = id.parse::<u32>() else {
        return (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "the id of a product is a number" })),
        );
    };
    let ratings = match service.stars {
        None => None,
        Some(stars) => {
            let path = format!("/ratings/{id}");
            let answer = service
                .ratings
                .get(&path, &headers::travelling(&incoming), stars.patience)
                .await;
            if let Err(failure) = &answer {
                warn!(from = service.ratings.base(), "no ratings: {failure}");
            }
            Some((stars, answer.map_err(|failure| failure.to_string())))
        }
    };
    (StatusCode::OK, Json(answer(id, &service.pod, ratings.as_ref())))
}

/// The reviews of product `id`, with stars, with the reason why there are none, or (v1) with neither.
fn answer(id: u32, pod: &str, ratings: Option<&(Stars, Result<Value, String>)>) -> Value {
    let reviews: Vec<Value> = TEXTS
        .iter()
        .map(|(reviewer, text)| {
            let mut review = json!({ "reviewer": reviewer, "text": text });
            match ratings {
                None => {}
                Some((stars, Ok(ratings))) => match ratings["ratings"][reviewer].as_u64() {
                    Some(n) => review["rating"] = json!({ "stars": n.min(5), "color": stars.color }),
                    None => review["rating"] = json!({ "error": "this reader gave no stars" }),
                },
                Some((_, Err(why))) => {
                    review["rating"] =
                        json!({ "error": "Ratings service is currently unavailable", "reason": why });
                }
            }
            review
        })
        .collect();
    json!({ "id": id.to_string(), "podname": pod, "reviews": reviews })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_stars() {
        assert_eq!(stars(Version::V1), None);
        assert_eq!(stars(Version::V2).map(|s| s.color), Some("black"));
        assert_eq!(stars(Version::V3).map(|s| s.color), Some("red"));
    }

    #[test]
    fn no_ratings_are_said_beside_the_review() {
        let black = stars(Version::V2).expect("v2 has stars");
        let good = answer(
            0,
            "pod",
            Some(&(
                black,
                Ok(json!({ "ratings": { "Reviewer1": 5, "Reviewer2": 9 } })),
            )),
        );
        assert_eq!(
            good["reviews"][0]["rating"],
            json!({ "stars": 5, "color": "black" })
        );
        assert_eq!(good["reviews"][1]["rating"]["stars"], 5, "never more than five");
        let bad = answer(0, "pod", Some(&(black, Err("it answered 500".into()))));
        assert_eq!(
            bad["reviews"][0]["rating"]["error"],
            "Ratings service is currently unavailable"
        );
        assert_eq!(bad["reviews"][0]["reviewer"], "Reviewer1");
        let none = answer(0, "pod", None);
        assert!(none["reviews"][0].get("rating").is_none());
    }
}
