//! What an injected pod has more than the pod that the user wrote.

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
        ObjectFieldSelector, Pod, PodSpec, Probe, ResourceRequirements, SecurityContext, Sysctl,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use mesh_proto::{
    mesh::{MeshConfig, ProxyConfig},
    names::{self, annotation, container, label, port},
};
use serde_json::json;

use super::{
    Refusal, Settings, annotated,
    decide::{Role, proxy_of},
    labelled, overlay,
    probes::{self, Probers},
    wishes::{self, DataPlane, Wishes},
};
use crate::convert::canonical;

mod volume;

/// Environment of the proxy that speaks of the application's containers.
pub const POD_PORTS: &str = "ISTIO_META_POD_PORTS";
pub const APP_CONTAINERS: &str = "ISTIO_META_APP_CONTAINERS";

/// Lets a gateway that is not root listen on 80 and 443.
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
const NETWORK: &str = "topology.istio.io/network";

/// Everything that shapes what is added.
pub struct Template<'a> {
    pub role: Role,
    pub mesh: &'a MeshConfig,
    pub config: &'a ProxyConfig,
    pub settings: &'a Settings,
    pub wishes: &'a Wishes,
}

impl Template<'_> {
    pub fn apply(&self, pod: &Pod) -> Result<Pod, Refusal> {
        let mut pod = pod.clone();
        let users = proxy_of(&pod).map(|(group, place, own)| (format!("spec.{group}[{place}]"), own.clone()));
        // Its own container is completed; the others are the application.
        let spec = pod.spec.get_or_insert_default();
        if self.role == Role::Sidecar {
            spec.containers.retain(|one| one.name != container::PROXY);
            if let Some(inits) = &mut spec.init_containers {
                inits.retain(|one| one.name != container::PROXY);
            }
        }
        let probers = if self.wishes.rewrite_probes && self.role == Role::Sidecar {
            probes::rewrite(&mut pod, self.config.status_port)
        } else {
            Probers::new()
        };
        let mut proxy = self.proxy(&pod, &probers);
        if let Some((path, own)) = &users {
            proxy = overlay::container(&proxy, own, path)?;
        }
        let spec = pod.spec.get_or_insert_default();
        match self.role {
            Role::Sidecar => self.beside(spec, proxy),
            Role::Gateway => alone(spec, proxy),
        }
        self.volumes(spec);
        self.metadata(&mut pod);
        Ok(pod)
    }

    /// Before the user's own init containers, so that those have the mesh too.
    fn beside(&self, spec: &mut PodSpec, proxy: Container) {
        let own = spec.init_containers.take().unwrap_or_default();
        let redirection = self.wishes.intercept.then(|| self.init());
        spec.init_containers = Some(redirection.into_iter().chain([proxy]).chain(own).collect());
    }

    fn volumes(&self, spec: &mut PodSpec) {
        let known = spec.volumes.get_or_insert_default();
        for volume in volume::volumes().into_iter().chain(self.wishes.volumes.clone()) {
            // One that the user brings under this name counts.
            if !known.iter().any(|one| one.name == volume.name) {
                known.push(volume);
            }
        }
        for name in &self.settings.image_pull_secrets {
            let secrets = spec.image_pull_secrets.get_or_insert_default();
            if !secrets.iter().any(|one| one.name == *name) {
                secrets.push(LocalObjectReference { name: name.clone() });
            }
        }
    }

    fn metadata(&self, pod: &mut Pod) {
        let workload = crate::convert::workload_name(pod);
        let labels = pod.metadata.labels.get_or_insert_default();
        let name = canonical::name(labels, &workload);
        let revision = canonical::revision(labels);
        let mut add = |key: &str, value: &str| {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        };
        if self.role == Role::Sidecar {
            add(label::TLS_MODE, "istio");
        }
        add(label::CANONICAL_NAME, &name);
        add(label::CANONICAL_REVISION, &revision);
        add(label::REVISION, &self.settings.revision);
        let (inits, containers) = match (self.role, self.wishes.intercept) {
            (Role::Sidecar, true) => (json!([container::INIT, container::PROXY]), json!(null)),
            (Role::Sidecar, false) => (json!([container::PROXY]), json!(null)),
            (Role::Gateway, _) => (json!(null), json!([container::PROXY])),
        };
        let status = json!({
            "initContainers": inits,
            "containers": containers,
            "volumes": volume::ALL,
            "imagePullSecrets": null,
            "revision": self.settings.revision,
        });
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::STATUS.to_owned(), status.to_string());
        for (name, value) in &self.settings.annotations {
            annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let scrape = annotations.get(annotation::PROMETHEUS_SCRAPE).map(String::as_str);
        if self.mesh.enable_prometheus_merge && scrape != Some("false") {
            annotations.insert(annotation::PROMETHEUS_SCRAPE.to_owned(), "true".to_owned());
            annotations.insert(
                annotation::PROMETHEUS_PORT.to_owned(),
                self.config.status_port.to_string(),
            );
            annotations.insert(
                annotation::PROMETHEUS_PATH.to_owned(),
                "/stats/prometheus".to_owned(),
            );
        }
    }

    /// Sets redirection up, and ends.
    fn init(&self) -> Container {
        let redirection = &self.wishes.redirection;
        let uid = names::PROXY_UID.to_string();
        let mut args: Vec<String> = vec!["redirect".to_owned()];
        let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        flag("-p", &port::OUTBOUND.to_string());
        flag("-z", &port::INBOUND.to_string());
        flag("-u", &uid);
        flag("-g", &uid);
        flag("-m", "REDIRECT");
        flag("-i", &redirection.include_outbound_ranges);
        flag("-x", &redirection.exclude_outbound_ranges);
        flag("-b", &redirection.include_inbound_ports);
        flag("-d", &redirection.exclude_inbound_ports);
        flag("-o", &redirection.exclude_outbound_ports);
        if !redirection.include_outbound_ports.is_empty() {
            flag("-q", &redirection.include_outbound_ports);
        }
        if !self.wishes.exclude_interfaces.is_empty() {
            flag("-c", &self.wishes.exclude_interfaces);
        }
        if self.settings.dns_capture {
            args.push("--redirect-dns".to_owned());
        }
        Container {
            name: container::INIT.to_owned(),
            image: Some(self.wishes.image.clone()),
            image_pull_policy: self.settings.image_pull_policy.clone(),
            args: Some(args),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                privileged: Some(false),
                capabilities: Some(Capabilities {
                    add: Some(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]),
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                read_only_root_filesystem: Some(false),
                run_as_user: Some(0),
                run_as_group: Some(0),
                run_as_non_root: Some(false),
                ..SecurityContext::default()
            }),
            resources: Some(self.resources()),
            ..Container::default()
        }
    }

    /// As a sidecar a native one: it starts before the user's containers, and ends after them.
    fn proxy(&self, pod: &Pod, probers: &Probers) -> Container {
        let ready = |period: i32, failures: i32| Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/healthz/ready".to_owned()),
                port: IntOrString::Int(i32::from(port::HEALTH)),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(period),
            timeout_seconds: Some(3),
            failure_threshold: Some(failures),
            ..Probe::default()
        };
        let (sidecar, role) = match self.role {
            Role::Sidecar => (true, "sidecar"),
            Role::Gateway => (false, "router"),
        };
        let mode = match self.wishes.data_plane {
            DataPlane::Gossamer => "proxy",
            DataPlane::Envoy => "agent",
        };
        let user = i64::from(names::PROXY_UID);
        let mut mounts = volume::mounts();
        mounts.extend(self.wishes.mounts.clone());
        Container {
            name: container::PROXY.to_owned(),
            image: Some(self.wishes.image.clone()),
            image_pull_policy: self.settings.image_pull_policy.clone(),
            restart_policy: sidecar.then(|| "Always".to_owned()),
            args: Some(vec![mode.to_owned(), role.to_owned()]),
            env: Some(self.env(pod, probers)),
            ports: Some(vec![ContainerPort {
                name: Some("http-envoy-prom".to_owned()),
                container_port: i32::from(port::STATS),
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            startup_probe: Some(ready(1, 600)),
            readiness_probe: Some(ready(15, 4)),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                privileged: Some(false),
                capabilities: Some(Capabilities {
                    add: None,
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                read_only_root_filesystem: Some(true),
                run_as_user: Some(user),
                run_as_group: Some(user),
                run_as_non_root: Some(true),
                ..SecurityContext::default()
            }),
            resources: Some(self.resources()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }
    }

    fn env(&self, pod: &Pod, probers: &Probers) -> Vec<EnvVar> {
        let config = self.config;
        let mut env = vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("HOST_IP", "status.hostIP"),
            field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        ];
        let mut set = |name: &str, value: String| {
            env.push(EnvVar {
                name: name.to_owned(),
                value: Some(value),
                value_from: None,
            });
        };
        let discovery = self.wishes.discovery_address.as_ref();
        set(
            "DISCOVERY_ADDRESS",
            discovery.unwrap_or(&config.discovery_address).clone(),
        );
        set("CA_ADDR", config.ca_address.clone());
        set("TRUST_DOMAIN", self.mesh.trust_domain.clone());
        if let Some(threads) = config.concurrency {
            set("PROXY_CONCURRENCY", threads.to_string());
        }
        set("PROXY_LOG_LEVEL", self.wishes.log_level.clone());
        let drain = config.termination_drain_duration.0.as_secs();
        set("TERMINATION_DRAIN_DURATION_SECONDS", drain.to_string());
        set("ISTIO_META_CLUSTER_ID", self.settings.cluster_id.clone());
        set("ISTIO_META_MESH_ID", self.mesh.trust_domain.clone());
        set("ISTIO_META_WORKLOAD_NAME", crate::convert::workload_name(pod));
        let sidecar = self.role == Role::Sidecar;
        let intercepted = sidecar && self.wishes.intercept;
        // Only redirection brings the application's questions to the proxy.
        let dns = self.settings.dns_capture && intercepted;
        set("ISTIO_META_DNS_CAPTURE", dns.to_string());
        if sidecar {
            let mode = if intercepted { "REDIRECT" } else { "NONE" };
            set("ISTIO_META_INTERCEPTION_MODE", mode.to_owned());
        }
        let network = labelled(pod, NETWORK).unwrap_or(&self.settings.network);
        if !network.is_empty() {
            set("ISTIO_META_NETWORK", network.to_owned());
        }
        if sidecar {
            set(POD_PORTS, pod_ports(pod));
            set(APP_CONTAINERS, app_containers(pod));
        }
        if let Some(scrape) = self.application_metrics(pod) {
            set("ISTIO_PROMETHEUS_ANNOTATIONS", scrape);
        }
        if !probers.is_empty() {
            set(probes::ENV, json!(probers).to_string());
        }
        for (name, value) in &config.proxy_metadata {
            env.retain(|known| known.name != *name);
            env.push(EnvVar {
                name: name.clone(),
                value: Some(value.clone()),
                value_from: None,
            });
        }
        env
    }

    /// Where the application's own metrics are, which the proxy serves beside its own.
    fn application_metrics(&self, pod: &Pod) -> Option<String> {
        let scrape = annotated(pod, annotation::PROMETHEUS_SCRAPE)?;
        if !self.mesh.enable_prometheus_merge || scrape != "true" || self.role == Role::Gateway {
            return None;
        }
        let text = |name: &str, default: &str| annotated(pod, name).unwrap_or(default).to_owned();
        let scrape = json!({
            "scrape": scrape,
            "path": text(annotation::PROMETHEUS_PATH, "/metrics"),
            "port": text(annotation::PROMETHEUS_PORT, "80"),
        });
        Some(scrape.to_string())
    }

    fn resources(&self) -> ResourceRequirements {
        let (requests, limits) = wishes::quantities(&self.wishes.resources);
        let typed = |map: std::collections::BTreeMap<&'static str, String>| {
            let typed = map
                .into_iter()
                .map(|(name, value)| (name.to_owned(), Quantity(value)));
            Some(typed.collect()).filter(|map: &std::collections::BTreeMap<String, Quantity>| !map.is_empty())
        };
        ResourceRequirements {
            requests: typed(requests),
            limits: typed(limits),
            ..ResourceRequirements::default()
        }
    }
}

/// A gateway's proxy is its only container, where the user has put it.
fn alone(spec: &mut PodSpec, proxy: Container) {
    let inits = spec.init_containers.iter_mut().flatten();
    match spec
        .containers
        .iter_mut()
        .chain(inits)
        .find(|one| one.name == container::PROXY)
    {
        Some(place) => *place = proxy,
        None => spec.containers.insert(0, proxy),
    }
    let sysctls = spec
        .security_context
        .get_or_insert_default()
        .sysctls
        .get_or_insert_default();
    if !sysctls.iter().any(|one| one.name == UNPRIVILEGED_PORTS) {
        sysctls.push(Sysctl {
            name: UNPRIVILEGED_PORTS.to_owned(),
            value: "0".to_owned(),
        });
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    let selector = ObjectFieldSelector {
        field_path: path.to_owned(),
        api_version: Some("v1".to_owned()),
    };
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(selector),
            ..EnvVarSource::default()
        }),
    }
}

/// The application's declared ports, as JSON.
pub fn pod_ports(pod: &Pod) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports: Vec<serde_json::Value> = containers
        .flat_map(|one| one.ports.iter().flatten())
        .map(|port| {
            let mut value = json!({"containerPort": port.container_port});
            if let Some(name) = &port.name {
                value["name"] = json!(name);
            }
            value["protocol"] = json!(port.protocol.as_deref().unwrap_or("TCP"));
            value
        })
        .collect();
    serde_json::Value::Array(ports).to_string()
}

/// The application's containers, between commas.
pub fn app_containers(pod: &Pod) -> String {
    let names = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|one| one.name.as_str());
    names.collect::<Vec<_>>().join(",")
}
