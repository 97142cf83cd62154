//! The volumes of a proxy: token, root, what the pod says about itself, and a place for files of its own.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    ObjectFieldSelector, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use mesh_proto::names;

const TOKEN: &str = "istio-token";
const ROOT: &str = "istiod-ca-cert";
const POD: &str = "istio-podinfo";
const DATA: &str = "istio-data";
pub const ALL: [&str; 4] = [TOKEN, ROOT, POD, DATA];

/// The ConfigMap that citadel keeps in every namespace.
const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// Life of a token; the kubelet renews it at 80 percent.
const TOKEN_SECONDS: i64 = 43_200;

pub fn mounts() -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    vec![
        mount(TOKEN, "/var/run/secrets/tokens", true),
        mount(ROOT, "/var/run/secrets/istio", true),
        mount(POD, "/etc/istio/pod", true),
        mount(DATA, "/var/lib/istio/data", false),
    ]
}

pub fn volumes() -> Vec<Volume> {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(names::TOKEN_AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "istio-token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let file = |path: &str, from: &str| DownwardAPIVolumeFile {
        path: path.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: from.to_owned(),
            api_version: None,
        }),
        ..DownwardAPIVolumeFile::default()
    };
    vec![
        Volume {
            name: TOKEN.to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![token]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: ROOT.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: ROOT_CONFIG_MAP.to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: POD.to_owned(),
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(vec![
                    file("labels", "metadata.labels"),
                    file("annotations", "metadata.annotations"),
                ]),
                ..DownwardAPIVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: DATA.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        },
    ]
}
