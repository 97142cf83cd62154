//! Configuration from YAML, for tests of this crate.

use mesh_proto::envoy_json::from_text;

use crate::config::{
    Reject, cluster::Cluster, endpoint::Assignment, jwt::JwtAuthn, listener::Listener,
    metadata::MetadataMatch, route::RouteConfig,
};

/// Takes the common indentation away, so that tests can indent their YAML.
fn dedent(text: &str) -> String {
    let indent = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start().len());
    let indent = indent.min().unwrap_or(0);
    text.lines()
        .map(|line| line.get(indent..).unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

pub fn route_config(yaml: &str) -> RouteConfig {
    super::route_config(from_text(&dedent(yaml)).unwrap()).unwrap()
}

pub fn route_config_refused(yaml: &str) -> Reject {
    super::route_config(from_text(&dedent(yaml)).unwrap()).unwrap_err()
}

pub fn cluster(yaml: &str) -> Cluster {
    super::cluster(from_text(&dedent(yaml)).unwrap()).unwrap()
}

pub fn cluster_refused(yaml: &str) -> Reject {
    super::cluster(from_text(&dedent(yaml)).unwrap()).unwrap_err()
}

pub fn assignment(yaml: &str) -> Assignment {
    super::assignment(from_text(&dedent(yaml)).unwrap()).unwrap()
}

pub fn listener(yaml: &str) -> Listener {
    super::listener(from_text(&dedent(yaml)).unwrap()).unwrap()
}

pub fn listener_refused(yaml: &str) -> Reject {
    super::listener(from_text(&dedent(yaml)).unwrap()).unwrap_err()
}

pub fn jwt(yaml: &str) -> JwtAuthn {
    super::jwt::filter(from_text(yaml).unwrap()).unwrap()
}

pub fn jwt_refused(yaml: &str) -> Reject {
    super::jwt::filter(from_text(yaml).unwrap()).unwrap_err()
}

pub fn metadata(yaml: &str) -> MetadataMatch {
    super::metadata::metadata(from_text(yaml).unwrap()).unwrap()
}
