//! Matchers of metadata.

use mesh_proto::envoy::r#type::matcher::v3::{self as pb, list_matcher, value_matcher};

use super::{At, Result, each, matcher, refuse, required};
use crate::config::metadata::{MetadataMatch, ValueMatch};

pub fn metadata(value: pb::MetadataMatcher) -> Result<MetadataMatch> {
    if value.filter.is_empty() {
        return refuse("is missing").at("filter");
    }
    let path = each(value.path, "path", |segment| {
        match required(segment.segment, "key")? {
            pb::metadata_matcher::path_segment::Segment::Key(key) => Ok(key.into_boxed_str()),
        }
    })?;
    if path.is_empty() {
        return refuse("is missing").at("path");
    }
    Ok(MetadataMatch {
        filter: value.filter.into(),
        path,
        value: self::value(required(value.value, "value")?).at("value")?,
        invert: value.invert,
    })
}

fn value(value: pb::ValueMatcher) -> Result<ValueMatch> {
    use value_matcher::MatchPattern;
    Ok(match required(value.match_pattern, "match_pattern")? {
        MatchPattern::NullMatch(_) => ValueMatch::Null,
        MatchPattern::DoubleMatch(rule) => match required(rule.match_pattern, "double_match")? {
            pb::double_matcher::MatchPattern::Exact(number) => ValueMatch::Number(number),
            pb::double_matcher::MatchPattern::Range(range) => ValueMatch::Numbers(range.start..range.end),
        },
        MatchPattern::StringMatch(rule) => ValueMatch::Text(matcher::string(rule).at("string_match")?),
        MatchPattern::BoolMatch(want) => ValueMatch::Bool(want),
        MatchPattern::PresentMatch(want) => ValueMatch::Present(want),
        MatchPattern::ListMatch(rule) => match required(rule.match_pattern, "list_match")? {
            list_matcher::MatchPattern::OneOf(one) => {
                ValueMatch::OneOf(Box::new(self::value(*one).at("list_match.one_of")?))
            }
        },
        MatchPattern::OrMatch(rule) => {
            ValueMatch::AnyOf(each(rule.value_matchers, "value_matchers", self::value).at("or_match")?)
        }
    })
}
