//! The mesh's webhooks: injection webhooks that lead nowhere or take the same pods twice (IST0139), and webhooks that lead
//! out of the cluster in an odd way (IST0163, IST0164).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::admissionregistration::v1::{
        MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use mesh_proto::{
    finding::{self, Finding, Report},
    kube::{Manifest, decode},
    names::label,
};

use super::{Scene, report_of};
use crate::model::{Key, Kind, Labels};

/// Webhooks whose names end so are of a mesh.
const DOMAIN: &str = "istio.io";
const INJECTORS: &str = "istio-sidecar-injector";
const VALIDATORS: [&str; 2] = ["istio-validator", "istiod-default-validator"];

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let mut injectors = Vec::new();
    for manifest in scene.written(Kind::MutatingWebhookConfiguration) {
        let (Some(configuration), _) = decode::core::<MutatingWebhookConfiguration>(manifest) else {
            continue;
        };
        let mut report = report_of(manifest);
        let webhooks = configuration.webhooks.unwrap_or_default();
        for (i, webhook) in webhooks.into_iter().enumerate() {
            if manifest.key.name.starts_with(INJECTORS) {
                destination(&webhook.client_config, i, &mut report);
            }
            if webhook.name.ends_with(DOMAIN) {
                service(scene, &webhook, i, &mut report);
                injectors.push(Injector { manifest, i, webhook });
            }
        }
        findings.append(&mut report.findings);
    }
    overlaps(&injectors, findings);
    for manifest in scene.written(Kind::ValidatingWebhookConfiguration) {
        if !VALIDATORS.iter().any(|name| manifest.key.name.starts_with(name)) {
            continue;
        }
        let (Some(configuration), _) = decode::core::<ValidatingWebhookConfiguration>(manifest) else {
            continue;
        };
        let mut report = report_of(manifest);
        for (i, webhook) in configuration.webhooks.into_iter().flatten().enumerate() {
            destination(&webhook.client_config, i, &mut report);
        }
        findings.append(&mut report.findings);
    }
}

struct Injector<'a> {
    manifest: &'a Manifest,
    /// Its position in the configuration.
    i: usize,
    webhook: MutatingWebhook,
}

/// A control plane outside of the cluster is reached by URL.
fn destination(to: &WebhookClientConfig, i: usize, report: &mut Report) {
    let path = format!("webhooks[{i}].clientConfig.url");
    let Some(url) = to.url.as_deref() else {
        if to.service.is_none() {
            let text = "leads neither to a service nor to a url, so nobody answers it";
            report.add(
                finding::INVALID_EXTERNAL_CONTROL_PLANE,
                format!("webhooks[{i}].clientConfig"),
                text,
            );
        }
        return;
    };
    match host(url) {
        None => report.add(
            finding::INVALID_EXTERNAL_CONTROL_PLANE,
            path,
            format!("{url:?} is no https URL with a host, so the API server cannot call it"),
        ),
        Some(host) if host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() => report.add(
            finding::EXTERNAL_CONTROL_PLANE_BY_ADDRESS,
            path,
            format!("{host} is an address; give the control plane a name, which a certificate can carry"),
        ),
        Some(_) => {}
    }
}

fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.starts_with('[') {
        true => authority.split_inclusive(']').next()?,
        false => authority.split(':').next()?,
    };
    (!host.is_empty() && !host.contains(char::is_whitespace)).then_some(host)
}

fn service(scene: &Scene<'_>, webhook: &MutatingWebhook, i: usize, report: &mut Report) {
    let Some(to) = &webhook.client_config.service else {
        return;
    };
    let key = Key::new(&to.namespace, &to.name);
    let knows_services = scene.written(Kind::Service).next().is_some();
    if knows_services && scene.store.manifest(Kind::Service, &key).is_none() {
        report.add(
            finding::INVALID_WEBHOOK,
            format!("webhooks[{i}].clientConfig.service"),
            format!(
                "there is no Service {key}, so {} has nobody to ask and pods are not injected (or not even made)",
                webhook.name
            ),
        );
    }
}

/// Which webhooks take the same pod? Asked for every combination of the labels that matter.
fn overlaps(injectors: &[Injector<'_>], findings: &mut Vec<Finding>) {
    let revisions: BTreeSet<String> = injectors.iter().flat_map(revisions).collect();
    let namespaces = combinations(label::INJECTION, ["enabled", "disabled"], &revisions);
    let pods = combinations(label::INJECT, ["true", "false"], &revisions);
    let mut rivals: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for namespace in &namespaces {
        for pod in &pods {
            let taking: Vec<usize> = injectors
                .iter()
                .enumerate()
                .filter(|(_, one)| {
                    selects(one.webhook.namespace_selector.as_ref(), namespace)
                        && selects(one.webhook.object_selector.as_ref(), pod)
                })
                .map(|(at, _)| at)
                .collect();
            if taking.len() > 1 {
                for at in &taking {
                    let others = taking.iter().copied().filter(|other| other != at);
                    rivals.entry(*at).or_default().extend(others);
                }
            }
        }
    }
    for (at, others) in rivals {
        let Some(one) = injectors.get(at) else { continue };
        let others: Vec<String> = others
            .into_iter()
            .filter_map(|other| injectors.get(other))
            .map(|other| format!("{} ({})", other.manifest.key.name, other.webhook.name))
            .collect();
        let mut report = report_of(one.manifest);
        report.add(
            finding::INVALID_WEBHOOK,
            format!("webhooks[{}]", one.i),
            format!(
                "{} takes pods that {} takes too, so they are injected twice; remove what an older installation left",
                one.webhook.name,
                others.join(", ")
            ),
        );
        findings.append(&mut report.findings);
    }
}

fn combinations(name: &str, values: [&str; 2], revisions: &BTreeSet<String>) -> Vec<Labels> {
    let mut all = Vec::new();
    for value in [None, Some(values[0]), Some(values[1])] {
        for revision in std::iter::once(None).chain(revisions.iter().map(Some)) {
            let mut labels = Labels::new();
            if let Some(value) = value {
                labels.insert(name.to_owned(), value.to_owned());
            }
            if let Some(revision) = revision {
                labels.insert(label::REVISION.to_owned(), revision.clone());
            }
            all.push(labels);
        }
    }
    all
}

/// Revisions that a webhook's selectors speak of.
fn revisions(injector: &Injector<'_>) -> BTreeSet<String> {
    let selectors = [
        &injector.webhook.namespace_selector,
        &injector.webhook.object_selector,
    ];
    let mut found = BTreeSet::new();
    for selector in selectors.into_iter().flatten() {
        let labels = selector.match_labels.iter().flatten();
        found.extend(
            labels
                .filter(|(key, _)| *key == label::REVISION)
                .map(|(_, value)| value.clone()),
        );
        let expressions = selector.match_expressions.iter().flatten();
        found.extend(
            expressions
                .filter(|one| one.key == label::REVISION)
                .flat_map(|one| one.values.clone().unwrap_or_default()),
        );
    }
    found
}

/// No selector takes everything; an operator that does not exist takes nothing.
fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return true };
    let all = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten();
    all && expressions.into_iter().all(|one| {
        let value = labels.get(&one.key);
        let listed = value.is_some_and(|value| one.values.iter().flatten().any(|known| known == value));
        match one.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls() {
        for (url, expect) in [
            (
                "https://pilot.example.com:15017/inject",
                Some("pilot.example.com"),
            ),
            ("https://[fd00::1]:15017/inject", Some("[fd00::1]")),
            ("https://10.0.0.1/inject", Some("10.0.0.1")),
            ("https:///inject", None),
            ("http://pilot.example.com/inject", None),
            ("pilot", None),
        ] {
            assert_eq!(host(url), expect, "{url}");
        }
    }
}
