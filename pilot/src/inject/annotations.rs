//! The annotations by which a pod shapes its redirection and its proxy.

use k8s_openapi::api::core::v1::Pod;
use mesh_proto::{
    names::{annotation, port},
    validate::field::parse_range,
};

use super::Refusal;

/// What is redirected, and how large the proxy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// `*` or a list of ports; empty: none.
    pub include_inbound_ports: String,
    pub exclude_inbound_ports: String,
    /// `*` or a list of ranges; empty: none.
    pub include_outbound_ranges: String,
    pub exclude_outbound_ranges: String,
    pub include_outbound_ports: String,
    pub exclude_outbound_ports: String,
    pub exclude_interfaces: String,
    pub cpu: Option<String>,
    pub memory: Option<String>,
    pub cpu_limit: Option<String>,
    pub memory_limit: Option<String>,
    pub log_level: Option<String>,
}

impl Traffic {
    pub fn read(pod: &Pod) -> Result<Self, Refusal> {
        let text = |name: &str| {
            pod.metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(name))
                .cloned()
        };
        let ports = |name: &str, default: &str| list(name, text(name), default, valid_port, "a port");
        let ranges = |name: &str, default: &str| {
            list(
                name,
                text(name),
                default,
                |range| parse_range(range).is_some(),
                "a range of addresses",
            )
        };
        let mut excluded = ports(annotation::EXCLUDE_INBOUND_PORTS, "")?;
        // Metrics and health must be reached without a certificate.
        for own in [port::STATS, port::HEALTH, port::METRICS] {
            let own = own.to_string();
            if !excluded.split(',').any(|port| port == own) {
                excluded = if excluded.is_empty() {
                    own
                } else {
                    format!("{excluded},{own}")
                };
            }
        }
        Ok(Self {
            include_inbound_ports: ports(annotation::INCLUDE_INBOUND_PORTS, "*")?,
            exclude_inbound_ports: excluded,
            include_outbound_ranges: ranges(annotation::INCLUDE_OUTBOUND_RANGES, "*")?,
            exclude_outbound_ranges: ranges(annotation::EXCLUDE_OUTBOUND_RANGES, "")?,
            include_outbound_ports: ports(annotation::INCLUDE_OUTBOUND_PORTS, "")?,
            exclude_outbound_ports: ports(annotation::EXCLUDE_OUTBOUND_PORTS, "")?,
            exclude_interfaces: text(annotation::EXCLUDE_INTERFACES)
                .unwrap_or_default()
                .replace(' ', ""),
            cpu: text(annotation::PROXY_CPU),
            memory: text(annotation::PROXY_MEMORY),
            cpu_limit: text(annotation::PROXY_CPU_LIMIT),
            memory_limit: text(annotation::PROXY_MEMORY_LIMIT),
            log_level: text(annotation::LOG_LEVEL),
        })
    }
}

fn valid_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A list between commas, without blanks, or `*`.
fn list(
    name: &str,
    text: Option<String>,
    default: &str,
    valid: impl Fn(&str) -> bool,
    what: &str,
) -> Result<String, Refusal> {
    let Some(text) = text else {
        return Ok(default.to_owned());
    };
    let entries: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .collect();
    if entries == ["*"] {
        return Ok("*".to_owned());
    }
    match entries.iter().find(|entry| !valid(entry)) {
        Some(entry) => Err(Refusal {
            path: format!("metadata.annotations[{name}]"),
            text: format!("{entry:?} is not {what}"),
        }),
        None => Ok(entries.join(",")),
    }
}
