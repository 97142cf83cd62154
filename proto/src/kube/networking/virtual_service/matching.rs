//! What an HTTP request looks like.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kube::schema::rule;

/// What a request looks like; all that is said must fit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// A name for logs and metrics.
    pub name: String,
    /// The path.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The Host header, or HTTP/2's `:authority`.
    pub authority: Option<StringMatch>,
    /// Headers by their names in lower case; an empty match means that the header is there.
    pub headers: BTreeMap<String, StringMatch>,
    /// The port that the client wanted to reach.
    #[schemars(transform = rule::port_or_none)]
    pub port: Option<u32>,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways for which this holds, in place of the object's.
    pub gateways: Vec<String>,
    /// Query parameters by their names; an empty match means that the parameter is there.
    pub query_params: BTreeMap<String, StringMatch>,
    /// `uri` is compared without regard to upper and lower case.
    pub ignore_uri_case: bool,
    /// Headers that must not fit: the opposite of `headers`.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// The namespace of the client's workload.
    pub source_namespace: String,
    /// Names statistics of this route in Envoy.
    pub stat_prefix: String,
}

/// At most one of the three; none of them: the value is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = rule::one_of(&["exact", "prefix", "regex"])))]
pub struct StringMatch {
    /// The whole value.
    pub exact: Option<String>,
    /// How the value begins.
    pub prefix: Option<String>,
    /// A regular expression (RE2 syntax) for the whole value.
    pub regex: Option<String>,
}
