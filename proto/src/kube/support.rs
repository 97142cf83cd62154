//! What the mesh does with each field of the resource API: the table behind the findings about fields that have no
//! effect yet, and behind the page `docs/reference/api-support.md`.
//!
//! Every field that the types have must stand in the table (a test says so), so that a new field cannot be decoded and
//! forgotten. A field that a user sets and that is not carried out becomes a finding; nothing is ignored in silence.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Kind, Manifest};
use crate::finding::Report;

mod page;
mod table;

pub use page::page;

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// What its description says.
    Supported,
    /// So too, except for what the text says; `validate` tells where that is used.
    Partly(&'static str),
    /// Nothing yet, and the rest of the object counts: a warning.
    Planned(&'static str),
    /// Nothing yet, and without it the object would mean something else: the object is not taken.
    Refused(&'static str),
    /// Nothing, neither here nor in Istio: a warning.
    Never(&'static str),
}

/// Some fields below `parent` (empty: of the spec itself), with spaces between, all in the same state.
struct Row {
    parent: &'static str,
    fields: &'static str,
    state: State,
}

impl Row {
    fn has(&self, path: &str) -> bool {
        let below = match self.parent {
            "" => Some(path),
            parent => path.strip_prefix(parent).and_then(|rest| rest.strip_prefix('.')),
        };
        below.is_some_and(|below| self.fields.split_ascii_whitespace().any(|field| field == below))
    }
}

/// The state of a field, given its path in the schema: `http[].match[].statPrefix`. Fields below a row share its state.
pub fn state(kind: Kind, path: &str) -> Option<State> {
    let path = one_of_its_kind(kind, path);
    let mut rest = path.as_str();
    loop {
        if let Some(state) = exact(kind, rest) {
            return Some(state);
        }
        rest = match rest.strip_suffix("[]") {
            Some(list) => list,
            None => rest.rsplit_once('.').map_or("", |(parent, _)| parent),
        };
        if rest.is_empty() {
            return table::whole(kind);
        }
    }
}

fn exact(kind: Kind, path: &str) -> Option<State> {
    table::rows(kind)
        .iter()
        .find(|row| row.has(path))
        .map(|row| row.state)
}

/// The policies of a DestinationRule's subsets and ports have the fields of the policy of the whole host.
fn one_of_its_kind(kind: Kind, path: &str) -> String {
    if kind != Kind::DestinationRule {
        return path.to_owned();
    }
    let path = match path.strip_prefix("subsets[].") {
        Some(rest) if rest.starts_with("trafficPolicy") => rest,
        _ => path,
    };
    match path.strip_prefix("trafficPolicy.portLevelSettings[].") {
        Some(rest) if !rest.starts_with("port.") && rest != "port" => format!("trafficPolicy.{rest}"),
        _ => path.to_owned(),
    }
}

/// Findings about the fields that an object uses and that are not carried out.
pub fn check(manifest: &Manifest, report: &mut Report) {
    let Some(spec) = manifest.value.get("spec") else {
        return;
    };
    if let Some(State::Planned(text)) = table::whole(manifest.kind) {
        report.unsupported("spec", text);
        return;
    }
    if table::rows(manifest.kind).is_empty() {
        return;
    }
    let mut walk = Walk {
        kind: manifest.kind,
        pattern: String::new(),
        path: "spec".to_owned(),
        report,
    };
    walk.object(spec);
}

struct Walk<'a> {
    kind: Kind,
    /// As in the table.
    pattern: String,
    /// As in the object.
    path: String,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn object(&mut self, value: &Value) {
        let Value::Object(fields) = value else { return };
        for (name, value) in fields {
            if !is_said(value) {
                continue;
            }
            let (pattern, path) = (self.pattern.len(), self.path.len());
            if pattern > 0 {
                self.pattern.push('.');
            }
            self.pattern.push_str(name);
            // Writing to a string cannot fail.
            let _ = write!(self.path, ".{name}");
            self.field(value);
            self.pattern.truncate(pattern);
            self.path.truncate(path);
        }
    }

    fn field(&mut self, value: &Value) {
        match exact(self.kind, &one_of_its_kind(self.kind, &self.pattern)) {
            Some(State::Planned(text) | State::Never(text)) => self.report.unsupported(&self.path, text),
            Some(State::Refused(text)) => self.report.refuse_unsupported(&self.path, text),
            Some(State::Supported | State::Partly(_)) | None => match value {
                Value::Array(list) => {
                    let (pattern, path) = (self.pattern.len(), self.path.len());
                    self.pattern.push_str("[]");
                    for (i, element) in list.iter().enumerate() {
                        let _ = write!(self.path, "[{i}]");
                        self.object(element);
                        self.path.truncate(path);
                    }
                    self.pattern.truncate(pattern);
                }
                _ => self.object(value),
            },
        }
    }
}

/// What protobuf takes for not being there is not told. (An empty object is there.)
fn is_said(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::{crd, schema};

    #[test]
    fn every_field_stands_in_the_table() {
        for kind in Kind::ALL.iter().copied() {
            let Some(spec) = crd::spec(kind) else { continue };
            for (path, _) in schema::leaves(&spec) {
                assert!(
                    state(kind, &path).is_some(),
                    "{kind}: {path} is in no row of support/table.rs"
                );
            }
        }
    }

    #[test]
    fn every_row_is_a_field() {
        for kind in Kind::ALL.iter().copied() {
            let spec = crd::spec(kind);
            let mut seen = Vec::new();
            let paths = table::rows(kind).iter().flat_map(|row| {
                let fields = row.fields.split_ascii_whitespace();
                fields.map(|field| {
                    format!("{}.{field}", row.parent)
                        .trim_start_matches('.')
                        .to_owned()
                })
            });
            for path in paths {
                let spec = spec
                    .as_ref()
                    .unwrap_or_else(|| panic!("{kind} has rows, but no schema"));
                assert!(find(spec, &path).is_some(), "{kind} has no field {path}");
                assert!(!seen.contains(&path), "{kind}: {path} is there twice");
                seen.push(path);
            }
        }
    }

    fn find<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
        let mut schema = schema;
        for segment in path.split('.') {
            let name = segment.trim_end_matches("[]");
            schema = schema.get("properties")?.get(name)?;
            if segment.ends_with("[]") {
                schema = schema.get("items")?;
            }
        }
        Some(schema)
    }

    #[test]
    fn states() {
        let check = |kind: Kind, path: &str, expect: fn(&State) -> bool| {
            let state = state(kind, path);
            assert!(state.as_ref().is_some_and(expect), "{kind} {path}: {state:?}");
        };
        let supported = |state: &State| *state == State::Supported;
        check(Kind::VirtualService, "http[].match[].uri.exact", supported);
        check(Kind::VirtualService, "http[].match[].statPrefix", |state| {
            matches!(state, State::Partly(_))
        });
        check(Kind::DestinationRule, "trafficPolicy.tls.sni", supported);
        check(
            Kind::DestinationRule,
            "subsets[].trafficPolicy.portLevelSettings[].tls.sni",
            supported,
        );
        check(
            Kind::DestinationRule,
            "subsets[].trafficPolicy.tunnel.targetHost",
            |state| matches!(state, State::Partly(_)),
        );
        check(Kind::EnvoyFilter, "priority", |state| {
            matches!(state, State::Planned(_))
        });
    }

    #[test]
    fn fields_that_are_used() {
        use crate::validate::testing::found;
        let check = |kind: Kind, spec: &str, expect: &[&str]| assert_eq!(found(kind, spec), expect, "{spec}");
        check(
            Kind::VirtualService,
            "hosts: [a]\ntcp: [{match: [{sourceSubnet: '', port: 1}], route: [{destination: {host: a}}]}, \
             {match: [{sourceSubnet: 10.0.0.0/8, port: 2}], route: [{destination: {host: a}}]}]",
            &["Warning spec.tcp[1].match[0].sourceSubnet"],
        );
        check(
            Kind::DestinationRule,
            "host: a\nsubsets: [{name: v1, trafficPolicy: {portLevelSettings: [{port: {number: 80}, \
             loadBalancer: {simple: RANDOM, zoneAwareLbSetting: {minClusterSize: 2}}}]}}]",
            &["Warning spec.subsets[0].trafficPolicy.portLevelSettings[0].loadBalancer.zoneAwareLbSetting"],
        );
        check(
            Kind::AuthorizationPolicy,
            "targetRefs: [{kind: Service, name: a}]",
            &["Error spec.targetRefs"],
        );
    }
}
