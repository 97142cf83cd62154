//! Keeps the `caBundle` of the webhook configurations in step with the mesh's roots: without it the API server does not
//! believe pilot, and no pod gets a sidecar. Only the leader writes; only what differs is written; only webhooks that
//! lead to pilot's own Service are touched, in whatever configuration they are (each revision tag has one of its own).
//!
//! From: the identity cell (roots), the configurations as they are watched. To: the same configurations.
//! Bounds: one call at a time for each of the two kinds, waits between failures by [`Backoff`].

use std::{collections::BTreeMap, fmt::Debug, pin::pin, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{Stream, StreamExt};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::watcher::{self, Event, watcher},
};
use mesh_proto::kube::ObjectKey;
use mesh_runtime::{
    apiserver,
    backoff::Backoff,
    leader::Leadership,
    tls::{Identity, IdentityCell},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// By which the API server notes who set the field.
const MANAGER: &str = "gossamer-pilot";
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(10);

/// Whose webhooks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pilot's own Service.
    pub service: ObjectKey,
    /// Names of the two configurations that must be there.
    pub mutating: String,
    pub validating: String,
}

/// A configuration of webhooks, of either kind.
trait Configuration: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    /// Why it must be there.
    const FOR: &'static str;

    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    const FOR: &'static str = "no pod gets a sidecar";

    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let hooks = self.webhooks.iter().flatten();
        hooks
            .map(|hook| (hook.name.as_str(), &hook.client_config))
            .collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    const FOR: &'static str = "objects are not checked when they are applied";

    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let hooks = self.webhooks.iter().flatten();
        hooks
            .map(|hook| (hook.name.as_str(), &hook.client_config))
            .collect()
    }
}

/// Works whenever this process leads. Never returns.
pub async fn keep(client: Client, settings: Settings, cell: IdentityCell, leadership: Leadership) {
    let mut changes = cell.subscribe();
    let identity = loop {
        let known = changes.borrow_and_update().clone();
        match known {
            Some(identity) => break identity,
            None if changes.changed().await.is_err() => return,
            None => {}
        }
    };
    if let Some(problem) = unbelievable(&identity, &settings.service) {
        tracing::error!("{problem}");
    }
    leadership
        .while_leading(|| async {
            tokio::join!(
                follow::<MutatingWebhookConfiguration>(&client, &settings.mutating, &settings.service, &cell),
                follow::<ValidatingWebhookConfiguration>(
                    &client,
                    &settings.validating,
                    &settings.service,
                    &cell
                ),
            );
        })
        .await;
}

/// What is said once.
#[derive(Default)]
struct Said(Option<String>);

impl Said {
    fn warn(&mut self, text: String) {
        if self.0.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.0 = Some(text);
        }
    }
}

async fn follow<K: Configuration>(client: &Client, name: &str, service: &ObjectKey, cell: &IdentityCell) {
    let api: Api<K> = Api::all(client.clone());
    let what = K::kind(&());
    let mut roots = cell.subscribe();
    let mut events = pin!(patient(watcher(api.clone(), watcher::Config::default())));
    let mut known: BTreeMap<String, K> = BTreeMap::new();
    let (mut said, mut backoff) = (Said::default(), Backoff::new(FIRST_RETRY, LONGEST_RETRY));
    let mut listed = false;
    loop {
        tokio::select! {
            next = events.next() => match next {
                Some(Ok(event)) => listed = note(event, &mut known).unwrap_or(listed),
                Some(Err(error)) => {
                    if let Some(text) = apiserver::explain_watch(&error, &format!("watching {what}s")) {
                        said.warn(format!("{text}; {} if a caBundle is wrong", K::FOR));
                    }
                    continue;
                }
                None => return,
            },
            changed = roots.changed() => if changed.is_err() { return },
        }
        let (true, Some(identity)) = (listed, cell.get()) else {
            continue;
        };
        if !known.contains_key(name) {
            said.warn(format!(
                "{what} {name} is not there: {}; install it (`meshctl install`, or the chart `control`)",
                K::FOR
            ));
        }
        let bundle = bundle(&identity);
        for (own, object) in &known {
            match difference(object, service, &bundle) {
                Difference::None => {}
                Difference::NotOurs if own == name => said.warn(format!(
                    "none of the webhooks of {what} {own} leads to Service {service}: {}; correct clientConfig.service",
                    K::FOR
                )),
                Difference::NotOurs => {}
                Difference::Patch(patch, hooks) => match write(&api, own, &patch).await {
                    Ok(()) => {
                        backoff.reset();
                        said = Said::default();
                        tracing::info!("caBundle of {what} {own} is the mesh's roots now (webhooks {})", hooks.join(", "));
                    }
                    Err(text) => {
                        said.warn(format!("caBundle of {what} {own} cannot be set: {text}; {}", K::FOR));
                        tokio::time::sleep(backoff.next(rand::random())).await;
                        // It is tried again with whatever is newest then.
                        roots.mark_changed();
                    }
                },
            }
        }
    }
}

/// Whether everything is known from here on, where that changes.
fn note<K: Configuration>(event: Event<K>, known: &mut BTreeMap<String, K>) -> Option<bool> {
    let name = |object: &K| object.meta().name.clone().unwrap_or_default();
    match event {
        Event::Init => {
            known.clear();
            return Some(false);
        }
        Event::InitApply(object) | Event::Apply(object) => drop(known.insert(name(&object), object)),
        Event::Delete(object) => drop(known.remove(&name(&object))),
        Event::InitDone => return Some(true),
    }
    None
}

/// The watch, with time between its failures.
fn patient<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    events.then(move |item| {
        let wait = match &item {
            // Before anything is asked.
            Ok(Event::Init) => None,
            Ok(_) => {
                backoff.reset();
                None
            }
            Err(_) => Some(backoff.next(rand::random())),
        };
        async move {
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            item
        }
    })
}

async fn write<K: Configuration>(api: &Api<K>, name: &str, patch: &Value) -> Result<(), String> {
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Strategic(patch);
    let call = api.patch(name, &parameters, &patch);
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(apiserver::explain(&error, "patching it")),
        Err(_) => Err(format!("no answer within {CALL:?}")),
    }
}

#[derive(Debug, PartialEq)]
enum Difference {
    None,
    /// No webhook leads to our Service.
    NotOurs,
    /// The patch, and the webhooks it is for.
    Patch(Value, Vec<String>),
}

fn difference<K: Configuration>(object: &K, service: &ObjectKey, bundle: &[u8]) -> Difference {
    let all = object.hooks();
    let ours: Vec<_> = all
        .iter()
        .filter(|(_, config)| leads_to(config, service))
        .collect();
    if ours.is_empty() {
        return Difference::NotOurs;
    }
    let wrong: Vec<&str> = ours
        .iter()
        .filter(|(_, config)| {
            let ByteString(known) = config.ca_bundle.clone().unwrap_or_default();
            known != bundle
        })
        .map(|(name, _)| *name)
        .collect();
    if wrong.is_empty() {
        return Difference::None;
    }
    let hook = |name: &&str| json!({ "name": name, "clientConfig": { "caBundle": STANDARD.encode(bundle) } });
    let patch = json!({
        // Somebody may have changed the list meanwhile.
        "metadata": { "resourceVersion": object.meta().resource_version },
        "webhooks": wrong.iter().map(hook).collect::<Vec<_>>(),
    });
    Difference::Patch(patch, wrong.into_iter().map(str::to_owned).collect())
}

fn leads_to(config: &WebhookClientConfig, service: &ObjectKey) -> bool {
    config
        .service
        .as_ref()
        .is_some_and(|to| to.name == service.name && to.namespace == service.namespace)
}

/// All roots, as PEM.
fn bundle(identity: &Identity) -> Vec<u8> {
    let mut text = String::new();
    for root in &identity.roots {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(root);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text.into_bytes()
}

/// Why the API server could not believe this certificate, if so.
fn unbelievable(identity: &Identity, service: &ObjectKey) -> Option<String> {
    let expected = format!("{}.{}.svc", service.name, service.namespace);
    let (_, leaf) = X509Certificate::from_der(identity.chain.first()?).ok()?;
    let names = leaf.subject_alternative_name().ok().flatten();
    let found = names.is_some_and(|names| {
        let mut names = names.value.general_names.iter();
        names.any(|name| matches!(name, GeneralName::DNSName(name) if *name == expected))
    });
    (!found).then(|| {
        format!(
            "pilot's certificate has no DNS name {expected}, so the API server will not believe the webhooks; citadel gives it \
             to the service accounts of the control plane: does pilot run under its own?"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_runtime::tls;

    fn configuration(bundle: Option<&str>, name: &str) -> MutatingWebhookConfiguration {
        let hook = |hook: &str, service: &str| {
            json!({"name": hook, "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"caBundle": bundle, "service": {"name": service, "namespace": "istio-system"}}})
        };
        serde_json::from_value(json!({
            "metadata": {"name": "istio-sidecar-injector", "resourceVersion": "7"},
            "webhooks": [hook("a", name), hook("b", name), hook("c", "other")],
        }))
        .expect("a configuration")
    }

    #[test]
    fn only_what_differs_is_written() {
        let service = ObjectKey::new("istio-system", "pilot");
        let compare =
            |configuration: MutatingWebhookConfiguration| difference(&configuration, &service, b"root");
        let Difference::Patch(patch, hooks) = compare(configuration(None, "pilot")) else {
            panic!("nothing to write")
        };
        assert_eq!(hooks, ["a", "b"]);
        assert_eq!(
            patch["webhooks"][1],
            json!({"name": "b", "clientConfig": {"caBundle": STANDARD.encode("root")}})
        );
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(
            compare(configuration(Some("cm9vdA=="), "pilot")),
            Difference::None
        );
        assert_eq!(compare(configuration(None, "other")), Difference::NotOurs);
    }

    fn identity(names: Vec<String>) -> Identity {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(names)
            .expect("parameters")
            .self_signed(&key)
            .expect("a certificate");
        let key = tls::read_key(key.serialize_pem().as_bytes()).expect("a key");
        let der = certificate.der().clone();
        Identity::new(vec![der.clone()], key, vec![der.clone(), der]).expect("an identity")
    }

    #[test]
    fn roots_and_names() {
        let service = ObjectKey::new("istio-system", "pilot");
        let good = identity(vec!["pilot.istio-system.svc".into()]);
        assert_eq!(unbelievable(&good, &service), None);
        let roots = tls::read_certificates(&bundle(&good)).expect("PEM");
        assert_eq!(roots, good.roots);
        let other = identity(vec!["citadel.istio-system.svc".into()]);
        assert!(unbelievable(&other, &service).is_some_and(|text| text.contains("pilot.istio-system.svc")));
    }
}
