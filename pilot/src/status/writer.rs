//! Writes the status of the mesh's objects into Kubernetes, while this replica leads. From: the hub (objects, findings,
//! what proxies have). To: the subresource `status` of each object, only where it says something else.
//!
//! Bounds: one write at a time, [`PACE`] apart; the queue holds each object at most once; findings are gathered at most
//! once in [`ROUND`]. A status that pilot may not write is said once, and tried again after [`REFUSED`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use mesh_proto::{
    finding::Finding,
    kube::{Kind, ObjectKey},
};
use mesh_runtime::{apiserver, leader::Leadership};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::conditions::{self, Delivery, Facts};
use crate::{ingest::kube::resource, push::Hub};

const ROUND: Duration = Duration::from_secs(3);
const PACE: Duration = Duration::from_millis(50);
/// Proxies that have not taken a change after so long are late.
const PATIENCE: Duration = Duration::from_secs(15);
const REFUSED: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(10);
const MANAGER: &str = "gossamer-pilot-status";

type Id = (Kind, ObjectKey);

/// Works whenever this process leads. Never returns.
pub async fn write(client: Client, hub: Arc<Hub>, leadership: Leadership) {
    leadership
        .while_leading(|| async { Writer::new(client.clone(), hub.clone()).run().await })
        .await;
}

struct Writer {
    client: Client,
    hub: Arc<Hub>,
    delivered: Delivered,
    queue: VecDeque<Id>,
    /// Of what is in the queue.
    facts: HashMap<Id, Facts>,
    /// What each object's status says, as far as we have written or read it.
    written: BTreeMap<Id, u64>,
    /// Kinds whose status may not be written, and when to try again.
    refused: HashMap<Kind, Instant>,
    /// Kinds of which that was said.
    said: BTreeSet<Kind>,
}

impl Writer {
    fn new(client: Client, hub: Arc<Hub>) -> Self {
        Self {
            client,
            hub,
            delivered: Delivered::default(),
            queue: VecDeque::new(),
            facts: HashMap::new(),
            written: BTreeMap::new(),
            refused: HashMap::new(),
            said: BTreeSet::new(),
        }
    }

    async fn run(&mut self) {
        let mut next_round = Instant::now();
        loop {
            if Instant::now() >= next_round {
                next_round = Instant::now() + ROUND;
                self.gather(Instant::now());
            }
            match self.queue.pop_front() {
                Some(id) => {
                    if let Some(facts) = self.facts.remove(&id) {
                        self.one(id, facts).await;
                    }
                    tokio::time::sleep(PACE).await;
                }
                None => tokio::time::sleep(next_round.saturating_duration_since(Instant::now())).await,
            }
        }
    }

    /// Puts every object into the queue whose status should say something else than we know it to say.
    fn gather(&mut self, now: Instant) {
        self.delivered.look(&self.hub, now);
        let findings = self.hub.findings();
        let mut by_object: HashMap<Id, Vec<Finding>> = HashMap::new();
        for finding in findings.iter() {
            let object = &finding.object;
            if let Some(kind) = Kind::ALL.iter().find(|kind| kind.as_str() == object.kind) {
                let id = (*kind, ObjectKey::new(&object.namespace, &object.name));
                by_object.entry(id).or_default().push(finding.clone());
            }
        }
        let known: Vec<(Id, Option<i64>, bool)> = self.hub.with_store(|store| {
            let mesh = store.manifests().filter(|manifest| manifest.kind.is_mesh());
            mesh.map(|manifest| {
                let current = store.is_current(manifest.kind, &manifest.key) == Some(true);
                let generation = manifest
                    .value
                    .pointer("/metadata/generation")
                    .and_then(Value::as_i64);
                ((manifest.kind, manifest.key.clone()), generation, current)
            })
            .collect()
        });
        let there: BTreeSet<Id> = known.iter().map(|(id, ..)| id.clone()).collect();
        self.written.retain(|id, _| there.contains(id));
        for (id, generation, in_effect) in known {
            let moment = self.hub.moment(id.0, &id.1).map_or(0, |moment| moment.sequence);
            // A change on its way is not worth two writes.
            let Some(delivery) = self.delivered.of(moment) else {
                continue;
            };
            let facts = Facts {
                generation,
                in_effect,
                delivery,
                findings: by_object.remove(&id).unwrap_or_default(),
            };
            let wanted = self.written.get(&id) != Some(&hash(&facts)) && !self.is_refused(id.0, now);
            if wanted && self.facts.insert(id.clone(), facts).is_none() {
                self.queue.push_back(id);
            }
        }
    }

    fn is_refused(&mut self, kind: Kind, now: Instant) -> bool {
        match self.refused.get(&kind) {
            Some(until) if *until > now => true,
            Some(_) => {
                self.refused.remove(&kind);
                false
            }
            None => false,
        }
    }

    async fn one(&mut self, id: Id, facts: Facts) {
        if self.refused.contains_key(&id.0) {
            return;
        }
        let (kind, key) = &id;
        let result = tokio::time::timeout(CALL, self.put(*kind, key, &facts)).await;
        let (error, call) = match result {
            Ok(Ok(true)) => {
                if self.said.remove(kind) {
                    tracing::info!("the status of {} is written again", kind.plural());
                }
                self.written.insert(id, hash(&facts));
                return;
            }
            // The object is another one by now: the watch will tell, and the next round sees it.
            Ok(Ok(false)) => return,
            Ok(Err(failed)) => failed,
            Err(_) => return,
        };
        let doing = match call {
            "get" => format!("reading {kind} {key}, to write its status"),
            _ => format!("writing the status of {kind} {key}"),
        };
        match apiserver::code(&error) {
            // Changed, or gone: as above.
            Some(409) => {}
            Some(404) if self.is_there(&id).await => {
                self.refuse(
                    *kind,
                    format!(
                        "{doing}: its definition has no subresource status; apply the CRDs of this version (`meshctl install`)"
                    ),
                );
            }
            Some(404) => {}
            Some(403) => {
                let part = if call == "get" { "" } else { "/status" };
                let text = format!(
                    "{}: {{apiGroups: [\"{}\"], resources: [\"{}{part}\"], verbs: [{call}]}}",
                    apiserver::explain(&error, &doing),
                    kind.group(),
                    kind.plural()
                );
                self.refuse(*kind, text);
            }
            Some(422 | 400) => {
                let text = apiserver::explain(&error, &doing);
                self.refuse(*kind, text);
            }
            _ => {
                tracing::debug!("{}", apiserver::explain(&error, &doing));
                tokio::time::sleep(ROUND).await;
            }
        }
    }

    fn refuse(&mut self, kind: Kind, text: String) {
        if self.said.insert(kind) {
            tracing::warn!("{text}");
        }
        self.refused.insert(kind, Instant::now() + REFUSED);
    }

    fn api(&self, kind: Kind, key: &ObjectKey) -> Api<DynamicObject> {
        let version = self.hub.with_store(|store| {
            let manifest = store.manifest(kind, key)?;
            let version = manifest.value.get("apiVersion")?.as_str()?;
            Some(
                version
                    .rsplit_once('/')
                    .map_or(version, |(_, version)| version)
                    .to_owned(),
            )
        });
        let version =
            version.unwrap_or_else(|| kind.versions().first().copied().unwrap_or_default().to_owned());
        Api::namespaced_with(self.client.clone(), &key.namespace, &resource(kind, &version))
    }

    async fn is_there(&self, (kind, key): &Id) -> bool {
        let found = self.api(*kind, key).get_opt(&key.name).await;
        matches!(found, Ok(Some(_)))
    }

    /// True if the status says what it should. What failed comes with the verb of its call.
    async fn put(&self, kind: Kind, key: &ObjectKey, facts: &Facts) -> Result<bool, (Error, &'static str)> {
        let api = self.api(kind, key);
        let found = api.get_opt(&key.name).await;
        let Some(object) = found.map_err(|error| (error, "get"))? else {
            return Ok(false);
        };
        if facts.generation.is_some() && object.metadata.generation != facts.generation {
            return Ok(false);
        }
        let before = object.data.get("status").cloned().unwrap_or_default();
        let now = OffsetDateTime::from(SystemTime::now())
            .replace_nanosecond(0)
            .ok()
            .and_then(|now| now.format(&Rfc3339).ok())
            .unwrap_or_default();
        let Some(status) = conditions::status(facts, &before, &now) else {
            return Ok(true);
        };
        let mut patch = json!({
            // What was read is what is changed.
            "metadata": { "resourceVersion": object.metadata.resource_version },
            "status": status,
        });
        if patch["status"].get("validationMessages").is_none() && before.get("validationMessages").is_some() {
            patch["status"]["validationMessages"] = Value::Null;
        }
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        api.patch_status(&key.name, &parameters, &Patch::Merge(&patch))
            .await
            .map(|_| true)
            .map_err(|error| (error, "patch"))
    }
}

fn hash(facts: &Facts) -> u64 {
    let mut hasher = DefaultHasher::new();
    facts.hash(&mut hasher);
    hasher.finish()
}

/// Up to which snapshot all connected proxies have answered. One snapshot is waited for at a time, so that a mesh that
/// changes all the time gets somewhere too.
#[derive(Debug, Default)]
struct Delivered {
    done: u64,
    /// The snapshot that is waited for, and since when.
    waiting: Option<(u64, Instant)>,
    late: bool,
}

impl Delivered {
    fn look(&mut self, hub: &Hub, now: Instant) {
        let newest = hub.snapshot().sequence;
        let acknowledged = |sequence: u64| hub.proxies().iter().all(|proxy| proxy.acknowledged(sequence));
        self.step(newest, now, acknowledged);
    }

    fn step(&mut self, newest: u64, now: Instant, acknowledged: impl Fn(u64) -> bool) {
        let (wanted, since) = *self.waiting.get_or_insert((newest, now));
        if acknowledged(wanted) {
            self.done = self.done.max(wanted);
            self.late = false;
            self.waiting = (newest > wanted).then_some((newest, now));
        } else {
            self.late = now.duration_since(since) >= PATIENCE;
        }
    }

    /// `None`: it is on its way.
    fn of(&self, moment: u64) -> Option<Delivery> {
        let waited_for = self.waiting.map_or(0, |(wanted, _)| wanted);
        if moment <= self.done {
            Some(Delivery::Done)
        } else {
            (self.late && moment <= waited_for).then_some(Delivery::Late)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery() {
        let (mut delivered, start) = (Delivered::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        delivered.step(5, at(0), |_| false);
        assert_eq!(delivered.of(5), None);
        // A newer snapshot does not move the goal.
        delivered.step(9, at(3), |sequence| sequence <= 5);
        assert_eq!((delivered.of(5), delivered.of(9)), (Some(Delivery::Done), None));
        delivered.step(9, at(6), |sequence| sequence <= 5);
        assert_eq!(delivered.of(9), None);
        delivered.step(12, at(30), |sequence| sequence <= 5);
        assert_eq!(
            (delivered.of(9), delivered.of(12), delivered.of(4)),
            (Some(Delivery::Late), None, Some(Delivery::Done))
        );
        delivered.step(12, at(33), |_| true);
        assert_eq!(delivered.of(9), Some(Delivery::Done));
    }
}
