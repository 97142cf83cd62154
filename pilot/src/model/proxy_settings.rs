//! What a ProxyConfig says: settings of proxies that count when they start, so for injection alone.

use std::{collections::BTreeMap, sync::Arc};

use mesh_proto::mesh::ProxyConfig;

use super::{Labels, Origin, Selector};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    pub origin: Origin,
    /// `None`: every workload of the namespace; in the root namespace, of the mesh.
    pub selector: Option<Selector>,
    pub concurrency: Option<u32>,
    pub environment: BTreeMap<String, String>,
    /// The ending of the image's tag; empty: not said.
    pub image_type: String,
}

impl ProxySettings {
    fn over(&self, config: &mut ProxyConfig) {
        config.concurrency = self.concurrency.or(config.concurrency);
        config.proxy_metadata.extend(self.environment.clone());
        if !self.image_type.is_empty() {
            config.image.image_type.clone_from(&self.image_type);
        }
    }
}

/// The ProxyConfigs that count for one pod. In each place the oldest counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chosen<'a> {
    mesh: Option<&'a ProxySettings>,
    namespace: Option<&'a ProxySettings>,
    workload: Option<&'a ProxySettings>,
}

impl<'a> Chosen<'a> {
    pub fn new(
        all: impl IntoIterator<Item = &'a Arc<ProxySettings>>,
        root: &str,
        namespace: &str,
        labels: &Labels,
    ) -> Self {
        let mut all: Vec<&ProxySettings> = all.into_iter().map(AsRef::as_ref).collect();
        all.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        let first = |namespace: &str, selects: &dyn Fn(&ProxySettings) -> bool| {
            let mut own = all
                .iter()
                .copied()
                .filter(|one| one.origin.namespace == namespace);
            own.find(|one| selects(one))
        };
        let open = |one: &ProxySettings| one.selector.is_none();
        Self {
            mesh: first(root, &open),
            namespace: first(namespace, &open).filter(|_| namespace != root),
            workload: first(namespace, &|one| {
                one.selector
                    .as_ref()
                    .is_some_and(|selector| selector.matches(labels))
            }),
        }
    }

    /// What holds for all pods of the namespace: over the mesh's settings, under the pod's own annotation.
    pub fn under(&self, config: &mut ProxyConfig) {
        for settings in [self.mesh, self.namespace].into_iter().flatten() {
            settings.over(config);
        }
    }

    /// What selects the pod: over its annotation, as in Istio.
    pub fn above(&self, config: &mut ProxyConfig) {
        if let Some(settings) = self.workload {
            settings.over(config);
        }
    }
}
