//! Host names of services, routes and gateways, possibly with a wildcard as the first label.

use std::{borrow::Borrow, fmt};

/// A lower-case DNS name, `*.` and a name, `*`, or an address. No port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

impl Host {
    /// Lower-cases; does not judge (`validate` does).
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches('.').to_ascii_lowercase())
    }

    /// A short name means a service of `namespace`; a name with a dot, a wildcard and an address stand for themselves.
    pub fn resolve(text: &str, namespace: &str, domain: &str) -> Self {
        if text.is_empty() || text.contains(['.', '*', ':']) {
            Self::new(text)
        } else {
            Self::of_service(text, namespace, domain)
        }
    }

    /// `reviews.default.svc.cluster.local`
    pub fn of_service(name: &str, namespace: &str, domain: &str) -> Self {
        Self::new(&format!("{name}.{namespace}.svc.{domain}"))
    }

    /// The name and namespace of the Kubernetes service that has this name.
    pub fn as_service(&self, domain: &str) -> Option<(&str, &str)> {
        let rest = self.as_str().strip_suffix(domain)?.strip_suffix(".svc.")?;
        let (name, namespace) = rest.split_once('.')?;
        (!name.is_empty() && !namespace.contains('.')).then_some((name, namespace))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `*` or `*.something`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Is every name that `other` stands for also one that `self` stands for?
    pub fn covers(&self, other: &Self) -> bool {
        match self.0.strip_prefix('*') {
            None => self.0 == other.0,
            Some("") => true,
            // `*.a.b` covers `x.a.b`, `x.y.a.b`, `*.a.b` and `*.x.a.b`, but not `a.b`.
            Some(suffix) => {
                let name = other.0.strip_prefix('*').unwrap_or(&other.0);
                name.ends_with(suffix) && (other.is_wildcard() || name.len() > suffix.len())
            }
        }
    }

    /// Is there a name that both stand for?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The narrower of two overlapping hosts.
    pub fn narrower<'a>(&'a self, other: &'a Self) -> &'a Self {
        if self.covers(other) { other } else { self }
    }

    /// Sorts the most specific first: exact before wildcard, longer before shorter.
    pub fn specificity(&self) -> impl Ord + use<> {
        (self.is_wildcard(), usize::MAX - self.0.len())
    }
}

/// The most specific of `hosts` that covers `host`.
pub fn most_specific<'a>(host: &Host, hosts: impl IntoIterator<Item = &'a Host>) -> Option<&'a Host> {
    hosts
        .into_iter()
        .filter(|candidate| candidate.covers(host))
        .min_by_key(|candidate| candidate.specificity())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Host {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wide: &str, narrow: &str, expect: bool) {
        assert_eq!(
            Host::new(wide).covers(&Host::new(narrow)),
            expect,
            "{wide} covers {narrow}"
        );
    }

    #[test]
    fn covers() {
        check("a.b", "A.b.", true);
        check("a.b", "x.a.b", false);
        check("*", "*", true);
        check("*", "a", true);
        check("*.b", "a.b", true);
        check("*.b", "c.a.b", true);
        check("*.b", "b", false);
        check("*.b", "*.a.b", true);
        check("*.a.b", "*.b", false);
        check("*.b", "*.b", true);
        check("a.b", "*.b", false);
    }

    #[test]
    fn resolves_short_names_only() {
        let check = |text: &str, expect: &str| {
            assert_eq!(
                Host::resolve(text, "ns", "cluster.local").as_str(),
                expect,
                "{text}"
            );
        };
        check("reviews", "reviews.ns.svc.cluster.local");
        check("reviews.other", "reviews.other");
        check("*", "*");
        check("*.example.com", "*.example.com");
        check("2001:db8::1", "2001:db8::1");
    }

    #[test]
    fn finds_the_most_specific() {
        let hosts = ["*", "*.com", "*.example.com", "a.example.com"].map(Host::new);
        let find = |text: &str| most_specific(&Host::new(text), &hosts).map(Host::as_str);
        assert_eq!(find("a.example.com"), Some("a.example.com"));
        assert_eq!(find("b.example.com"), Some("*.example.com"));
        assert_eq!(find("example.com"), Some("*.com"));
        assert_eq!(find("example.org"), Some("*"));
    }
}
