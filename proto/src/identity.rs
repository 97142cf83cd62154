//! Workload identity: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`
//! (SPIFFE-ID §2, <https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>).

use std::{fmt, str::FromStr};

/// A trust domain: the name of one mesh's certificate authority, lower-case letters, digits, `.`, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// What is wrong with an identity or a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("trust domain {0:?} must be 1 to 255 of lower-case letters, digits, '.', '-' and '_'")]
    TrustDomain(String),
    #[error("{0:?} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
}

impl TrustDomain {
    pub fn new(name: &str) -> Result<Self, IdentityError> {
        let valid = (1..=255).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(IdentityError::TrustDomain(name.to_owned()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self(crate::names::CLUSTER_DOMAIN.to_owned())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

/// The identity of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    pub trust_domain: TrustDomain,
    pub namespace: String,
    pub service_account: String,
}

impl SpiffeId {
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        let id = Self {
            trust_domain,
            namespace: namespace.into(),
            service_account: service_account.into(),
        };
        if segment(namespace) && segment(service_account) {
            Ok(id)
        } else {
            Err(IdentityError::Form(id.to_string()))
        }
    }
}

/// A path segment of a SPIFFE id (SPIFFE-ID §2.2): not empty, not a dot segment, letters, digits, `.`, `-`, `_`.
fn segment(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || IdentityError::Form(text.to_owned());
        let mut parts = text.strip_prefix("spiffe://").ok_or_else(form)?.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(form());
        };
        Self::new(TrustDomain::new(domain)?, namespace, account)
    }
}

/// Namespace and account of the daemon behind an address such as `pilot-canary.istio-system.svc:15012`: daemons of the
/// control plane run under accounts that have their Service's name. None for an address that names no Service.
pub fn account_behind(address: &str) -> Option<(&str, &str)> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let mut labels = host.split('.');
    let (account, namespace) = (labels.next()?, labels.next()?);
    (labels.next()? == "svc").then_some((namespace, account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_behind_addresses() {
        for (address, expect) in [
            ("pilot.istio-system.svc:15012", Some(("istio-system", "pilot"))),
            ("pilot-v2.mesh.svc.cluster.local", Some(("mesh", "pilot-v2"))),
            ("10.0.0.1:15012", None),
            ("localhost:15012", None),
            ("[::1]:15012", None),
        ] {
            assert_eq!(account_behind(address), expect, "{address}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let id = SpiffeId::new(TrustDomain::default(), "default", "bookinfo-reviews").unwrap();
        assert_eq!(
            id.to_string(),
            "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
        );
        assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
    }

    #[test]
    fn refuses_other_forms() {
        for text in [
            "",
            "spiffe://",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/sa/b/ns/a",
            "spiffe://cluster.local/ns/a/sa/b%2f",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
