//! The difference of two pods as a JSON patch (RFC 6902), as an admission webhook answers.

use serde_json::{Value, json};

/// Operations that make `before` into `after`. Entries that are put into a list of named ones (containers, volumes) are
/// added at their places; other lists that differ are replaced as a whole.
pub fn patch(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    difference(before, after, &mut String::new(), &mut operations);
    operations
}

fn difference(before: &Value, after: &Value, path: &mut String, operations: &mut Vec<Value>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                operations.push(json!({"op": "remove", "path": pointer(path, key)}));
            }
            for (key, value) in new {
                let length = path.len();
                *path = pointer(path, key);
                match old.get(key) {
                    Some(known) => difference(known, value, path, operations),
                    None => operations.push(json!({"op": "add", "path": path, "value": value})),
                }
                path.truncate(length);
            }
        }
        (Value::Array(old), Value::Array(new)) if grown(old, new) => {
            let mut old = old.iter().peekable();
            for (i, entry) in new.iter().enumerate() {
                let length = path.len();
                path.push_str(&format!("/{i}"));
                match old.next_if(|known| known["name"] == entry["name"]) {
                    Some(known) => difference(known, entry, path, operations),
                    None => operations.push(json!({"op": "add", "path": path, "value": entry})),
                }
                path.truncate(length);
            }
        }
        (_, after) => operations.push(json!({"op": "replace", "path": path, "value": after})),
    }
}

/// All entries have names of their own, and the old ones are still there in their order.
fn grown(old: &[Value], new: &[Value]) -> bool {
    let names = |list: &[Value]| -> Option<Vec<String>> {
        list.iter()
            .map(|entry| entry.get("name")?.as_str().map(str::to_owned))
            .collect()
    };
    let (Some(old), Some(new)) = (names(old), names(new)) else {
        return false;
    };
    let unique: std::collections::BTreeSet<&String> = new.iter().collect();
    let mut rest = old.iter().peekable();
    for name in &new {
        rest.next_if(|known| *known == name);
    }
    unique.len() == new.len() && rest.peek().is_none()
}

/// RFC 6901: `~` and `/` in names are written `~0` and `~1`.
fn pointer(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches() {
        let check = |before: Value, after: Value, expect: Value| {
            assert_eq!(Value::Array(patch(&before, &after)), expect);
        };
        check(json!({"a": 1}), json!({"a": 1}), json!([]));
        check(
            json!({}),
            json!({"a/b": {"c": 1}}),
            json!([{"op": "add", "path": "/a~1b", "value": {"c": 1}}]),
        );
        check(
            json!({"a": {"b": 1, "c": [1]}}),
            json!({"a": {"c": [1, 2], "d": 3}}),
            json!([
                {"op": "remove", "path": "/a/b"},
                {"op": "replace", "path": "/a/c", "value": [1, 2]},
                {"op": "add", "path": "/a/d", "value": 3},
            ]),
        );
        check(
            json!({"c": [{"name": "a", "x": 1}, {"name": "b", "unknown": 7}]}),
            json!({"c": [{"name": "new"}, {"name": "a", "x": 2}, {"name": "b", "unknown": 7}, {"name": "last"}]}),
            json!([
                {"op": "add", "path": "/c/0", "value": {"name": "new"}},
                {"op": "replace", "path": "/c/1/x", "value": 2},
                {"op": "add", "path": "/c/3", "value": {"name": "last"}},
            ]),
        );
        check(
            json!([{"name": "a"}, {"name": "b"}]),
            json!([{"name": "b"}, {"name": "a"}]),
            json!([{"op": "replace", "path": "", "value": [{"name": "b"}, {"name": "a"}]}]),
        );
    }
}
