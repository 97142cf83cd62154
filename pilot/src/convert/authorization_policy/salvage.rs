//! A policy that cannot be read as a whole must not let everything in. What can be read of it still restricts:
//!
//! * ALLOW: rules with a part that cannot be read fall away, so less is allowed than was meant.
//! * DENY: the part falls away and counts as fulfilled, so more is denied than was meant.
//!
//! Whom the policy is for must be readable, and what it does; else it has no effect, and the finding says so. Pure. This
//! counts only for an object that never had a good version: a good one stays in effect.

use mesh_proto::{
    finding::{self, Finding},
    kube::{Manifest, security as api},
    validate,
};
use serde_json::{Map, Value, json};

use crate::convert::Instead;
use crate::model::Item;

/// How often parts are taken away before the rest is given up. Each round takes away at least one.
const ROUNDS: usize = 256;

/// What is in effect in place of a policy that has these findings.
pub fn salvage(
    manifest: &Manifest,
    found: &[Finding],
    convert: impl FnOnce(&Manifest) -> Option<Item>,
) -> Instead {
    let lost = |why: String| Instead {
        item: None,
        finding: told(
            manifest,
            format!("this policy has no effect and restricts nothing until it is repaired: {why}"),
        ),
    };
    let Some(spec) = manifest.value.get("spec").and_then(Value::as_object) else {
        return lost("spec cannot be read".into());
    };
    let deny = match spec.get("action") {
        None | Some(Value::Null) => false,
        Some(action) if action == "ALLOW" => false,
        Some(action) if action == "DENY" => true,
        Some(action) => return lost(format!("nothing is done for action {action}")),
    };
    let all = spec.get("rules").and_then(Value::as_array).map_or(0, Vec::len);
    let mut rest = manifest.clone();
    let mut errors: Vec<String> = paths(found);
    for _ in 0..ROUNDS {
        let spec = rest.value.get_mut("spec").and_then(Value::as_object_mut);
        let taken = spec.is_some_and(|spec| {
            if deny {
                widen(spec, &errors)
            } else {
                narrow(spec, &errors)
            }
        });
        if !taken {
            break;
        }
        let (object, findings) = validate::typed::<api::AuthorizationPolicy>(&rest);
        if object.is_none() {
            errors = paths(&findings);
            continue;
        }
        let left = rules(&rest);
        let text = if deny {
            "until it is repaired, this policy denies more than it says: what cannot be read counts as fulfilled".into()
        } else {
            format!(
                "until it is repaired, this policy allows only what the {left} of its {all} rules allow that can be read"
            )
        };
        return Instead {
            item: convert(&rest),
            finding: told(manifest, text),
        };
    }
    let path = errors.first().map_or("spec", String::as_str);
    lost(format!("without {path} nobody knows what it is for"))
}

fn told(manifest: &Manifest, text: String) -> Finding {
    Finding::new(
        finding::SCHEMA_VALIDATION_ERROR,
        manifest.object_ref(),
        "spec",
        text,
    )
    .at(manifest.source.clone())
}

fn paths(findings: &[Finding]) -> Vec<String> {
    let errors = findings.iter().filter(|finding| finding.is_error());
    errors.map(|finding| finding.path.clone()).collect()
}

fn rules(manifest: &Manifest) -> usize {
    let rules = manifest.value.pointer("/spec/rules").and_then(Value::as_array);
    rules.map_or(0, Vec::len)
}

/// `spec.rules[0].from[1].source.ipBlocks[0]` as its parts after `spec`.
fn parts(path: &str) -> Vec<&str> {
    path.split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .skip(1)
        .collect()
}

/// Takes whole rules away. False: something else is wrong.
fn narrow(spec: &mut Map<String, Value>, errors: &[String]) -> bool {
    let mut gone = Vec::new();
    for path in errors {
        match parts(path)[..] {
            ["rules"] => {
                spec.insert("rules".into(), json!([]));
                return true;
            }
            ["rules", index, ..] => gone.extend(index.parse::<usize>()),
            _ => return false,
        }
    }
    let Some(rules) = spec.get_mut("rules").and_then(Value::as_array_mut) else {
        return false;
    };
    remove(rules, gone)
}

/// Takes the smallest part away whose absence makes the rule match more. False: something else is wrong.
fn widen(spec: &mut Map<String, Value>, errors: &[String]) -> bool {
    let mut conditions: Vec<(usize, usize)> = Vec::new();
    let mut taken = false;
    for path in errors {
        let parts = parts(path);
        if parts[..] == ["rules"] {
            spec.insert("rules".into(), json!([{}]));
            return true;
        }
        let rule = match parts[..] {
            ["rules", index, ..] => index.parse::<usize>().ok(),
            _ => return false,
        };
        let Some((index, rule)) =
            rule.and_then(|index| Some((index, spec.get_mut("rules")?.get_mut(index)?)))
        else {
            return false;
        };
        match (rule.as_object_mut(), &parts[2..]) {
            (None, _) | (_, []) => *rule = json!({}),
            (Some(_), ["when", number, ..]) => {
                conditions.extend(number.parse().map(|number| (index, number)))
            }
            (Some(rule), [list @ ("from" | "to"), place, _, field, ..]) => forget(rule, list, place, field),
            // Of alternatives one that cannot be read may be anything: so any of them will do.
            (Some(rule), [field, ..]) => drop(rule.remove(*field)),
        }
        taken = true;
    }
    for index in 0..spec.get("rules").and_then(Value::as_array).map_or(0, Vec::len) {
        let gone = conditions
            .iter()
            .filter(|(of, _)| *of == index)
            .map(|(_, number)| *number)
            .collect();
        let list = spec
            .get_mut("rules")
            .and_then(|rules| rules.get_mut(index)?.get_mut("when")?.as_array_mut());
        if let Some(list) = list {
            taken |= remove(list, gone);
        }
    }
    taken
}

/// Takes a field out of one source or operation; one that then says nothing takes the whole list along.
fn forget(rule: &mut Map<String, Value>, list: &str, place: &str, field: &str) {
    let inner = match list {
        "from" => "source",
        _ => "operation",
    };
    let one = place.parse::<usize>().ok().and_then(|place| {
        rule.get_mut(list)?
            .get_mut(place)?
            .get_mut(inner)?
            .as_object_mut()
    });
    let says = one.is_some_and(|one| one.remove(field).is_some() && !one.is_empty());
    if !says {
        rule.remove(list);
    }
}

fn remove(list: &mut Vec<Value>, mut places: Vec<usize>) -> bool {
    places.sort_unstable();
    places.dedup();
    let before = list.len();
    for place in places.into_iter().rev() {
        if place < list.len() {
            list.remove(place);
        }
    }
    list.len() != before
}

#[cfg(test)]
mod tests {
    use mesh_proto::kube::Kind;

    use super::*;
    use crate::{
        convert::{Converted, Meaning, testing::converted},
        model::{AuthorizationPolicy, PolicyAction, authz::Rule},
    };

    fn salvaged(spec: &str) -> (Option<AuthorizationPolicy>, String) {
        let Converted { meaning, instead, .. } = converted(Kind::AuthorizationPolicy, spec);
        assert_eq!(meaning, Meaning::Invalid, "{spec}");
        let instead = instead.unwrap();
        let policy = instead.item.map(|item| match item {
            Item::AuthorizationPolicy(policy) => policy.as_ref().clone(),
            other => panic!("{other:?}"),
        });
        assert!(instead.finding.is_error());
        (policy, instead.finding.text)
    }

    #[test]
    fn an_allowing_policy_keeps_its_readable_rules() {
        let (policy, text) = salvaged(
            "selector: {matchLabels: {app: a}}\nrules:\n\
             - {to: [{operation: {methods: [GET]}}]}\n\
             - {from: [{source: {ipBlocks: [nonsense]}}]}\n\
             - {to: [{operation: {methd: [PUT]}}]}\n",
        );
        let policy = policy.unwrap();
        assert_eq!((policy.action, policy.rules.len()), (PolicyAction::Allow, 1));
        assert!(policy.selector.is_some());
        assert_eq!(policy.rules[0].to.len(), 1);
        assert!(text.contains("only what the 1 of its 3 rules"), "{text}");
        // Without any it still restricts.
        for spec in [
            "rules: [{from: [{source: {ipBlocks: [x]}}]}]",
            "rules: everything",
            "rules: [7]",
        ] {
            assert_eq!(salvaged(spec).0.unwrap().rules, [], "{spec}");
        }
    }

    #[test]
    fn a_denying_policy_denies_more() {
        let rules = |spec: &str| salvaged(&format!("action: DENY\n{spec}")).0.unwrap().rules;
        let from =
            "from: [{source: {namespaces: [bad], ipBlocks: [10.0.0.0/8, x]}}, {source: {namespaces: [b]}}]";
        let kept = rules(&format!(
            "rules: [{{{from}, to: [{{operation: {{ports: ['80']}}}}]}}]"
        ));
        assert_eq!(kept[0].from.len(), 2);
        assert!(kept[0].from[0].ip_blocks.is_empty() && !kept[0].from[0].namespaces.is_empty());
        assert_eq!(kept[0].to.len(), 1);
        // Of alternatives one that cannot be read may be anything.
        let kept = rules("rules: [{from: [{source: {ipBlocks: [x]}}, {source: {namespaces: [b]}}]}]");
        assert_eq!(kept, [Rule::default()]);
        let when = "when: [{key: source.ip, values: [x]}, {key: destination.port, values: ['80']}, {key: nothing, values: [a]}]";
        let kept = rules(&format!("rules: [{{{when}}}]"));
        assert_eq!(kept[0].when.len(), 1);
        assert_eq!(rules("rules: [{to: 7}, 8]"), [Rule::default(), Rule::default()]);
        assert_eq!(rules("rules: everything"), [Rule::default()]);
        let (_, text) = salvaged("action: DENY\nrules: [{to: 7}]");
        assert!(text.contains("denies more than it says"), "{text}");
    }

    #[test]
    fn what_cannot_be_known_has_no_effect_and_says_so() {
        for (spec, why) in [
            ("action: DENNY\nrules: [{}]", "action \"DENNY\""),
            (
                "action: CUSTOM\nprovider: {name: a}\nrules: [{}]",
                "action \"CUSTOM\"",
            ),
            ("selector: 7\nrules: [{}]", "without spec.selector"),
            (
                "selecter: {matchLabels: {app: a}}\nrules: [{}]",
                "without spec.selecter",
            ),
        ] {
            let (policy, text) = salvaged(spec);
            assert_eq!(policy, None, "{spec}");
            assert!(text.contains("has no effect") && text.contains(why), "{text}");
        }
    }
}
