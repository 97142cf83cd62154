//! Matchers: strings, paths, headers, query parameters. All regular expressions are compiled with a size limit and
//! match the whole value, as Envoy's RE2 full match does. Matching allocates nothing.

use std::ops::Range;

use http::HeaderName;
use regex::bytes::Regex;

use super::scalar::Fraction;

/// One string against one rule.
#[derive(Clone, Debug)]
pub enum StringMatch {
    Any,
    Exact {
        value: Box<[u8]>,
        ignore_case: bool,
    },
    Prefix {
        value: Box<[u8]>,
        ignore_case: bool,
    },
    Suffix {
        value: Box<[u8]>,
        ignore_case: bool,
    },
    Contains {
        value: Box<[u8]>,
        ignore_case: bool,
    },
    /// Anchored on both ends.
    Regex(Regex),
}

/// A request's path, without the query.
#[derive(Clone, Debug)]
pub enum PathMatch {
    Any,
    Exact {
        value: Box<str>,
        ignore_case: bool,
    },
    Prefix {
        value: Box<str>,
        ignore_case: bool,
    },
    /// `/a` takes `/a` and `/a/b`, not `/ab`.
    Segments {
        value: Box<str>,
        ignore_case: bool,
    },
    Regex(Regex),
    /// Only CONNECT requests.
    Connect,
}

/// What a header matcher looks at: pseudo headers are part of the request line here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Header(HeaderName),
    Method,
    Authority,
    Path,
    Scheme,
}

#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub field: Field,
    pub rule: HeaderRule,
    pub invert: bool,
    /// An absent header counts as an empty one.
    pub absent_is_empty: bool,
}

#[derive(Clone, Debug)]
pub enum HeaderRule {
    Present(bool),
    Value(StringMatch),
    /// A whole number within the range.
    Range(Range<i64>),
}

#[derive(Clone, Debug)]
pub struct QueryMatch {
    pub name: Box<str>,
    pub rule: QueryRule,
}

#[derive(Clone, Debug)]
pub enum QueryRule {
    Present(bool),
    Value(StringMatch),
}

/// When a route is taken: all of it must hold.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
    pub fraction: Option<Fraction>,
    pub grpc_only: bool,
    /// Was a client certificate presented?
    pub tls_presented: Option<bool>,
    /// Was it verified?
    pub tls_validated: Option<bool>,
}
