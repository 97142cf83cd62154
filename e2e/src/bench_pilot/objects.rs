//! The generated mesh: namespaces of services with their pods and endpoints over three zones, a route and
//! two subsets for every tenth service, a TCP port for every tenth; and the changes that are made to it.
//! What lies where follows from the numbers alone.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use anyhow::Context;
use mesh_proto::{names, node::NodeMetadata};

use super::Settings;

/// Every so many services have a VirtualService and a DestinationRule with two subsets.
const ROUTED: usize = 10;
/// As many have a TCP port beside their HTTP port.
const TCP_PORT: u16 = 5432;
const FIRST_PORT: usize = 8000;
const ZONES: usize = 3;
const NODES: usize = 9;

#[derive(Clone, Debug)]
pub struct Population {
    services: usize,
    endpoints: usize,
    ports: usize,
    per_namespace: usize,
}

/// One file as it shall be after a change.
#[derive(Clone, Debug)]
pub struct Written {
    /// Below the folder of objects.
    pub path: String,
    pub text: String,
    /// Stands in the resources made from it.
    pub marker: Vec<u8>,
    /// `kind/namespace/name`
    pub object: String,
}

impl Population {
    pub fn new(settings: &Settings) -> Self {
        Self {
            services: settings.services,
            endpoints: settings.endpoints,
            ports: settings.ports,
            per_namespace: settings.per_namespace,
        }
    }

    pub fn describe(&self) -> String {
        format!(
            "{} services x {} endpoints in {} namespaces, on {} ports; a VirtualService, and a DestinationRule with two subsets, for \
             every tenth; a TCP port too for every tenth",
            self.services,
            self.endpoints,
            self.services.div_ceil(self.per_namespace),
            self.ports.min(self.services),
        )
    }

    pub fn namespace(&self, service: usize) -> String {
        format!("team-{:03}", service / self.per_namespace)
    }

    pub fn service(service: usize) -> String {
        format!("service-{service:05}")
    }

    fn port(&self, service: usize) -> usize {
        FIRST_PORT + service % self.ports
    }

    fn host(&self, service: usize) -> String {
        format!(
            "{}.{}.svc.{}",
            Self::service(service),
            self.namespace(service),
            names::CLUSTER_DOMAIN
        )
    }

    /// The cluster of a service's HTTP port.
    pub fn cluster(&self, service: usize) -> String {
        format!("outbound|{}||{}", self.port(service), self.host(service))
    }

    /// The service and the pod that a proxy is beside: first one of each service, then the second of each.
    pub fn place(&self, proxy: usize) -> (usize, usize) {
        (proxy % self.services, proxy / self.services)
    }

    fn pod(service: usize, pod: usize) -> String {
        format!("{}-v{}-{pod}", Self::service(service), 1 + pod % 2)
    }

    fn address(&self, service: usize, pod: usize) -> String {
        let number = service * self.endpoints + pod;
        format!(
            "10.{}.{}.{}",
            16 + (number >> 16) % 64,
            (number >> 8) % 256,
            number % 256
        )
    }

    /// How many accounts the first `proxies` proxies have: one for each service.
    pub fn accounts_of(&self, proxies: usize) -> usize {
        proxies.min(self.services)
    }

    /// Node id and metadata, as our proxy sends them.
    pub fn node(&self, proxy: usize) -> (String, NodeMetadata) {
        let (service, pod) = self.place(proxy);
        let (namespace, name) = (self.namespace(service), Self::pod(service, pod));
        let id = format!(
            "sidecar~{}~{name}.{namespace}~{namespace}.svc.{}",
            self.address(service, pod),
            names::CLUSTER_DOMAIN
        );
        let metadata = NodeMetadata {
            name,
            namespace,
            service_account: Self::service(service),
            workload_name: Self::service(service),
            labels: self.labels(service, pod),
            instance_ips: self.address(service, pod),
            dns_capture: "true".to_owned(),
            generator: "gossamer".to_owned(),
            ..NodeMetadata::default()
        };
        (id, metadata)
    }

    fn labels(&self, service: usize, pod: usize) -> BTreeMap<String, String> {
        [
            ("app".to_owned(), Self::service(service)),
            ("version".to_owned(), format!("v{}", 1 + pod % 2)),
            ("security.istio.io/tlsMode".to_owned(), "istio".to_owned()),
        ]
        .into()
    }

    /// The services that a proxy of mode `ondemand` uses.
    pub fn wanted(&self, proxy: usize, settings: &Settings) -> Vec<usize> {
        let count = settings.wanted.min(self.services);
        // A stride without a common factor would be nicer still; neighbours that share none of theirs are enough.
        let mut services: Vec<usize> = (0..count)
            .map(|i| (proxy * 7 + i * self.services / count.max(1)) % self.services)
            .collect();
        services.sort_unstable();
        services.dedup();
        services
    }

    /// How many proxies use a service.
    pub fn wanting(&self, service: usize, settings: &Settings) -> usize {
        (0..settings.proxies)
            .filter(|proxy| self.wanted(*proxy, settings).contains(&service))
            .count()
    }

    /// Spread over all services; for a route, over those that have one.
    pub fn service_to_change(&self, number: usize, routed: bool) -> usize {
        if routed {
            (number * 37 * ROUTED) % (self.services.div_ceil(ROUTED) * ROUTED).max(1) % self.services / ROUTED
                * ROUTED
        } else {
            (number * 37) % self.services
        }
    }

    /// The last endpoint of a service is somewhere else now.
    pub fn move_endpoint(&self, service: usize, number: usize) -> Written {
        let address = format!("10.200.{}.{}", number / 250, 1 + number % 250);
        Written {
            path: format!("slices/{}.yaml", Self::service(service)),
            text: self.slice(service, Some(&address)),
            // In protobuf an address is followed by the tag of its port.
            marker: [address.as_bytes(), b"\x18"].concat(),
            object: format!(
                "endpointslice/{}/{}",
                self.namespace(service),
                Self::service(service)
            ),
        }
    }

    /// The rules of a service set another header.
    pub fn change_route(&self, service: usize, number: usize) -> Written {
        let marker = format!("change-{number}-of-{service}.");
        Written {
            path: format!("routes/{}.yaml", Self::service(service)),
            text: self.route(service, &marker),
            marker: marker.into_bytes(),
            object: format!(
                "virtualservice/{}/{}",
                self.namespace(service),
                Self::service(service)
            ),
        }
    }

    /// Everything, in files below a folder that is empty.
    pub fn write_all(&self, folder: &Path) -> anyhow::Result<()> {
        let keep = |path: String, text: String| {
            let path = folder.join(path);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        for part in ["workloads", "slices", "routes"] {
            fs::create_dir_all(folder.join(part))?;
        }
        keep("nodes.yaml".to_owned(), nodes())?;
        for service in 0..self.services {
            let name = Self::service(service);
            keep(format!("workloads/{name}.yaml"), self.workload(service))?;
            keep(format!("slices/{name}.yaml"), self.slice(service, None))?;
            if service % ROUTED == 0 {
                keep(format!("routes/{name}.yaml"), self.route(service, "unchanged"))?;
            }
        }
        Ok(())
    }

    /// A service and its pods.
    fn workload(&self, service: usize) -> String {
        let (name, namespace, port) = (
            Self::service(service),
            self.namespace(service),
            self.port(service),
        );
        let number = service + 1;
        let tcp = if service % ROUTED == ROUTED / 2 {
            format!(", {{name: tcp-data, port: {TCP_PORT}}}")
        } else {
            String::new()
        };
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{clusterIP: 10.100.{}.{}, selector: {{app: {name}}}, \
             ports: [{{name: http, port: {port}, targetPort: 8080}}{tcp}]}}\n",
            number / 256,
            number % 256
        );
        for pod in 0..self.endpoints {
            let (pod_name, ip) = (Self::pod(service, pod), self.address(service, pod));
            let version = 1 + pod % 2;
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {pod_name}, namespace: {namespace}, labels: {{app: {name}, \
                 version: v{version}, security.istio.io/tlsMode: istio}}}}\n\
                 spec: {{serviceAccountName: {name}, nodeName: node-{}, containers: [{{name: app, image: app}}]}}\n\
                 status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: 'True'}}]}}\n",
                (service + pod) % NODES
            );
        }
        text
    }

    fn slice(&self, service: usize, moved: Option<&str>) -> String {
        let (name, namespace) = (Self::service(service), self.namespace(service));
        let tcp = if service % ROUTED == ROUTED / 2 {
            format!(", {{name: tcp-data, port: {TCP_PORT}, protocol: TCP}}")
        } else {
            String::new()
        };
        let mut text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}{tcp}]\nendpoints:\n"
        );
        for pod in 0..self.endpoints {
            let own = self.address(service, pod);
            let address = moved.filter(|_| pod + 1 == self.endpoints).unwrap_or(&own);
            let _ = writeln!(
                text,
                "- {{addresses: [{address}], conditions: {{ready: true}}, nodeName: node-{}, \
                 targetRef: {{kind: Pod, name: {}, namespace: {namespace}}}}}",
                (service + pod) % NODES,
                Self::pod(service, pod)
            );
        }
        text
    }

    fn route(&self, service: usize, marker: &str) -> String {
        let (name, namespace) = (Self::service(service), self.namespace(service));
        let meta = format!("metadata: {{name: {name}, namespace: {namespace}}}");
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n{meta}\nspec:\n  hosts: [{name}]\n  http:\n\
             \x20 - match: [{{headers: {{x-canary: {{exact: 'yes'}}}}}}]\n    route: [{{destination: {{host: {name}, subset: v2}}}}]\n\
             \x20 - headers: {{request: {{set: {{x-release: {marker}}}}}}}\n    timeout: 10s\n    route:\n\
             \x20   - {{destination: {{host: {name}, subset: v1}}, weight: 90}}\n\
             \x20   - {{destination: {{host: {name}, subset: v2}}, weight: 10}}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n{meta}\nspec:\n  host: {name}\n\
             \x20 trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 1000}}}}}}\n  subsets:\n\
             \x20 - {{name: v1, labels: {{version: v1}}}}\n  - {{name: v2, labels: {{version: v2}}}}\n"
        )
    }
}

fn nodes() -> String {
    (0..NODES).fold(String::new(), |mut text, node| {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: node-{node}, labels: {{topology.kubernetes.io/region: region-1, \
             topology.kubernetes.io/zone: zone-{}}}}}\n",
            node % ZONES
        );
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use mesh_proto::kube::yaml;

    fn settings(line: &[&str]) -> Settings {
        Settings::parse_from([&["bench"], line].concat())
    }

    #[test]
    fn every_object_can_be_read() {
        let population = Population::new(&settings(&["--services", "11", "--endpoints", "2"]));
        let folder = std::env::temp_dir().join(format!("gossamer-bench-pilot-{}", std::process::id()));
        population.write_all(&folder).unwrap();
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for part in ["workloads", "slices", "routes", "."] {
            for entry in fs::read_dir(folder.join(part)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    continue;
                }
                let (objects, findings) = yaml::manifests(&fs::read_to_string(&path).unwrap(), "file");
                assert!(findings.is_empty(), "{}: {findings:#?}", path.display());
                for object in objects {
                    *kinds.entry(format!("{:?}", object.kind)).or_default() += 1;
                }
            }
        }
        fs::remove_dir_all(folder).unwrap();
        let kinds: Vec<(&str, usize)> = kinds.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
        assert_eq!(
            kinds,
            [
                ("DestinationRule", 2),
                ("EndpointSlice", 11),
                ("Node", 9),
                ("Pod", 22),
                ("Service", 11),
                ("VirtualService", 2)
            ]
        );
    }

    #[test]
    fn changes_hit_what_they_name() {
        let population = Population::new(&settings(&["--services", "1000"]));
        for number in 0..200 {
            assert_eq!(population.service_to_change(number, true) % ROUTED, 0);
            let moved = population.move_endpoint(population.service_to_change(number, false), number);
            let address = String::from_utf8_lossy(&moved.marker[..moved.marker.len() - 1]).into_owned();
            assert!(moved.text.contains(&format!("[{address}]")), "{}", moved.text);
        }
        let settings = settings(&["--proxies", "2000", "--mode", "ondemand"]);
        let all: usize = (0..1000)
            .map(|service| population.wanting(service, &settings))
            .sum();
        assert_eq!(all, 20_000, "ten for each proxy");
    }
}
