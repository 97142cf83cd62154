//! AuthorizationPolicy: which requests workloads let in.

use schemars::JsonSchema;
use serde::Deserialize;

use super::LabelSelector;
use crate::kube::{Kind, Resource, reference::TargetRef, schema::rule};

/// Which requests workloads let in. What no rule of action ALLOW allows is denied, once there is one for the workload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule::at_most_one(&["selector", "targetRef", "targetRefs"]),
]))]
pub struct AuthorizationPolicy {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub selector: Option<LabelSelector>,
    /// A Gateway or service, in place of `selector`.
    pub target_ref: Option<TargetRef>,
    /// Gateways or services, in place of `selector`.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Descriptions of requests. None: no request, so ALLOW without rules denies all.
    #[schemars(length(max = 512))]
    pub rules: Vec<Rule>,
    /// What happens to requests that a rule describes: `ALLOW`, `DENY`, `AUDIT` (noted), `CUSTOM` (the provider decides).
    pub action: Action,
    /// Who decides with action CUSTOM.
    pub provider: Option<Provider>,
}

impl Resource for AuthorizationPolicy {
    const KIND: Kind = Kind::AuthorizationPolicy;
}

/// `DENY` goes before `ALLOW`, and `CUSTOM` before both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    #[default]
    Allow,
    Deny,
    Audit,
    Custom,
}

/// An external authorizer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Provider {
    /// The name of an `extensionProvider` in the mesh's settings.
    pub name: String,
}

/// Requests from one of `from`, to one of `to`, under all conditions of `when`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Where requests come from. None: anywhere.
    #[schemars(length(max = 512))]
    pub from: Vec<From>,
    /// What they ask for. None: anything.
    pub to: Vec<To>,
    /// What else must hold.
    pub when: Vec<Condition>,
}

/// A source in its message.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct From {
    /// Where a request comes from.
    pub source: Option<Source>,
}

/// An operation in its message.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct To {
    /// What a request asks for.
    pub operation: Option<Operation>,
}

/// Where a request comes from; all that is said must fit. Names can end or begin with `*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule::cel(
    "!(has(self.serviceAccounts) || has(self.notServiceAccounts)) || !(has(self.principals) || has(self.notPrincipals) \
     || has(self.namespaces) || has(self.notNamespaces))",
    "serviceAccounts cannot stand beside principals or namespaces",
)]))]
pub struct Source {
    /// Proven identities, such as `cluster.local/ns/default/sa/reviews`.
    pub principals: Vec<String>,
    /// None of these identities.
    pub not_principals: Vec<String>,
    /// Issuer and subject of the token, with a slash between.
    pub request_principals: Vec<String>,
    /// None of these.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the proven identities.
    pub namespaces: Vec<String>,
    /// None of these namespaces.
    pub not_namespaces: Vec<String>,
    /// Accounts of the proven identities, as account or namespace/account.
    #[schemars(length(max = 16), inner(length(max = 320)))]
    pub service_accounts: Vec<String>,
    /// None of these accounts.
    #[schemars(length(max = 16), inner(length(max = 320)))]
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the proven identities.
    pub trust_domains: Vec<String>,
    /// None of these trust domains.
    pub not_trust_domains: Vec<String>,
    /// Addresses or ranges that the connection comes from.
    pub ip_blocks: Vec<String>,
    /// None of these.
    pub not_ip_blocks: Vec<String>,
    /// Addresses or ranges of the original client, by `X-Forwarded-For` or the PROXY protocol.
    pub remote_ip_blocks: Vec<String>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<String>,
}

/// What a request asks for; all that is said must fit. Names can end or begin with `*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Hosts.
    pub hosts: Vec<String>,
    /// None of these hosts.
    pub not_hosts: Vec<String>,
    /// Ports of the workload.
    pub ports: Vec<String>,
    /// None of these ports.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// None of these methods.
    pub not_methods: Vec<String>,
    /// Paths; `{*}` stands for one segment, `{**}` for any number of them.
    pub paths: Vec<String>,
    /// None of these paths.
    pub not_paths: Vec<String>,
}

/// What else must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["key"]))]
pub struct Condition {
    /// An attribute of the request, such as `request.headers[x-version]` or `source.ip`.
    pub key: String,
    /// It must have one of these values.
    pub values: Vec<String>,
    /// It must have none of these values.
    pub not_values: Vec<String>,
}
