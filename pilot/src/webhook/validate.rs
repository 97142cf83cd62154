//! `/validate`: an object of the mesh's kinds, before Kubernetes stores it. The same checks of one object alone as
//! everywhere ([`mesh_proto::validate`]); what is wrong between objects is left to analysis, because the other object may
//! come next.
//!
//! What it promises: an object that pilot would not take is not stored; an object that is being deleted, or whose content
//! does not change, is never held up, so that what is stored already can be labelled and removed.

use mesh_proto::{
    finding::Finding,
    kube::{Manifest, ObjectKey},
    validate,
};
use serde_json::Value;

use super::review::{Answer, Request};
use crate::metrics::Metrics;

/// Errors in one refusal, at most.
const ERRORS: usize = 10;

#[derive(Clone, Debug)]
pub struct Validator {
    metrics: Metrics,
}

impl Validator {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    pub fn answer(&self, request: Request) -> Answer {
        let answer = judge(&request);
        let outcome = if answer.is_allowed() {
            "accepted"
        } else {
            "refused"
        };
        self.metrics.validated(outcome).inc();
        answer
    }
}

fn judge(request: &Request) -> Answer {
    let deleting = request.object.pointer("/metadata/deletionTimestamp").is_some();
    if request.operation == "DELETE" || request.object.is_null() || deleting {
        return Answer::allow(request);
    }
    let manifest = match Manifest::read(named(request), None) {
        Ok(manifest) => manifest,
        // Not a kind that the mesh reads: somebody may still want to store it.
        Err(finding) if !finding.is_error() => return Answer::allow(request).warn([tell(&finding)]),
        Err(finding) => return Answer::deny(request, tell(&finding)),
    };
    let findings = validate::check(&manifest);
    let (errors, others): (Vec<&Finding>, Vec<&Finding>) =
        findings.iter().partition(|finding| finding.is_error());
    let unchanged = request.operation == "UPDATE" && same_content(&request.object, &request.old_object);
    if errors.is_empty() || unchanged {
        return Answer::allow(request).warn(errors.into_iter().chain(others).map(tell));
    }
    let more = errors.len().saturating_sub(ERRORS);
    let mut lines: Vec<String> = errors.iter().take(ERRORS).map(|finding| tell(finding)).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Answer::deny(request, lines.join("; ")).warn(others.into_iter().map(tell))
}

/// With the name and the namespace that the API server knows; a name that it has not made up yet gets a stand-in.
fn named(request: &Request) -> Value {
    let mut value = request.object.clone();
    let key = ObjectKey::new(&request.namespace, &request.name);
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let name = [
        text(&value, "/metadata/name"),
        key.name,
        text(&value, "/metadata/generateName"),
    ];
    let name = name.into_iter().find(|name| !name.is_empty());
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(name) = name {
            metadata.insert("name".into(), name.into());
        }
        if !key.namespace.is_empty() {
            metadata.insert("namespace".into(), key.namespace.into());
        }
    }
    value
}

/// Nothing but metadata or status differs.
fn same_content(new: &Value, old: &Value) -> bool {
    let content = |value: &Value| {
        let mut value = value.clone();
        if let Some(object) = value.as_object_mut() {
            object.remove("metadata");
            object.remove("status");
        }
        value
    };
    !old.is_null() && content(new) == content(old)
}

/// `IST0106 spec.http[0].timeout: …`
fn tell(finding: &Finding) -> String {
    if finding.path.is_empty() {
        format!("{} {}", finding.code, finding.text)
    } else {
        format!("{} {}: {}", finding.code, finding.path, finding.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn route(timeout: &str) -> Value {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"generateName": "a-"},
            "spec": {"hosts": ["a"], "http": [{"timeout": timeout, "route": [{"destination": {"host": "a"}}]}]}})
    }

    fn ask(operation: &str, object: Value, old_object: Value) -> Answer {
        judge(&Request {
            operation: operation.into(),
            namespace: "ns".into(),
            object,
            old_object,
            ..Request::default()
        })
    }

    #[test]
    fn a_bad_object_is_refused_with_code_and_field() {
        assert!(ask("CREATE", route("5s"), Value::Null).is_allowed());
        let refused = ask("CREATE", route("5 parsecs"), Value::Null);
        assert!(!refused.is_allowed());
        assert!(
            refused.message().starts_with("IST0106 spec.http[0].timeout: "),
            "{}",
            refused.message()
        );
    }

    #[test]
    fn what_is_stored_already_can_be_changed_and_removed() {
        let bad = route("5 parsecs");
        let mut labelled = bad.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        let answer = ask("UPDATE", labelled, bad.clone());
        assert!(answer.is_allowed() && !answer.warnings().is_empty());
        assert!(!ask("UPDATE", route("6 parsecs"), bad.clone()).is_allowed());
        assert!(ask("DELETE", Value::Null, bad.clone()).is_allowed());
        let mut deleting = bad.clone();
        deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(ask("UPDATE", deleting, bad).is_allowed());
    }

    #[test]
    fn foreign_kinds_are_let_through() {
        let foreign = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}});
        assert!(ask("CREATE", foreign, Value::Null).is_allowed());
    }
}
