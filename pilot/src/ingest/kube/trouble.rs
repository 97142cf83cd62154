//! What keeps a kind from being read, as a sentence for the person who can repair it. Pure.

use kube::{Error, runtime::watcher};
use mesh_proto::kube::Kind;
use mesh_runtime::apiserver;

/// Troubles of one sort are said once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The right is missing.
    Forbidden(String),
    /// The server cannot be reached.
    Away(String),
    /// The server answers, but cannot serve now.
    Busy(String),
    /// What was being watched cannot be continued: it is listed anew.
    Expired,
    /// The kind is not served any more.
    NotServed,
    Other(String),
}

impl Trouble {
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Api(status) => Self::of_answer(status.code, &status.message),
            other => Self::Away(apiserver::chain(other)),
        }
    }

    /// What a watch complained about.
    pub fn of_watch(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of(error),
            watcher::Error::WatchError(status) => Self::of_answer(status.code, &status.message),
            watcher::Error::NoResourceVersion => Self::Expired,
        }
    }

    fn of_answer(code: u16, message: &str) -> Self {
        let message = message.trim();
        match code {
            403 => Self::Forbidden(message.to_owned()),
            404 => Self::NotServed,
            // Gone; or a version that this server has not reached (it was restored from a backup).
            410 | 400 | 504 => Self::Expired,
            401 | 429 | 500.. => Self::Busy(format!("{code}: {message}")),
            _ => Self::Other(format!("{code}: {message}")),
        }
    }

    /// Two of the same sort need not both be said.
    pub fn same_sort(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// What happened to the kind, and what to do. Empty where nobody needs to know.
    pub fn sentence(&self, kind: Kind, namespace: Option<&str>) -> String {
        let (plural, group) = (kind.plural(), kind.group());
        let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
        let role = if namespace.is_some() {
            "Role"
        } else {
            "ClusterRole"
        };
        match self {
            Self::Forbidden(message) => format!(
                "{plural}{place} may not be read ({message}); add to pilot's {role}: {{apiGroups: [\"{group}\"], resources: \
                 [\"{plural}\"], verbs: [list, watch]}}"
            ),
            Self::Away(why) => format!(
                "the API server cannot be reached ({why}); everything known stays in effect, and it is asked again"
            ),
            Self::Busy(why) => format!(
                "the API server does not serve {plural}{place} now ({why}); what is known of them stays in effect, and it is \
                 asked again"
            ),
            Self::NotServed => format!(
                "{plural}.{group} is not defined in this cluster, so nobody can write one; install the CRDs (`meshctl \
                 install`, or the chart `base`): it is looked for again"
            ),
            Self::Expired => String::new(),
            Self::Other(why) => format!("{plural}{place} cannot be read ({why}); it is tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16) -> Error {
        let status =
            serde_json::json!({"status": "Failure", "code": code, "message": "because", "reason": ""});
        Error::Api(Box::new(serde_json::from_value(status).expect("a status")))
    }

    #[test]
    fn sorts() {
        let sort = |code: u16| Trouble::of(&answer(code));
        assert!(matches!(sort(403), Trouble::Forbidden(_)));
        assert!(matches!(sort(503), Trouble::Busy(_)));
        assert!(matches!(sort(422), Trouble::Other(_)));
        assert_eq!((sort(404), sort(410)), (Trouble::NotServed, Trouble::Expired));
        let away = Trouble::of(&Error::Service(std::io::Error::other("refused").into()));
        assert!(matches!(away, Trouble::Away(_)));
        assert!(sort(500).same_sort(&sort(429)) && !away.same_sort(&sort(500)));
    }

    #[test]
    fn sentences_say_what_to_do() {
        let text = Trouble::of(&answer(403)).sentence(Kind::EndpointSlice, None);
        assert!(
            text.contains("because")
                && text.contains(
                    "ClusterRole: {apiGroups: [\"discovery.k8s.io\"], resources: [\"endpointslices\"], verbs: [list, watch]}"
                ),
            "{text}"
        );
        let text = Trouble::Forbidden(String::new()).sentence(Kind::ConfigMap, Some("istio-system"));
        assert!(text.contains("pilot's Role:"), "{text}");
        let text = Trouble::NotServed.sentence(Kind::VirtualService, None);
        assert!(
            text.starts_with("virtualservices.networking.istio.io is not defined"),
            "{text}"
        );
    }
}
