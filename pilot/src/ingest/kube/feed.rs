//! The watch of one kind: which version is served, list, watch, again. Everything that goes wrong is waited out; nothing
//! that goes wrong deletes an object.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
    runtime::watcher::{self, Event, watcher},
};
use mesh_proto::kube::ObjectKey;
use mesh_runtime::backoff::Backoff;
use tokio::sync::mpsc;

use super::{Board, Trouble, discover, ledger::Ledger, trim, wanted::Wanted};
use crate::ingest::Change;

/// Changes in one batch, at most.
pub const CHUNK: usize = 256;
/// A watch is begun anew after so many seconds, so that a connection that died silently is noticed.
const WATCH_SECONDS: u32 = 120;
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// How often a missing definition, or a missing right, is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A definition that has been missing for so long has taken its objects with it. (Where it is deleted while we watch, the
/// server tells each of them; this is for what we did not see.)
const GONE: Duration = Duration::from_secs(120);

pub struct Feed {
    client: Client,
    wanted: Wanted,
    out: mpsc::Sender<Vec<Change>>,
    board: Board,
    ledger: Ledger,
    backoff: Backoff,
    /// The trouble that is being waited out, and how often it has come in a row.
    trouble: Option<(Trouble, u32)>,
    missing_since: Option<Instant>,
}

/// Nobody listens any more.
struct Closed;

impl Feed {
    pub fn new(client: Client, wanted: Wanted, out: mpsc::Sender<Vec<Change>>, board: Board) -> Self {
        Self {
            ledger: Ledger::new(wanted.kind),
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            trouble: None,
            missing_since: None,
            client,
            wanted,
            out,
            board,
        }
    }

    /// Until nobody listens any more.
    pub async fn run(mut self) {
        while self.round().await.is_ok() {}
    }

    /// Finds the kind, and watches it until that has to begin anew.
    async fn round(&mut self) -> Result<(), Closed> {
        let wait = match discover::served(&self.client, self.wanted.kind).await {
            Ok(Some(resource)) => {
                self.missing_since = None;
                self.board.found(self.wanted.kind, &resource.api_version);
                self.follow(&resource).await?
            }
            Ok(None) => {
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > GONE {
                    let changes = self.ledger.clear();
                    self.tell(changes).await?;
                }
                self.trouble(Trouble::NotServed).await?
            }
            Err(error) => self.trouble(Trouble::of(&error)).await?,
        };
        self.wait(wait).await;
        Ok(())
    }

    /// Lists and watches. Returns when the kind has to be found anew, with the time to wait before.
    async fn follow(&mut self, resource: &ApiResource) -> Result<Duration, Closed> {
        let api: Api<DynamicObject> = match &self.wanted.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
        config.field_selector.clone_from(&self.wanted.fields);
        let mut chunks = pin!(watcher(api, config).ready_chunks(CHUNK));
        while let Some(chunk) = chunks.next().await {
            let (mut changes, mut listed, mut failed) = (Vec::new(), false, None);
            for event in chunk {
                match event {
                    Ok(event) => {
                        listed |= matches!(event, Event::InitDone);
                        self.take(event, &resource.api_version, &mut changes);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            self.tell(changes).await?;
            if listed {
                self.well();
                self.board.synced(self.wanted.kind);
                self.announce().await?;
            }
            if let Some(error) = failed {
                let trouble = Trouble::of_watch(&error);
                let begin_anew = matches!(trouble, Trouble::NotServed | Trouble::Expired);
                let wait = self.trouble(trouble).await?;
                if begin_anew {
                    return Ok(wait);
                }
                self.wait(wait).await;
            }
        }
        Ok(FIRST_RETRY)
    }

    fn take(&mut self, event: Event<DynamicObject>, api_version: &str, changes: &mut Vec<Change>) {
        // Only an answer that carries something proves that the server works: `Init` comes before it is asked.
        if !matches!(event, Event::Init) {
            self.well();
        }
        match event {
            Event::Init => self.ledger.begin(),
            Event::InitApply(object) | Event::Apply(object) => {
                let key = self.key(&object);
                let value = trim::keep(self.wanted.kind, api_version, object);
                changes.extend(self.ledger.apply(key, value));
            }
            Event::Delete(object) => {
                let key = self.key(&object);
                changes.extend(self.ledger.delete(key));
            }
            Event::InitDone => changes.append(&mut self.ledger.end()),
        }
    }

    fn key(&self, object: &DynamicObject) -> ObjectKey {
        self.wanted.told_as.clone().unwrap_or_else(|| {
            let metadata = &object.metadata;
            ObjectKey::new(
                metadata.namespace.clone().unwrap_or_default(),
                metadata.name.clone().unwrap_or_default(),
            )
        })
    }

    async fn tell(&mut self, changes: Vec<Change>) -> Result<(), Closed> {
        self.board.count(self.wanted.kind, self.ledger.len());
        if changes.is_empty() {
            return Ok(());
        }
        self.out.send(changes).await.map_err(|_| Closed)
    }

    /// Says a trouble that stays, once. Returns how long to wait.
    async fn trouble(&mut self, trouble: Trouble) -> Result<Duration, Closed> {
        let kind = self.wanted.kind;
        let sentence = trouble.sentence(kind, self.wanted.namespace.as_deref());
        let before = self
            .trouble
            .take()
            .filter(|(before, _)| before.same_sort(&trouble));
        let times = before.map_or(0, |(_, times)| times) + 1;
        match &trouble {
            Trouble::Expired => tracing::debug!(%kind, "the watch cannot be continued; listing anew"),
            // All kinds notice it; one says it.
            Trouble::Away(_) if self.board.set_away(true) => tracing::warn!("{sentence}"),
            Trouble::Away(_) => {}
            Trouble::NotServed if times == 1 && self.wanted.essential => tracing::info!("{sentence}"),
            // A server that starts refuses for a moment what it allows later: what is said has come twice.
            Trouble::Forbidden(_) | Trouble::Busy(_) | Trouble::Other(_) if times == 2 => {
                tracing::error!("{sentence}");
            }
            _ => {}
        }
        let certain = times > 1 || matches!(trouble, Trouble::Away(_) | Trouble::NotServed);
        if certain && !sentence.is_empty() {
            self.board.trouble(kind, &trouble, &sentence);
        }
        let patient = times > 1 && !matches!(trouble, Trouble::Away(_) | Trouble::Busy(_) | Trouble::Expired);
        let wait = if patient || trouble == Trouble::NotServed {
            LOOK_AGAIN
        } else {
            self.backoff.next(rand::random())
        };
        self.trouble = Some((trouble, times));
        self.announce().await?;
        Ok(wait)
    }

    /// Waits; a server that was away is asked whether it is back, because a watch that goes on quietly would not tell.
    async fn wait(&mut self, wait: Duration) {
        tokio::time::sleep(wait).await;
        let away = matches!(self.trouble, Some((Trouble::Away(_), _)));
        if away && self.client.apiserver_version().await.is_ok() {
            self.well();
        }
    }

    fn well(&mut self) {
        self.backoff.reset();
        let Some((trouble, times)) = self.trouble.take() else {
            return;
        };
        let kind = self.wanted.kind;
        self.board.well(kind);
        match trouble {
            Trouble::Away(_) if self.board.set_away(false) => tracing::info!("the API server answers again"),
            Trouble::Away(_) | Trouble::Expired => {}
            Trouble::NotServed => tracing::info!("{} are defined and read now", kind.plural()),
            _ if times > 1 => tracing::info!("{} are read now", kind.plural()),
            _ => {}
        }
    }

    async fn announce(&self) -> Result<(), Closed> {
        if self.board.announce() {
            self.out.send(vec![Change::Synced]).await.map_err(|_| Closed)?;
        }
        Ok(())
    }
}
