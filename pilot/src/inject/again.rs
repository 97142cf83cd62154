//! A pod that we have injected and that another webhook (or a person, with a manifest that was injected as a file) has
//! changed since: what depends on its containers is brought in step. Pure, and nothing happens twice.

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use mesh_proto::names::container;

use super::{
    Settings, decide,
    probes::{self, Probers},
    template, wishes,
};

/// The pod as it should be; `None` if it is.
pub fn again(pod: &Pod, settings: &Settings, status_port: u16) -> Option<Pod> {
    let (group, _, _) = decide::proxy_of(pod)?;
    // A gateway has no application beside it.
    if group != "initContainers" {
        return None;
    }
    let mut after = pod.clone();
    // What it wished for was read when it was injected; what cannot be read any more changes nothing.
    let rewrite = wishes::Wishes::read(pod, settings).is_ok_and(|wishes| wishes.rewrite_probes);
    let fresh = if rewrite {
        probes::rewrite(&mut after, status_port)
    } else {
        Probers::new()
    };
    let (ports, names) = (template::pod_ports(&after), template::app_containers(&after));
    let inits = after.spec.as_mut()?.init_containers.as_mut()?;
    let proxy = inits.iter_mut().find(|one| one.name == container::PROXY)?;
    set(proxy, template::POD_PORTS, ports);
    set(proxy, template::APP_CONTAINERS, names);
    if !fresh.is_empty() {
        let mut probers = known(proxy);
        probers.extend(fresh);
        set(proxy, probes::ENV, serde_json::to_string(&probers).ok()?);
    }
    first(inits);
    (after != *pod).then_some(after)
}

fn known(proxy: &Container) -> Probers {
    let text = proxy
        .env
        .iter()
        .flatten()
        .find(|entry| entry.name == probes::ENV)
        .and_then(|entry| entry.value.as_deref());
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

fn set(proxy: &mut Container, name: &str, value: String) {
    let env = proxy.env.get_or_insert_default();
    match env.iter_mut().find(|entry| entry.name == name) {
        Some(entry) => entry.value = Some(value),
        None => env.push(EnvVar {
            name: name.to_owned(),
            value: Some(value),
            value_from: None,
        }),
    }
}

/// Redirection, then the proxy, then whatever was put before them: those shall have the mesh too.
fn first(inits: &mut [Container]) {
    inits.sort_by_key(|one| match one.name.as_str() {
        container::INIT => 0,
        container::PROXY => 1,
        _ => 2,
    });
}
