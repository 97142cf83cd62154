//! References of policies to what they hold for.

use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::rule;

/// The object that a policy holds for: a Gateway or GatewayClass of the Gateway API, a Service or a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct TargetRef {
    /// Its API group; empty for Services.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub group: String,
    /// Its kind.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Must be left out: it is of the policy's own namespace.
    #[schemars(extend("x-kubernetes-validations" = [rule::cel(
        "self.size() == 0",
        "objects of other namespaces cannot be referred to",
    )]))]
    pub namespace: String,
}
