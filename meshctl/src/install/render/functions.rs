//! Helm's functions, those that our charts use: same names, same order of arguments, same results
//! (<https://helm.sh/docs/chart_template_guide/function_list/>).

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak},
};

use gotmpl::{FuncMap, Result, Template, TemplateError, Value};

use super::to_json;
use crate::local::manifest::to_yaml;

type Function = fn(&[Value]) -> Result<Value>;

/// Those that need nothing but their arguments.
const PURE: &[(&str, Function)] = &[
    ("contains", contains),
    ("deepCopy", deep_copy),
    ("default", default),
    ("dict", dict),
    ("fail", fail),
    ("float64", float64),
    ("has", has),
    ("indent", indent),
    ("int", int),
    ("list", list),
    ("merge", merge),
    ("mergeOverwrite", merge_overwrite),
    ("nindent", nindent),
    ("omit", omit),
    ("quote", quote),
    ("required", required),
    ("ternary", ternary),
    ("toJson", json),
    ("toString", to_string),
    ("toYaml", yaml),
    ("trimPrefix", trim_prefix),
];

/// All of them. `template` is the one that is to run them, known once it is complete.
pub fn all(template: Arc<OnceLock<Weak<Template>>>) -> FuncMap {
    let mut functions: FuncMap = PURE
        .iter()
        .map(|(name, function)| ((*name).to_owned(), Arc::new(*function) as gotmpl::ValueFunc))
        .collect();
    let include = move |arguments: &[Value]| {
        let [Value::String(name), data] = arguments else {
            return Err(error("include: wants a name and data"));
        };
        let template = template.get().and_then(Weak::upgrade);
        let template = template.ok_or_else(|| error("include: no template runs"))?;
        template.execute_template_to_string(name, data).map(text)
    };
    functions.insert("include".to_owned(), Arc::new(include));
    functions
}

fn error(text: impl Into<String>) -> TemplateError {
    TemplateError::Exec(text.into())
}

fn text(text: impl AsRef<str>) -> Value {
    Value::String(text.as_ref().into())
}

/// Exactly so many arguments.
fn arguments<'a, const N: usize>(name: &str, given: &'a [Value]) -> Result<&'a [Value; N]> {
    given
        .try_into()
        .map_err(|_| error(format!("{name}: wants {N} arguments, not {}", given.len())))
}

fn string<'a>(name: &str, value: &'a Value) -> Result<&'a str> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(error(format!("{name}: wants text, not {}", other.type_name()))),
    }
}

type Map = BTreeMap<Arc<str>, Value>;

fn map<'a>(name: &str, value: &'a Value) -> Result<&'a Map> {
    match value {
        Value::Map(map) => Ok(map),
        other => Err(error(format!("{name}: wants a map, not {}", other.type_name()))),
    }
}

fn contains(given: &[Value]) -> Result<Value> {
    let [part, whole] = arguments("contains", given)?;
    let found = string("contains", whole)?.contains(string("contains", part)?);
    Ok(Value::Bool(found))
}

/// Values never change here: the same will do.
fn deep_copy(given: &[Value]) -> Result<Value> {
    let [value] = arguments("deepCopy", given)?;
    Ok(value.clone())
}

fn default(given: &[Value]) -> Result<Value> {
    let [other, value] = arguments("default", given)?;
    Ok(if value.is_truthy() { value } else { other }.clone())
}

fn dict(given: &[Value]) -> Result<Value> {
    let mut fields = Map::new();
    for pair in given.chunks(2) {
        let [name, value] = arguments("dict: each name", pair)?;
        fields.insert(string("dict", name)?.into(), value.clone());
    }
    Ok(Value::Map(Arc::new(fields)))
}

fn fail(given: &[Value]) -> Result<Value> {
    let [reason] = arguments("fail", given)?;
    Err(error(reason.to_string()))
}

fn has(given: &[Value]) -> Result<Value> {
    let [wanted, items] = arguments("has", given)?;
    match items {
        Value::List(items) => Ok(Value::Bool(items.contains(wanted))),
        Value::Nil => Ok(Value::Bool(false)),
        other => Err(error(format!("has: wants a list, not {}", other.type_name()))),
    }
}

fn indented(name: &str, given: &[Value]) -> Result<String> {
    let [width, lines] = arguments(name, given)?;
    let width = width
        .as_int()
        .and_then(|width| usize::try_from(width).ok())
        .filter(|width| *width <= 100)
        .ok_or_else(|| error(format!("{name}: {width} is no width")))?;
    let margin = " ".repeat(width);
    let lines: Vec<String> = string(name, lines)?
        .split('\n')
        .map(|line| format!("{margin}{line}"))
        .collect();
    Ok(lines.join("\n"))
}

fn indent(given: &[Value]) -> Result<Value> {
    indented("indent", given).map(text)
}

fn nindent(given: &[Value]) -> Result<Value> {
    indented("nindent", given).map(|lines| text(format!("\n{lines}")))
}

/// As Helm: what is no number is 0.
fn int(given: &[Value]) -> Result<Value> {
    let [value] = arguments("int", given)?;
    #[expect(clippy::cast_possible_truncation, reason = "what int is for")]
    let number = match value {
        Value::Int(number) => *number,
        Value::Uint(number) => i64::try_from(*number).unwrap_or(i64::MAX),
        Value::Float(number) => *number as i64,
        Value::Bool(value) => i64::from(*value),
        Value::String(text) => text.trim().parse().unwrap_or(0),
        _ => 0,
    };
    Ok(Value::Int(number))
}

/// As Helm: what is no number is 0.
fn float64(given: &[Value]) -> Result<Value> {
    let [value] = arguments("float64", given)?;
    // Whole numbers of a chart's values are far below where a float is too coarse.
    let number = value.to_string().trim().parse().unwrap_or(0.0);
    Ok(Value::Float(number))
}

fn list(given: &[Value]) -> Result<Value> {
    Ok(Value::List(given.into()))
}

/// Fills what the first lacks, or has empty, from the others.
fn merge(given: &[Value]) -> Result<Value> {
    merged("merge", given, &|into, from| {
        if into.is_truthy() { into } else { from }.clone()
    })
}

/// Puts the others over the first.
fn merge_overwrite(given: &[Value]) -> Result<Value> {
    merged("mergeOverwrite", given, &|_, from| from.clone())
}

fn merged(name: &str, given: &[Value], choose: &dyn Fn(&Value, &Value) -> Value) -> Result<Value> {
    let mut maps = given.iter().map(|value| map(name, value));
    let mut all = maps
        .next()
        .ok_or_else(|| error(format!("{name}: wants maps")))??
        .clone();
    for from in maps {
        put(&mut all, from?, choose);
    }
    Ok(Value::Map(Arc::new(all)))
}

fn put(into: &mut Map, from: &Map, choose: &dyn Fn(&Value, &Value) -> Value) {
    for (name, value) in from {
        let both = match (into.get(name), value) {
            (None, value) => value.clone(),
            (Some(Value::Map(old)), Value::Map(new)) => {
                let mut old = Map::clone(old);
                put(&mut old, new, choose);
                Value::Map(Arc::new(old))
            }
            (Some(old), new) => choose(old, new),
        };
        into.insert(name.clone(), both);
    }
}

fn omit(given: &[Value]) -> Result<Value> {
    let (fields, names) = given.split_first().ok_or_else(|| error("omit: wants a map"))?;
    let mut fields = map("omit", fields)?.clone();
    for name in names {
        fields.remove(string("omit", name)?);
    }
    Ok(Value::Map(Arc::new(fields)))
}

/// As a string of Go, which YAML reads back as the same text.
fn quote(given: &[Value]) -> Result<Value> {
    let quoted: Vec<String> = given
        .iter()
        .filter(|value| !matches!(value, Value::Nil))
        .map(|value| serde_json::Value::String(value.to_string()).to_string())
        .collect();
    Ok(text(quoted.join(" ")))
}

fn required(given: &[Value]) -> Result<Value> {
    let [reason, value] = arguments("required", given)?;
    match value {
        Value::Nil => Err(error(reason.to_string())),
        Value::String(text) if text.is_empty() => Err(error(reason.to_string())),
        value => Ok(value.clone()),
    }
}

fn ternary(given: &[Value]) -> Result<Value> {
    let [yes, no, condition] = arguments("ternary", given)?;
    match condition {
        Value::Bool(true) => Ok(yes.clone()),
        Value::Bool(false) => Ok(no.clone()),
        other => Err(error(format!(
            "ternary: wants true or false, not {}",
            other.type_name()
        ))),
    }
}

fn json(given: &[Value]) -> Result<Value> {
    let [value] = arguments("toJson", given)?;
    Ok(text(to_json(value).to_string()))
}

fn to_string(given: &[Value]) -> Result<Value> {
    let [value] = arguments("toString", given)?;
    Ok(match value {
        Value::String(_) => value.clone(),
        value => text(value.to_string()),
    })
}

fn yaml(given: &[Value]) -> Result<Value> {
    let [value] = arguments("toYaml", given)?;
    let written = to_yaml(&to_json(value)).map_err(|reason| error(format!("toYaml: {reason:#}")))?;
    Ok(text(written.trim_end_matches('\n')))
}

fn trim_prefix(given: &[Value]) -> Result<Value> {
    let [prefix, whole] = arguments("trimPrefix", given)?;
    let whole = string("trimPrefix", whole)?;
    Ok(text(
        whole.strip_prefix(string("trimPrefix", prefix)?).unwrap_or(whole),
    ))
}
