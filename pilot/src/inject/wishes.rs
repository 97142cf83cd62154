//! The annotations by which a pod shapes its redirection and its proxy.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Volume, VolumeMount};
use mesh_proto::{
    names::{annotation, port},
    validate::field::parse_range,
};
use serde_json::Value;

use super::{Redirection, Refusal, Resources, Settings, annotated};

/// What one pod asks for, with the installation's defaults where it says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Wishes {
    pub redirection: Redirection,
    pub exclude_interfaces: String,
    /// Without it the application must send to the proxy by itself.
    pub intercept: bool,
    pub resources: Resources,
    pub log_level: String,
    pub data_plane: DataPlane,
    pub image: String,
    pub discovery_address: Option<String>,
    pub rewrite_probes: bool,
    pub volumes: Vec<Volume>,
    pub mounts: Vec<VolumeMount>,
}

/// The program that takes the pod's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPlane {
    /// Our own proxy.
    Gossamer,
    /// A stock Envoy, with our agent beside it.
    Envoy,
}

impl Wishes {
    pub fn read(pod: &Pod, settings: &Settings) -> Result<Self, Refusal> {
        let text = |name: &str| annotated(pod, name).map(str::to_owned);
        let native = boolean(pod, annotation::NATIVE_SIDECAR)?;
        if native == Some(false) {
            return Err(Refusal::annotation(
                annotation::NATIVE_SIDECAR,
                "this mesh's proxy is always a native sidecar, which starts before the application and lets Jobs end; \
                 remove the annotation",
            ));
        }
        let data_plane = match annotated(pod, annotation::DATA_PLANE) {
            None | Some("gossamer") => DataPlane::Gossamer,
            Some("envoy") => DataPlane::Envoy,
            Some(other) => {
                return Err(Refusal::annotation(
                    annotation::DATA_PLANE,
                    format!("{other:?} must be \"gossamer\" or \"envoy\""),
                ));
            }
        };
        Ok(Self {
            redirection: redirection(pod, &settings.redirection)?,
            exclude_interfaces: text(annotation::EXCLUDE_INTERFACES)
                .unwrap_or_default()
                .replace(' ', ""),
            intercept: intercept(pod)?,
            resources: resources(pod, &settings.resources)?,
            log_level: text(annotation::LOG_LEVEL).unwrap_or_else(|| settings.log_level.clone()),
            image: match (text(annotation::PROXY_IMAGE), data_plane) {
                (Some(own), _) => own,
                (None, DataPlane::Gossamer) => settings.proxy_image.clone(),
                (None, DataPlane::Envoy) => with_envoy(&settings.proxy_image)?,
            },
            data_plane,
            discovery_address: text(annotation::DISCOVERY_ADDRESS),
            rewrite_probes: boolean(pod, annotation::REWRITE_PROBES)?.unwrap_or(settings.rewrite_probes),
            volumes: named(pod, annotation::USER_VOLUME)?,
            mounts: named(pod, annotation::USER_VOLUME_MOUNT)?,
        })
    }
}

/// The image beside ours that has a stock Envoy too: `hub/proxy:tag` is `hub/proxy-envoy:tag`.
fn with_envoy(image: &str) -> Result<String, Refusal> {
    let folder = image.rfind('/').map_or(0, |slash| slash + 1);
    let tag = image[folder..]
        .find(':')
        .map_or(image.len(), |colon| folder + colon);
    if image.contains('@') {
        return Err(Refusal::annotation(
            annotation::DATA_PLANE,
            format!(
                "the image with Envoy beside {image:?}, which is named by its digest, is not known; name it by {}",
                annotation::PROXY_IMAGE
            ),
        ));
    }
    Ok(format!("{}-envoy{}", &image[..tag], &image[tag..]))
}

fn boolean(pod: &Pod, name: &str) -> Result<Option<bool>, Refusal> {
    match annotated(pod, name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(Refusal::annotation(
            name,
            format!("{other:?} must be \"true\" or \"false\""),
        )),
    }
}

fn intercept(pod: &Pod) -> Result<bool, Refusal> {
    match annotated(pod, annotation::INTERCEPTION_MODE) {
        None | Some("REDIRECT") => Ok(true),
        Some("NONE") => Ok(false),
        Some(other) => Err(Refusal::annotation(
            annotation::INTERCEPTION_MODE,
            format!("{other:?} is not supported; this mesh has REDIRECT (the default) and NONE"),
        )),
    }
}

fn redirection(pod: &Pod, default: &Redirection) -> Result<Redirection, Refusal> {
    let ports = |name: &str, default: &str| list(pod, name, default, valid_port, "a port");
    let ranges = |name: &str, default: &str| {
        let valid = |range: &str| parse_range(range).is_some();
        list(pod, name, default, valid, "a range of addresses")
    };
    let mut excluded = ports(annotation::EXCLUDE_INBOUND_PORTS, &default.exclude_inbound_ports)?;
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
    Ok(Redirection {
        include_inbound_ports: ports(annotation::INCLUDE_INBOUND_PORTS, &default.include_inbound_ports)?,
        exclude_inbound_ports: excluded,
        include_outbound_ranges: ranges(
            annotation::INCLUDE_OUTBOUND_RANGES,
            &default.include_outbound_ranges,
        )?,
        exclude_outbound_ranges: ranges(
            annotation::EXCLUDE_OUTBOUND_RANGES,
            &default.exclude_outbound_ranges,
        )?,
        include_outbound_ports: ports(
            annotation::INCLUDE_OUTBOUND_PORTS,
            &default.include_outbound_ports,
        )?,
        exclude_outbound_ports: ports(
            annotation::EXCLUDE_OUTBOUND_PORTS,
            &default.exclude_outbound_ports,
        )?,
    })
}

fn valid_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A list between commas, without blanks, or `*`.
fn list(
    pod: &Pod,
    name: &str,
    default: &str,
    valid: impl Fn(&str) -> bool,
    what: &str,
) -> Result<String, Refusal> {
    let Some(text) = annotated(pod, name) else {
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
        Some(entry) => Err(Refusal::annotation(name, format!("{entry:?} is not {what}"))),
        None => Ok(entries.join(",")),
    }
}

/// What the pod says counts as a whole, as in Istio: one annotation, and the installation's numbers are not mixed in.
fn resources(pod: &Pod, default: &Resources) -> Result<Resources, Refusal> {
    let quantity = |name: &str| match annotated(pod, name) {
        None => Ok(None),
        Some(text) if is_quantity(text) => Ok(Some(text.to_owned())),
        Some(text) => Err(Refusal::annotation(
            name,
            format!("{text:?} is not a quantity, such as 100m or 64Mi"),
        )),
    };
    let own = Resources {
        cpu: quantity(annotation::PROXY_CPU)?,
        memory: quantity(annotation::PROXY_MEMORY)?,
        cpu_limit: quantity(annotation::PROXY_CPU_LIMIT)?,
        memory_limit: quantity(annotation::PROXY_MEMORY_LIMIT)?,
    };
    let limited = own.cpu_limit.is_some() || own.memory_limit.is_some();
    Ok(Resources {
        // A limit alone is also what is asked for, as Kubernetes has it.
        cpu: own.cpu.or(own.cpu_limit.clone()).or_else(|| default.cpu.clone()),
        memory: own
            .memory
            .or(own.memory_limit.clone())
            .or_else(|| default.memory.clone()),
        cpu_limit: own
            .cpu_limit
            .or_else(|| default.cpu_limit.clone().filter(|_| !limited)),
        memory_limit: own
            .memory_limit
            .or_else(|| default.memory_limit.clone().filter(|_| !limited)),
    })
}

/// Kubernetes' quantities: a decimal number with a binary, decimal or exponent suffix.
fn is_quantity(text: &str) -> bool {
    let digits = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, suffix) = text.split_at(digits);
    let exponent = suffix
        .strip_prefix(['e', 'E'])
        .is_some_and(|power| !power.is_empty() && power.parse::<i32>().is_ok());
    let known = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    number.parse::<f64>().is_ok_and(f64::is_finite) && (exponent || known.contains(&suffix))
}

/// Volumes or mounts as JSON: by name, or a list whose entries have one.
fn named<T: serde::de::DeserializeOwned>(pod: &Pod, name: &str) -> Result<Vec<T>, Refusal> {
    let Some(text) = annotated(pod, name) else {
        return Ok(Vec::new());
    };
    let wrong = |problem: String| Refusal::annotation(name, format!("cannot be read: {problem}"));
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let entries: Vec<Value> = match value {
        Value::Array(entries) => entries,
        Value::Object(by_name) => by_name
            .into_iter()
            .map(|(name, mut entry)| {
                if let Value::Object(fields) = &mut entry {
                    fields.insert("name".to_owned(), name.into());
                }
                entry
            })
            .collect(),
        other => return Err(wrong(format!("{other} is neither a list nor an object"))),
    };
    let typed: Result<Vec<T>, serde_json::Error> = entries.into_iter().map(serde_json::from_value).collect();
    typed.map_err(|error| wrong(error.to_string()))
}

/// Requests and limits as a container has them.
pub fn quantities(resources: &Resources) -> (BTreeMap<&'static str, String>, BTreeMap<&'static str, String>) {
    let map = |cpu: &Option<String>, memory: &Option<String>| {
        [("cpu", cpu), ("memory", memory)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect()
    };
    (
        map(&resources.cpu, &resources.memory),
        map(&resources.cpu_limit, &resources.memory_limit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_with_envoy() {
        for (image, expect) in [
            ("gossamer/proxy:0.1.0", "gossamer/proxy-envoy:0.1.0"),
            ("hub.example:5000/mesh/proxy", "hub.example:5000/mesh/proxy-envoy"),
            ("proxy:7", "proxy-envoy:7"),
        ] {
            assert_eq!(with_envoy(image), Ok(expect.to_owned()));
        }
        let refusal = with_envoy("gossamer/proxy@sha256:00").expect_err("a digest");
        assert!(refusal.text.contains("proxyImage"), "{}", refusal.text);
    }

    #[test]
    fn are_quantities() {
        for good in ["1", "100m", "0.5", "64Mi", "1e3", "2Gi", "1E"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1.2.3", "10 Mi", "64MB", "-1", "e3", "inf"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
