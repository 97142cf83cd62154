//! The viewer without what does not matter: sidecars of one namespace mostly get the same clusters,
//! endpoints, routes and names, whoever they are beside. What is made for a narrowed viewer is made once for
//! all of them.
//!
//! A label counts if some object asks for it by its key, a locality if some object looks at localities at
//! all. A field that is left out here is empty in the narrowed viewer, so what is made for it cannot depend
//! on it by accident: all viewers with one narrowed form get the very same.

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::{node::NodeKind, xds::Type};

use super::Viewer;
use crate::{
    model::{Labels, endpoint::Locality},
    snapshot::Snapshot,
};

impl Viewer {
    /// What of a viewer counts for the shared part ([`crate::generate::shared`]) of its resources of this
    /// type.
    pub fn narrowed(&self, snapshot: &Snapshot, kind: Type) -> Self {
        if self.kind == NodeKind::Router {
            // There are few of them.
            return self.clone();
        }
        let by_locality = snapshot.policies.by_locality() || snapshot.services.by_locality();
        Self {
            kind: self.kind,
            namespace: self.namespace.clone(),
            labels: self.asked_labels(snapshot, kind),
            ours: self.ours,
            dns: self.dns,
            source: self.source.clone(),
            locality: if by_locality {
                self.locality.clone()
            } else {
                Locality::default()
            },
            // It is empty unless it counts.
            node: self.node.clone(),
            service_account: String::new(),
            canonical_name: String::new(),
            canonical_revision: String::new(),
            network: String::new(),
            named_ports: BTreeMap::new(),
            ipv6: false,
            address: None,
            intercepts: self.intercepts,
        }
    }

    fn asked_labels(&self, snapshot: &Snapshot, kind: Type) -> Labels {
        let root = &snapshot.mesh.root_namespace;
        let mut keys: BTreeSet<&String> = snapshot
            .sidecars
            .label_keys(&self.namespace, root)
            .chain(snapshot.policies.label_keys(&self.namespace))
            .collect();
        if kind == Type::Route {
            keys.extend(snapshot.routes.label_keys());
        }
        let asked = keys
            .into_iter()
            .filter_map(|key| Some((key.clone(), self.labels.get(key)?.clone())));
        asked.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generate,
        testing::{SERVICES, gateway, sidecar, snapshot},
        view::View,
    };

    const LOCALITY: &str = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
        metadata: {name: near, namespace: default}\nspec: {host: reviews, trafficPolicy: {outlierDetection: {}, \
        loadBalancer: {localityLbSetting: {enabled: true, failoverPriority: [version]}}}}\n";
    const SELECTED: &str = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
        metadata: {name: only, namespace: default}\nspec: {host: ratings, workloadSelector: {matchLabels: {app: a}}, \
        trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}\n";
    const SIDECAR: &str = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\n\
        metadata: {name: little, namespace: default}\n\
        spec: {workloadSelector: {labels: {app: a}}, egress: [{hosts: ['./ratings.default.svc.cluster.local']}]}\n";
    const SOURCE: &str = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
        metadata: {name: who, namespace: default}\nspec: {hosts: [reviews], http: [{match: [{sourceLabels: {app: a}}], \
        route: [{destination: {host: ratings}}]}, {route: [{destination: {host: reviews}}]}]}\n";

    fn viewers() -> Vec<Viewer> {
        let placed = |app: &str, zone: &str, version: &str| {
            let mut viewer = sidecar(app);
            viewer.locality = Locality::parse(zone);
            viewer.labels.insert("version".to_owned(), version.to_owned());
            viewer
        };
        vec![
            placed("a", "r/z1", "v1"),
            placed("a", "r/z2", "v2"),
            placed("b", "r/z1", "v1"),
            Viewer {
                namespace: "shop".to_owned(),
                ..placed("a", "r/z1", "v1")
            },
            Viewer {
                ours: false,
                dns: false,
                ..placed("b", "r/z2", "v2")
            },
            gateway(),
        ]
    }

    /// What is made for the narrowed viewer is what is made for the whole one, whatever objects there are.
    #[test]
    fn nothing_is_lost() {
        for objects in ["", LOCALITY, SELECTED, SIDECAR, SOURCE] {
            let snapshot = snapshot(&[SERVICES, objects].concat());
            for viewer in viewers() {
                for kind in Type::ALL {
                    let narrowed = viewer.narrowed(&snapshot, kind);
                    assert_eq!(
                        generate::shared(&View::new(&viewer, &snapshot), kind),
                        generate::shared(&View::new(&narrowed, &snapshot), kind),
                        "{kind} of {viewer:?} with {objects}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_what_is_asked_for_counts() {
        let check = |objects: &str, kind: Type, expect: usize| {
            let snapshot = snapshot(&[SERVICES, objects].concat());
            let alike = viewers().into_iter().take(3);
            let narrowed: std::collections::HashSet<Viewer> =
                alike.map(|viewer| viewer.narrowed(&snapshot, kind)).collect();
            assert_eq!(narrowed.len(), expect, "{kind} with {objects}");
        };
        check("", Type::Cluster, 1);
        check(SELECTED, Type::Cluster, 2);
        check(SIDECAR, Type::Endpoint, 2);
        check(SOURCE, Type::Endpoint, 1);
        check(SOURCE, Type::Route, 2);
        check(LOCALITY, Type::Endpoint, 2);
    }
}
