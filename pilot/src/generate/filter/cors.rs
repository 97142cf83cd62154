//! Cross-origin requests: the browser's question is answered by the proxy.

use mesh_proto::{
    envoy::extensions::filters::http::cors::v3::{Cors as Filter, CorsPolicy},
    pb::google::protobuf::Any,
};

use crate::{
    generate::value::{any, boolean, runtime_fraction, string_match},
    model::{Percent, route::Cors},
};

pub const NAME: &str = "envoy.filters.http.cors";

pub fn chain() -> Any {
    any(&Filter {})
}

pub fn generate(cors: &Cors) -> Any {
    any(&CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(string_match).collect(),
        allow_methods: cors.methods.join(","),
        allow_headers: cors.headers.join(","),
        expose_headers: cors.expose.join(","),
        max_age: cors
            .max_age
            .map(|age| age.as_secs().to_string())
            .unwrap_or_default(),
        allow_credentials: cors.credentials.map(boolean),
        filter_enabled: Some(runtime_fraction(Percent::ALL)),
        forward_not_matching_preflights: Some(boolean(cors.forward_unmatched)),
        ..CorsPolicy::default()
    })
}
