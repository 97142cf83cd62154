//! Public keys of token issuers, fetched here once for all proxies, so that no proxy asks a foreign server and a proxy
//! that starts has the keys at once. An issuer's keys are asked for again after [`REFRESH`]; what was good stays when an
//! answer is not.
//!
//! From: the snapshot (which sources are asked for), the servers of issuers. To: the loop, as changes of its own kind, with
//! a finding for each source that cannot be had. Bounds: [`SOURCES`] sources, [`AT_ONCE`] calls at once, the bounds of one
//! call are [`fetch`]'s.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_proto::{
    finding::{self, Finding, ObjectRef},
    kube::{Kind, ObjectKey},
};
use mesh_runtime::{backoff::Backoff, drain::Drain};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{ingest::Change, model::authn::KeySource, push::Hub};

mod fetch;
pub mod keys;

pub use fetch::{Fetch, FetchError, Web};

/// Keys are asked for again after this.
pub const REFRESH: Duration = Duration::from_secs(20 * 60);
/// Sources that are asked at all; the first ones by name.
pub const SOURCES: usize = 1024;
/// Calls under way at once.
pub const AT_ONCE: usize = 8;
/// How often the snapshot is looked at.
const LOOK: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// As in the sources of objects.
const QUEUE: usize = 64;

/// Puts the keys into the stream of changes that the loop reads.
pub fn join(
    hub: Arc<Hub>,
    mut changes: mpsc::Receiver<Vec<Change>>,
    drain: Drain,
) -> mpsc::Receiver<Vec<Change>> {
    let (sender, joined) = mpsc::channel(QUEUE);
    let objects = sender.clone();
    let keeper = Keeper::new(sender, Arc::new(Web::new()));
    let keeper = tokio::spawn(async move {
        tokio::select! {
            () = keeper.run(hub) => {}
            () = drain.drained() => {}
        }
    });
    tokio::spawn(async move {
        while let Some(batch) = changes.recv().await {
            if objects.send(batch).await.is_err() {
                break;
            }
        }
        // Without objects the stream ends, and the loop says so.
        keeper.abort();
    });
    joined
}

/// One source.
struct Asked {
    due: Instant,
    under_way: bool,
    backoff: Backoff,
    /// What was told last: keys, or trouble.
    told: Option<Result<Arc<str>, String>>,
}

struct Keeper {
    changes: mpsc::Sender<Vec<Change>>,
    fetch: Arc<dyn Fetch>,
    sources: BTreeMap<KeySource, Asked>,
}

type Answer = (KeySource, Result<Arc<str>, FetchError>);

impl Keeper {
    fn new(changes: mpsc::Sender<Vec<Change>>, fetch: Arc<dyn Fetch>) -> Self {
        Self {
            changes,
            fetch,
            sources: BTreeMap::new(),
        }
    }

    async fn run(mut self, hub: Arc<Hub>) {
        let mut calls: JoinSet<Answer> = JoinSet::new();
        let mut seen = None;
        loop {
            let snapshot = hub.snapshot();
            let tokens = &snapshot.tokens;
            if seen != Some(tokens.since) {
                seen = Some(tokens.since);
                let gone = self.want(tokens.value.wanted().into_keys(), Instant::now());
                if !gone.is_empty() && self.changes.send(gone).await.is_err() {
                    return;
                }
            }
            self.begin(&mut calls, Instant::now());
            tokio::select! {
                Some(Ok((source, result))) = calls.join_next() => {
                    let asking = hub.snapshot().tokens.value.wanted().remove(&source).unwrap_or_default();
                    let told = self.take(source, result, asking.into_iter(), Instant::now());
                    if !told.is_empty() && self.changes.send(told).await.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Takes new sources in and old ones out; says what to forget.
    fn want(&mut self, wanted: impl Iterator<Item = KeySource>, now: Instant) -> Vec<Change> {
        let mut gone = std::mem::take(&mut self.sources);
        for source in wanted.take(SOURCES) {
            let asked = gone.remove(&source).unwrap_or_else(|| Asked {
                due: now,
                under_way: false,
                backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
                told: None,
            });
            self.sources.insert(source, asked);
        }
        gone.into_keys()
            .flat_map(|source| {
                let part = part(&source);
                let findings = Vec::new();
                [
                    Change::Keys { source, keys: None },
                    Change::Findings { part, findings },
                ]
            })
            .collect()
    }

    fn begin(&mut self, calls: &mut JoinSet<Answer>, now: Instant) {
        for (source, asked) in &mut self.sources {
            if calls.len() >= AT_ONCE {
                return;
            }
            if !asked.under_way && asked.due <= now {
                asked.under_way = true;
                let (fetch, source) = (self.fetch.clone(), source.clone());
                calls.spawn(async move {
                    let result = fetch.keys(&source).await;
                    (source, result)
                });
            }
        }
    }

    /// What an answer changes.
    fn take(
        &mut self,
        source: KeySource,
        result: Result<Arc<str>, FetchError>,
        asking: impl Iterator<Item = ObjectKey>,
        now: Instant,
    ) -> Vec<Change> {
        let Some(asked) = self.sources.get_mut(&source) else {
            return Vec::new();
        };
        asked.under_way = false;
        asked.due = now
            + match &result {
                Ok(_) => {
                    asked.backoff.reset();
                    REFRESH
                }
                Err(_) => asked.backoff.next(rand::random()),
            };
        let result = result.map_err(|error| error.to_string());
        if asked.told.as_ref() == Some(&result) {
            return Vec::new();
        }
        asked.told = Some(result.clone());
        let part = part(&source);
        match result {
            Ok(keys) => {
                tracing::info!(%source, "public keys of a token issuer fetched");
                let (keys, findings) = (Some(keys), Vec::new());
                vec![Change::Keys { source, keys }, Change::Findings { part, findings }]
            }
            Err(error) => {
                tracing::warn!(%source, error, "public keys of a token issuer cannot be fetched");
                let findings = asking.map(|key| told(&source, &key, &error)).collect();
                vec![Change::Findings { part, findings }]
            }
        }
    }
}

/// How the source is called among the parts of sources that findings are about.
fn part(source: &KeySource) -> String {
    format!("jwks {source}")
}

fn told(source: &KeySource, key: &ObjectKey, error: &str) -> Finding {
    let object = ObjectRef::new(Kind::RequestAuthentication.as_str(), &key.namespace, &key.name);
    let text = format!(
        "public keys cannot be fetched from {source}: {error}; tokens are verified by the keys fetched before, and \
         refused if there are none; it is tried again"
    );
    Finding::new(
        finding::REFERENCED_RESOURCE_NOT_FOUND,
        object,
        "spec.jwtRules",
        text,
    )
}

#[cfg(test)]
mod tests;
