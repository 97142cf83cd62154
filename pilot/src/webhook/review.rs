//! `admission.k8s.io/v1` AdmissionReview: the question of the API server, and the answer
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// Kubernetes cuts what is longer: a warning, and all of them together.
const WARNING: usize = 250;
const WARNINGS: usize = 15;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    #[serde(default)]
    api_version: String,
    request: Option<Request>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE`.
    pub operation: String,
    pub namespace: String,
    /// Empty where the API server has not made it up yet.
    pub name: String,
    pub object: Value,
    pub old_object: Value,
    pub dry_run: bool,
}

impl Review {
    /// The question in a body.
    pub fn read(body: &[u8]) -> Result<Request, String> {
        let review: Self =
            serde_json::from_slice(body).map_err(|error| format!("this is no AdmissionReview: {error}"))?;
        if review.api_version != API_VERSION {
            return Err(format!(
                "AdmissionReview of {:?} is not understood; set admissionReviewVersions: [v1]",
                review.api_version
            ));
        }
        review
            .request
            .ok_or_else(|| "AdmissionReview without a request".into())
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    uid: String,
    verdict: Verdict,
    warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// With the operations of a JSON patch.
    Allowed(Vec<Value>),
    Denied {
        code: u16,
        reason: &'static str,
        message: String,
    },
}

impl Answer {
    pub fn allow(request: &Request) -> Self {
        Self::patch(request, Vec::new())
    }

    pub fn patch(request: &Request, operations: Vec<Value>) -> Self {
        Self {
            uid: request.uid.clone(),
            verdict: Verdict::Allowed(operations),
            warnings: Vec::new(),
        }
    }

    /// The object is wrong.
    pub fn deny(request: &Request, message: String) -> Self {
        Self {
            uid: request.uid.clone(),
            verdict: Verdict::Denied {
                code: 422,
                reason: "Invalid",
                message,
            },
            warnings: Vec::new(),
        }
    }

    /// Nobody knows whether it is wrong.
    pub fn fail(request: &Request, message: String) -> Self {
        Self {
            uid: request.uid.clone(),
            verdict: Verdict::Denied {
                code: 500,
                reason: "InternalError",
                message,
            },
            warnings: Vec::new(),
        }
    }

    #[must_use]
    pub fn warn(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        let room = WARNINGS.saturating_sub(self.warnings.len());
        self.warnings.extend(warnings.into_iter().take(room).map(cut));
        self
    }

    pub fn is_allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allowed(_))
    }

    #[cfg(test)]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    #[cfg(test)]
    pub fn message(&self) -> &str {
        match &self.verdict {
            Verdict::Allowed(_) => "",
            Verdict::Denied { message, .. } => message,
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > WARNING {
        let end = (0..=WARNING)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut response = json!({ "uid": self.uid });
        match &self.verdict {
            Verdict::Allowed(operations) => {
                response["allowed"] = true.into();
                if !operations.is_empty() {
                    let patch = Value::Array(operations.clone()).to_string();
                    response["patchType"] = "JSONPatch".into();
                    response["patch"] = STANDARD.encode(patch).into();
                }
            }
            Verdict::Denied {
                code,
                reason,
                message,
            } => {
                response["allowed"] = false.into();
                response["status"] =
                    json!({ "status": "Failure", "code": code, "reason": reason, "message": message });
            }
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response }).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let read = |version: &str| {
            let body = json!({"apiVersion": version, "kind": KIND, "request": {"uid": "u", "operation": "CREATE",
                "kind": {"kind": "Pod"}, "object": {"a": 1}, "oldObject": null, "options": null}});
            Review::read(body.to_string().as_bytes())
        };
        let request = read(API_VERSION).expect("a question");
        assert_eq!(
            (request.uid.as_str(), request.operation.as_str()),
            ("u", "CREATE")
        );
        assert_eq!(request.object, json!({"a": 1}));
        assert!(read("admission.k8s.io/v1beta1").is_err_and(|problem| problem.contains("v1beta1")));
        assert!(
            Review::read(b"x").is_err() && Review::read(b"{\"apiVersion\":\"admission.k8s.io/v1\"}").is_err()
        );
    }

    #[test]
    fn answers() {
        let request = Request {
            uid: "u".into(),
            ..Request::default()
        };
        let show = |answer: Answer| serde_json::to_value(answer).expect("JSON")["response"].clone();
        assert_eq!(
            show(Answer::allow(&request)),
            json!({"uid": "u", "allowed": true})
        );
        let patched = show(Answer::patch(
            &request,
            vec![json!({"op": "remove", "path": "/a"})],
        ));
        assert_eq!(
            patched["patch"],
            STANDARD.encode(r#"[{"op":"remove","path":"/a"}]"#)
        );
        let denied = show(Answer::deny(&request, "no".into()));
        assert_eq!(
            (&denied["allowed"], &denied["status"]["message"]),
            (&json!(false), &json!("no"))
        );
        let long = "ä".repeat(200);
        let warned = Answer::allow(&request).warn(vec![long; 40]);
        assert_eq!(warned.warnings().len(), WARNINGS);
        assert!(warned.warnings()[0].len() <= WARNING + "…".len());
    }
}
