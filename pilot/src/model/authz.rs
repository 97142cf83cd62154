//! Who may do what: AuthorizationPolicy.

use super::{Labels, Origin, Selector, matching::Pattern};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyAction {
    Allow,
    Deny,
    /// Only marks the request.
    Audit,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuthorizationPolicy {
    pub origin: Origin,
    /// `None`: the whole namespace; in the root namespace, the whole mesh.
    pub selector: Option<Selector>,
    pub action: PolicyAction,
    /// A request matches if one of them does. Empty: nothing matches (so ALLOW without rules allows nothing).
    pub rules: Vec<Rule>,
}

impl AuthorizationPolicy {
    /// Does it concern a workload?
    pub fn applies_to(&self, root_namespace: &str, namespace: &str, labels: &Labels) -> bool {
        (self.origin.namespace == namespace || self.origin.namespace == root_namespace)
            && self
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(labels))
    }
}

/// All three must hold; an empty list holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// One of them must hold.
    pub from: Vec<Source>,
    /// One of them must hold.
    pub to: Vec<Operation>,
    /// All of them must hold.
    pub when: Vec<Condition>,
}

impl Rule {
    /// Does it look at something that only HTTP has?
    pub fn needs_http(&self) -> bool {
        self.from.iter().any(Source::needs_http)
            || self.to.iter().any(Operation::needs_http)
            || self.when.iter().any(|condition| condition.attribute.needs_http())
    }
}

/// Values of which one must match, and values of which none may. Both empty: nothing is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Values<T> {
    pub any: Vec<T>,
    pub none: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self {
            any: Vec::new(),
            none: Vec::new(),
        }
    }
}

impl<T> Values<T> {
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// All that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// `cluster.local/ns/default/sa/reviews`: the SPIFFE id without its scheme.
    pub principals: Values<Pattern>,
    /// `issuer/subject` of a verified token.
    pub request_principals: Values<Pattern>,
    pub namespaces: Values<Pattern>,
    /// `namespace/account`, both exact; a missing namespace was filled in.
    pub service_accounts: Values<(String, String)>,
    /// The address of the connection.
    pub ip_blocks: Values<ipnet::IpNet>,
    /// The client's address as trusted hops tell it.
    pub remote_ip_blocks: Values<ipnet::IpNet>,
}

impl Source {
    pub fn needs_http(&self) -> bool {
        !self.request_principals.is_empty() || !self.remote_ip_blocks.is_empty()
    }
}

/// All that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Operation {
    pub hosts: Values<Pattern>,
    pub ports: Values<u16>,
    pub methods: Values<Pattern>,
    pub paths: Values<Pattern>,
}

impl Operation {
    pub fn needs_http(&self) -> bool {
        !self.hosts.is_empty() || !self.methods.is_empty() || !self.paths.is_empty()
    }
}

/// `when`: an attribute and its values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    pub attribute: Attribute,
    pub values: Values<String>,
}

/// What `when` may look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// `request.headers[name]`, in lower case; values are patterns.
    RequestHeader(String),
    /// `source.ip`; values are addresses or ranges.
    SourceIp,
    /// `remote.ip`
    RemoteIp,
    /// `source.namespace`
    SourceNamespace,
    /// `source.principal`
    SourcePrincipal,
    /// `source.serviceAccount`
    SourceServiceAccount,
    /// `request.auth.principal`
    RequestPrincipal,
    /// `request.auth.audiences`
    RequestAudiences,
    /// `request.auth.presenter`
    RequestPresenter,
    /// `request.auth.claims[a][b]`
    RequestClaim(Vec<String>),
    /// `destination.ip`
    DestinationIp,
    /// `destination.port`
    DestinationPort,
    /// `connection.sni`
    Sni,
}

impl Attribute {
    pub fn needs_http(&self) -> bool {
        matches!(
            self,
            Self::RequestHeader(_)
                | Self::RemoteIp
                | Self::RequestPrincipal
                | Self::RequestAudiences
                | Self::RequestPresenter
                | Self::RequestClaim(_)
        )
    }
}
