//! `meshctl proxy-status`: for each proxy and each type of configuration, whether it has what pilot would send it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_proto::names::port;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    context::Mesh,
    local::object,
    output::{self, Format, Table},
    reach,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only this proxy (POD or POD.NAMESPACE)
    pub proxy: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// One proxy, as pilot's `/debug/syncz` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Proxy {
    pub proxy: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub types: BTreeMap<String, Sync>,
    #[serde(default)]
    pub pilot: String,
}

/// What of one type was sent, taken and refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Sync {
    /// `SYNCED`, `STALE` (sent, not answered yet), `NOT SENT`, `REJECTED`
    pub state: String,
    pub nack: Option<Nack>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Nack {
    /// The snapshot that was refused.
    pub version: Option<u64>,
    pub error: String,
}

const COLUMNS: [&str; 6] = ["CDS", "LDS", "EDS", "RDS", "SDS", "NDS"];

/// What every pilot says of its proxies, as it says it, with the pilot's name.
pub async fn proxies(mesh: &Mesh) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for pod in mesh.parts("pilot").await? {
        let name = object::text(&pod, "/metadata/name");
        let answer = reach::get_json(&mesh.way(&pod), port::CONTROL, "/debug/syncz")
            .await
            .with_context(|| format!("asking pod {name} about its proxies"))?;
        for mut one in answer.as_array().cloned().unwrap_or_default() {
            one["pilot"] = name.into();
            all.push(one);
        }
    }
    Ok(all)
}

pub async fn run(arguments: Arguments, mesh: &Mesh) -> anyhow::Result<i32> {
    let mut proxies = Vec::new();
    let mut raw = Vec::new();
    for one in self::proxies(mesh).await? {
        let proxy: Proxy = serde_json::from_value(one.clone()).context("pilot's /debug/syncz")?;
        if arguments
            .proxy
            .as_ref()
            .is_some_and(|wanted| !is_meant(&proxy.proxy, wanted))
        {
            continue;
        }
        proxies.push(proxy);
        raw.push(one);
    }
    if let Some(wanted) = arguments.proxy.as_ref().filter(|_| proxies.is_empty()) {
        bail!(
            "no proxy {wanted:?} is connected to the control plane; `meshctl proxy-status` lists those that are"
        );
    }
    match arguments.output {
        Format::Json => output::json(&Value::Array(raw))?,
        Format::Yaml => output::yaml(&Value::Array(raw))?,
        _ => output::print(&table(&proxies)),
    }
    Ok(0)
}

fn is_meant(proxy: &str, wanted: &str) -> bool {
    proxy == wanted
        || proxy.rsplit_once('.').is_some_and(|(pod, _)| pod == wanted)
        || proxy.starts_with(&format!("{wanted}-"))
}

fn table(proxies: &[Proxy]) -> String {
    let heading = [&["NAME"], &COLUMNS[..], &["PILOT", "VERSION"]].concat();
    let mut table = Table::new(&heading);
    let mut refusals = String::new();
    for proxy in proxies {
        let mut cells = vec![proxy.proxy.clone()];
        for column in COLUMNS {
            let sync = proxy.types.get(column);
            cells.push(word(sync).to_owned());
            if let Some(nack) = sync.and_then(|sync| sync.nack.as_ref()) {
                let version = nack
                    .version
                    .map(|version| format!(" of snapshot {version}"))
                    .unwrap_or_default();
                refusals.push_str(&format!(
                    "{} rejected {column}{version}: {}\n",
                    proxy.proxy, nack.error
                ));
            }
        }
        cells.push(proxy.pilot.clone());
        cells.push(proxy.version.clone());
        table.row(cells);
    }
    table.sort();
    let mut text = table.to_string();
    if !refusals.is_empty() {
        text.push('\n');
        text.push_str(&refusals);
    }
    text
}

fn word(sync: Option<&Sync>) -> &str {
    sync.map_or("-", |sync| sync.state.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_state_has_its_word() {
        let proxy: Proxy = serde_json::from_value(json!({"proxy": "reviews.default", "version": "0.1.0", "types": {
            "CDS": {"state": "SYNCED", "sent": 7, "acked": 7},
            "LDS": {"state": "STALE", "sent": 8, "acked": 7},
            "EDS": {"state": "NOT SENT", "sent": null, "acked": null},
            "RDS": {"state": "REJECTED", "sent": 8, "acked": 7, "nack": {"version": 8, "error": "routes[0]: no"}}}}))
        .unwrap();
        let text = table(&[proxy]);
        assert!(
            text.contains("SYNCED   STALE   NOT SENT   REJECTED   -"),
            "{text}"
        );
        assert!(
            text.contains("reviews.default rejected RDS of snapshot 8: routes[0]: no"),
            "{text}"
        );
    }

    #[test]
    fn proxies_by_what_people_write() {
        for wanted in ["reviews-v1-x.default", "reviews-v1-x", "reviews-v1"] {
            assert!(is_meant("reviews-v1-x.default", wanted), "{wanted}");
        }
        assert!(!is_meant("reviews-v1-x.default", "reviews-v2"));
    }
}
