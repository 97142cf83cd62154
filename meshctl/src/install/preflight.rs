//! What is looked at before anything is changed: version, rights, other meshes, webhooks that would stand in the way.
//! Everything found is told at once, each with what to do.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    admissionregistration::v1::{
        MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhookConfiguration,
        WebhookClientConfig,
    },
    apps::v1::Deployment,
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::{Node, Service},
};
use kube::{
    Api, Client, Error, ResourceExt,
    api::{ListParams, PostParams},
};

use super::{
    apply,
    kind::{Key, Kind},
    plan::Plan,
};
use crate::kube_cluster::explain;

/// Native sidecars are on by default since this one.
const OLDEST_MINOR: u32 = 29;
/// Nodes that are looked at.
const MAX_NODES: u32 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Good,
    Warning,
    Error,
}

/// One finding about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub level: Level,
    pub text: String,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = match self.level {
            Level::Good => "✔",
            Level::Warning => "!",
            Level::Error => "✘",
        };
        write!(f, "{mark} {}", self.text)
    }
}

fn check(level: Level, text: impl Into<String>) -> Check {
    Check {
        level,
        text: text.into(),
    }
}

/// All checks. Only a cluster that does not answer at all is an error of its own.
pub async fn run(client: &Client, plan: &Plan) -> anyhow::Result<Vec<Check>> {
    let mut checks = vec![version(client).await?];
    checks.extend(nodes(client).await);
    checks.push(rights(client, plan).await?);
    checks.push(other_meshes(client).await?);
    checks.extend(strangers(client, plan).await?);
    checks.extend(dead_webhooks(client).await?);
    checks.extend(
        plan.warnings
            .iter()
            .map(|warning| check(Level::Warning, warning.clone())),
    );
    Ok(checks)
}

async fn version(client: &Client) -> anyhow::Result<Check> {
    let info = client
        .apiserver_version()
        .await
        .map_err(|error| explain(&error, "asking Kubernetes for its version"))?;
    let digits = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap_or(0)
    };
    let (major, minor) = (digits(&info.major), digits(&info.minor));
    Ok(if (major, minor) >= (1, OLDEST_MINOR) {
        check(Level::Good, format!("Kubernetes {}", info.git_version))
    } else {
        check(
            Level::Error,
            format!(
                "Kubernetes is {}; needed is 1.{OLDEST_MINOR} or newer, which has native sidecars. Upgrade the cluster",
                info.git_version
            ),
        )
    })
}

/// A node older than its API server would run sidecars as ordinary init containers, which never end.
async fn nodes(client: &Client) -> Option<Check> {
    let api: Api<Node> = Api::all(client.clone());
    // Who may not see nodes may still install.
    let nodes = api.list(&ListParams::default().limit(MAX_NODES)).await.ok()?;
    let old: Vec<String> = nodes
        .items
        .iter()
        .filter_map(|node| {
            let kubelet = &node.status.as_ref()?.node_info.as_ref()?.kubelet_version;
            let minor: u32 = kubelet.split('.').nth(1)?.parse().ok()?;
            (minor < OLDEST_MINOR).then(|| format!("{} ({kubelet})", node.name_any()))
        })
        .collect();
    (!old.is_empty()).then(|| {
        check(
            Level::Warning,
            format!(
                "nodes without native sidecars: {}; pods with a sidecar do not start there. Upgrade them",
                old.join(", ")
            ),
        )
    })
}

async fn may(client: &Client, attributes: ResourceAttributes) -> anyhow::Result<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = api
        .create(&PostParams::default(), &review)
        .await
        .map_err(|error| explain(&error, "asking for this account's rights"))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn attributes(group: &str, resource: &str, namespace: &str, verb: &str) -> ResourceAttributes {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        namespace: set(namespace),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    }
}

/// What may be done to each kind of the plan; and whether the roles that it holds may be given away.
async fn rights(client: &Client, plan: &Plan) -> anyhow::Result<Check> {
    if may(client, attributes("*", "*", "", "*")).await? {
        return Ok(check(Level::Good, "this account may do everything"));
    }
    let mut kinds: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for object in plan.objects() {
        let kind = Kind::of(object)?;
        let namespace = if kind.namespaced {
            plan.namespace.as_str()
        } else {
            ""
        };
        kinds.insert((kind.group, kind.plural, namespace));
    }
    let mut missing = Vec::new();
    for (group, plural, namespace) in kinds {
        for verb in ["get", "list", "create", "patch", "delete"] {
            if !may(client, attributes(group, plural, namespace, verb)).await? {
                missing.push(format!("{verb} {plural}"));
            }
        }
    }
    for object in plan.objects().filter(|object| object["kind"] == "ClusterRole") {
        if missing.is_empty()
            && let Err(error) = apply::preview(client, object).await
        {
            missing.push(format!("give away the role {} ({error:#})", Key::of(object)));
        }
    }
    Ok(if missing.is_empty() {
        check(Level::Good, "this account may do what is needed")
    } else {
        check(
            Level::Error,
            format!(
                "this account may not: {}. Use one with the role cluster-admin, or have these rights given to it",
                missing.join(", ")
            ),
        )
    })
}

/// Another control plane of the same API would inject the same pods and publish another root under the same name.
async fn other_meshes(client: &Client) -> anyhow::Result<Check> {
    let api: Api<Deployment> = Api::all(client.clone());
    let found = match api.list(&ListParams::default().labels("app=istiod")).await {
        Ok(found) => found.items,
        Err(Error::Api(status)) if status.code == 403 => {
            return Ok(check(
                Level::Warning,
                "whether Istio is there cannot be seen: this account may not list Deployments of all namespaces",
            ));
        }
        Err(error) => return Err(explain(&error, "looking for Istio")),
    };
    let places: Vec<String> = found
        .iter()
        .map(|one| format!("{}/{}", one.namespace().unwrap_or_default(), one.name_any()))
        .collect();
    Ok(if places.is_empty() {
        check(Level::Good, "no other control plane of Istio's API")
    } else {
        check(
            Level::Error,
            format!(
                "Istio runs here: {}. Both would inject the same pods and publish their root as istio-ca-root-cert. Remove \
                 it first (istioctl uninstall --purge; kinds may stay), or go on with --force",
                places.join(", ")
            ),
        )
    })
}

/// Objects of the plan that somebody else installed.
async fn strangers(client: &Client, plan: &Plan) -> anyhow::Result<Option<Check>> {
    if !may(client, attributes("apps", "deployments", &plan.namespace, "get")).await? {
        return Ok(Some(check(
            Level::Warning,
            format!(
                "whether somebody else installed a mesh in namespace {} cannot be seen: this account may not read \
                 Deployments there",
                plan.namespace
            ),
        )));
    }
    for object in plan.objects().filter(|object| object["kind"] == "Deployment") {
        let key = Key::of(object);
        if let Some(owner) = apply::get(client, &key).await?.as_ref().and_then(apply::stranger) {
            return Ok(Some(check(
                Level::Error,
                format!(
                    "{key} belongs to {owner}. Go on with Helm (helm upgrade), or uninstall it first, or choose another \
                     --revision"
                ),
            )));
        }
    }
    Ok(None)
}

/// Webhooks that fail closed and whose service is gone: no pod, or no object of ours, would get past them.
async fn dead_webhooks(client: &Client) -> anyhow::Result<Vec<Check>> {
    let mut suspects: Vec<(String, ServiceReference)> = Vec::new();
    let all = ListParams::default();
    let (mutating, validating): (
        Api<MutatingWebhookConfiguration>,
        Api<ValidatingWebhookConfiguration>,
    ) = (Api::all(client.clone()), Api::all(client.clone()));
    for config in mutating
        .list(&all)
        .await
        .map(|list| list.items)
        .unwrap_or_default()
    {
        let name = config.name_any();
        for hook in config.webhooks.into_iter().flatten() {
            suspect(
                &name,
                &hook.rules,
                hook.failure_policy.as_deref(),
                &hook.client_config,
                &mut suspects,
            );
        }
    }
    for config in validating
        .list(&all)
        .await
        .map(|list| list.items)
        .unwrap_or_default()
    {
        let name = config.name_any();
        for hook in config.webhooks.into_iter().flatten() {
            suspect(
                &name,
                &hook.rules,
                hook.failure_policy.as_deref(),
                &hook.client_config,
                &mut suspects,
            );
        }
    }
    let mut checks = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, service) in suspects {
        if !seen.insert((name.clone(), service.namespace.clone(), service.name.clone())) {
            continue;
        }
        let api: Api<Service> = Api::namespaced(client.clone(), &service.namespace);
        if matches!(api.get_opt(&service.name).await, Ok(None)) {
            checks.push(check(
                Level::Warning,
                format!(
                    "webhook configuration {name} refuses everything when its service {}/{} does not answer, and that is \
                     not there: pods may not start. Repair it, or: kubectl delete the configuration",
                    service.namespace, service.name
                ),
            ));
        }
    }
    Ok(checks)
}

fn suspect(
    name: &str,
    rules: &Option<Vec<RuleWithOperations>>,
    policy: Option<&str>,
    config: &WebhookClientConfig,
    suspects: &mut Vec<(String, ServiceReference)>,
) {
    let ours = ["pods", "deployments", "services", "configmaps", "*", "*/*"];
    let concerns = rules.iter().flatten().any(|rule| {
        let resources = rule.resources.iter().flatten();
        resources
            .into_iter()
            .any(|resource| ours.contains(&resource.as_str()))
    });
    if let (true, Some(service), true) = (concerns, &config.service, policy.unwrap_or("Fail") == "Fail") {
        suspects.push((name.to_owned(), service.clone()));
    }
}
