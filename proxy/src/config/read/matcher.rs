//! Matchers. Regular expressions are RE2's in Envoy; the `regex` crate has the same syntax and the same guarantee of
//! linear time. Each is compiled under a size limit, so that one route cannot eat the memory.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::mem::take;

use mesh_proto::envoy::{config::route::v3 as pb, r#type::matcher::v3 as kind};
use regex::bytes::{Regex, RegexBuilder};

use super::{At, Result, done, each, refuse, required, scalar, unsupported};
use crate::config::{
    action::{Substitution, SubstitutionPiece},
    matcher::{Field, HeaderMatch, HeaderRule, PathMatch, QueryMatch, QueryRule, RouteMatch, StringMatch},
};

/// Bytes of a compiled expression.
const SIZE_LIMIT: usize = 1 << 20;
/// Bytes of its lazily built automaton, per thread that uses it.
const DFA_LIMIT: usize = 256 << 10;

fn compile(pattern: &str) -> Result<Regex> {
    let build = |unicode| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(DFA_LIMIT)
            .build()
    };
    // RE2's classes are ASCII; only an expression that needs Unicode gets it.
    match build(false).or_else(|_| build(true)) {
        Ok(regex) => Ok(regex),
        Err(error) => refuse(format!("is not a usable regular expression: {error}")),
    }
}

/// An expression that must match the whole value.
pub fn full_regex(value: kind::RegexMatcher) -> Result<Regex> {
    // The engine is always one of linear time; its program size is bounded by our own limit.
    if value.regex.is_empty() {
        return refuse("is missing").at("regex");
    }
    compile(&format!("^(?:{})$", value.regex)).at("regex")
}

pub fn string(mut value: kind::StringMatcher) -> Result<StringMatch> {
    use kind::string_matcher::MatchPattern;
    let ignore_case = take(&mut value.ignore_case);
    let bytes = |text: String| text.into_bytes().into_boxed_slice();
    Ok(match required(value.match_pattern, "match_pattern")? {
        MatchPattern::Exact(text) => StringMatch::Exact {
            value: bytes(text),
            ignore_case,
        },
        MatchPattern::Prefix(text) if text.is_empty() => StringMatch::Any,
        MatchPattern::Prefix(text) => StringMatch::Prefix {
            value: bytes(text),
            ignore_case,
        },
        MatchPattern::Suffix(text) => StringMatch::Suffix {
            value: bytes(text),
            ignore_case,
        },
        MatchPattern::Contains(text) => StringMatch::Contains {
            value: bytes(text),
            ignore_case,
        },
        MatchPattern::SafeRegex(regex) => match regex.regex.as_str() {
            ".*" | "[^\\n]*" => StringMatch::Any,
            _ => StringMatch::Regex(full_regex(regex).at("safe_regex")?),
        },
        MatchPattern::Custom(_) => return unsupported("custom"),
    })
}

pub fn path_matcher(value: kind::PathMatcher) -> Result<StringMatch> {
    let kind::path_matcher::Rule::Path(rule) = required(value.rule, "path")?;
    string(rule).at("path")
}

/// What a matcher looks at: a header, or a part of the request line.
pub fn field(name: &str) -> Result<Field> {
    Ok(match name {
        ":method" => Field::Method,
        ":authority" | "host" | "Host" => Field::Authority,
        ":path" => Field::Path,
        ":scheme" => Field::Scheme,
        _ => Field::Header(scalar::header_name(name)?),
    })
}

pub fn header(mut value: pb::HeaderMatcher) -> Result<HeaderMatch> {
    use pb::header_matcher::HeaderMatchSpecifier as Rule;
    let text =
        |kind: fn(Box<[u8]>) -> StringMatch, text: String| HeaderRule::Value(kind(text.into_bytes().into()));
    let rule = match take(&mut value.header_match_specifier) {
        None => HeaderRule::Present(true),
        Some(Rule::PresentMatch(present)) => HeaderRule::Present(present),
        Some(Rule::StringMatch(rule)) => HeaderRule::Value(string(rule).at("string_match")?),
        Some(Rule::RangeMatch(range)) => HeaderRule::Range(range.start..range.end),
        Some(Rule::ExactMatch(value)) => text(
            |value| StringMatch::Exact {
                value,
                ignore_case: false,
            },
            value,
        ),
        Some(Rule::PrefixMatch(value)) => text(
            |value| StringMatch::Prefix {
                value,
                ignore_case: false,
            },
            value,
        ),
        Some(Rule::SuffixMatch(value)) => text(
            |value| StringMatch::Suffix {
                value,
                ignore_case: false,
            },
            value,
        ),
        Some(Rule::ContainsMatch(value)) => text(
            |value| StringMatch::Contains {
                value,
                ignore_case: false,
            },
            value,
        ),
        Some(Rule::SafeRegexMatch(regex)) => {
            HeaderRule::Value(StringMatch::Regex(full_regex(regex).at("safe_regex_match")?))
        }
    };
    Ok(HeaderMatch {
        field: field(&value.name).at("name")?,
        rule,
        invert: value.invert_match,
        absent_is_empty: value.treat_missing_header_as_empty,
    })
}

pub fn headers(list: Vec<pb::HeaderMatcher>, name: &str) -> Result<Vec<HeaderMatch>> {
    each(list, name, header)
}

fn query(value: pb::QueryParameterMatcher) -> Result<QueryMatch> {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Rule;
    let rule = match value.query_parameter_match_specifier {
        None => QueryRule::Present(true),
        Some(Rule::PresentMatch(present)) => QueryRule::Present(present),
        Some(Rule::StringMatch(rule)) => QueryRule::Value(string(rule).at("string_match")?),
    };
    Ok(QueryMatch {
        name: value.name.into(),
        rule,
    })
}

/// When a route is taken.
pub fn route(mut value: pb::RouteMatch) -> Result<RouteMatch> {
    let ignore_case = !super::boolean(&mut value.case_sensitive, true);
    let path = path(
        required(take(&mut value.path_specifier), "path_specifier")?,
        ignore_case,
    )?;
    let tls = take(&mut value.tls_context);
    let rules = RouteMatch {
        path,
        headers: headers(take(&mut value.headers), "headers")?,
        query: each(take(&mut value.query_parameters), "query_parameters", query)?,
        fraction: take(&mut value.runtime_fraction)
            .map(|fraction| scalar::runtime_fraction(fraction).at("runtime_fraction"))
            .transpose()?,
        grpc_only: take(&mut value.grpc).is_some(),
        tls_presented: tls
            .as_ref()
            .and_then(|tls| tls.presented)
            .map(|value| value.value),
        tls_validated: tls.and_then(|tls| tls.validated).map(|value| value.value),
    };
    done(&value)?;
    Ok(rules)
}

fn path(value: pb::route_match::PathSpecifier, ignore_case: bool) -> Result<PathMatch> {
    use pb::route_match::PathSpecifier as Path;
    Ok(match value {
        Path::Prefix(text) if text == "/" || text.is_empty() => PathMatch::Prefix {
            value: text.into(),
            ignore_case,
        },
        Path::Prefix(text) => PathMatch::Prefix {
            value: text.into(),
            ignore_case,
        },
        Path::Path(text) => PathMatch::Exact {
            value: text.into(),
            ignore_case,
        },
        Path::PathSeparatedPrefix(text) if text.ends_with('/') || text.contains(['?', '#']) => {
            return refuse("must not end with / nor have a query").at("path_separated_prefix");
        }
        Path::PathSeparatedPrefix(text) => PathMatch::Segments {
            value: text.into(),
            ignore_case,
        },
        Path::SafeRegex(regex) => PathMatch::Regex(full_regex(regex).at("safe_regex")?),
        Path::ConnectMatcher(_) => PathMatch::Connect,
        Path::PathMatchPolicy(_) => return unsupported("path_match_policy"),
    })
}

/// An expression and its substitution, with RE2's `\1`.
pub fn substitution(value: kind::RegexMatchAndSubstitute) -> Result<Substitution> {
    let pattern = required(value.pattern, "pattern")?;
    let pattern = compile(&pattern.regex).at("pattern.regex")?;
    let pieces = pieces(&value.substitution).at("substitution")?;
    let highest = pieces.iter().map(|piece| match piece {
        SubstitutionPiece::Group(n) => *n,
        SubstitutionPiece::Text(_) => 0,
    });
    let highest = highest.max().unwrap_or(0);
    if highest >= pattern.captures_len() {
        return refuse(format!("\\{highest} names a group that the pattern has not")).at("substitution");
    }
    Ok(Substitution { pattern, pieces })
}

fn pieces(text: &str) -> Result<Vec<SubstitutionPiece>> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            literal.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => literal.push('\\'),
            Some(digit) if digit.is_ascii_digit() => {
                if !literal.is_empty() {
                    pieces.push(SubstitutionPiece::Text(take(&mut literal).into()));
                }
                pieces.push(SubstitutionPiece::Group(digit.to_digit(10).unwrap_or(0) as usize));
            }
            _ => return refuse("after \\ there must be a digit or another \\"),
        }
    }
    if !literal.is_empty() {
        pieces.push(SubstitutionPiece::Text(literal.into()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(text: &str) -> kind::RegexMatcher {
        kind::RegexMatcher {
            regex: text.into(),
            ..kind::RegexMatcher::default()
        }
    }

    #[test]
    fn regexes_match_the_whole_value() {
        let regex1 = full_regex(regex("a|bc")).unwrap();
        assert!(regex1.is_match(b"a") && regex1.is_match(b"bc") && !regex1.is_match(b"abc"));
        assert!(
            full_regex(regex("\\p{Greek}+"))
                .unwrap()
                .is_match("αβ".as_bytes())
        );
        let error = full_regex(regex("(")).unwrap_err();
        assert_eq!(error.path, "regex");
        assert!(full_regex(regex("(a{1000}){1000}")).is_err());
    }

    #[test]
    fn substitutions_are_checked() {
        let make = |pattern: &str, text: &str| {
            substitution(kind::RegexMatchAndSubstitute {
                pattern: Some(regex(pattern)),
                substitution: text.into(),
            })
        };
        let good = make("^/(a)/(b)$", "/\\2\\\\\\1").unwrap();
        assert_eq!(good.pieces.len(), 4);
        assert_eq!(make("(a)", "\\2").unwrap_err().path, "substitution");
        assert!(make("(a)", "\\x").is_err());
    }

    #[test]
    fn header_matchers() {
        use pb::header_matcher::HeaderMatchSpecifier as Rule;
        let make = |name: &str, rule| {
            header(pb::HeaderMatcher {
                name: name.into(),
                header_match_specifier: rule,
                ..pb::HeaderMatcher::default()
            })
        };
        assert_eq!(make(":method", None).unwrap().field, Field::Method);
        assert!(matches!(make("x", None).unwrap().rule, HeaderRule::Present(true)));
        assert_eq!(make("bad name", None).unwrap_err().path, "name");
        let empty = kind::StringMatcher::default();
        let error = make("x", Some(Rule::StringMatch(empty))).unwrap_err();
        assert_eq!(error.path, "string_match.match_pattern");
    }
}
