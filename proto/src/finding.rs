//! Findings: what is wrong, or odd, with what a user wrote. Bad input is data here, never a failure of the reader.
//!
//! Codes, names and levels are Istio's where it has them (<https://istio.io/latest/docs/reference/config/analysis/>), so
//! that users find their knowledge (and their `--suppress` lists) again; ours begin with `GSM`. The table [`CODES`] is
//! the only place where a code is made; `docs/reference/findings.md` is generated from it.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

mod codes;

pub use codes::*;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Works, but probably not as meant.
    Warning,
    /// Has no effect, or fails requests. An object that has an error alone is not taken; its last good version stays.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        })
    }
}

/// The object that a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// As in YAML (`VirtualService`); `File` for a file that cannot be read as objects.
    pub kind: String,
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    pub name: String,
}

impl ObjectRef {
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// `VirtualService default/reviews`
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub code: Cow<'static, str>,
    pub name: Cow<'static, str>,
    pub level: Level,
    pub object: ObjectRef,
    /// The field, such as `spec.http[0].route[1].destination.host`; empty when it is about the object as a whole.
    pub path: String,
    /// What is wrong, why that matters, what to do.
    pub text: String,
    /// `file:line`, or `file:line:column`, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Finding {
    pub fn new(code: Code, object: ObjectRef, path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            code: code.code.into(),
            name: code.name.into(),
            level: code.level,
            object,
            path: path.into(),
            text: text.into(),
            source: None,
        }
    }

    #[must_use]
    pub fn at(mut self, source: Option<String>) -> Self {
        self.source = source;
        self
    }

    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }

    /// Worst first, then by object, field and code: the order in which people want to read.
    pub fn order(&self) -> impl Ord + '_ {
        (
            std::cmp::Reverse(self.level),
            &self.object,
            &self.path,
            &self.code,
        )
    }
}

/// `Error [IST0101] (VirtualService default/reviews, bookinfo.yaml:12) spec.hosts[0]: …`, as istioctl prints it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] ({}", self.level, self.code, self.object)?;
        if let Some(source) = &self.source {
            write!(f, ", {source}")?;
        }
        f.write_str(") ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// Gathers the findings about one object.
#[derive(Clone, Debug)]
pub struct Report {
    object: ObjectRef,
    source: Option<String>,
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn new(object: ObjectRef, source: Option<String>) -> Self {
        Self {
            object,
            source,
            findings: Vec::new(),
        }
    }

    pub fn add(&mut self, code: Code, path: impl Into<String>, text: impl Into<String>) {
        self.findings
            .push(Finding::new(code, self.object.clone(), path, text).at(self.source.clone()));
    }

    /// The object cannot be taken.
    pub fn error(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.add(SCHEMA_VALIDATION_ERROR, path, text);
    }

    pub fn warn(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.add(SCHEMA_WARNING, path, text);
    }

    /// A field of Istio's API that has no effect here.
    pub fn unsupported(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.add(NOT_SUPPORTED, path, text);
    }

    /// A field of Istio's API without which the object would mean something else: the object is not taken.
    pub fn refuse_unsupported(&mut self, path: impl Into<String>, text: impl Into<String>) {
        let finding = Finding::new(NOT_SUPPORTED, self.object.clone(), path, text).level(Level::Error);
        self.findings.push(finding.at(self.source.clone()));
    }

    pub fn has_error(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ordered_and_unique() {
        let istio: Vec<&str> = CODES
            .iter()
            .map(|code| code.code)
            .filter(|code| code.starts_with("IST"))
            .collect();
        assert!(istio.is_sorted_by(|a, b| a < b), "{istio:?}");
        let mut names: Vec<&str> = CODES.iter().map(|code| code.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CODES.len());
    }

    #[test]
    fn reads_what_it_writes() {
        let object = ObjectRef::new("VirtualService", "default", "reviews");
        let finding = Finding::new(
            REFERENCED_RESOURCE_NOT_FOUND,
            object,
            "spec.hosts[0]",
            "not there",
        )
        .at(Some("a.yaml:3".into()));
        assert_eq!(
            finding.to_string(),
            "Error [IST0101] (VirtualService default/reviews, a.yaml:3) spec.hosts[0]: not there"
        );
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }
}
