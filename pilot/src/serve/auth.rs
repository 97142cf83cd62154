//! Is the proxy who it says it is? Its certificate proves a namespace and a service account; its node id and metadata
//! claim them, and must agree. Pure.

use mesh_proto::{
    identity::{SpiffeId, TrustDomain},
    node::{NodeId, NodeMetadata},
};

/// Why a proxy was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("no client certificate with a mesh identity: connect with the workload certificate from citadel")]
    Nothing,
    #[error("certificate is for trust domain {found}, this mesh is {expected}")]
    Domain { found: String, expected: String },
    #[error(
        "node id or metadata says namespace {claimed:?}, the certificate proves {proven:?}: the proxy's pod and its certificate do not belong together"
    )]
    Namespace { claimed: String, proven: String },
    #[error(
        "node metadata says service account {claimed:?}, the certificate proves {proven:?}: the proxy's pod and its certificate do not belong together"
    )]
    Account { claimed: String, proven: String },
}

/// The identity that a certificate's URI names prove.
pub fn proven(uris: &[String], domain: &TrustDomain) -> Result<SpiffeId, AuthError> {
    let ids: Vec<SpiffeId> = uris.iter().filter_map(|uri| uri.parse().ok()).collect();
    if let Some(id) = ids.iter().find(|id| id.trust_domain == *domain) {
        return Ok(id.clone());
    }
    Err(match ids.first() {
        None => AuthError::Nothing,
        Some(other) => AuthError::Domain {
            found: other.trust_domain.to_string(),
            expected: domain.to_string(),
        },
    })
}

/// Claims that contradict the proof are refused; those that are not made are not missed.
pub fn agree(id: &NodeId, metadata: &NodeMetadata, proven: &SpiffeId) -> Result<(), AuthError> {
    for claimed in [&id.namespace, &metadata.namespace] {
        if !claimed.is_empty() && *claimed != proven.namespace {
            return Err(AuthError::Namespace {
                claimed: claimed.clone(),
                proven: proven.namespace.clone(),
            });
        }
    }
    let claimed = &metadata.service_account;
    if !claimed.is_empty() && *claimed != proven.service_account {
        return Err(AuthError::Account {
            claimed: claimed.clone(),
            proven: proven.service_account.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uris: &[&str]) -> Result<String, AuthError> {
        let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        proven(&uris, &TrustDomain::default()).map(|id| id.to_string())
    }

    #[test]
    fn only_the_mesh_proves() {
        assert_eq!(check(&[]), Err(AuthError::Nothing));
        assert_eq!(check(&["https://a"]), Err(AuthError::Nothing));
        assert!(matches!(
            check(&["spiffe://other/ns/a/sa/b"]),
            Err(AuthError::Domain { .. })
        ));
        assert!(check(&["spiffe://cluster.local/ns/a/sa/b"]).is_ok());
    }

    #[test]
    fn claims_must_agree() {
        let proven: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        let id = |namespace: &str| -> NodeId { format!("sidecar~10.0.0.1~p.{namespace}~x").parse().unwrap() };
        let metadata = |namespace: &str, account: &str| NodeMetadata {
            namespace: namespace.into(),
            service_account: account.into(),
            ..NodeMetadata::default()
        };
        assert_eq!(agree(&id("a"), &metadata("a", "b"), &proven), Ok(()));
        assert_eq!(agree(&id("a"), &metadata("", ""), &proven), Ok(()));
        assert!(matches!(
            agree(&id("x"), &metadata("a", "b"), &proven),
            Err(AuthError::Namespace { .. })
        ));
        assert!(matches!(
            agree(&id("a"), &metadata("x", "b"), &proven),
            Err(AuthError::Namespace { .. })
        ));
        assert!(matches!(
            agree(&id("a"), &metadata("a", "x"), &proven),
            Err(AuthError::Account { .. })
        ));
    }
}
