//! What an injected pod has more than the pod that the user wrote.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIVolumeFile,
        DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
        ObjectFieldSelector, Pod, Probe, ProjectedVolumeSource, ResourceRequirements, SecurityContext,
        ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use mesh_proto::{
    mesh::{MeshConfig, ProxyConfig},
    names::{self, annotation, container, label, port},
};
use serde_json::json;

use super::{Settings, annotations::Traffic};
use crate::convert::canonical;

/// Volumes of the proxy's.
mod volume {
    pub const TOKEN: &str = "istio-token";
    pub const ROOT: &str = "istio-ca-root-cert";
    pub const POD: &str = "istio-podinfo";
    pub const DATA: &str = "istio-data";
    pub const ALL: [&str; 4] = [TOKEN, ROOT, POD, DATA];
}

/// Life of a token; the kubelet renews it at 80 percent.
const TOKEN_SECONDS: i64 = 43_200;

/// Everything that shapes what is added.
pub struct Template<'a> {
    pub mesh: &'a MeshConfig,
    pub config: &'a ProxyConfig,
    pub settings: &'a Settings,
    pub traffic: &'a Traffic,
}

impl Template<'_> {
    pub fn apply(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        let added = [self.init(), self.proxy(&pod)];
        let spec = pod.spec.get_or_insert_default();
        // Before the user's own, so that those have the mesh too.
        let own = spec.init_containers.take().unwrap_or_default();
        spec.init_containers = Some(added.into_iter().chain(own).collect());
        spec.volumes.get_or_insert_default().extend(volumes());
        self.metadata(&mut pod);
        pod
    }

    fn metadata(&self, pod: &mut Pod) {
        let workload = crate::convert::workload_name(pod);
        let labels = pod.metadata.labels.get_or_insert_default();
        let name = canonical::name(labels, &workload);
        let revision = canonical::revision(labels);
        let mut add = |key: &str, value: &str| {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        };
        add(label::TLS_MODE, "istio");
        add(label::CANONICAL_NAME, &name);
        add(label::CANONICAL_REVISION, &revision);
        add(label::REVISION, &self.settings.revision);
        let status = json!({
            "initContainers": [container::INIT, container::PROXY],
            "containers": null,
            "volumes": volume::ALL,
            "imagePullSecrets": null,
            "revision": self.settings.revision,
        });
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::STATUS.to_owned(), status.to_string());
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
        let traffic = self.traffic;
        let uid = names::PROXY_UID.to_string();
        let mut args: Vec<String> = vec!["redirect".to_owned()];
        let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        flag("-p", &port::OUTBOUND.to_string());
        flag("-z", &port::INBOUND.to_string());
        flag("-u", &uid);
        flag("-g", &uid);
        flag("-m", "REDIRECT");
        flag("-i", &traffic.include_outbound_ranges);
        flag("-x", &traffic.exclude_outbound_ranges);
        flag("-b", &traffic.include_inbound_ports);
        flag("-d", &traffic.exclude_inbound_ports);
        flag("-o", &traffic.exclude_outbound_ports);
        if !traffic.include_outbound_ports.is_empty() {
            flag("-q", &traffic.include_outbound_ports);
        }
        if !traffic.exclude_interfaces.is_empty() {
            flag("-c", &traffic.exclude_interfaces);
        }
        if self.settings.dns_capture {
            args.push("--redirect-dns".to_owned());
        }
        Container {
            name: container::INIT.to_owned(),
            image: Some(self.settings.proxy_image.clone()),
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

    /// A native sidecar: starts before the user's containers, ends after them.
    fn proxy(&self, pod: &Pod) -> Container {
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
        let user = i64::from(names::PROXY_UID);
        Container {
            name: container::PROXY.to_owned(),
            image: Some(self.settings.proxy_image.clone()),
            image_pull_policy: self.settings.image_pull_policy.clone(),
            restart_policy: Some("Always".to_owned()),
            args: Some(vec!["proxy".to_owned(), "sidecar".to_owned()]),
            env: Some(self.env(pod)),
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
            volume_mounts: Some(mounts()),
            ..Container::default()
        }
    }

    fn env(&self, pod: &Pod) -> Vec<EnvVar> {
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
        set("DISCOVERY_ADDRESS", config.discovery_address.clone());
        set("CA_ADDR", config.ca_address.clone());
        set("TRUST_DOMAIN", self.mesh.trust_domain.clone());
        if let Some(threads) = config.concurrency {
            set("PROXY_CONCURRENCY", threads.to_string());
        }
        set(
            "PROXY_LOG_LEVEL",
            self.traffic
                .log_level
                .clone()
                .unwrap_or_else(|| self.settings.log_level.clone()),
        );
        let drain = config.termination_drain_duration.0.as_secs();
        set("TERMINATION_DRAIN_DURATION_SECONDS", drain.to_string());
        set("ISTIO_META_CLUSTER_ID", self.settings.cluster_id.clone());
        set("ISTIO_META_MESH_ID", self.mesh.trust_domain.clone());
        set("ISTIO_META_WORKLOAD_NAME", crate::convert::workload_name(pod));
        set("ISTIO_META_INTERCEPTION_MODE", "REDIRECT".to_owned());
        set("ISTIO_META_DNS_CAPTURE", self.settings.dns_capture.to_string());
        if !self.settings.network.is_empty() {
            set("ISTIO_META_NETWORK", self.settings.network.clone());
        }
        set("ISTIO_META_POD_PORTS", pod_ports(pod));
        let names = pod
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .map(|one| one.name.as_str());
        set("ISTIO_META_APP_CONTAINERS", names.collect::<Vec<_>>().join(","));
        if let Some(scrape) = self.application_metrics(pod) {
            set("ISTIO_PROMETHEUS_ANNOTATIONS", scrape);
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
        let annotations = pod.metadata.annotations.as_ref()?;
        let scrape = annotations.get(annotation::PROMETHEUS_SCRAPE)?;
        if !self.mesh.enable_prometheus_merge || scrape != "true" {
            return None;
        }
        let text =
            |name: &str, default: &str| annotations.get(name).map_or(default, String::as_str).to_owned();
        let scrape = json!({
            "scrape": scrape,
            "path": text(annotation::PROMETHEUS_PATH, "/metrics"),
            "port": text(annotation::PROMETHEUS_PORT, "80"),
        });
        Some(scrape.to_string())
    }

    fn resources(&self) -> ResourceRequirements {
        let quantities = |pairs: [(&str, Option<String>); 2]| -> BTreeMap<String, Quantity> {
            pairs
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), Quantity(value?))))
                .collect()
        };
        let traffic = self.traffic;
        let cpu = traffic.cpu.clone().unwrap_or_else(|| "10m".to_owned());
        let memory = traffic.memory.clone().unwrap_or_else(|| "32Mi".to_owned());
        let limits = quantities([
            ("cpu", traffic.cpu_limit.clone()),
            ("memory", traffic.memory_limit.clone()),
        ]);
        ResourceRequirements {
            requests: Some(quantities([("cpu", Some(cpu)), ("memory", Some(memory))])),
            limits: (!limits.is_empty()).then_some(limits),
            ..ResourceRequirements::default()
        }
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
fn pod_ports(pod: &Pod) -> String {
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

fn mounts() -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    vec![
        mount(volume::TOKEN, "/var/run/secrets/tokens", true),
        mount(volume::ROOT, "/var/run/secrets/istio", true),
        mount(volume::POD, "/etc/istio/pod", true),
        mount(volume::DATA, "/var/lib/istio/data", false),
    ]
}

fn volumes() -> Vec<Volume> {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(names::TOKEN_AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "istio-token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let file = |path: &str, from: &str| DownwardAPIVolumeFile {
        path: path.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: from.to_owned(),
            api_version: None,
        }),
        ..DownwardAPIVolumeFile::default()
    };
    vec![
        Volume {
            name: volume::TOKEN.to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![token]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: volume::ROOT.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: volume::ROOT.to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: volume::POD.to_owned(),
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(vec![
                    file("labels", "metadata.labels"),
                    file("annotations", "metadata.annotations"),
                ]),
                ..DownwardAPIVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: volume::DATA.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        },
    ]
}
