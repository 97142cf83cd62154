//! Who must prove what: PeerAuthentication (mTLS) and RequestAuthentication (JWT).

use std::collections::BTreeMap;

use super::{Labels, Origin, Selector};

/// What an inbound port takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MtlsMode {
    /// Plain text only.
    Disable,
    /// Both. Istio's default.
    #[default]
    Permissive,
    /// The mesh's mutual TLS only.
    Strict,
}

impl MtlsMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAuthentication {
    pub origin: Origin,
    /// `None`: the whole namespace; in the root namespace, the whole mesh.
    pub selector: Option<Selector>,
    /// `None`: UNSET, which inherits.
    pub mode: Option<MtlsMode>,
    /// By the workload's port; `None` inherits this object's mode. Counts only with a selector.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// What counts for one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EffectiveMtls {
    pub mode: MtlsMode,
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl EffectiveMtls {
    pub fn for_port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// Workload's policy, else namespace's, else mesh's; at each level the oldest object counts.
pub fn effective<'a>(
    policies: impl IntoIterator<Item = &'a PeerAuthentication>,
    root_namespace: &str,
    namespace: &str,
    labels: &Labels,
) -> EffectiveMtls {
    let (mut mesh, mut own, mut workload): (Option<&PeerAuthentication>, _, _) = (None, None, None);
    for policy in policies {
        let slot = match &policy.selector {
            Some(selector) if policy.origin.namespace == namespace && selector.matches(labels) => {
                &mut workload
            }
            Some(_) => continue,
            None if policy.origin.namespace == namespace && namespace != root_namespace => &mut own,
            None if policy.origin.namespace == root_namespace => &mut mesh,
            None => continue,
        };
        if slot.is_none_or(|known| policy.origin.precedence() < known.origin.precedence()) {
            *slot = Some(policy);
        }
    }
    let inherited = [own, mesh]
        .into_iter()
        .flatten()
        .find_map(|policy| policy.mode)
        .unwrap_or_default();
    let mode = workload.and_then(|policy| policy.mode).unwrap_or(inherited);
    let ports = workload.map(|policy| &policy.ports).into_iter().flatten();
    EffectiveMtls {
        mode,
        ports: ports.map(|(port, own)| (*port, own.unwrap_or(mode))).collect(),
    }
}

/// Tokens that a workload's requests may carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestAuthentication {
    pub origin: Origin,
    pub selector: Option<Selector>,
    pub rules: Vec<JwtRule>,
}

impl RequestAuthentication {
    /// Does it concern a workload?
    pub fn applies_to(&self, root_namespace: &str, namespace: &str, labels: &Labels) -> bool {
        (self.origin.namespace == namespace || self.origin.namespace == root_namespace)
            && self
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(labels))
    }
}

/// Where an issuer's public keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeySource {
    /// In the rule itself.
    Inline(String),
    Uri(String),
    /// Where the issuer's own description says (OpenID Connect Discovery 1.0, §4).
    Issuer(String),
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("the object itself"),
            Self::Uri(uri) => f.write_str(uri),
            Self::Issuer(issuer) => write!(f, "issuer {issuer}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtRule {
    pub issuer: String,
    pub audiences: Vec<String>,
    pub keys: KeySource,
    /// Header and prefix.
    pub from_headers: Vec<(String, String)>,
    pub from_params: Vec<String>,
    pub from_cookies: Vec<String>,
    pub forward_original_token: bool,
    pub output_payload_to_header: Option<String>,
    /// Header and claim; dots lead into objects.
    pub output_claims: Vec<(String, String)>,
    /// Claims that are lists with spaces between, besides the usual ones.
    pub space_delimited: Vec<String>,
    /// A request without a token is refused.
    pub required: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    fn policy(
        namespace: &str,
        created: i64,
        selector: Option<Selector>,
        mode: Option<MtlsMode>,
        ports: &[(u16, Option<MtlsMode>)],
    ) -> PeerAuthentication {
        let origin = Origin {
            kind: Kind::PeerAuthentication,
            namespace: namespace.into(),
            name: format!("p{created}"),
            version: String::new(),
            created,
        };
        PeerAuthentication {
            origin,
            selector,
            mode,
            ports: ports.iter().copied().collect(),
        }
    }

    fn check(policies: &[PeerAuthentication], port: u16, expect: MtlsMode) {
        let labels = [("app".to_owned(), "a".to_owned())].into();
        assert_eq!(
            effective(policies, "root", "ns", &labels).for_port(port),
            expect,
            "{policies:?}"
        );
    }

    #[test]
    fn the_nearest_counts() {
        use MtlsMode::{Disable, Permissive, Strict};
        let app = || Some(Selector::from([("app", "a")]));
        check(&[], 80, Permissive);
        check(&[policy("root", 1, None, Some(Strict), &[])], 80, Strict);
        check(&[policy("other", 1, None, Some(Strict), &[])], 80, Permissive);
        check(
            &[
                policy("root", 1, None, Some(Strict), &[]),
                policy("ns", 2, None, Some(Disable), &[]),
            ],
            80,
            Disable,
        );
        check(
            &[
                policy("root", 1, None, Some(Strict), &[]),
                policy("ns", 2, None, None, &[]),
            ],
            80,
            Strict,
        );
        check(
            &[
                policy("ns", 2, None, Some(Disable), &[]),
                policy("ns", 1, None, Some(Strict), &[]),
            ],
            80,
            Strict,
        );
        let by_port = policy("ns", 3, app(), Some(Strict), &[(80, Some(Disable)), (81, None)]);
        check(std::slice::from_ref(&by_port), 80, Disable);
        check(std::slice::from_ref(&by_port), 81, Strict);
        check(&[by_port], 82, Strict);
        let other = policy("ns", 3, Some(Selector::from([("app", "b")])), Some(Strict), &[]);
        check(&[other], 80, Permissive);
        let inheriting = policy("ns", 3, app(), None, &[(80, Some(Disable))]);
        check(
            &[policy("root", 1, None, Some(Strict), &[]), inheriting],
            443,
            Strict,
        );
    }
}
