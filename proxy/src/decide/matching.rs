//! Does it match? One function per kind of matcher. Nothing allocates, except for a header that occurs more than once,
//! whose values are joined with a comma as Envoy does.

use std::borrow::Cow;

use http::Method;

use super::facts::Facts;
use crate::config::matcher::{
    Field, HeaderMatch, HeaderRule, PathMatch, QueryMatch, QueryRule, RouteMatch, StringMatch,
};

/// A string.
pub fn string(rule: &StringMatch, value: &[u8]) -> bool {
    match rule {
        StringMatch::Any => true,
        StringMatch::Exact {
            value: want,
            ignore_case,
        } => equal(value, want, *ignore_case),
        StringMatch::Prefix {
            value: want,
            ignore_case,
        } => starts(value, want, *ignore_case),
        StringMatch::Suffix {
            value: want,
            ignore_case,
        } => value.len() >= want.len() && equal(&value[value.len() - want.len()..], want, *ignore_case),
        StringMatch::Contains {
            value: want,
            ignore_case,
        } => {
            want.is_empty()
                || value
                    .windows(want.len())
                    .any(|window| equal(window, want, *ignore_case))
        }
        StringMatch::Regex(regex) => regex.is_match(value),
    }
}

fn equal(value: &[u8], want: &[u8], ignore_case: bool) -> bool {
    if ignore_case {
        value.eq_ignore_ascii_case(want)
    } else {
        value == want
    }
}

fn starts(value: &[u8], want: &[u8], ignore_case: bool) -> bool {
    value.len() >= want.len() && equal(&value[..want.len()], want, ignore_case)
}

/// A request's path.
pub fn path(rule: &PathMatch, facts: &Facts<'_>) -> bool {
    let path = facts.path.as_bytes();
    match rule {
        PathMatch::Any => true,
        PathMatch::Exact { value, ignore_case } => equal(path, value.as_bytes(), *ignore_case),
        PathMatch::Prefix { value, ignore_case } => starts(path, value.as_bytes(), *ignore_case),
        PathMatch::Segments { value, ignore_case } => {
            starts(path, value.as_bytes(), *ignore_case)
                && (path.len() == value.len() || path[value.len()] == b'/')
        }
        PathMatch::Regex(regex) => regex.is_match(path),
        PathMatch::Connect => facts.method == Method::CONNECT,
    }
}

/// The value of a field: of all occurrences of a header.
pub fn field<'a>(field: &Field, facts: &Facts<'a>) -> Option<Cow<'a, [u8]>> {
    let text = match field {
        Field::Header(name) => {
            let mut values = facts.headers.get_all(name).iter();
            let first = values.next()?.as_bytes();
            let Some(second) = values.next() else {
                return Some(Cow::Borrowed(first));
            };
            let mut joined = first.to_vec();
            for value in std::iter::once(second).chain(values) {
                joined.push(b',');
                joined.extend_from_slice(value.as_bytes());
            }
            return Some(Cow::Owned(joined));
        }
        Field::Method => facts.method.as_str(),
        Field::Authority => facts.authority,
        Field::Scheme => facts.scheme,
        Field::Path => {
            return Some(match facts.query {
                None => Cow::Borrowed(facts.path.as_bytes()),
                Some(query) => Cow::Owned([facts.path.as_bytes(), b"?", query.as_bytes()].concat()),
            });
        }
    };
    Some(Cow::Borrowed(text.as_bytes()))
}

/// A header (or a part of the request line).
pub fn header(rule: &HeaderMatch, facts: &Facts<'_>) -> bool {
    let value = field(&rule.field, facts);
    let value = match (&rule.rule, value) {
        (HeaderRule::Present(want), value) => return (value.is_some() == *want) != rule.invert,
        (_, Some(value)) => value,
        (_, None) if rule.absent_is_empty => Cow::Borrowed(&[][..]),
        // A header that is not there matches no rule about its value, inverted or not.
        (_, None) => return false,
    };
    let matches = match &rule.rule {
        HeaderRule::Present(_) => true,
        HeaderRule::Value(rule) => string(rule, &value),
        HeaderRule::Range(range) => std::str::from_utf8(&value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .is_some_and(|number| range.contains(&number)),
    };
    matches != rule.invert
}

/// The first value of a query parameter, as it was sent.
pub fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// A query parameter.
pub fn query(rule: &QueryMatch, facts: &Facts<'_>) -> bool {
    let value = query_value(facts.query, &rule.name);
    match &rule.rule {
        QueryRule::Present(want) => value.is_some() == *want,
        QueryRule::Value(rule) => value.is_some_and(|value| string(rule, value.as_bytes())),
    }
}

/// All that a route asks for. `random` decides its fraction.
pub fn route(rule: &RouteMatch, facts: &Facts<'_>, random: u64) -> bool {
    path(&rule.path, facts)
        && rule.headers.iter().all(|rule| header(rule, facts))
        && rule.query.iter().all(|rule| query(rule, facts))
        && (!rule.grpc_only || facts.is_grpc())
        && rule
            .tls_presented
            .is_none_or(|want| facts.connection.peer.is_some() == want)
        && rule
            .tls_validated
            .is_none_or(|want| facts.connection.peer.is_some() == want)
        && rule.fraction.is_none_or(|fraction| fraction.hit(random))
}

/// The value of a cookie of this name.
pub fn cookie<'a>(facts: &Facts<'a>, name: &str) -> Option<&'a str> {
    facts
        .headers
        .get_all(http::header::COOKIE)
        .iter()
        .find_map(|value| {
            value.to_str().ok()?.split(';').find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == name).then(|| value.trim_matches('"'))
            })
        })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use regex::bytes::Regex;

    use super::*;
    use crate::decide::testing::with_facts;

    #[test]
    fn strings() {
        let value = |text: &str| text.as_bytes().into();
        let table: [(StringMatch, &str, bool); 10] = [
            (
                StringMatch::Exact {
                    value: value("abc"),
                    ignore_case: false,
                },
                "abc",
                true,
            ),
            (
                StringMatch::Exact {
                    value: value("abc"),
                    ignore_case: false,
                },
                "ABC",
                false,
            ),
            (
                StringMatch::Exact {
                    value: value("abc"),
                    ignore_case: true,
                },
                "ABC",
                true,
            ),
            (
                StringMatch::Prefix {
                    value: value("ab"),
                    ignore_case: false,
                },
                "abc",
                true,
            ),
            (
                StringMatch::Prefix {
                    value: value("abcd"),
                    ignore_case: false,
                },
                "abc",
                false,
            ),
            (
                StringMatch::Suffix {
                    value: value("BC"),
                    ignore_case: true,
                },
                "abc",
                true,
            ),
            (
                StringMatch::Contains {
                    value: value("b"),
                    ignore_case: false,
                },
                "abc",
                true,
            ),
            (
                StringMatch::Contains {
                    value: value(""),
                    ignore_case: false,
                },
                "",
                true,
            ),
            (StringMatch::Regex(Regex::new("^(?:a.c)$").unwrap()), "abc", true),
            (
                StringMatch::Regex(Regex::new("^(?:a.c)$").unwrap()),
                "abcd",
                false,
            ),
        ];
        for (rule, value, expect) in table {
            assert_eq!(string(&rule, value.as_bytes()), expect, "{rule:?} {value}");
        }
    }

    fn rule(name: &'static str, rule: HeaderRule) -> HeaderMatch {
        let field = Field::Header(HeaderName::from_static(name));
        HeaderMatch {
            field,
            rule,
            invert: false,
            absent_is_empty: false,
        }
    }

    fn exact(text: &str) -> HeaderRule {
        HeaderRule::Value(StringMatch::Exact {
            value: text.as_bytes().into(),
            ignore_case: false,
        })
    }

    #[test]
    fn headers() {
        let mut map = HeaderMap::new();
        map.insert("one", HeaderValue::from_static("1"));
        map.append("two", HeaderValue::from_static("a"));
        map.append("two", HeaderValue::from_static("b"));
        let inverted = |rule| HeaderMatch { invert: true, ..rule };
        let or_empty = |rule| HeaderMatch {
            absent_is_empty: true,
            ..rule
        };
        let table = [
            (rule("one", exact("1")), true),
            (inverted(rule("one", exact("1"))), false),
            (inverted(rule("one", exact("2"))), true),
            (rule("two", exact("a,b")), true),
            (rule("one", HeaderRule::Range(0..2)), true),
            (rule("two", HeaderRule::Range(0..2)), false),
            (rule("one", HeaderRule::Present(true)), true),
            (rule("none", HeaderRule::Present(true)), false),
            (rule("none", HeaderRule::Present(false)), true),
            (inverted(rule("none", HeaderRule::Present(true))), true),
            // Absent: the rule about the value is not asked at all.
            (inverted(rule("none", exact("1"))), false),
            (or_empty(inverted(rule("none", exact("1")))), true),
        ];
        with_facts("GET", "a.com", "/x", &map, |facts| {
            for (rule, expect) in &table {
                assert_eq!(header(rule, facts), *expect, "{rule:?}");
            }
            let method = HeaderMatch {
                field: Field::Method,
                ..rule("one", exact("GET"))
            };
            assert!(header(&method, facts));
        });
    }

    #[test]
    fn paths_and_queries() {
        let map = HeaderMap::new();
        with_facts("GET", "a.com", "/a/b?x=1&y=&x=2&z", &map, |facts| {
            let text = |value: &str| value.into();
            for (rule, expect) in [
                (
                    PathMatch::Exact {
                        value: text("/a/b"),
                        ignore_case: false,
                    },
                    true,
                ),
                (
                    PathMatch::Exact {
                        value: text("/A/b"),
                        ignore_case: true,
                    },
                    true,
                ),
                (
                    PathMatch::Prefix {
                        value: text("/a/"),
                        ignore_case: false,
                    },
                    true,
                ),
                (
                    PathMatch::Segments {
                        value: text("/a"),
                        ignore_case: false,
                    },
                    true,
                ),
                (
                    PathMatch::Segments {
                        value: text("/a/b"),
                        ignore_case: false,
                    },
                    true,
                ),
                (
                    PathMatch::Segments {
                        value: text("/a/"),
                        ignore_case: false,
                    },
                    false,
                ),
                (PathMatch::Connect, false),
            ] {
                assert_eq!(path(&rule, facts), expect, "{rule:?}");
            }
            assert_eq!(query_value(facts.query, "x"), Some("1"));
            assert_eq!(query_value(facts.query, "y"), Some(""));
            assert_eq!(query_value(facts.query, "z"), Some(""));
            assert_eq!(query_value(facts.query, "w"), None);
        });
    }

    #[test]
    fn cookies() {
        let mut map = HeaderMap::new();
        map.insert("cookie", HeaderValue::from_static("a=1; user=\"jason\"; b"));
        with_facts("GET", "a.com", "/", &map, |facts| {
            assert_eq!(cookie(facts, "user"), Some("jason"));
            assert_eq!(cookie(facts, "b"), None);
        });
    }
}
