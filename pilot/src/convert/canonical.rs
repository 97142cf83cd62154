//! The service and version that a workload is of, as telemetry sees it (from its labels).

use mesh_proto::names::label;

use crate::model::Labels;

const APP_VERSION: &str = "app.kubernetes.io/version";

/// `service.istio.io/canonical-name`, else what the app is called, else the workload.
pub fn name(labels: &Labels, workload_name: &str) -> String {
    [label::CANONICAL_NAME, label::APP_NAME, label::APP]
        .iter()
        .find_map(|name| labels.get(*name))
        .map_or(workload_name, String::as_str)
        .to_owned()
}

/// `service.istio.io/canonical-revision`, else the app's version, else `latest`.
pub fn revision(labels: &Labels) -> String {
    [label::CANONICAL_REVISION, APP_VERSION, label::VERSION]
        .iter()
        .find_map(|name| labels.get(*name))
        .map_or("latest", String::as_str)
        .to_owned()
}
