//! The controllers: one task that, after every change in the store, brings everything derived up to date: namespaces'
//! standard objects, services' addresses, Deployments' sets, sets' pods, EndpointSlices, and what the node publishes
//! (netfilter, DNS, gateway port). Every pass is whole and says nothing when nothing changed, so that a missed or doubled
//! event cannot matter.

pub mod deployment;
pub mod endpoint;
pub mod namespace;

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;

use self::{
    deployment::{Plan, SAFE, Size, controller_uid, owner},
    endpoint::{Published, is_ready},
};
use super::{
    dns::Zone,
    injection, moment, netfilter, netns,
    node::Node,
    object::{self, Key, Kind, stable_hash},
    platform::{SERVICE_RANGE_FIRST, SERVICE_RANGE_LAST},
    publish::Gateway,
    store::{Store, StoreError},
};

/// A pass without an event: citadel's root is a file, and `minReadySeconds` passes by itself.
const TICK: Duration = Duration::from_millis(500);
/// Everybody waits for the first root.
const FIRST_ROOT_TICK: Duration = Duration::from_millis(50);
/// Several changes at once are one pass.
const GATHER: Duration = Duration::from_millis(5);

type Object = (Key, Arc<Value>);

/// What the controllers tell the node's own services.
pub struct Outlets {
    pub zone: watch::Sender<Arc<Zone>>,
    pub gateway: watch::Sender<Arc<Gateway>>,
}

/// Runs until the node closes.
pub async fn run(node: Arc<Node>, outlets: Outlets) {
    let mut revision = node.store.subscribe();
    let mut table = String::new();
    loop {
        revision.mark_unchanged();
        if let Err(error) = pass(&node) {
            tracing::error!(%error, "controllers");
        }
        let published = published(&node.store);
        apply(&node, published, &outlets, &mut table).await;
        tokio::select! {
            changed = revision.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
            }
            () = tokio::time::sleep(if namespace::has_root(&node.store) { TICK } else { FIRST_ROOT_TICK }) => {}
            () = node.closed() => return,
        }
    }
}

/// One pass over everything in the store.
fn pass(node: &Node) -> Result<(), StoreError> {
    namespace::standard_objects(node)?;
    addresses(&node.store)?;
    collect_orphans(&node.store)?;
    deployments(&node.store)?;
    replica_sets(&node.store)?;
    endpoint_slices(&node.store)?;
    namespace::finish_removal(&node.store)
}

/// Gives services their cluster addresses. A service asks for the same address each time it is made, and gets it unless
/// another has it.
fn addresses(store: &Store) -> Result<(), StoreError> {
    let services = store.list(Kind::named("Service"));
    let address = |service: &Value| object::text(service, "/spec/clusterIP").parse::<Ipv4Addr>().ok();
    let mut taken: BTreeSet<Ipv4Addr> = services
        .iter()
        .filter_map(|(_, service)| address(service))
        .collect();
    for (key, service) in services {
        let named = service.pointer("/spec/clusterIP").and_then(Value::as_str);
        if named.is_some_and(|text| !text.is_empty())
            || object::text(&service, "/spec/type") == "ExternalName"
        {
            continue;
        }
        let Some(address) = free_address(&format!("{}/{}", key.namespace, key.name), &taken) else {
            tracing::error!(service = %key.name, namespace = %key.namespace, "no cluster address is left");
            continue;
        };
        taken.insert(address);
        store.update(&key, |service| {
            service["spec"]["clusterIP"] = address.to_string().into();
            service["spec"]["clusterIPs"] = json!([address]);
        })?;
    }
    Ok(())
}

fn free_address(name: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let size = SERVICE_RANGE_LAST - SERVICE_RANGE_FIRST + 1;
    let first = (stable_hash(name) % u64::from(size)) as u32;
    (0..size)
        .map(|step| Ipv4Addr::from_bits(SERVICE_RANGE_FIRST + (first + step) % size))
        .find(|a| !taken.contains(a))
}

/// What lost its owner goes.
fn collect_orphans(store: &Store) -> Result<(), StoreError> {
    let uids: BTreeSet<String> = ["Deployment", "ReplicaSet", "Service"]
        .into_iter()
        .flat_map(|kind| store.list(Kind::named(kind)))
        .map(|(_, object)| object::text(&object, "/metadata/uid").to_owned())
        .collect();
    for kind in ["ReplicaSet", "Pod", "EndpointSlice"] {
        for (key, object) in store.list(Kind::named(kind)) {
            let owner = controller_uid(&object);
            if owner.is_empty() || uids.contains(owner) {
                continue;
            }
            if kind == "Pod" {
                delete_pod(store, &key, None)?;
            } else {
                store.remove(&key)?;
            }
        }
    }
    Ok(())
}

/// Marks a pod for deletion; the task that runs it does the rest.
pub fn delete_pod(store: &Store, key: &Key, grace: Option<u64>) -> Result<(), StoreError> {
    let now = moment::now();
    let marked = store.update(key, |pod| {
        let own = pod
            .pointer("/spec/terminationGracePeriodSeconds")
            .and_then(Value::as_u64)
            .unwrap_or(30);
        if object::text(pod, "/metadata/deletionTimestamp").is_empty() {
            object::set_metadata(pod, "deletionTimestamp", now.into());
            object::set_metadata(pod, "deletionGracePeriodSeconds", grace.unwrap_or(own).into());
        }
    });
    match marked {
        Err(StoreError::Missing(_)) => Ok(()),
        other => other.map(drop),
    }
}

fn is_leaving(object: &Value) -> bool {
    !object::text(object, "/metadata/deletionTimestamp").is_empty()
}

fn size_of(set: &Value, pods: &[Object]) -> Size {
    let wanted = set.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(0);
    let least = set
        .pointer("/spec/minReadySeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let uid = object::text(set, "/metadata/uid");
    let own: Vec<&Value> = pods
        .iter()
        .map(|(_, pod)| pod.as_ref())
        .filter(|pod| controller_uid(pod) == uid)
        .collect();
    let active: Vec<&&Value> = own.iter().filter(|pod| !is_leaving(pod)).collect();
    let available = active.iter().filter(|pod| is_available(pod, least)).count();
    Size {
        wanted: count(wanted),
        pods: count(own.len() as u64),
        active: count(active.len() as u64),
        available: count(available as u64),
    }
}

fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn is_available(pod: &Value, least: i64) -> bool {
    if least == 0 || !is_ready(pod) {
        return is_ready(pod);
    }
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let since = ready
        .and_then(|condition| condition["lastTransitionTime"].as_str())
        .unwrap_or_default();
    moment::seconds_since(since, OffsetDateTime::now_utc()).is_some_and(|seconds| seconds >= least)
}

fn deployments(store: &Store) -> Result<(), StoreError> {
    let pods = store.list(Kind::named("Pod"));
    for (key, deployment) in store.list(Kind::named("Deployment")) {
        let hash = deployment::template_hash(deployment.pointer("/spec/template").unwrap_or(&Value::Null));
        let current_key = Key::new("ReplicaSet", &key.namespace, &format!("{}-{hash}", key.name));
        if store.get(&current_key).is_none() {
            store.create(&current_key, deployment::replica_set(&deployment, &hash))?;
        }
        let uid = object::text(&deployment, "/metadata/uid");
        let mut sets: Vec<Object> = store.list(Kind::named("ReplicaSet"));
        sets.retain(|(_, set)| controller_uid(set) == uid);
        sets.sort_by_key(|(_, set)| object::text(set, "/metadata/creationTimestamp").to_owned());
        let (current, older): (Vec<Object>, Vec<Object>) =
            sets.into_iter().partition(|(key, _)| *key == current_key);
        let Some((_, current)) = current.first() else {
            continue;
        };
        let current_size = size_of(current, &pods);
        let older_sizes: Vec<Size> = older.iter().map(|(_, set)| size_of(set, &pods)).collect();
        let (next, sizes) = deployment::step(&Plan::of(&deployment), current_size, &older_sizes);
        store.update(&current_key, |set| set["spec"]["replicas"] = next.into())?;
        for (((key, _), size), before) in older.iter().zip(sizes).zip(&older_sizes) {
            if size == 0 && before.pods == 0 {
                store.remove(key)?;
            } else {
                store.update(key, |set| set["spec"]["replicas"] = size.into())?;
            }
        }
        let replicas = current_size.active + older_sizes.iter().map(|size| size.active).sum::<u32>();
        let available = current_size.available + older_sizes.iter().map(|size| size.available).sum::<u32>();
        store.update(&key, |object| {
            object["status"] = json!({
                "observedGeneration": object["metadata"]["generation"],
                "replicas": replicas,
                "updatedReplicas": current_size.active,
                "readyReplicas": available,
                "availableReplicas": available,
            });
        })?;
    }
    Ok(())
}

/// Makes and removes pods until each set has as many as it should.
fn replica_sets(store: &Store) -> Result<(), StoreError> {
    let pods = store.list(Kind::named("Pod"));
    for (key, set) in store.list(Kind::named("ReplicaSet")) {
        let uid = object::text(&set, "/metadata/uid");
        let mut own: Vec<&Object> = pods
            .iter()
            .filter(|(_, pod)| controller_uid(pod) == uid)
            .collect();
        own.retain(|(_, pod)| {
            !is_leaving(pod) && !["Failed", "Succeeded"].contains(&object::text(pod, "/status/phase"))
        });
        let wanted = set.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1) as usize;
        let mut trouble = None;
        for _ in own.len()..wanted {
            match injection::admit(store, pod_of(&key, &set)) {
                Ok(pod) => {
                    let name = object::text(&pod, "/metadata/name").to_owned();
                    store.create(&Key::new("Pod", &key.namespace, &name), pod)?;
                }
                Err(text) => trouble = Some(text),
            }
        }
        // Those that serve nobody first, then the youngest.
        own.sort_by_key(|(_, pod)| {
            (
                is_ready(pod),
                std::cmp::Reverse(object::text(pod, "/metadata/creationTimestamp").to_owned()),
            )
        });
        for (pod_key, _) in own.iter().take(own.len().saturating_sub(wanted)) {
            delete_pod(store, pod_key, None)?;
        }
        let size = size_of(&set, &pods);
        store.update(&key, |set| {
            let mut status = json!({
                "replicas": size.active, "readyReplicas": size.available, "availableReplicas": size.available,
            });
            if let Some(text) = trouble {
                let condition = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": text});
                status["conditions"] = json!([condition]);
            }
            set["status"] = status;
        })?;
    }
    Ok(())
}

/// A pod of a set's template, with a name of its own.
fn pod_of(key: &Key, set: &Value) -> Value {
    let suffix: String = (0..5)
        .map(|_| char::from(SAFE[rand::random_range(0..SAFE.len())]))
        .collect();
    let template = set.pointer("/spec/template").cloned().unwrap_or_default();
    let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
    metadata["name"] = format!("{}-{suffix}", key.name).into();
    metadata["generateName"] = format!("{}-", key.name).into();
    metadata["namespace"] = key.namespace.as_str().into();
    metadata["ownerReferences"] = json!([owner("apps/v1", "ReplicaSet", set)]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

fn endpoint_slices(store: &Store) -> Result<(), StoreError> {
    let mut pods: HashMap<String, Vec<Arc<Value>>> = HashMap::new();
    for (key, pod) in store.list(Kind::named("Pod")) {
        pods.entry(key.namespace).or_default().push(pod);
    }
    let existing = store.list(Kind::named("EndpointSlice"));
    for (key, service) in store.list(Kind::named("Service")) {
        let selector = service.pointer("/spec/selector").and_then(Value::as_object);
        let mut wanted = Vec::new();
        if selector.is_some_and(|selector| !selector.is_empty()) {
            let own: Vec<&Value> = pods
                .get(&key.namespace)
                .into_iter()
                .flatten()
                .map(AsRef::as_ref)
                .collect();
            wanted = endpoint::slices(&service, &own);
        }
        let mut names = BTreeSet::new();
        for slice in wanted {
            let name = object::text(&slice, "/metadata/name").to_owned();
            store.put(&Key::new("EndpointSlice", &key.namespace, &name), slice)?;
            names.insert(name);
        }
        let uid = object::text(&service, "/metadata/uid");
        for (old, _) in existing.iter().filter(|(_, slice)| controller_uid(slice) == uid) {
            if !names.contains(&old.name) {
                store.remove(old)?;
            }
        }
    }
    Ok(())
}

fn published(store: &Store) -> Published {
    let [services, slices, pods] =
        ["Service", "EndpointSlice", "Pod"].map(|kind| store.list(Kind::named(kind)));
    let [services, slices, pods] = [&services, &slices, &pods]
        .map(|list| list.iter().map(|(_, object)| &**object).collect::<Vec<&Value>>());
    endpoint::publish(&services, &slices, &pods)
}

/// Tells netfilter, DNS and the gateway port, each only what changed.
async fn apply(node: &Node, published: Published, outlets: &Outlets, last_table: &mut String) {
    let Published {
        services,
        zone,
        gateway,
    } = published;
    outlets.zone.send_if_modified(|now| replace(now, zone));
    outlets.gateway.send_if_modified(|now| replace(now, gateway));
    let table = netfilter::table(&services);
    if table == *last_table {
        return;
    }
    let namespace = node.layout.node_namespace();
    match netns::run("ip", &["netns", "exec", &namespace, "nft", "-f", "-"], &table).await {
        Ok(()) => *last_table = table,
        Err(error) => tracing::error!(%error, "the services' netfilter table stays as it was; tried again"),
    }
}

fn replace<T: PartialEq>(now: &mut Arc<T>, next: T) -> bool {
    if **now == next {
        return false;
    }
    *now = Arc::new(next);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_and_never_shared() {
        let mut taken = BTreeSet::new();
        let first = free_address("default/reviews", &taken).unwrap();
        assert_eq!(free_address("default/reviews", &taken), Some(first));
        taken.insert(first);
        let second = free_address("default/reviews", &taken).unwrap();
        assert_ne!(first, second);
        assert_eq!(second.octets()[..2], [10, 96]);
    }

    #[test]
    fn a_pod_of_a_template() {
        let key = Key::new("ReplicaSet", "default", "web-abc");
        let set = json!({"metadata": {"name": "web-abc", "uid": "u"}, "spec": {"template": {
            "metadata": {"labels": {"app": "web", "pod-template-hash": "abc"}, "annotations": {"a": "b"}},
            "spec": {"containers": [{"name": "c"}]}}}});
        let pod = pod_of(&key, &set);
        let name = object::text(&pod, "/metadata/name");
        assert!(
            name.starts_with("web-abc-") && name.len() == "web-abc-".len() + 5,
            "{name}"
        );
        assert_eq!(controller_uid(&pod), "u");
        assert_eq!(pod["metadata"]["labels"]["app"], "web");
        assert_eq!(pod["spec"]["containers"][0]["name"], "c");
    }
}
