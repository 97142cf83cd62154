//! Conditions on a request.

use mesh_proto::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
};

use crate::{
    generate::value::{boolean, exact, regex, string_match},
    model::{StringMatch, ValueMatch, route::HttpMatch},
};

/// Every request.
pub fn everything() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    }
}

pub fn generate(wanted: &HttpMatch) -> RouteMatch {
    let path = match &wanted.uri {
        None => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(StringMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern)),
    };
    let pseudo = [
        (":method", &wanted.method),
        (":authority", &wanted.authority),
        (":scheme", &wanted.scheme),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| {
        let value = ValueMatch::Matches(value.clone()?);
        Some(header(name, &value, false))
    });
    let with = wanted
        .headers
        .iter()
        .map(|(name, value)| header(name, value, false));
    let without = wanted
        .without_headers
        .iter()
        .map(|(name, value)| header(name, value, true));
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: wanted.ignore_uri_case.then(|| boolean(false)),
        headers: pseudo.chain(with).chain(without).collect(),
        query_parameters: wanted
            .query
            .iter()
            .map(|(name, value)| parameter(name, value))
            .collect(),
        ..RouteMatch::default()
    }
}

fn header(name: &str, value: &ValueMatch, invert: bool) -> HeaderMatcher {
    let specifier = match value {
        ValueMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
        ValueMatch::Matches(value) => HeaderMatchSpecifier::StringMatch(string_match(value)),
    };
    HeaderMatcher {
        // Envoy calls the host header by its HTTP/2 name in both versions.
        name: if name == "host" {
            ":authority".to_owned()
        } else {
            name.to_owned()
        },
        invert_match: invert,
        header_match_specifier: Some(specifier),
        // "without header x = 1" holds where there is no x at all; whether there is an x is not a question of its value.
        treat_missing_header_as_empty: invert && matches!(value, ValueMatch::Matches(_)),
    }
}

fn parameter(name: &str, value: &ValueMatch) -> QueryParameterMatcher {
    let specifier = match value {
        ValueMatch::Present => QueryParameterMatchSpecifier::PresentMatch(true),
        ValueMatch::Matches(StringMatch::Exact(text)) => {
            QueryParameterMatchSpecifier::StringMatch(exact(text))
        }
        ValueMatch::Matches(value) => QueryParameterMatchSpecifier::StringMatch(string_match(value)),
    };
    QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(specifier),
    }
}
