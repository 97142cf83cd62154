//! Matchers of what earlier filters have found out about a request (Envoy's dynamic metadata).

use std::ops::Range;

use super::matcher::StringMatch;

/// Where to look, and what must be there.
#[derive(Clone, Debug)]
pub struct MetadataMatch {
    /// The filter that found it out.
    pub filter: Box<str>,
    pub path: Vec<Box<str>>,
    pub value: ValueMatch,
    pub invert: bool,
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Null,
    Number(f64),
    Numbers(Range<f64>),
    Text(StringMatch),
    Bool(bool),
    Present(bool),
    /// One of the list.
    OneOf(Box<ValueMatch>),
    AnyOf(Vec<ValueMatch>),
}
