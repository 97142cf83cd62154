//! `--set a.b[0].c=value,d={x,y}`: Helm's little language for values. A backslash takes the next character as it is.
//! Pure. Bounds: 30 levels, lists of 1,000 items.

use anyhow::{anyhow, bail};
use serde_json::{Value, json};

const MAX_DEPTH: usize = 30;
const MAX_INDEX: usize = 1000;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

/// Puts all assignments of one argument into the values. `typed`: `true`, `1`, `null` mean what they look like; otherwise
/// everything is text.
pub fn set(values: &mut Value, argument: &str, typed: bool) -> anyhow::Result<()> {
    let mut rest = argument.chars().peekable();
    while rest.peek().is_some() {
        let path = path(&mut rest, argument)?;
        let value = value(&mut rest, argument, typed)?;
        put(values, &path, value).map_err(|reason| anyhow!("--set {argument}: {reason}"))?;
    }
    Ok(())
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn path(rest: &mut Rest<'_>, argument: &str) -> anyhow::Result<Vec<Step>> {
    let (mut steps, mut name) = (Vec::new(), String::new());
    let mut after_item = false;
    loop {
        if steps.len() > MAX_DEPTH {
            bail!("--set {argument}: more than {MAX_DEPTH} levels");
        }
        match rest.next() {
            Some('\\') => name.extend(rest.next()),
            Some(end @ ('.' | '=')) => {
                match (name.is_empty(), after_item) {
                    (true, true) => {}
                    (true, false) => bail!("--set {argument}: a name is missing before {end:?}"),
                    (false, _) => steps.push(Step::Field(std::mem::take(&mut name))),
                }
                after_item = false;
                if end == '=' {
                    return Ok(steps);
                }
            }
            Some('[') => {
                if !name.is_empty() {
                    steps.push(Step::Field(std::mem::take(&mut name)));
                }
                let digits: String = std::iter::from_fn(|| rest.next_if(|c| *c != ']')).collect();
                rest.next();
                let index = digits
                    .parse()
                    .ok()
                    .filter(|index| *index < MAX_INDEX)
                    .ok_or_else(|| anyhow!("--set {argument}: [{digits}] is no place in a list"))?;
                steps.push(Step::Item(index));
                after_item = true;
            }
            Some(',') | None => bail!("--set {argument}: {name:?} has no value; write NAME=VALUE"),
            Some(letter) => name.push(letter),
        }
    }
}

fn value(rest: &mut Rest<'_>, argument: &str, typed: bool) -> anyhow::Result<Value> {
    if rest.next_if_eq(&'{').is_none() {
        let (text, _) = word(rest, &[',']);
        return Ok(read(text, typed));
    }
    let mut items = Vec::new();
    loop {
        match word(rest, &[',', '}']) {
            (text, Some('}')) => {
                if !(text.is_empty() && items.is_empty()) {
                    items.push(read(text, typed));
                }
                rest.next_if_eq(&',');
                return Ok(Value::Array(items));
            }
            (text, Some(_)) => items.push(read(text, typed)),
            (_, None) => bail!("--set {argument}: a list begins with {{ and does not end with }}"),
        }
    }
}

/// Up to one of the ends, which is taken too.
fn word(rest: &mut Rest<'_>, ends: &[char]) -> (String, Option<char>) {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('\\') => text.extend(rest.next()),
            Some(end) if ends.contains(&end) => return (text, Some(end)),
            Some(letter) => text.push(letter),
            None => return (text, None),
        }
    }
}

/// A number only if it would be written so: `0123` and `1.10` are text.
fn read(text: String, typed: bool) -> Value {
    if !typed {
        return Value::String(text);
    }
    match text.as_str() {
        "true" => json!(true),
        "false" => json!(false),
        "null" => Value::Null,
        _ => {
            // As Helm: a number with a point stays text, so that a tag 1.10 is not 1.1.
            let whole = text
                .parse::<i64>()
                .ok()
                .filter(|number| number.to_string() == text);
            whole.map_or(Value::String(text), |number| json!(number))
        }
    }
}

fn put(into: &mut Value, path: &[Step], value: Value) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else {
        *into = value;
        return Ok(());
    };
    match step {
        Step::Field(name) => {
            if into.is_null() {
                *into = json!({});
            }
            let kind = kind(into);
            let fields = into
                .as_object_mut()
                .ok_or_else(|| format!("{name:?} cannot be set in {kind}"))?;
            put(fields.entry(name.clone()).or_insert(Value::Null), rest, value)
        }
        Step::Item(index) => {
            if into.is_null() {
                *into = json!([]);
            }
            let kind = kind(into);
            let items = into
                .as_array_mut()
                .ok_or_else(|| format!("[{index}] cannot be set in {kind}"))?;
            if items.len() <= *index {
                items.resize(index + 1, Value::Null);
            }
            items
                .get_mut(*index)
                .map_or(Ok(()), |item| put(item, rest, value))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "a map",
        Value::Array(_) => "a list",
        _ => "a plain value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], typed: bool, expect: Value) {
        let mut values = json!({});
        for argument in arguments {
            set(&mut values, argument, typed).unwrap();
        }
        assert_eq!(values, expect, "{arguments:?}");
    }

    #[test]
    fn assignments() {
        check(&["a.b=c"], true, json!({"a": {"b": "c"}}));
        check(
            &["a=1,b=true,c=null,d=-2,e=1.5"],
            true,
            json!({"a": 1, "b": true, "c": null, "d": -2, "e": "1.5"}),
        );
        check(
            &["a=0123,b=1.10,c=1e3,d="],
            true,
            json!({"a": "0123", "b": "1.10", "c": "1e3", "d": ""}),
        );
        check(&["a=1,b=true"], false, json!({"a": "1", "b": "true"}));
        check(
            &["a[1].b=x", "a[0].b=y"],
            true,
            json!({"a": [{"b": "y"}, {"b": "x"}]}),
        );
        check(&["a[0][1]=x"], true, json!({"a": [[null, "x"]]}));
        check(&["a={x,2},b={}"], true, json!({"a": ["x", 2], "b": []}));
        check(&[r"a\.b/c=d\,e"], true, json!({"a.b/c": "d,e"}));
        check(&["a.b=1", "a.c=2", "a.b=3"], true, json!({"a": {"b": 3, "c": 2}}));
        check(&["a=x=y"], true, json!({"a": "x=y"}));
    }

    #[test]
    fn mistakes() {
        for (argument, expect) in [
            ("a", "NAME=VALUE"),
            ("=a", "name is missing"),
            ("a..b=c", "name is missing"),
            ("a[x]=1", "no place in a list"),
            ("a[5000]=1", "no place in a list"),
            ("a={b", "does not end"),
            ("a=1,a.b=2", "plain value"),
            ("a.b=1,a[0]=2", "in a map"),
        ] {
            let error = set(&mut json!({}), argument, true).unwrap_err().to_string();
            assert!(
                error.contains(expect) && error.contains(argument),
                "{argument}: {error}"
            );
        }
    }
}
