//! Which kinds are watched, and which of their objects.

use mesh_proto::{
    kube::{Kind, ObjectKey},
    names::{MESH_CONFIG_MAP, SYSTEM_NAMESPACE},
};

use super::Settings;

/// Secrets that can never be a gateway's credential are not even sent to us.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
                       type!=kubernetes.io/dockercfg,type!=kubernetes.io/dockerconfigjson,\
                       type!=bootstrap.kubernetes.io/token,type!=kubernetes.io/ssh-auth,type!=kubernetes.io/basic-auth";

/// Objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub kind: Kind,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// A field selector of the API.
    pub fields: Option<String>,
    /// Without them the mesh would be wrong, so pilot is not ready before they are known.
    pub essential: bool,
    /// The object is told under this key, whatever its own.
    pub told_as: Option<ObjectKey>,
}

/// Everything, for one installation.
pub fn all(settings: &Settings) -> Vec<Wanted> {
    let kinds = Kind::ALL.iter().copied();
    kinds.filter_map(|kind| wanted(kind, settings)).collect()
}

fn wanted(kind: Kind, settings: &Settings) -> Option<Wanted> {
    let everywhere = Wanted {
        kind,
        namespace: None,
        fields: None,
        essential: true,
        told_as: None,
    };
    match kind {
        Kind::Namespace | Kind::Service | Kind::EndpointSlice | Kind::Pod => Some(everywhere),
        Kind::Node => Some(Wanted {
            essential: false,
            ..everywhere
        }),
        Kind::Secret => Some(Wanted {
            essential: false,
            fields: Some(SECRETS.to_owned()),
            ..everywhere
        }),
        Kind::ConfigMap => {
            let key = settings.mesh_config();
            Some(Wanted {
                fields: Some(format!("metadata.name={}", key.name)),
                namespace: Some(key.namespace),
                // The rest of pilot knows one set of settings, by one name.
                told_as: Some(ObjectKey::new(SYSTEM_NAMESPACE, MESH_CONFIG_MAP)),
                ..everywhere
            })
        }
        // Read for analysis only.
        Kind::EnvoyFilter | Kind::WorkloadGroup | Kind::WasmPlugin | Kind::TrafficExtension => Some(Wanted {
            essential: false,
            ..everywhere
        }),
        kind if kind.is_mesh() => Some(everywhere),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let settings = Settings {
            namespace: "mesh".into(),
            revision: "canary".into(),
        };
        let all = all(&settings);
        let of = |kind: Kind| all.iter().find(|one| one.kind == kind);
        assert!(of(Kind::VirtualService).is_some_and(|one| one.essential));
        assert!(of(Kind::Secret).is_some_and(|one| !one.essential));
        assert_eq!(of(Kind::Deployment), None);
        let map = of(Kind::ConfigMap).expect("wanted");
        assert_eq!(
            (map.namespace.as_deref(), map.fields.as_deref()),
            (Some("mesh"), Some("metadata.name=istio-canary"))
        );
        assert_eq!(map.told_as, Some(ObjectKey::new("istio-system", "istio")));
    }
}
