//! What happens to an HTTP request on its way: changes, retries, faults, copies, answers in place of the backend.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Destination, PercentValue, StringMatch};
use crate::{kube::schema::rule, scalar::Span};

/// Changes of the headers of requests and answers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// Before the request is sent on.
    pub request: Option<HeaderOperations>,
    /// Before the answer is given back.
    pub response: Option<HeaderOperations>,
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Values that replace what is there.
    pub set: BTreeMap<String, String>,
    /// Values that are added to what is there.
    pub add: BTreeMap<String, String>,
    /// Names of headers to remove.
    pub remove: Vec<String>,
}

/// A new path or host for the request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rewrite {
    /// Replaces the path, or the prefix of it that matched.
    pub uri: Option<String>,
    /// Replaces the Host header.
    pub authority: Option<String>,
    /// Replaces what a regular expression finds in the path.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A search in the path, and what takes the place of what is found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// A regular expression (RE2 syntax).
    #[serde(rename = "match")]
    pub pattern: String,
    /// The replacement; `\1` stands for the first group.
    pub rewrite: String,
}

/// Another address for the client.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = rule::one_of(&["port", "derivePort"])))]
pub struct Redirect {
    /// The new path.
    pub uri: Option<String>,
    /// Takes the place of the prefix that the path matched; what follows is kept.
    pub prefix_rewrite: Option<String>,
    /// The new host.
    pub authority: Option<String>,
    /// The new port.
    #[schemars(transform = rule::port_or_none)]
    pub port: Option<u32>,
    /// Where the port comes from when `port` is not said.
    pub derive_port: Option<RedirectPort>,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// The status: 301 (the default), 302, 303, 307 or 308.
    #[schemars(range(max = 399))]
    pub redirect_code: Option<u32>,
}

/// `FROM_PROTOCOL_DEFAULT`: 80 or 443, by the scheme. `FROM_REQUEST_PORT`: that of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPort {
    FromProtocolDefault,
    FromRequestPort,
}

/// An answer that no backend gives.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["status"]))]
pub struct DirectResponse {
    /// Its status, 200 to 599.
    #[schemars(range(min = 200, max = 600))]
    pub status: u32,
    /// Its body.
    pub body: Option<ResponseBody>,
}

/// A body of at most 1 MiB.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = rule::one_of(&["string", "bytes"])))]
pub struct ResponseBody {
    /// As text.
    pub string: Option<String>,
    /// In base64.
    #[schemars(extend("format" = "byte"))]
    pub bytes: Option<String>,
}

/// When and how often a request is tried again.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retry {
    // Signed, so that a negative number is told as what it is.
    /// How often, after the first time. 0: never.
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// The time that each try has. None: that of the whole request.
    #[schemars(transform = rule::positive)]
    pub per_try_timeout: Option<Span>,
    /// Conditions and statuses with commas between them, such as `5xx,reset,503`.
    pub retry_on: String,
    /// Tries endpoints of other localities too.
    pub retry_remote_localities: Option<bool>,
    /// Prefers endpoints that have not been tried yet; that is the default.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// The least time between two tries; it grows from try to try.
    #[schemars(transform = rule::positive)]
    pub backoff: Option<Span>,
}

/// Trouble made on purpose.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Fault {
    /// Requests wait.
    pub delay: Option<Delay>,
    /// Requests are answered with an error.
    pub abort: Option<Abort>,
}

/// How long and how many requests wait.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = rule::one_of(&["fixedDelay", "exponentialDelay"])))]
pub struct Delay {
    /// How long.
    #[schemars(transform = rule::positive)]
    pub fixed_delay: Option<Span>,
    /// Not implemented by anybody: use `fixedDelay`.
    #[schemars(transform = rule::positive)]
    pub exponential_delay: Option<Span>,
    /// How many of the requests. None: all.
    pub percentage: Option<PercentValue>,
    /// Deprecated: `percentage`.
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
}

/// With what and how many requests are refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = rule::one_of(&["httpStatus", "grpcStatus", "http2Error"])))]
pub struct Abort {
    /// A status from 200 to 599.
    #[schemars(range(min = 200, max = 600))]
    pub http_status: Option<u32>,
    /// A gRPC status by its name, such as `UNAVAILABLE`.
    pub grpc_status: Option<String>,
    /// Not implemented by anybody: use `httpStatus` or `grpcStatus`.
    pub http2_error: Option<String>,
    /// How many of the requests. None: all.
    pub percentage: Option<PercentValue>,
}

/// Gets copies of requests; its answers are ignored.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct Mirror {
    /// Where the copies go.
    pub destination: Destination,
    /// How many of the requests are copied. None: all.
    pub percentage: Option<PercentValue>,
}

/// Which web pages of other origins may ask, and for what.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cors {
    /// Origins whose pages may ask.
    pub allow_origins: Vec<StringMatch>,
    /// Deprecated: `allowOrigins`.
    pub allow_origin: Vec<String>,
    /// Methods they may use.
    pub allow_methods: Vec<String>,
    /// Headers they may send.
    pub allow_headers: Vec<String>,
    /// Headers of answers they may read.
    pub expose_headers: Vec<String>,
    /// How long a browser may remember this.
    #[schemars(transform = rule::positive)]
    pub max_age: Option<Span>,
    /// They may send cookies and credentials.
    pub allow_credentials: Option<bool>,
    /// What happens to a preflight request of another origin: it is sent on, or answered here without permission.
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// `FORWARD`: to the backend; `IGNORE`: answered here. `UNSPECIFIED` is `FORWARD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    Unspecified,
    Forward,
    Ignore,
}
