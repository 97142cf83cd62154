//! Charts to objects, as Helm does it: Go's templates (the crate `gotmpl`) with those of Helm's functions that our charts
//! use. A function that is not among them is refused, so that the charts cannot grow beyond what both render. A test holds
//! the result against Helm's for every profile.
//!
//! From: a chart and its values, complete. To: objects with the file they come from. Pure.

use std::sync::{Arc, OnceLock, Weak};

use gotmpl::{Template, TemplateError, Value as Data};
use serde_json::{Value, json};

use super::chart::{Chart, File};
use crate::local::manifest::{self, Document};

mod functions;

/// What Helm calls a release.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
}

/// Why a chart gives no objects.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The chart's own word about values that do not fit, or a mistake in the chart.
    #[error("{file}: {text}")]
    Template { file: String, text: String },
    #[error("{0}: what comes out is no YAML: {1}")]
    Yaml(String, String),
}

/// All objects of a chart, its kinds first, the others in the order of its files.
pub fn render(chart: &Chart, values: &Value, release: Release<'_>) -> Result<Vec<Document>, RenderError> {
    let data = to_data(&json!({
        "Values": values,
        "Chart": metadata(chart)?,
        "Release": {"Name": release.name, "Namespace": release.namespace, "Service": "Helm"},
    }));
    let (definitions, files): (Vec<&File>, Vec<&File>) = chart
        .templates
        .iter()
        .partition(|(path, _)| path.rsplit('/').next().is_some_and(|name| name.starts_with('_')));
    let mut documents = Vec::new();
    if let Some(crds) = chart.crds {
        documents.extend(parse(crds.1, crds.0)?);
    }
    for file in files {
        let template = compile(&definitions, file)?;
        let text = template
            .execute_to_string(&data)
            .map_err(|error| failed(file.0, &error))?;
        documents.extend(parse(&text, file.0)?);
    }
    Ok(documents)
}

/// `Chart.yaml` under the names that templates use: the first letter is a capital.
fn metadata(chart: &Chart) -> Result<Value, RenderError> {
    let (path, text) = chart.metadata;
    let fields: serde_json::Map<String, Value> =
        serde_saphyr::from_str(text).map_err(|error| RenderError::Yaml(path.into(), error.to_string()))?;
    let capital = |name: String| {
        let mut letters = name.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    Ok(Value::Object(
        fields
            .into_iter()
            .map(|(name, value)| (capital(name), value))
            .collect(),
    ))
}

/// One file together with the chart's definitions, and `include`, which runs one of them.
fn compile(definitions: &[&File], file: &File) -> Result<Arc<Template>, RenderError> {
    let own: Arc<OnceLock<Weak<Template>>> = Arc::default();
    let mut template = Template::new(file.0).funcs(functions::all(own.clone()));
    for (path, text) in definitions {
        template = template.parse(text).map_err(|error| failed(path, &error))?;
    }
    let template = Arc::new(template.parse(file.1).map_err(|error| failed(file.0, &error))?);
    // Set once, just made: it cannot be taken already.
    let _ = own.set(Arc::downgrade(&template));
    Ok(template)
}

/// The place, as `file:line:column` where the template's reader knows it, and the reason.
fn failed(path: &str, error: &TemplateError) -> RenderError {
    match error {
        TemplateError::Parse {
            line, col, message, ..
        }
        | TemplateError::Lex {
            line, col, message, ..
        } => RenderError::Template {
            file: format!("{path}:{line}:{col}"),
            text: message.clone(),
        },
        other => {
            let text = other.to_string();
            let text = text.trim_start_matches("execution error: ").to_owned();
            RenderError::Template {
                file: path.to_owned(),
                text,
            }
        }
    }
}

fn parse(text: &str, path: &str) -> Result<Vec<Document>, RenderError> {
    let parsed = manifest::parse(text, path);
    match parsed.malformed.into_iter().next() {
        Some(bad) => Err(RenderError::Yaml(bad.source, bad.text)),
        None => Ok(parsed.documents),
    }
}

/// JSON as templates see it.
fn to_data(value: &Value) -> Data {
    match value {
        Value::Null => Data::Nil,
        Value::Bool(value) => Data::Bool(*value),
        Value::Number(number) => number
            .as_i64()
            .map(Data::Int)
            .or_else(|| number.as_f64().map(Data::Float))
            .unwrap_or(Data::Nil),
        Value::String(text) => Data::String(text.as_str().into()),
        Value::Array(items) => Data::List(items.iter().map(to_data).collect()),
        Value::Object(fields) => Data::Map(Arc::new(
            fields
                .iter()
                .map(|(name, value)| (name.as_str().into(), to_data(value)))
                .collect(),
        )),
    }
}

/// And back; a function value has no JSON.
fn to_json(data: &Data) -> Value {
    match data {
        Data::Bool(value) => json!(value),
        Data::Int(value) => json!(value),
        Data::Uint(value) => json!(value),
        // Whole numbers are written without a point, as Go writes them.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Data::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => json!(*value as i64),
        Data::Float(value) => json!(value),
        Data::String(text) => json!(&**text),
        Data::List(items) => items.iter().map(to_json).collect(),
        Data::Map(fields) => {
            let fields = fields.iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name.to_string(), to_json(value)))
                    .collect(),
            )
        }
        Data::Nil | Data::Function(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests;
