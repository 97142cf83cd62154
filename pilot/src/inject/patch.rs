//! The difference of two pods as a JSON patch (RFC 6902), as an admission webhook answers.

use serde_json::{Value, json};

/// Operations that make `before` into `after`. Lists that differ are replaced as a whole.
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
        (_, after) => operations.push(json!({"op": "replace", "path": path, "value": after})),
    }
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
    }
}
