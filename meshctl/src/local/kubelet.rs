//! The kubelet: one task for each pod of the store. A pod that appears is run, one that is marked for deletion is ended,
//! and an object without a task behind it is taken out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    node::Node,
    object::{self, Key, Kind},
    pod::{self, Ending, PodContext},
};

const TICK: Duration = Duration::from_secs(1);

/// Hands out pod addresses in turn, so that one that was just given back rests for a while.
#[derive(Debug)]
pub struct Addresses(Mutex<(u16, BTreeSet<u16>)>);

impl Default for Addresses {
    fn default() -> Self {
        // .0.0 is the network, .0.1 the node.
        Self(Mutex::new((1, BTreeSet::new())))
    }
}

impl Addresses {
    pub fn take(&self) -> Option<Ipv4Addr> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, taken) = &mut *guard;
        for _ in 0..=u16::MAX {
            *last = last.wrapping_add(1);
            if *last > 1 && *last < u16::MAX && taken.insert(*last) {
                let [high, low] = last.to_be_bytes();
                return Some(Ipv4Addr::new(10, 244, high, low));
            }
        }
        None
    }

    pub fn give_back(&self, address: Ipv4Addr) {
        let [.., high, low] = address.octets();
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.1.remove(&u16::from_be_bytes([high, low]));
    }
}

/// A running pod.
struct Handle {
    uid: String,
    ending: watch::Sender<Option<Ending>>,
    task: JoinHandle<()>,
}

/// Runs until the node closes; then ends every pod, within `last_grace`.
pub async fn run(node: Arc<Node>, last_grace: Duration) {
    let mut revision = node.store.subscribe();
    let mut handles: BTreeMap<Key, Handle> = BTreeMap::new();
    loop {
        revision.mark_unchanged();
        reconcile(&node, &mut handles);
        tokio::select! {
            changed = revision.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            // A pod whose name is taken over waits for the end of the old one's task, which is no event.
            () = tokio::time::sleep(TICK) => {}
            () = node.closed() => break,
        }
    }
    let ending = Ending {
        grace: last_grace,
        announce: false,
    };
    for handle in handles.values() {
        handle.ending.send_replace(Some(ending));
    }
    for (_, handle) in handles {
        let _ = handle.task.await;
    }
}

fn reconcile(node: &Arc<Node>, handles: &mut BTreeMap<Key, Handle>) {
    handles.retain(|_, handle| !handle.task.is_finished());
    for (key, object) in node.store.list(Kind::named("Pod")) {
        let uid = object::text(&object, "/metadata/uid");
        let leaving = !object::text(&object, "/metadata/deletionTimestamp").is_empty();
        match handles.get(&key) {
            Some(handle) if handle.uid == uid => {
                if leaving && handle.ending.borrow().is_none() {
                    let seconds = object
                        .pointer("/metadata/deletionGracePeriodSeconds")
                        .and_then(Value::as_u64);
                    let grace = Duration::from_secs(seconds.unwrap_or(30));
                    handle.ending.send_replace(Some(Ending {
                        grace,
                        announce: true,
                    }));
                }
            }
            // The old pod of this name is still on its way out; its end brings us back here.
            Some(_) => {}
            None if leaving => remove(node, &key),
            None => {
                if let Some(handle) = start(node, &key, &object) {
                    handles.insert(key, handle);
                }
            }
        }
    }
}

fn start(node: &Arc<Node>, key: &Key, object: &Value) -> Option<Handle> {
    let Some(address) = node.addresses.take() else {
        tracing::error!(pod = %key.name, namespace = %key.namespace, "no pod address is left");
        return None;
    };
    let context = match PodContext::new(node.clone(), key.clone(), object, address) {
        Ok(context) => context,
        Err(error) => {
            node.addresses.give_back(address);
            refuse(node, key, object, &format!("{error:#}"));
            return None;
        }
    };
    let (ending, told) = watch::channel(None);
    let (node, key) = (node.clone(), key.clone());
    let task = tokio::spawn(async move {
        pod::run(context, told).await;
        if !node.is_closed() {
            remove(&node, &key);
        }
    });
    Some(Handle {
        uid: object::text(object, "/metadata/uid").to_owned(),
        ending,
        task,
    })
}

/// A pod that cannot even be read says so in its status.
fn refuse(node: &Node, key: &Key, object: &Value, text: &str) {
    if object::text(object, "/status/reason") == "InvalidPod" {
        return;
    }
    let status = serde_json::json!({"phase": "Failed", "reason": "InvalidPod", "message": text});
    if let Err(error) = node.store.update(key, |object| object["status"] = status) {
        tracing::warn!(pod = %key.name, namespace = %key.namespace, %error, "status");
    }
}

fn remove(node: &Node, key: &Key) {
    if let Err(error) = node.store.remove(key) {
        tracing::warn!(pod = %key.name, namespace = %key.namespace, %error, "its object stays");
    }
    let _ = std::fs::remove_dir_all(node.layout.pod(&key.namespace, &key.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_turns() {
        let addresses = Addresses::default();
        let first = addresses.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 244, 0, 2));
        addresses.give_back(first);
        assert_eq!(addresses.take().unwrap(), Ipv4Addr::new(10, 244, 0, 3));
    }

    #[test]
    fn addresses_end_and_begin_anew() {
        let addresses = Addresses::default();
        let all: Vec<Ipv4Addr> = std::iter::from_fn(|| addresses.take()).collect();
        assert_eq!(all.len(), 65_533);
        addresses.give_back(Ipv4Addr::new(10, 244, 7, 7));
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 244, 7, 7)));
    }
}
