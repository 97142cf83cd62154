//! PeerAuthentication.

use mesh_proto::kube::{Object, security as api};

use crate::model::{MtlsMode, Origin, PeerAuthentication, Selector};

pub fn convert(object: &Object<api::PeerAuthentication>, origin: Origin) -> PeerAuthentication {
    let spec = &object.spec;
    let ports = spec.port_level_mtls.iter();
    PeerAuthentication {
        selector: selector(spec.selector.as_ref()),
        mode: spec.mtls.as_ref().and_then(|mtls| mode(mtls.mode)),
        ports: ports
            .filter_map(|(port, mtls)| Some((port.parse().ok()?, mode(mtls.mode))))
            .collect(),
        origin,
    }
}

/// An empty selector selects like none.
pub fn selector(selector: Option<&api::LabelSelector>) -> Option<Selector> {
    selector
        .filter(|selector| !selector.match_labels.is_empty())
        .map(|selector| Selector(selector.match_labels.clone()))
}

fn mode(mode: api::MutualTlsMode) -> Option<MtlsMode> {
    match mode {
        api::MutualTlsMode::Unset => None,
        api::MutualTlsMode::Disable => Some(MtlsMode::Disable),
        api::MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        api::MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::testing::of_spec,
        model::{Item, Kind},
    };

    #[test]
    fn modes() {
        let spec = "selector: {matchLabels: {app: a}}\nmtls: {}\nportLevelMtls: {80: {mode: STRICT}, 81: {}}";
        let Item::PeerAuthentication(policy) = of_spec(Kind::PeerAuthentication, spec) else {
            panic!()
        };
        assert_eq!(policy.mode, None);
        assert_eq!(policy.ports, [(80, Some(MtlsMode::Strict)), (81, None)].into());
        assert_eq!(policy.selector, Some(Selector::from([("app", "a")])));
    }
}
