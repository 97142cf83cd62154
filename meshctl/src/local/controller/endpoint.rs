//! Services become addresses: the EndpointSlices of a service from the pods that its selector finds, and, from services
//! and slices together, what the node's netfilter table, its DNS and its gateway port need. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};

use mesh_proto::names::{CLUSTER_DOMAIN, SYSTEM_NAMESPACE, label};
use serde_json::{Value, json};

use super::deployment::owner;
use crate::local::{
    dns::{Target, Zone},
    netfilter::ServicePort,
    object::{self, selects},
    platform::NODE_NAME,
    publish::Gateway,
};

/// Whose slices these are: others (a user's own) are left alone.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The service behind the gateway port.
pub const GATEWAY_SERVICE: &str = "istio-ingressgateway";

/// (name, number, protocol, appProtocol) of one port of one pod.
type Port = (String, u16, String, Option<String>);

/// The slices of a service. Pods whose named ports have other numbers are in slices of their own.
pub fn slices(service: &Value, pods: &[&Value]) -> Vec<Value> {
    let selector = service.pointer("/spec/selector").unwrap_or(&Value::Null);
    let mut groups: BTreeMap<Vec<Port>, Vec<Value>> = BTreeMap::new();
    for pod in pods {
        if !selects(selector, pod.pointer("/metadata/labels").unwrap_or(&Value::Null)) {
            continue;
        }
        let phase = object::text(pod, "/status/phase");
        if object::text(pod, "/status/podIP").is_empty() || phase == "Succeeded" || phase == "Failed" {
            continue;
        }
        groups
            .entry(ports(service, pod))
            .or_default()
            .push(endpoint(service, pod));
    }
    if groups.is_empty() {
        // An empty slice says "nobody", which is more than saying nothing.
        groups.insert(Vec::new(), Vec::new());
    }
    let name = object::text(service, "/metadata/name");
    groups
        .into_iter()
        .enumerate()
        .map(|(index, (ports, mut endpoints))| {
            endpoints
                .sort_by_key(|endpoint| endpoint["addresses"][0].as_str().unwrap_or_default().to_owned());
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-{index}"),
                    "labels": {(label::SERVICE_NAME): name, (MANAGED_BY): MANAGER},
                    "ownerReferences": [owner("v1", "Service", service)],
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": ports.iter().map(port_json).collect::<Vec<_>>(),
            })
        })
        .collect()
}

fn port_json((name, number, protocol, app_protocol): &Port) -> Value {
    let mut port = json!({"name": name, "port": number, "protocol": protocol});
    if let Some(app_protocol) = app_protocol {
        port["appProtocol"] = app_protocol.as_str().into();
    }
    port
}

/// The service's ports as this pod has them; a named port that the pod lacks is left out.
fn ports(service: &Value, pod: &Value) -> Vec<Port> {
    let written = service
        .pointer("/spec/ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    written
        .filter_map(|port| {
            let number = match port.get("targetPort").or(port.get("port"))? {
                Value::String(name) => named_port(pod, name).or_else(|| name.parse().ok())?,
                number => u16::try_from(number.as_u64()?).ok()?,
            };
            let text = |field: &str| port.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
            let name = text("name").unwrap_or_default();
            Some((
                name,
                number,
                text("protocol").unwrap_or_else(|| "TCP".into()),
                text("appProtocol"),
            ))
        })
        .collect()
}

fn named_port(pod: &Value, name: &str) -> Option<u16> {
    let list = |pointer: &str| {
        pod.pointer(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let containers = list("/spec/containers").chain(list("/spec/initContainers"));
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports
        .find(|port| port["name"] == name)
        .and_then(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
}

fn endpoint(service: &Value, pod: &Value) -> Value {
    let ready = is_ready(pod);
    let leaving = !object::text(pod, "/metadata/deletionTimestamp").is_empty();
    let always = service.pointer("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true));
    let mut endpoint = json!({
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": always || (ready && !leaving), "serving": ready, "terminating": leaving},
        "nodeName": NODE_NAME,
        "targetRef": {
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "namespace": pod["metadata"]["namespace"],
            "uid": pod["metadata"]["uid"],
        },
    });
    let hostname = object::text(pod, "/spec/hostname");
    if !hostname.is_empty() && object::text(pod, "/spec/subdomain") == object::text(service, "/metadata/name")
    {
        endpoint["hostname"] = hostname.into();
    }
    endpoint
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// One ready address: of which port name, and where.
struct Ready<'a> {
    port: &'a str,
    number: u16,
    address: Ipv4Addr,
    hostname: &'a str,
}

/// The ready endpoints of a service from all of its slices.
fn ready<'a>(service: &Value, slices: &[&'a Value]) -> Vec<Ready<'a>> {
    let (namespace, name) = (
        object::text(service, "/metadata/namespace"),
        object::text(service, "/metadata/name"),
    );
    let own = slices.iter().filter(|slice| {
        object::text(slice, "/metadata/namespace") == namespace
            && slice
                .pointer("/metadata/labels")
                .and_then(|labels| labels.get(label::SERVICE_NAME))
                == Some(&Value::from(name))
    });
    let mut found = Vec::new();
    for slice in own {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            // Absent means ready, says the API.
            if endpoint.pointer("/conditions/ready") == Some(&Value::Bool(false)) {
                continue;
            }
            let addresses = endpoint["addresses"].as_array().into_iter().flatten();
            for address in addresses.filter_map(|address| address.as_str()?.parse().ok()) {
                let hostname = endpoint["hostname"].as_str().unwrap_or_default();
                found.extend(
                    slice["ports"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|port| {
                            let number = u16::try_from(port["port"].as_u64()?).ok()?;
                            Some(Ready {
                                port: port["name"].as_str().unwrap_or_default(),
                                number,
                                address,
                                hostname,
                            })
                        }),
                );
            }
        }
    }
    found
}

/// What the node makes of all services.
#[derive(Debug, Default, PartialEq)]
pub struct Published {
    pub services: Vec<ServicePort>,
    pub zone: Zone,
    pub gateway: Gateway,
}

pub fn publish(services: &[&Value], slices: &[&Value], pods: &[&Value]) -> Published {
    let mut published = Published::default();
    for service in services {
        let ready = ready(service, slices);
        publish_names(&mut published.zone, service, &ready);
        let address = object::text(service, "/spec/clusterIP").parse().ok();
        for port in service
            .pointer("/spec/ports")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let Some(number) = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else {
                continue;
            };
            let name = port["name"].as_str().unwrap_or_default();
            let mut endpoints: Vec<(Ipv4Addr, u16)> = ready
                .iter()
                .filter(|ready| ready.port == name)
                .map(|ready| (ready.address, ready.number))
                .collect();
            endpoints.sort_unstable();
            endpoints.dedup();
            publish_gateway(&mut published.gateway, service, number, &endpoints);
            let protocol = match port["protocol"].as_str() {
                None | Some("TCP") => "tcp",
                Some("UDP") => "udp",
                Some(_) => continue,
            };
            if let Some(address) = address {
                published.services.push(ServicePort {
                    address,
                    protocol,
                    port: number,
                    endpoints,
                });
            }
        }
    }
    for pod in pods {
        let address = object::text(pod, "/status/podIP");
        if let Ok(parsed) = address.parse() {
            let namespace = object::text(pod, "/metadata/namespace");
            let name = format!("{}.{namespace}.pod.{CLUSTER_DOMAIN}", address.replace('.', "-"));
            published.zone.insert(&name, Target::Addresses(vec![parsed]));
        }
    }
    published.services.sort();
    // Two services with one address would make a table that netfilter refuses whole: the first by order has it.
    published
        .services
        .dedup_by_key(|service| (service.address, service.protocol, service.port));
    published
}

fn publish_names(zone: &mut Zone, service: &Value, ready: &[Ready]) {
    let (namespace, name) = (
        object::text(service, "/metadata/namespace"),
        object::text(service, "/metadata/name"),
    );
    let full = format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}");
    let alias = object::text(service, "/spec/externalName");
    if object::text(service, "/spec/type") == "ExternalName" {
        return zone.insert(&full, Target::Alias(alias.to_owned()));
    }
    match object::text(service, "/spec/clusterIP").parse() {
        Ok(address) => zone.insert(&full, Target::Addresses(vec![address])),
        Err(_) => {
            let addresses: BTreeSet<Ipv4Addr> = ready.iter().map(|ready| ready.address).collect();
            zone.insert(&full, Target::Addresses(addresses.into_iter().collect()));
        }
    }
    for ready in ready.iter().filter(|ready| !ready.hostname.is_empty()) {
        zone.insert(
            &format!("{}.{full}", ready.hostname),
            Target::Addresses(vec![ready.address]),
        );
    }
}

fn publish_gateway(gateway: &mut Gateway, service: &Value, port: u16, endpoints: &[(Ipv4Addr, u16)]) {
    let named = object::text(service, "/metadata/name") == GATEWAY_SERVICE;
    if !named || object::text(service, "/metadata/namespace") != SYSTEM_NAMESPACE {
        return;
    }
    let addresses = endpoints
        .iter()
        .map(|(address, port)| SocketAddr::from((*address, *port)));
    match port {
        80 => gateway.http = addresses.collect(),
        443 => gateway.https = addresses.collect(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({"metadata": {"name": "reviews", "namespace": "default", "uid": "s"}, "spec": {
            "clusterIP": "10.96.0.10",
            "selector": {"app": "reviews"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}, {"name": "raw", "port": 81, "targetPort": 9081}]}})
    }

    fn pod(last: u8, web: u16, ready: bool) -> Value {
        json!({
            "metadata": {"name": format!("p{last}"), "namespace": "default", "labels": {"app": "reviews"}},
            "spec": {"containers": [{"ports": [{"name": "web", "containerPort": web}]}]},
            "status": {"podIP": format!("10.244.0.{last}"), "phase": "Running",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    fn made(pods: &[Value]) -> Vec<Value> {
        let mut slices = slices(&service(), &pods.iter().collect::<Vec<_>>());
        for slice in &mut slices {
            object::set_metadata(slice, "namespace", "default".into());
        }
        slices
    }

    #[test]
    fn slices_of_pods() {
        let mut leaving = pod(4, 9080, true);
        leaving["metadata"]["deletionTimestamp"] = "now".into();
        let made = made(&[
            pod(3, 9080, false),
            pod(2, 9080, true),
            leaving,
            pod(5, 8080, true),
        ]);
        assert_eq!(made.len(), 2);
        let group = made
            .iter()
            .find(|slice| slice["ports"][0]["port"] == 9080)
            .unwrap();
        let conditions: Vec<(&str, &Value, &Value)> = group["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| {
                (
                    e["addresses"][0].as_str().unwrap(),
                    &e["conditions"]["ready"],
                    &e["conditions"]["terminating"],
                )
            })
            .collect();
        let (yes, no) = (&Value::Bool(true), &Value::Bool(false));
        assert_eq!(
            conditions,
            [
                ("10.244.0.2", yes, no),
                ("10.244.0.3", no, no),
                ("10.244.0.4", no, yes)
            ]
        );
        assert_eq!(
            group["ports"][1],
            json!({"name": "raw", "port": 9081, "protocol": "TCP"})
        );
    }

    #[test]
    fn nobody_is_an_empty_slice() {
        let made = made(&[]);
        assert_eq!(
            (made.len(), made[0]["endpoints"].as_array().unwrap().len()),
            (1, 0)
        );
    }

    #[test]
    fn what_the_node_makes_of_it() {
        let pods = [pod(2, 9080, true), pod(3, 9080, false)];
        let slices = made(&pods);
        let service = service();
        let published = publish(
            &[&service],
            &slices.iter().collect::<Vec<_>>(),
            &pods.iter().collect::<Vec<_>>(),
        );
        let address = Ipv4Addr::new(10, 96, 0, 10);
        let row = |port, target| ServicePort {
            address,
            protocol: "tcp",
            port,
            endpoints: vec![(Ipv4Addr::new(10, 244, 0, 2), target)],
        };
        assert_eq!(published.services, [row(80, 9080), row(81, 9081)]);
        let mut zone = Zone::default();
        zone.insert(
            "reviews.default.svc.cluster.local",
            Target::Addresses(vec![address]),
        );
        for last in [2, 3] {
            let name = format!("10-244-0-{last}.default.pod.cluster.local");
            zone.insert(&name, Target::Addresses(vec![Ipv4Addr::new(10, 244, 0, last)]));
        }
        assert_eq!(published.zone, zone);
        assert_eq!(published.gateway, Gateway::default());
    }

    #[test]
    fn headless_services_are_their_pods() {
        let mut service = service();
        service["spec"]["clusterIP"] = "None".into();
        let pods = [pod(2, 9080, true), pod(3, 9080, true)];
        let slices = made(&pods);
        let published = publish(&[&service], &slices.iter().collect::<Vec<_>>(), &[]);
        let mut zone = Zone::default();
        let both = vec![Ipv4Addr::new(10, 244, 0, 2), Ipv4Addr::new(10, 244, 0, 3)];
        zone.insert("reviews.default.svc.cluster.local", Target::Addresses(both));
        assert_eq!(published.zone, zone);
        assert!(published.services.is_empty());
    }

    #[test]
    fn the_gateway_port_leads_to_the_gateway() {
        let mut service = service();
        service["metadata"]["name"] = GATEWAY_SERVICE.into();
        service["metadata"]["namespace"] = SYSTEM_NAMESPACE.into();
        let mut slices = made(&[pod(2, 8080, true)]);
        object::set_metadata(&mut slices[0], "namespace", SYSTEM_NAMESPACE.into());
        object::set_metadata(
            &mut slices[0],
            "labels",
            json!({(label::SERVICE_NAME): GATEWAY_SERVICE}),
        );
        let published = publish(&[&service], &[&slices[0]], &[]);
        assert_eq!(published.gateway.http, ["10.244.0.2:8080".parse().unwrap()]);
    }
}
