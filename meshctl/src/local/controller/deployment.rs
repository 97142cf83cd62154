//! Deployments, as Kubernetes runs them: one ReplicaSet for each pod template that was, sizes moved step by step within
//! `maxSurge` and `maxUnavailable`. The step is a pure function of what stands.

use serde_json::{Value, json};

use crate::local::object::{self, stable_hash};

/// Letters and digits that make no words, as in Kubernetes' names.
pub const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
pub const HASH_LABEL: &str = "pod-template-hash";

/// What a Deployment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub desired: u32,
    pub surge: u32,
    pub unavailable: u32,
    pub recreate: bool,
}

impl Plan {
    pub fn of(deployment: &Value) -> Self {
        let desired = deployment
            .pointer("/spec/replicas")
            .and_then(Value::as_u64)
            .unwrap_or(1);
        let desired = u32::try_from(desired).unwrap_or(u32::MAX);
        let recreate = object::text(deployment, "/spec/strategy/type") == "Recreate";
        let rolling = deployment.pointer("/spec/strategy/rollingUpdate");
        let amount = |field: &str, up: bool| {
            let written = rolling
                .and_then(|rolling| rolling.get(field))
                .unwrap_or(&Value::Null);
            share(written, desired, up)
        };
        let (surge, mut unavailable) = (amount("maxSurge", true), amount("maxUnavailable", false));
        // Otherwise nothing could ever move.
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self {
            desired,
            surge,
            unavailable,
            recreate,
        }
    }
}

/// A number or a percentage (25% when nothing is written), rounded as Kubernetes rounds it.
fn share(written: &Value, of: u32, up: bool) -> u32 {
    let percent = match written {
        Value::Number(number) => return number.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        Value::String(text) => text
            .strip_suffix('%')
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(25),
        _ => 25,
    };
    let product = percent * u64::from(of);
    let rounded = if up { product.div_ceil(100) } else { product / 100 };
    u32::try_from(rounded).unwrap_or(u32::MAX)
}

/// A ReplicaSet as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// What it was told to be.
    pub wanted: u32,
    /// Pods that exist, those on their way out too.
    pub pods: u32,
    /// Pods that are not on their way out.
    pub active: u32,
    /// Pods that have been ready for long enough.
    pub available: u32,
}

/// The next sizes: of the current template's set, and of the older ones in their order.
pub fn step(plan: &Plan, current: Size, older: &[Size]) -> (u32, Vec<u32>) {
    if plan.recreate {
        let gone = older.iter().all(|set| set.pods == 0);
        return (
            if gone { plan.desired } else { current.wanted },
            vec![0; older.len()],
        );
    }
    let total: u32 = current.wanted + older.iter().map(|set| set.wanted).sum::<u32>();
    let most = plan.desired.saturating_add(plan.surge);
    let next = if current.wanted >= plan.desired {
        plan.desired
    } else {
        current.wanted + (plan.desired - current.wanted).min(most.saturating_sub(total))
    };
    let least = plan.desired.saturating_sub(plan.unavailable);
    let mut sizes: Vec<u32> = older.iter().map(|set| set.wanted).collect();
    // Pods that serve nobody go first: they cost nothing to lose.
    let coming = current.wanted.saturating_sub(current.available);
    let mut spare = total.saturating_sub(least).saturating_sub(coming);
    for (size, set) in sizes.iter_mut().zip(older) {
        let idle = set.wanted.saturating_sub(set.available).min(spare);
        *size -= idle;
        spare -= idle;
    }
    let serving: u32 = current.available + older.iter().map(|set| set.available).sum::<u32>();
    let mut spare = serving.saturating_sub(least);
    for size in &mut sizes {
        let less = (*size).min(spare);
        *size -= less;
        spare -= less;
    }
    (next, sizes)
}

/// The name of a template: the same text for the same template, whatever the order of its fields.
pub fn template_hash(template: &Value) -> String {
    let mut hash = stable_hash(&canonical(template).to_string());
    let mut name = String::new();
    for _ in 0..10 {
        name.push(char::from(SAFE[(hash % SAFE.len() as u64) as usize]));
        hash /= SAFE.len() as u64;
    }
    name
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: std::collections::BTreeMap<&String, Value> = map
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, canonical(value)))
                .collect();
            sorted
                .into_iter()
                .map(|(key, value)| (key.clone(), value))
                .collect()
        }
        Value::Array(list) => list.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// The ReplicaSet of a Deployment's present template, empty at first.
pub fn replica_set(deployment: &Value, hash: &str) -> Value {
    let name = object::text(deployment, "/metadata/name");
    let mut template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    let mut labels = template
        .pointer("/metadata/labels")
        .cloned()
        .unwrap_or_else(|| json!({}));
    labels[HASH_LABEL] = hash.into();
    object::set_metadata(&mut template, "labels", labels.clone());
    let mut selector = deployment
        .pointer("/spec/selector")
        .cloned()
        .unwrap_or_else(|| json!({}));
    if !selector["matchLabels"].is_object() {
        selector["matchLabels"] = json!({});
    }
    selector["matchLabels"][HASH_LABEL] = hash.into();
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{name}-{hash}"),
            "labels": labels,
            "ownerReferences": [owner("apps/v1", "Deployment", deployment)],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": deployment.pointer("/spec/minReadySeconds").cloned().unwrap_or(json!(0)),
            "selector": selector,
            "template": template,
        },
    })
}

pub fn owner(api_version: &str, kind: &str, object: &Value) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": object["metadata"]["name"],
        "uid": object["metadata"]["uid"],
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The uid of the object that controls this one.
pub fn controller_uid(object: &Value) -> &str {
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let controller = owners
        .into_iter()
        .flatten()
        .find(|owner| owner["controller"] == true);
    controller
        .and_then(|owner| owner["uid"].as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(desired: u32, surge: u32, unavailable: u32) -> Plan {
        Plan {
            desired,
            surge,
            unavailable,
            recreate: false,
        }
    }

    fn size(wanted: u32, available: u32) -> Size {
        Size {
            wanted,
            pods: wanted,
            active: wanted,
            available,
        }
    }

    #[test]
    fn amounts() {
        let check = |spec: Value, expect: (u32, u32)| {
            let plan = Plan::of(&json!({"spec": spec}));
            assert_eq!((plan.surge, plan.unavailable), expect);
        };
        check(json!({}), (1, 0));
        check(json!({"replicas": 4}), (1, 1));
        check(json!({"replicas": 10}), (3, 2));
        let rolling = |surge: Value, unavailable: Value| json!({"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}});
        check(rolling(json!(0), json!(0)), (0, 1));
        check(rolling(json!("50%"), json!(1)), (2, 1));
    }

    #[test]
    fn steps() {
        // Nothing there yet.
        assert_eq!(step(&plan(3, 1, 0), size(0, 0), &[]), (3, vec![]));
        // One more is made before one goes.
        assert_eq!(step(&plan(1, 1, 0), size(0, 0), &[size(1, 1)]), (1, vec![1]));
        assert_eq!(step(&plan(1, 1, 0), size(1, 0), &[size(1, 1)]), (1, vec![1]));
        assert_eq!(step(&plan(1, 1, 0), size(1, 1), &[size(1, 1)]), (1, vec![0]));
        // One goes before one is made.
        assert_eq!(step(&plan(2, 0, 1), size(0, 0), &[size(2, 2)]), (0, vec![1]));
        assert_eq!(step(&plan(2, 0, 1), size(0, 0), &[size(1, 1)]), (1, vec![1]));
        // What never became ready makes room at once.
        assert_eq!(
            step(&plan(2, 1, 0), size(0, 0), &[size(2, 2), size(1, 0)]),
            (0, vec![2, 0])
        );
        // Scaled down.
        assert_eq!(step(&plan(1, 1, 0), size(3, 3), &[]), (1, vec![]));
    }

    #[test]
    fn a_rollout_never_falls_below_its_floor() {
        let plan = plan(4, 1, 1);
        let (mut current, mut old) = (size(0, 0), size(4, 4));
        for _ in 0..20 {
            let (next, older) = step(&plan, current, &[old]);
            current.wanted = next;
            old.wanted = older[0];
            old.available = old.available.min(old.wanted);
            assert!(current.available + old.available >= 3, "{current:?} {old:?}");
            assert!(current.wanted + old.wanted <= 5);
            // One new pod becomes ready between two steps.
            current.available = (current.available + 1).min(current.wanted);
        }
        assert_eq!((current.wanted, current.available, old.wanted), (4, 4, 0));
    }

    #[test]
    fn recreate_waits_for_the_last_pod() {
        let plan = Plan {
            recreate: true,
            ..plan(2, 0, 0)
        };
        assert_eq!(step(&plan, size(0, 0), &[size(2, 2)]), (0, vec![0]));
        let leaving = Size {
            wanted: 0,
            pods: 1,
            ..Size::default()
        };
        assert_eq!(step(&plan, size(0, 0), &[leaving]), (0, vec![0]));
        assert_eq!(step(&plan, size(0, 0), &[Size::default()]), (2, vec![0]));
    }

    #[test]
    fn a_template_has_one_name() {
        let one: Value = serde_json::from_str(r#"{"a": 1, "b": {"c": [1, {"d": 2, "e": 3}]}}"#).unwrap();
        let same: Value =
            serde_json::from_str(r#"{"b": {"c": [1, {"e": 3, "d": 2}]}, "a": 1, "z": null}"#).unwrap();
        assert_eq!(template_hash(&one), template_hash(&same));
        assert_ne!(template_hash(&one), template_hash(&json!({"a": 2})));
        assert_eq!(template_hash(&one).len(), 10);
    }

    #[test]
    fn the_set_of_a_template() {
        let deployment = json!({"metadata": {"name": "reviews-v1", "uid": "u"}, "spec": {
            "selector": {"matchLabels": {"app": "reviews"}},
            "template": {"metadata": {"labels": {"app": "reviews"}}, "spec": {"containers": []}}}});
        let set = replica_set(&deployment, "abc");
        assert_eq!(set["metadata"]["name"], "reviews-v1-abc");
        assert_eq!(
            set["spec"]["selector"]["matchLabels"],
            json!({"app": "reviews", "pod-template-hash": "abc"})
        );
        assert_eq!(
            set["spec"]["template"]["metadata"]["labels"]["pod-template-hash"],
            "abc"
        );
        assert_eq!(controller_uid(&set), "u");
    }
}
