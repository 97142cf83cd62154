//! How the injector of each revision was installed: the ConfigMaps `istio-sidecar-injector[-REVISION]` of the system
//! namespace, whose key `values` holds the installation's values. A folder usually has none; then the defaults count, and
//! what depends on the installation is not judged.

use std::collections::BTreeMap;

use mesh_proto::names::SYSTEM_NAMESPACE;
use serde_json::Value;

use crate::{
    inject::{Settings, values},
    model::Kind,
    store::Store,
};

const CONFIG_MAP: &str = "istio-sidecar-injector";
/// The revision of an installation without one.
pub const DEFAULT_REVISION: &str = "default";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub settings: Settings,
    /// The values say which image it is; else it is the control plane's own version, whatever that may be.
    pub says_image: bool,
}

/// By revision.
pub fn installed(store: &Store) -> BTreeMap<String, Installed> {
    let mut found = BTreeMap::new();
    for manifest in store.manifests() {
        if manifest.kind != Kind::ConfigMap || manifest.key.namespace != SYSTEM_NAMESPACE {
            continue;
        }
        let Some(rest) = manifest.key.name.strip_prefix(CONFIG_MAP) else {
            continue;
        };
        let revision = match rest.strip_prefix('-') {
            Some(revision) => revision,
            None if rest.is_empty() => DEFAULT_REVISION,
            None => continue,
        };
        let text = manifest.value.pointer("/data/values").and_then(Value::as_str);
        let base = default(revision);
        if let Ok(settings) = values::read(text, &base) {
            let says_image = says_image(text.unwrap_or_default());
            found.insert(revision.to_owned(), Installed { settings, says_image });
        }
    }
    found
}

fn says_image(values: &str) -> bool {
    let values: Value = serde_saphyr::from_str(values).unwrap_or_default();
    let image = values.pointer("/global/proxy/image").and_then(Value::as_str);
    let tag = values
        .pointer("/global/tag")
        .filter(|tag| !tag.is_null() && **tag != "");
    tag.is_some() || image.is_some_and(|image| image.contains('/'))
}

/// What the injector of a revision decides by. A revision that nothing is known of is nobody's.
pub fn settings(all: &BTreeMap<String, Installed>, revision: &str) -> Settings {
    match all.get(revision) {
        Some(known) => known.settings.clone(),
        None => default(DEFAULT_REVISION),
    }
}

fn default(revision: &str) -> Settings {
    Settings {
        revision: revision.to_owned(),
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        for (values, expect) in [
            ("", false),
            (r#"{"global": {"hub": "h"}}"#, false),
            (r#"{"global": {"hub": "h", "tag": "1"}}"#, true),
            (r#"{"global": {"tag": ""}}"#, false),
            (r#"{"global": {"proxy": {"image": "p"}}}"#, false),
            (r#"{"global": {"proxy": {"image": "r/p:2"}}}"#, true),
        ] {
            assert_eq!(says_image(values), expect, "{values}");
        }
    }
}
