//! Namespace.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use mesh_proto::finding::Report;

use crate::model::{Item, Namespace, Origin};

pub fn convert(object: &core::Namespace, origin: Origin, _: &mut Report) -> Option<Item> {
    let labels = object.metadata.labels.clone().unwrap_or_default();
    Some(Item::Namespace(Arc::new(Namespace {
        name: origin.name.clone(),
        labels,
        origin,
    })))
}
