//! What verified tokens say, as Envoy's filter keeps it: `payload` and below it the claims. A claim may be a text or a list
//! of texts; one that fits will do.

use mesh_proto::envoy::{
    config::rbac::v3::{MetadataSource, Principal, SourcedMetadata, principal::Identifier},
    r#type::matcher::v3::{
        ListMatcher, MetadataMatcher, OrMatcher, StringMatcher, ValueMatcher, list_matcher,
        metadata_matcher::{PathSegment, path_segment::Segment},
        value_matcher::MatchPattern,
    },
};

use super::{permit, principal, source};
use crate::{
    generate::{
        filter::jwt,
        value::{exact, prefix, suffix},
    },
    model::matching::Pattern,
};

/// `request.auth.claims[a][b]`; `*` asks only that it is there.
pub fn claim(path: &[&str], pattern: &Pattern) -> Principal {
    let value = match permit::matcher(pattern) {
        None => MatchPattern::PresentMatch(true),
        Some(text) => MatchPattern::OrMatch(OrMatcher {
            value_matchers: vec![of_text(text.clone()), one_of(of_text(text))],
        }),
    };
    found(path, of(value))
}

/// `issuer/subject`. Both may have slashes in them, so every place where the one can end and the other begin is tried.
pub fn request_principal(pattern: &Pattern) -> Principal {
    let there = |claim: &str| found(&[claim], of(MatchPattern::PresentMatch(true)));
    let says = |claim: &str, text: StringMatcher| found(&[claim], of_text(text));
    let places = |text: &str| -> Vec<(String, String)> {
        text.match_indices('/')
            .map(|(at, _)| (text[..at].to_owned(), text[at + 1..].to_owned()))
            .collect()
    };
    let mut any: Vec<Principal> = match pattern {
        Pattern::Present => Vec::new(),
        Pattern::Exact(text) | Pattern::Template(text) => places(text)
            .into_iter()
            .map(|(issuer, subject)| {
                source::all(vec![says("iss", exact(&issuer)), says("sub", exact(&subject))])
            })
            .collect(),
        Pattern::Prefix(text) => places(text)
            .into_iter()
            .map(|(issuer, subject)| {
                source::all(vec![says("iss", exact(&issuer)), says("sub", prefix(&subject))])
            })
            .collect(),
        Pattern::Suffix(text) => places(text)
            .into_iter()
            .map(|(issuer, subject)| {
                source::all(vec![says("iss", suffix(&issuer)), says("sub", exact(&subject))])
            })
            .collect(),
    };
    match pattern {
        Pattern::Present => return source::all(vec![there("iss"), there("sub")]),
        Pattern::Prefix(text) => any.push(source::all(vec![says("iss", prefix(text)), there("sub")])),
        Pattern::Suffix(text) => any.push(source::all(vec![there("iss"), says("sub", suffix(text))])),
        Pattern::Exact(_) | Pattern::Template(_) => {}
    }
    // Without a slash it is nobody's.
    if any.is_empty() {
        source::nobody()
    } else {
        source::one_of(any)
    }
}

fn found(path: &[&str], value: ValueMatcher) -> Principal {
    let segment = |key: &str| PathSegment {
        segment: Some(Segment::Key(key.to_owned())),
    };
    let matcher = MetadataMatcher {
        filter: jwt::NAME.to_owned(),
        path: std::iter::once(jwt::PAYLOAD)
            .chain(path.iter().copied())
            .map(segment)
            .collect(),
        value: Some(value),
        invert: false,
    };
    principal(Identifier::SourcedMetadata(SourcedMetadata {
        metadata_matcher: Some(matcher),
        metadata_source: MetadataSource::Dynamic.into(),
    }))
}

fn of(pattern: MatchPattern) -> ValueMatcher {
    ValueMatcher {
        match_pattern: Some(pattern),
    }
}

fn of_text(text: StringMatcher) -> ValueMatcher {
    of(MatchPattern::StringMatch(text))
}

fn one_of(value: ValueMatcher) -> ValueMatcher {
    of(MatchPattern::ListMatch(Box::new(ListMatcher {
        match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(value))),
    })))
}
