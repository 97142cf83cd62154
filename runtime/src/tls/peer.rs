//! Whom a peer must be: a rule over the URI names of its proven certificate.

/// Which URI names are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PeerNames {
    /// Every certificate of the mesh's roots.
    #[default]
    Any,
    /// One of these.
    Exact(Vec<String>),
    /// A name that begins so, such as `spiffe://cluster.local/`.
    Prefix(String),
}

impl PeerNames {
    /// Whether a certificate with these URI names is accepted.
    pub fn accept<S: AsRef<str>>(&self, uris: &[S]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(names) => uris
                .iter()
                .any(|uri| names.iter().any(|name| name == uri.as_ref())),
            Self::Prefix(prefix) => uris.iter().any(|uri| uri.as_ref().starts_with(prefix.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts() {
        let exact = PeerNames::Exact(vec!["spiffe://a/ns/x/sa/y".into(), "spiffe://a/ns/x/sa/z".into()]);
        let prefix = PeerNames::Prefix("spiffe://a/".into());
        for (rule, uris, expect) in [
            (&PeerNames::Any, vec![], true),
            (&exact, vec!["spiffe://a/ns/x/sa/z"], true),
            (&exact, vec!["spiffe://b/x", "spiffe://a/ns/x/sa/y"], true),
            (&exact, vec!["spiffe://a/ns/x/sa/yy"], false),
            (&exact, vec![], false),
            (&PeerNames::Exact(vec![]), vec!["spiffe://a/ns/x/sa/y"], false),
            (&prefix, vec!["spiffe://a/ns/q/sa/q"], true),
            (&prefix, vec!["spiffe://ab/ns/q/sa/q"], false),
        ] {
            assert_eq!(rule.accept(&uris), expect, "{rule:?} {uris:?}");
        }
    }
}
