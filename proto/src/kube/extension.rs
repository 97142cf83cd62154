//! `extensions.istio.io`: WasmPlugin and TrafficExtension, programs that proxies run
//! (<https://istio.io/latest/docs/reference/config/proxy_extensions/>).

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Kind, Resource,
    reference::TargetRef,
    schema::{Struct, rule},
    security::LabelSelector,
};

/// A WebAssembly program that proxies run for each request or connection.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "required" = ["url"],
    "x-kubernetes-validations" = [rule::at_most_one(&["selector", "targetRef", "targetRefs"])]
))]
pub struct WasmPlugin {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub selector: Option<LabelSelector>,
    /// A Gateway or service, in place of `selector`.
    pub target_ref: Option<TargetRef>,
    /// Gateways or services, in place of `selector`.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Where the program is: `oci://`, `https://`, `http://` or `file://`; an image's name without any of them.
    #[schemars(length(min = 1), extend("x-kubernetes-validations" = [url_scheme()]))]
    pub url: String,
    /// The SHA-256 hash of the program or the image, in hex.
    #[schemars(regex(pattern = r"^$|^[a-f0-9]{64}$"))]
    pub sha256: String,
    /// When an image is fetched again.
    pub image_pull_policy: Option<PullPolicy>,
    /// A Secret with the registry's credentials.
    #[schemars(length(min = 1, max = 253))]
    pub image_pull_secret: String,
    /// Reserved for signatures.
    pub verification_key: String,
    /// What the program gets as its configuration.
    pub plugin_config: Option<Struct>,
    /// The program's name for itself.
    #[schemars(length(min = 1, max = 256))]
    pub plugin_name: String,
    /// What happens to traffic when the program cannot be fetched or fails.
    pub fail_strategy: FailStrategy,
    /// The program's surroundings.
    pub vm_config: Option<VmConfig>,
    /// What it looks at.
    #[serde(rename = "type")]
    pub plugin_type: Option<PluginType>,
    /// Before which of the mesh's own filters it runs.
    pub phase: Option<PluginPhase>,
    /// Within a phase, higher ones run first. None: 0.
    pub priority: Option<i32>,
    /// Traffic for which it runs. None: all.
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
}

impl Resource for WasmPlugin {
    const KIND: Kind = Kind::WasmPlugin;
}

fn url_scheme() -> Value {
    rule::cel(
        "self.contains('://') ? isURL(self) && url(self).getScheme() in ['oci', 'https', 'http', 'file'] : isURL('http://' + self)",
        "must be a URL that begins with oci://, https://, http:// or file://, or the name of an image",
    )
}

/// A program in WebAssembly or Lua that proxies run for each request or connection.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule::at_most_one(&["selector", "targetRefs"]),
    rule::just_one(&["wasm", "lua"]),
]))]
pub struct TrafficExtension {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub selector: Option<LabelSelector>,
    /// Gateways or services, in place of `selector`.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// A program in WebAssembly.
    pub wasm: Option<WasmProgram>,
    /// A program in Lua.
    pub lua: Option<LuaProgram>,
    /// Before which of the mesh's own filters it runs.
    pub phase: Option<ExtensionPhase>,
    /// Within a phase, higher ones run first. None: 0.
    pub priority: Option<i32>,
    /// Traffic for which it runs. None: all.
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
}

impl Resource for TrafficExtension {
    const KIND: Kind = Kind::TrafficExtension;
}

/// A program in WebAssembly.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["url"]))]
pub struct WasmProgram {
    /// Where the program is: `oci://`, `https://`, `http://` or `file://`; an image's name without any of them.
    #[schemars(length(min = 1), extend("x-kubernetes-validations" = [url_scheme()]))]
    pub url: String,
    /// The SHA-256 hash of the program or the image, in hex.
    #[schemars(regex(pattern = r"^$|^[a-f0-9]{64}$"))]
    pub sha256: String,
    /// When an image is fetched again.
    pub image_pull_policy: Option<PullPolicy>,
    /// A Secret with the registry's credentials.
    #[schemars(length(min = 1, max = 253))]
    pub image_pull_secret: String,
    /// Reserved for signatures.
    pub verification_key: String,
    /// What the program gets as its configuration.
    pub plugin_config: Option<Struct>,
    /// The program's name for itself.
    #[schemars(length(min = 1, max = 256))]
    pub plugin_name: String,
    /// What happens to traffic when the program cannot be fetched or fails.
    pub fail_strategy: FailStrategy,
    /// The program's surroundings.
    pub vm_config: Option<VmConfig>,
    /// What it looks at.
    #[serde(rename = "type")]
    pub plugin_type: Option<PluginType>,
}

/// A program in Lua.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["inlineCode"]))]
pub struct LuaProgram {
    /// The program itself.
    #[schemars(length(min = 1, max = 65_536))]
    pub inline_code: String,
}

/// Before which of the mesh's own filters a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PluginPhase {
    UnspecifiedPhase,
    Authn,
    Authz,
    Stats,
}

/// Before which of the mesh's own filters a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExtensionPhase {
    Unspecified,
    Authn,
    Authz,
    Stats,
}

/// When an image is fetched again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PullPolicy {
    #[serde(rename = "UNSPECIFIED_POLICY")]
    Unspecified,
    IfNotPresent,
    Always,
}

/// `FAIL_CLOSE`: it is refused; `FAIL_OPEN`: it passes; `FAIL_RELOAD`: it is refused until the program is started anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailStrategy {
    #[default]
    FailClose,
    FailOpen,
    FailReload,
}

/// `HTTP` (the default): requests; `NETWORK`: connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PluginType {
    UnspecifiedPluginType,
    Http,
    Network,
}

/// The program's surroundings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VmConfig {
    /// Variables of its environment.
    #[schemars(length(max = 256), transform = by_name)]
    pub env: Vec<EnvVar>,
}

fn by_name(schema: &mut Schema) {
    list_map(schema, "name");
}

fn by_number(schema: &mut Schema) {
    list_map(schema, "number");
}

/// Elements differ in `key`.
fn list_map(schema: &mut Schema, key: &str) {
    schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
}

/// A variable.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "required" = ["name"],
    "x-kubernetes-validations" = [rule::cel(
        "!has(self.valueFrom) || self.valueFrom != 'HOST' || !has(self.value)",
        "value can be set only when valueFrom is INLINE",
    )]
))]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Where its value comes from: `INLINE` (the default): `value`; `HOST`: the proxy's own environment.
    pub value_from: ValueFrom,
    /// Its value.
    #[schemars(length(max = 2048))]
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ValueFrom {
    #[default]
    Inline,
    Host,
}

/// Traffic for which a program runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficSelector {
    /// On which side: `CLIENT`, `SERVER`, or both.
    pub mode: Option<TrafficMode>,
    /// Ports. None: all.
    #[schemars(transform = by_number)]
    pub ports: Vec<PortNumber>,
}

/// On which side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TrafficMode {
    Undefined,
    Client,
    Server,
    ClientAndServer,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["number"]))]
pub struct PortNumber {
    /// 1 to 65535.
    #[schemars(transform = rule::port)]
    pub number: u32,
}
