//! CORS policies: the filter's own message, and the older one inside routes, which has the same fields.

use std::mem::take;

use mesh_proto::envoy::extensions::filters::http::cors::v3 as pb;

use super::{At, Result, boolean, done, each, matcher, scalar};
use crate::config::{filter::CorsPolicy, scalar::Fraction};

pub fn policy(mut value: pb::CorsPolicy) -> Result<CorsPolicy> {
    let text = |field: &mut String, name: &str| {
        let text = take(field);
        (!text.is_empty())
            .then(|| scalar::header_value(&text).at(name))
            .transpose()
    };
    let policy = CorsPolicy {
        allow_methods: text(&mut value.allow_methods, "allow_methods")?,
        allow_headers: text(&mut value.allow_headers, "allow_headers")?,
        expose_headers: text(&mut value.expose_headers, "expose_headers")?,
        max_age: text(&mut value.max_age, "max_age")?,
        origins: each(
            take(&mut value.allow_origin_string_match),
            "allow_origin_string_match",
            matcher::string,
        )?,
        allow_credentials: boolean(&mut value.allow_credentials, false),
        allow_private_network: boolean(&mut value.allow_private_network_access, false),
        forward_unmatched_preflights: boolean(&mut value.forward_not_matching_preflights, true),
        enabled: scalar::opt_runtime_fraction(
            take(&mut value.filter_enabled),
            Fraction::ALWAYS,
            "filter_enabled",
        )?,
    };
    done(&value)?;
    Ok(policy)
}
