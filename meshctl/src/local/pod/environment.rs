//! A container's environment, command and arguments as Kubernetes defines them: `env`, `envFrom`, `valueFrom`, and
//! `$(NAME)` inside of values, commands and arguments
//! (<https://kubernetes.io/docs/tasks/inject-data-application/>). Pure: what it refers to is looked up through a function.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector};

/// The data of a ConfigMap or Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Where values come from.
pub trait Sources {
    fn config_map(&self, name: &str) -> Option<Data>;
    fn secret(&self, name: &str) -> Option<Data>;
}

/// Facts about the pod that its containers may ask for.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub pod_address: String,
    pub pod_addresses: String,
    pub host_address: String,
    pub node: &'a str,
    pub cpus: usize,
    pub memory: u64,
}

/// The variables in order, later ones able to use earlier ones. An error names the field.
pub fn resolve(
    container: &Container,
    base: Vec<(String, String)>,
    facts: &Facts,
    sources: &dyn Sources,
) -> Result<Vec<(String, String)>, String> {
    let mut variables: BTreeMap<String, String> = base.into_iter().collect();
    for (index, from) in container.env_from.iter().flatten().enumerate() {
        let at = format!("envFrom[{index}]");
        let (kind, name, optional, data) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(r), _) => ("ConfigMap", &r.name, r.optional, sources.config_map(&r.name)),
            (None, Some(r)) => ("Secret", &r.name, r.optional, sources.secret(&r.name)),
            (None, None) => continue,
        };
        let data = match data {
            Some(data) => data,
            None if optional == Some(true) => continue,
            None => return Err(format!("{at}: {kind} {name:?} is not there")),
        };
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (key, value) in data {
            variables.insert(
                format!("{prefix}{key}"),
                String::from_utf8_lossy(&value).into_owned(),
            );
        }
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let at = format!("env[{index}] ({})", variable.name);
        if let Some(value) =
            value(variable, &variables, facts, sources, container).map_err(|e| format!("{at}: {e}"))?
        {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables.into_iter().collect())
}

fn value(
    variable: &EnvVar,
    known: &BTreeMap<String, String>,
    facts: &Facts,
    sources: &dyn Sources,
    container: &Container,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), known)));
    };
    let EnvVarSource {
        config_map_key_ref,
        field_ref,
        resource_field_ref,
        secret_key_ref,
        ..
    } = from;
    let pick = |kind: &str, name: &str, key: &str, optional: Option<bool>, data: Option<Data>| match data
        .and_then(|data| data.get(key).cloned())
    {
        Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(format!("{kind} {name:?} with key {key:?} is not there")),
    };
    if let Some(r) = config_map_key_ref {
        return pick(
            "ConfigMap",
            &r.name,
            &r.key,
            r.optional,
            sources.config_map(&r.name),
        );
    }
    if let Some(r) = secret_key_ref {
        return pick("Secret", &r.name, &r.key, r.optional, sources.secret(&r.name));
    }
    if let Some(r) = field_ref {
        return field(&r.field_path, facts).map(Some);
    }
    if let Some(r) = resource_field_ref {
        return resource(r, container, facts).map(Some);
    }
    Err("valueFrom: none of configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef".into())
}

/// A field of the pod, as the downward API names it.
pub fn field(path: &str, facts: &Facts) -> Result<String, String> {
    let metadata = &facts.pod.metadata;
    let spec = facts.pod.spec.as_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default()
    };
    let lines = |map: &Option<BTreeMap<String, String>>| {
        let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
        map.iter().flatten().map(line).collect::<Vec<_>>().join("\n")
    };
    let subscript = |name: &str| path.strip_prefix(name)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = subscript("metadata.labels") {
        return Ok(entry(&metadata.labels, key));
    }
    if let Some(key) = subscript("metadata.annotations") {
        return Ok(entry(&metadata.annotations, key));
    }
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "metadata.labels" => lines(&metadata.labels),
        "metadata.annotations" => lines(&metadata.annotations),
        "spec.nodeName" => facts.node.to_owned(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_else(|| "default".into()),
        "status.podIP" => facts.pod_address.clone(),
        "status.podIPs" => facts.pod_addresses.clone(),
        "status.hostIP" | "status.hostIPs" => facts.host_address.clone(),
        _ => {
            return Err(format!(
                "fieldRef.fieldPath: {path:?} is not a field of the downward API"
            ));
        }
    })
}

/// A resource limit or request in whole units (of the divisor); without one, what the machine has.
pub fn resource(
    selector: &ResourceFieldSelector,
    container: &Container,
    facts: &Facts,
) -> Result<String, String> {
    let resources = container.resources.as_ref();
    let (map, name) = match selector.resource.split_once('.') {
        Some(("limits", name)) => (resources.and_then(|r| r.limits.as_ref()), name),
        Some(("requests", name)) => (resources.and_then(|r| r.requests.as_ref()), name),
        _ => (None, ""),
    };
    let fallback = match name {
        "cpu" => facts.cpus as f64,
        "memory" => facts.memory as f64,
        "ephemeral-storage" => 0.0,
        _ => {
            return Err(format!(
                "resourceFieldRef.resource: {:?} is not known",
                selector.resource
            ));
        }
    };
    let quantity = |text: &str| parse_quantity(text).ok_or_else(|| format!("{text:?} is not a quantity"));
    let amount = match map.and_then(|map| map.get(name)) {
        Some(written) => quantity(&written.0)?,
        None => fallback,
    };
    let divisor = match selector.divisor.as_ref().map(|divisor| divisor.0.as_str()) {
        None | Some("" | "0") => 1.0,
        Some(text) => quantity(text)?,
    };
    Ok(format!("{}", (amount / divisor).ceil() as u64))
}

/// `500m`, `128Mi`, `2`
fn parse_quantity(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

/// `$(NAME)` becomes the variable's value, `$$` becomes `$`; an unknown name stays as it is.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Fixed;

    impl Sources for Fixed {
        fn config_map(&self, name: &str) -> Option<Data> {
            (name == "settings").then(|| [("colour".to_owned(), b"red".to_vec())].into())
        }

        fn secret(&self, name: &str) -> Option<Data> {
            (name == "login").then(|| [("word".to_owned(), b"hush".to_vec())].into())
        }
    }

    fn run(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n", "labels": {"app": "a"}}, "spec": {"containers": []}}),
        )
        .unwrap();
        let facts = Facts {
            pod: &pod,
            pod_address: "10.244.0.2".into(),
            pod_addresses: "10.244.0.2".into(),
            host_address: "10.244.0.1".into(),
            node: "local",
            cpus: 2,
            memory: 1 << 30,
        };
        let container: Container = serde_json::from_value(container).unwrap();
        resolve(&container, vec![("BASE".into(), "x".into())], &facts, &Fixed)
    }

    fn get(variables: &[(String, String)], name: &str) -> String {
        variables
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }

    #[test]
    fn every_source() {
        let variables = run(json!({"name": "c",
            "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "S_"}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)-$(BASE)-$$(A)-$(NO)"},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                {"name": "D", "valueFrom": {"secretKeyRef": {"name": "login", "key": "word"}}},
                {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "G", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "H", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "I", "valueFrom": {"secretKeyRef": {"name": "login", "key": "no", "optional": true}}}],
            "resources": {"limits": {"cpu": "1500m"}}}))
        .unwrap();
        for (name, expect) in [
            ("S_colour", "red"),
            ("B", "1-x-$(A)-$(NO)"),
            ("C", "red"),
            ("D", "hush"),
            ("E", "a"),
            ("F", "10.244.0.2"),
            ("G", "2"),
            ("H", "1024"),
        ] {
            assert_eq!(get(&variables, name), expect, "{name}");
        }
        assert!(!variables.iter().any(|(name, _)| name == "I"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |container: serde_json::Value, expect: &str| {
            let error = run(container).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        check(
            json!({"name": "c", "envFrom": [{"secretRef": {"name": "none"}}]}),
            "envFrom[0]: Secret \"none\"",
        );
        let bad_key =
            json!({"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "size"}}});
        check(
            json!({"name": "c", "env": [bad_key]}),
            "env[0] (X): ConfigMap \"settings\" with key \"size\"",
        );
        let bad_field = json!({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.colour"}}});
        check(json!({"name": "c", "env": [bad_field]}), "metadata.colour");
    }
}
