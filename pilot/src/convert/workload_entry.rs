//! WorkloadEntry, and the endpoints of a ServiceEntry, which have the same form.

use mesh_proto::{
    kube::{Object, networking as api},
    names::label,
};

use super::port;
use crate::model::{
    Origin, WorkloadEntry,
    endpoint::{Address, EntryEndpoint, Locality},
};

pub fn convert(object: &Object<api::WorkloadEntry>, origin: Origin) -> WorkloadEntry {
    let mut endpoint = endpoint(&object.spec);
    // Labels of the object count too, those of the entry more.
    for (key, value) in object.metadata.labels.iter().flatten() {
        endpoint
            .labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    // A workload with an account of the mesh's has its proxy, unless it says that it has none.
    let declared = endpoint.labels.get(label::TLS_MODE).map(|mode| mode == "istio");
    endpoint.mesh_tls = declared.unwrap_or(!endpoint.service_account.is_empty());
    WorkloadEntry { origin, endpoint }
}

pub fn endpoint(entry: &api::WorkloadEntry) -> EntryEndpoint {
    let address = match (entry.address.strip_prefix("unix://"), entry.address.parse()) {
        (Some(path), _) => Address::Pipe(path.to_owned()),
        (None, Ok(ip)) => Address::Ip(ip),
        (None, Err(_)) => Address::Name(entry.address.to_ascii_lowercase()),
    };
    EntryEndpoint {
        address,
        ports: entry
            .ports
            .iter()
            .map(|(name, number)| (name.clone(), port(*number)))
            .collect(),
        labels: entry.labels.clone(),
        locality: Locality::parse(&entry.locality),
        network: entry.network.clone(),
        weight: entry.weight,
        service_account: entry.service_account.clone(),
        mesh_tls: entry
            .labels
            .get(label::TLS_MODE)
            .is_some_and(|mode| mode == "istio"),
    }
}
