//! ProxyConfig.

use mesh_proto::kube::{Object, networking as api};

use super::peer_authentication::selector;
use crate::model::{Origin, ProxySettings};

pub fn convert(object: &Object<api::ProxyConfig>, origin: Origin) -> ProxySettings {
    let spec = &object.spec;
    ProxySettings {
        selector: selector(spec.selector.as_ref()),
        concurrency: spec.concurrency.and_then(|threads| u32::try_from(threads).ok()),
        environment: spec.environment_variables.clone(),
        image_type: spec
            .image
            .as_ref()
            .map(|image| image.image_type.clone())
            .unwrap_or_default(),
        origin,
    }
}
