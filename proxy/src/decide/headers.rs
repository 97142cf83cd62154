//! Header changes of routes: applied in order, on the map itself. Values with command operators are formatted by the
//! caller, who has the whole exchange; what is not a header here (authority, path, method) is given back to the caller.

use http::{HeaderMap, HeaderValue, header::Entry};

use crate::config::{
    log::Format,
    route::{Append, Mutation, MutationField, Value},
};

/// Applies changes. `format` makes a value of a format (nothing if it comes out empty or invalid); `special` gets new
/// values of the request line.
pub fn apply<'a>(
    mutations: impl Iterator<Item = &'a Mutation>,
    headers: &mut HeaderMap,
    mut format: impl FnMut(&Format) -> Option<HeaderValue>,
    mut special: impl FnMut(&MutationField, HeaderValue),
) {
    for mutation in mutations {
        match mutation {
            Mutation::Remove(name) => {
                headers.remove(name);
            }
            Mutation::Set {
                field,
                value,
                action,
                keep_empty,
            } => {
                let value = match value {
                    Value::Fixed(value) => Some(value.clone()),
                    Value::Format(pieces) => format(pieces),
                };
                let value = value.filter(|value| !value.is_empty());
                let Some(value) = value.or_else(|| keep_empty.then(|| HeaderValue::from_static(""))) else {
                    continue;
                };
                match field {
                    MutationField::Header(name) => set(headers, name, value, *action),
                    // They always exist: adding means nothing, overwriting does.
                    other if *action != Append::AddIfAbsent => special(other, value),
                    _ => {}
                }
            }
        }
    }
}

fn set(headers: &mut HeaderMap, name: &http::HeaderName, value: HeaderValue, action: Append) {
    match (headers.entry(name), action) {
        (Entry::Occupied(mut entry), Append::AppendOrAdd) => entry.append(value),
        (Entry::Occupied(mut entry), Append::OverwriteOrAdd | Append::OverwriteIfExists) => {
            entry.insert(value);
        }
        (Entry::Vacant(entry), Append::AppendOrAdd | Append::AddIfAbsent | Append::OverwriteOrAdd) => {
            entry.insert(value);
        }
        (Entry::Occupied(_), Append::AddIfAbsent) | (Entry::Vacant(_), Append::OverwriteIfExists) => {}
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn change(name: &'static str, value: &'static str, action: Append) -> Mutation {
        Mutation::Set {
            field: MutationField::Header(HeaderName::from_static(name)),
            value: Value::Fixed(HeaderValue::from_static(value)),
            action,
            keep_empty: false,
        }
    }

    #[test]
    fn actions() {
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("gone", HeaderValue::from_static("1"));
        let mutations = [
            Mutation::Remove(HeaderName::from_static("gone")),
            change("a", "2", Append::AppendOrAdd),
            change("b", "1", Append::AddIfAbsent),
            change("b", "2", Append::AddIfAbsent),
            change("c", "1", Append::OverwriteIfExists),
            change("d", "1", Append::OverwriteOrAdd),
            change("d", "2", Append::OverwriteOrAdd),
            change("e", "", Append::AppendOrAdd),
        ];
        apply(mutations.iter(), &mut headers, |_| None, |_, _| {});
        let all = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(all("a"), ["1", "2"]);
        assert_eq!(all("b"), ["1"]);
        assert_eq!(all("d"), ["2"]);
        assert!(all("c").is_empty() && all("e").is_empty() && all("gone").is_empty());
    }

    #[test]
    fn the_request_line_is_given_back() {
        let mutations = [Mutation::Set {
            field: MutationField::Authority,
            value: Value::Fixed(HeaderValue::from_static("b.com")),
            action: Append::OverwriteOrAdd,
            keep_empty: false,
        }];
        let mut got = Vec::new();
        apply(
            mutations.iter(),
            &mut HeaderMap::new(),
            |_| None,
            |field, value| got.push((field.clone(), value)),
        );
        assert_eq!(
            got,
            [(MutationField::Authority, HeaderValue::from_static("b.com"))]
        );
    }
}
