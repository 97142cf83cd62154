//! Node: where it is, by its labels.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use mesh_proto::{finding::Report, names::label};

use crate::model::{Item, Labels, Node, Origin, endpoint::Locality};

pub fn convert(object: &core::Node, origin: Origin, _: &mut Report) -> Option<Item> {
    let locality = object.metadata.labels.as_ref().map(locality).unwrap_or_default();
    Some(Item::Node(Arc::new(Node { origin, locality })))
}

/// Region, zone and subzone by the usual labels.
pub fn locality(labels: &Labels) -> Locality {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    Locality {
        region: label(label::REGION),
        zone: label(label::ZONE),
        subzone: label(label::SUBZONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::testing::item;

    #[test]
    fn nodes() {
        let Item::Node(node) = item(
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: r, \
             topology.kubernetes.io/zone: z, topology.istio.io/subzone: s}}\n",
        ) else {
            panic!()
        };
        assert_eq!(node.locality, Locality::parse("r/z/s"));
    }
}
