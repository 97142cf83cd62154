//! The bootstrap's own resources in the store's account, so that admin pages show them beside what came by xDS.

use std::time::SystemTime;

use bytes::Bytes;
use mesh_proto::{envoy::config::bootstrap::v3::Bootstrap as Proto, pb::google::protobuf::Any, xds::Type};
use prost::{Message, Name};

use crate::{
    bootstrap::Bootstrap,
    store::{State, Store},
};

/// Notes the bootstrap and each of its static resources.
pub fn account(store: &Store, bootstrap: &Bootstrap) {
    let now = SystemTime::now();
    // These bytes were encoded from a message; should they not decode, the pages show the bootstrap alone.
    let statics = Proto::decode(bootstrap.message.clone())
        .ok()
        .and_then(|proto| proto.static_resources)
        .unwrap_or_default();
    store.ledger(|ledger| {
        ledger.bootstrap = Some(Any {
            type_url: Proto::type_url(),
            value: bootstrap.message.to_vec(),
        });
        ledger.bootstrap_read = Some(now);
        let mut note = |kind, name: &str, body: Vec<u8>| {
            ledger.taken(kind, name, Bytes::from(body), "", now, State::Static);
        };
        for cluster in &statics.clusters {
            note(Type::Cluster, &cluster.name, cluster.encode_to_vec());
        }
        for listener in &statics.listeners {
            note(Type::Listener, &listener.name, listener.encode_to_vec());
        }
        for secret in &statics.secrets {
            note(Type::Secret, &secret.name, secret.encode_to_vec());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statics_are_noted() {
        let text = "static_resources: {clusters: [{name: a, type: STATIC, connect_timeout: 1s}]}";
        let bootstrap = crate::bootstrap::read(text).unwrap();
        let store = Store::new();
        account(&store, &bootstrap);
        store.ledger(|ledger| {
            assert_eq!(ledger.get(Type::Cluster, "a").unwrap().state, State::Static);
            assert!(ledger.bootstrap.is_some());
        });
    }
}
