//! Rules of a role, each right of its own: what the test of rights takes away one by one, and what the page of rights
//! lists.

use serde_json::{Value, json};
use std::fmt;

/// One resource of a rule, with one verb; `list` and `watch` go together, because a watch begins with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    groups: Vec<String>,
    resource: String,
    names: Vec<String>,
    verbs: Vec<String>,
}

impl Right {
    /// A rule of a role for it alone.
    pub fn rule(&self) -> Value {
        let mut rule = json!({"apiGroups": self.groups, "resources": [self.resource], "verbs": self.verbs});
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }

    /// The resource, with group and names: `discovery.k8s.io/endpointslices`, `secrets [cacerts]`.
    pub fn resource(&self) -> String {
        let groups = self.groups.join(", ");
        let names = if self.names.is_empty() {
            String::new()
        } else {
            format!(" [{}]", self.names.join(", "))
        };
        format!("{groups}/{}{names}", self.resource)
            .trim_start_matches('/')
            .to_owned()
    }
}

/// `RESOURCE: VERBS`
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource(), self.verbs.join(", "))
    }
}

/// All rights of the rules of a role.
pub fn rights_of(rules: &Value) -> Vec<Right> {
    let mut all = Vec::new();
    for rule in rules.as_array().into_iter().flatten() {
        let words = |field: &str| -> Vec<String> {
            let words = rule[field].as_array().into_iter().flatten();
            words
                .filter_map(|word| word.as_str().map(str::to_owned))
                .collect()
        };
        let (mut together, alone): (Vec<String>, Vec<String>) = words("verbs")
            .into_iter()
            .partition(|verb| ["list", "watch"].contains(&verb.as_str()));
        together.sort();
        let mut verbs: Vec<Vec<String>> = alone.into_iter().map(|verb| vec![verb]).collect();
        if !together.is_empty() {
            verbs.push(together);
        }
        for resource in words("resources") {
            all.extend(verbs.iter().map(|verbs| Right {
                groups: words("apiGroups"),
                resource: resource.clone(),
                names: words("resourceNames"),
                verbs: verbs.clone(),
            }));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_fall_into_rights_and_back() {
        let rules = json!([
            {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["a", "b"], "resources": ["*"], "resourceNames": ["x", "y"], "verbs": ["patch"]},
        ]);
        let rights = rights_of(&rules);
        let told: Vec<String> = rights.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "pods: get",
                "pods: list, watch",
                "nodes: get",
                "nodes: list, watch",
                "a, b/* [x, y]: patch"
            ]
        );
        assert_eq!(rights[4].rule(), rules[1]);
    }
}
