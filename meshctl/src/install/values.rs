//! What is wanted: a profile, then the files of `-f`, then `--set`; each goes over what was before, as with Helm. The names
//! are those of the chart `control`; below `gateways.NAME` are those of the chart `gateway`, with `enabled`; below `base`
//! those of the chart `base`.
//!
//! People who come from istioctl find their words understood: `--set values.pilot…`, `profile`, `hub`, `tag`, and files of
//! kind IstioOperator. A value that no chart knows is refused by its name.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use mesh_proto::kube::yaml;
use serde_json::{Map, Value, json};

use super::{
    apply::BASE_OWNER,
    chart::{self, Chart},
    schema, set,
};

/// A larger file of values is none.
const MAX_FILE: u64 = 1 << 20;

/// Where wishes come from, in the order in which they are put over one another.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--profile`
    pub profile: Option<String>,
    /// `-f`
    pub files: Vec<String>,
    /// `--set`
    pub set: Vec<String>,
    /// `--set-string`
    pub set_string: Vec<String>,
    /// `--revision`
    pub revision: Option<String>,
}

/// Everything that differs from the charts' own values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    pub profile: String,
    pub overlay: Value,
}

impl Sources {
    pub fn is_empty(&self) -> bool {
        self.profile.is_none() && self.files.is_empty() && self.set.is_empty() && self.set_string.is_empty()
    }

    /// Reads the files and puts everything together. `before` stands where a new installation has its profile.
    pub fn read(&self, before: Option<&Values>) -> anyhow::Result<Values> {
        let mut wishes = json!({});
        for file in &self.files {
            let text = read_file(Path::new(file))?;
            let value: Value = serde_saphyr::from_str(&text)
                .map_err(|error| anyhow!("{file}: not YAML: {}", yaml::explain(&error)))?;
            put(&mut wishes, familiar(value, file)?);
        }
        for (arguments, typed) in [(&self.set, true), (&self.set_string, false)] {
            for argument in arguments {
                let mut one = json!({});
                set::set(&mut one, argument, typed)?;
                let one = familiar(one, &format!("--set {argument}"))?;
                put_sparse(&mut wishes, one);
            }
        }
        if let Some(revision) = &self.revision {
            wishes["revision"] = json!(revision);
        }
        let asked = wishes.as_object_mut().and_then(|fields| fields.remove("profile"));
        let asked = asked.as_ref().and_then(Value::as_str).map(str::to_owned);
        let mut values = match (self.profile.clone().or(asked), before) {
            (None, Some(before)) => before.clone(),
            (name, _) => profile(&name.unwrap_or_else(|| "default".to_owned()))?,
        };
        put(&mut values.overlay, wishes);
        values.check()?;
        Ok(values)
    }
}

/// Where `--set` names one item of a list, the items beside it stay.
fn put_sparse(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                put_sparse(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from))
            if from.iter().any(|item| item.is_null() || item.is_object()) =>
        {
            if into.len() < from.len() {
                into.resize(from.len(), Value::Null);
            }
            for (old, new) in into.iter_mut().zip(from) {
                if !new.is_null() {
                    put_sparse(old, new);
                }
            }
        }
        (into, from) => *into = from,
    }
}

fn profile(name: &str) -> anyhow::Result<Values> {
    let Some((path, text)) = chart::profile(name) else {
        let known: Vec<&str> = chart::PROFILES.iter().map(|(known, _)| *known).collect();
        bail!("there is no profile {name:?}; there are: {}", known.join(", "));
    };
    Ok(Values {
        profile: name.to_owned(),
        overlay: serde_saphyr::from_str(text).map_err(|error| anyhow!("{path}: {error}"))?,
    })
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let size = path
        .metadata()
        .with_context(|| format!("{name} cannot be read"))?
        .len();
    if size > MAX_FILE {
        bail!("{name} has {size} bytes; values have at most {MAX_FILE}");
    }
    std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))
}

/// istioctl's ways of writing, as ours.
fn familiar(value: Value, from: &str) -> anyhow::Result<Value> {
    let Value::Object(mut fields) = value else {
        if value.is_null() {
            return Ok(json!({}));
        }
        bail!("{from}: values are a map of names");
    };
    if fields.get("kind").is_some_and(|kind| kind == "IstioOperator") {
        let spec = fields.remove("spec").unwrap_or_default();
        fields = spec.as_object().cloned().unwrap_or_default();
        let gateways = components(fields.remove("components"), from)?;
        put(fields.entry("gateways").or_insert(json!({})), gateways);
        fields.remove("namespace");
    }
    let inner = fields.remove("values");
    for name in ["hub", "tag"] {
        if let Some(value) = fields.remove(name) {
            let mut global = fields.remove("global").unwrap_or(json!({}));
            put(&mut global, json!({ name: value }));
            fields.insert("global".into(), global);
        }
    }
    let mut all = Value::Object(fields);
    if let Some(inner) = inner {
        put(&mut all, inner);
    }
    Ok(all)
}

/// An IstioOperator's gateways: which there are. Their details are values of the chart here, and said so.
fn components(components: Option<Value>, from: &str) -> anyhow::Result<Value> {
    let mut gateways = Map::new();
    for (name, value) in components
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        match name.as_str() {
            "ingressGateways" | "egressGateways" => {
                for gateway in value.as_array().into_iter().flatten() {
                    let own = gateway["name"].as_str().unwrap_or_default();
                    if gateway.get("k8s").is_some() {
                        bail!(
                            "{from}: components.{name}: what stands under k8s of {own:?} is not read; write it as values of \
                             gateways.{own} (resources, autoscaling, service, nodeSelector, …)"
                        );
                    }
                    let enabled = gateway["enabled"].as_bool().unwrap_or(true);
                    gateways.insert(own.to_owned(), json!({ "enabled": enabled }));
                }
            }
            // They are always there here, or not at all.
            "base" | "pilot" if value["k8s"].is_null() => {}
            other => bail!(
                "{from}: components.{other} is not read; write values instead (pilot.resources, pilot.replicaCount, …)"
            ),
        }
    }
    Ok(Value::Object(gateways))
}

/// Maps are merged, everything else is replaced; `null` stays, and takes a chart's own value away.
pub fn put(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(&name) {
                    Some(old) => put(old, value),
                    None => {
                        into.insert(name, value);
                    }
                }
            }
        }
        (into, from) => *into = from,
    }
}

fn without_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| !field.is_null());
        fields.values_mut().for_each(without_nulls);
    }
}

impl Values {
    /// As `Sources::read`, from what was written down.
    pub fn recorded(profile: &str, overlay: &str) -> anyhow::Result<Self> {
        Ok(Self {
            profile: profile.to_owned(),
            overlay: serde_saphyr::from_str(overlay).context("the recorded values")?,
        })
    }

    /// "" or a revision's name.
    pub fn revision(&self) -> &str {
        match self.overlay["revision"].as_str() {
            None | Some("default") => "",
            Some(name) => name,
        }
    }

    /// The gateways that are wanted.
    pub fn gateways(&self) -> Vec<&str> {
        let all = self.overlay["gateways"].as_object().into_iter().flatten();
        all.filter(|(_, values)| values["enabled"] == true)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// A chart's values: its own, with what is wanted over them. Complete, as templates see them.
    pub fn of(&self, chart: &Chart) -> anyhow::Result<Value> {
        let mut wanted = self.overlay.clone();
        if self.overlay["revision"] == "default" {
            wanted["revision"] = json!("");
        }
        complete(chart, wanted, "")
    }

    /// The values of one gateway. What it shares with the control plane comes from there when it does not say otherwise.
    pub fn of_gateway(&self, name: &str) -> anyhow::Result<Value> {
        let mut wanted = self.overlay["gateways"][name].clone();
        let fields = wanted
            .as_object_mut()
            .ok_or_else(|| anyhow!("gateways.{name}: wanted are the gateway's values"))?;
        fields.remove("enabled");
        let global = &self.overlay["global"];
        let inherited = [
            ("revision", Some(json!(self.revision()))),
            ("imagePullPolicy", global.get("imagePullPolicy").cloned()),
            (
                "imagePullSecrets",
                global["imagePullSecrets"]
                    .as_array()
                    .map(|names| names.iter().map(|name| json!({ "name": name })).collect()),
            ),
        ];
        for (field, value) in inherited {
            if let Some(value) = value {
                fields.entry(field).or_insert(value);
            }
        }
        complete(&chart::GATEWAY, wanted, &format!("gateways.{name}"))
    }

    /// Every value is known to a chart and fits.
    fn check(&self) -> anyhow::Result<()> {
        if self.revision() == BASE_OWNER {
            bail!("revision: {BASE_OWNER:?} stands for what all revisions share; choose another name");
        }
        self.of(&chart::CONTROL)?;
        self.of(&chart::BASE)?;
        for (name, values) in self.overlay["gateways"].as_object().into_iter().flatten() {
            let is_name = !name.is_empty()
                && name.len() <= 50
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            if !is_name {
                bail!("gateways.{name}: a gateway's name has lower-case letters, digits and '-'");
            }
            if !values["enabled"].is_boolean() {
                bail!("gateways.{name}.enabled: wanted is true or false");
            }
            self.of_gateway(name)?;
        }
        Ok(())
    }
}

fn complete(chart: &Chart, wanted: Value, path: &str) -> anyhow::Result<Value> {
    let mut values: Value =
        serde_saphyr::from_str(chart.values.1).map_err(|error| anyhow!("{}: {error}", chart.values.0))?;
    put(&mut values, wanted);
    without_nulls(&mut values);
    let rules: Value = serde_json::from_str(chart.schema.1).with_context(|| chart.schema.0)?;
    let wrong = schema::check(&rules, &values, path);
    match wrong.len() {
        0 => Ok(values),
        1 => bail!("{}", wrong.concat()),
        count => bail!("{count} values are wrong:\n  {}", wrong.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[&str]) -> anyhow::Result<Values> {
        let sources = Sources {
            set: set.iter().map(|one| (*one).to_owned()).collect(),
            ..Sources::default()
        };
        sources.read(None)
    }

    fn error(set: &[&str]) -> String {
        read(set).unwrap_err().to_string()
    }

    #[test]
    fn the_default_profile_has_one_gateway() {
        let values = read(&[]).unwrap();
        assert_eq!((values.profile.as_str(), values.revision()), ("default", ""));
        assert_eq!(values.gateways(), ["istio-ingressgateway"]);
        assert_eq!(values.of(&chart::CONTROL).unwrap()["pilot"]["autoscaleMax"], 5);
        assert_eq!(
            values.of_gateway("istio-ingressgateway").unwrap()["service"]["type"],
            "LoadBalancer"
        );
    }

    #[test]
    fn later_wishes_win() {
        let values = read(&[
            "profile=demo",
            "pilot.traceSampling=5",
            "values.global.hub=example.org/mesh",
            "tag=v2",
            "gateways.istio-ingressgateway.service.type=NodePort",
            "meshConfig.extensionProviders[0].name=otel",
            "meshConfig.extensionProviders[0].opentelemetry.port=4317",
        ])
        .unwrap();
        let control = values.of(&chart::CONTROL).unwrap();
        assert_eq!(control["pilot"]["traceSampling"], 5);
        assert_eq!(control["global"]["hub"], "example.org/mesh");
        assert_eq!(control["global"]["tag"], "v2");
        assert_eq!(
            control["meshConfig"]["extensionProviders"],
            json!([{"name": "otel", "opentelemetry": {"port": 4317}}])
        );
        assert_eq!(values.gateways(), ["istio-egressgateway", "istio-ingressgateway"]);
        assert_eq!(
            values.of_gateway("istio-ingressgateway").unwrap()["service"]["type"],
            "NodePort"
        );
    }

    #[test]
    fn gateways_take_from_the_control_plane() {
        let values = read(&["revision=canary", "global.imagePullSecrets={regcred}"]).unwrap();
        let gateway = values.of_gateway("istio-ingressgateway").unwrap();
        assert_eq!(gateway["revision"], "canary");
        assert_eq!(gateway["imagePullSecrets"], json!([{"name": "regcred"}]));
        assert_eq!(
            read(&["revision=default"]).unwrap().of(&chart::CONTROL).unwrap()["revision"],
            ""
        );
    }

    #[test]
    fn null_takes_a_default_away() {
        let values = read(&["pilot.resources.requests=null"]).unwrap();
        assert_eq!(
            values.of(&chart::CONTROL).unwrap()["pilot"]["resources"],
            json!({})
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (set, expect) in [
            ("pilot.replicaCont=2", "pilot.replicaCont: there is no such value"),
            ("pilot.replicaCount=many", "pilot.replicaCount"),
            (
                "gateways.istio-ingressgateway.service.typ=x",
                "gateways.istio-ingressgateway.service.typ",
            ),
            ("gateways.g.enabled=perhaps", "gateways.g.enabled"),
            ("gateways.G.enabled=true", "lower-case"),
            ("profile=small", "there are: default, demo, ha, minimal"),
            ("revision=Big", "revision"),
            ("revision=base", "choose another name"),
            ("meshConfg.a=b", "meshConfg: there is no such value"),
        ] {
            let error = error(&[set]);
            assert!(error.contains(expect), "{set}: {error}");
        }
    }

    #[test]
    fn an_istio_operator_is_understood() {
        let operator = json!({
            "apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator",
            "spec": {
                "profile": "minimal", "hub": "h", "tag": "t",
                "meshConfig": {"accessLogFile": "/dev/stdout"},
                "values": {"global": {"logAsJson": true}},
                "components": {"ingressGateways": [{"name": "istio-ingressgateway", "enabled": true}]}
            }
        });
        assert_eq!(
            familiar(operator, "f").unwrap(),
            json!({
                "profile": "minimal", "meshConfig": {"accessLogFile": "/dev/stdout"},
                "global": {"hub": "h", "tag": "t", "logAsJson": true},
                "gateways": {"istio-ingressgateway": {"enabled": true}}
            })
        );
        let detailed = json!({"kind": "IstioOperator", "spec": {"components": {"cni": {"enabled": true}}}});
        assert!(
            familiar(detailed, "f")
                .unwrap_err()
                .to_string()
                .contains("components.cni")
        );
    }
}
