//! The status of one object. Pure. In Istio's form: a condition `Reconciled`, and what is wrong with the object as
//! `validationMessages`.

use mesh_proto::finding::{Finding, Level};
use serde_json::{Value, json};

/// The condition that is ours; those of others stay.
const RECONCILED: &str = "Reconciled";
/// Messages in one status, at most.
const MESSAGES: usize = 20;
/// Where codes that Istio has too are explained.
const PAGES: &str = "https://istio.io/latest/docs/reference/config/analysis/";

/// What is known about an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Of the version that pilot has read.
    pub generation: Option<i64>,
    /// That version is in effect; one with an error is not, and the last good one stays.
    pub in_effect: bool,
    pub delivery: Delivery,
    /// Worst first.
    pub findings: Vec<Finding>,
}

/// Have the proxies got it?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// All that are connected, as far as it concerns them.
    Done,
    /// For so long that somebody should look.
    Late,
}

/// The status as it should be; `None` if it is. `now` is written where the condition changes.
pub fn status(facts: &Facts, before: &Value, now: &str) -> Option<Value> {
    let (state, reason, message) = verdict(facts);
    let mut condition = json!({
        "type": RECONCILED,
        "status": state,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
    });
    if let Some(generation) = facts.generation {
        condition["observedGeneration"] = generation.into();
    }
    let mut status = if before.is_object() {
        before.clone()
    } else {
        json!({})
    };
    let mut conditions: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
    match conditions.iter_mut().find(|one| one["type"] == RECONCILED) {
        Some(known) => {
            if known["status"] == condition["status"] && !known["lastTransitionTime"].is_null() {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
    status["conditions"] = Value::Array(conditions);
    let messages: Vec<Value> = facts.findings.iter().take(MESSAGES).map(message_of).collect();
    match (messages.is_empty(), status.as_object_mut()) {
        (true, Some(status)) => drop(status.remove("validationMessages")),
        _ => status["validationMessages"] = Value::Array(messages),
    }
    if let Some(generation) = facts.generation {
        status["observedGeneration"] = generation.into();
    }
    (status != *before).then_some(status)
}

fn verdict(facts: &Facts) -> (&'static str, &'static str, String) {
    if !facts.in_effect {
        let why = facts.findings.iter().find(|finding| finding.is_error());
        let why = why.map_or_else(String::new, |finding| {
            format!(": {}: {}", finding.path, finding.text)
        });
        return (
            "False",
            "Invalid",
            format!("this version is not in effect, the last good one is{why}"),
        );
    }
    match facts.delivery {
        Delivery::Done => (
            "True",
            "InEffect",
            "all connected proxies that it concerns have it".to_owned(),
        ),
        Delivery::Late => (
            "False",
            "WaitingForProxies",
            "not all connected proxies have taken it; `meshctl proxy-status` shows which".to_owned(),
        ),
    }
}

fn message_of(finding: &Finding) -> Value {
    let level = match finding.level {
        Level::Error => "ERROR",
        Level::Warning => "WARNING",
        Level::Info => "INFO",
    };
    let mut message = json!({
        "type": { "code": finding.code, "name": finding.name },
        "level": level,
        "message": if finding.path.is_empty() {
            finding.text.clone()
        } else {
            format!("{}: {}", finding.path, finding.text)
        },
    });
    if finding.code.starts_with("IST") {
        message["documentationUrl"] = format!("{PAGES}{}/", finding.code.to_ascii_lowercase()).into();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::finding::{self, ObjectRef};

    fn facts(in_effect: bool, findings: Vec<Finding>) -> Facts {
        Facts {
            generation: Some(3),
            in_effect,
            delivery: Delivery::Done,
            findings,
        }
    }

    #[test]
    fn written_only_when_it_differs() {
        let good = facts(true, Vec::new());
        let first = status(&good, &Value::Null, "t1").expect("a status");
        assert_eq!(
            first,
            json!({"observedGeneration": 3, "conditions": [{"type": "Reconciled", "status": "True", "reason": "InEffect",
                "message": "all connected proxies that it concerns have it", "lastTransitionTime": "t1",
                "observedGeneration": 3}]})
        );
        assert_eq!(status(&good, &first, "t2"), None);
        // The next generation, in the same state: the time of the transition stays.
        let next = Facts {
            generation: Some(4),
            ..good
        };
        let second = status(&next, &first, "t2").expect("a status");
        assert_eq!(second["conditions"][0]["lastTransitionTime"], "t1");
        assert_eq!(second["observedGeneration"], 4);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let object = ObjectRef::new("VirtualService", "ns", "a");
        let error = Finding::new(
            finding::SCHEMA_VALIDATION_ERROR,
            object,
            "spec.http[0].timeout",
            "no duration",
        );
        let other = json!({"conditions": [{"type": "Theirs", "status": "True"}]});
        let bad = status(&facts(false, vec![error]), &other, "t1").expect("a status");
        assert_eq!(bad["conditions"][0]["type"], "Theirs");
        let ours = &bad["conditions"][1];
        assert_eq!(
            (&ours["status"], &ours["reason"]),
            (&json!("False"), &json!("Invalid"))
        );
        let message = &bad["validationMessages"][0];
        assert_eq!(
            message["type"],
            json!({"code": "IST0106", "name": "SchemaValidationError"})
        );
        assert_eq!(message["message"], "spec.http[0].timeout: no duration");
        assert!(
            message["documentationUrl"]
                .as_str()
                .is_some_and(|url| url.ends_with("/ist0106/"))
        );
        // Mended: the messages go.
        let mended = status(&facts(true, Vec::new()), &bad, "t2").expect("a status");
        assert_eq!(mended.get("validationMessages"), None);
        assert_eq!(mended["conditions"][1]["lastTransitionTime"], "t2");
    }
}
