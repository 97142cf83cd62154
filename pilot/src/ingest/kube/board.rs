//! How the watches are doing: written by the feeds, read by the page `/debug/sources` and by whoever waits for pilot to
//! know everything. One entry per kind.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh_proto::kube::Kind;
use serde::Serialize;

use super::{Trouble, wanted::Wanted};

/// What is known about one watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `networking.istio.io/v1`, once known.
    pub api_version: Option<String>,
    /// Everything that was there at the start has been told.
    pub synced: bool,
    /// The kind is not defined in this cluster.
    pub missing: bool,
    /// Pilot is not ready before this kind is known.
    pub essential: bool,
    pub objects: usize,
    /// What is wrong now.
    pub problem: Option<String>,
    #[serde(skip)]
    forbidden: bool,
}

impl Entry {
    /// Need nobody wait for it?
    fn settled(&self) -> bool {
        self.synced || self.missing || (self.forbidden && !self.essential)
    }
}

/// Clones share it.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    entries: BTreeMap<Kind, Entry>,
    /// `Synced` has been told.
    announced: bool,
    /// The server does not answer, and that has been said.
    away: bool,
}

impl Board {
    pub fn new(wanted: &[Wanted]) -> Self {
        let entry = |one: &Wanted| Entry {
            api_version: None,
            synced: false,
            missing: false,
            essential: one.essential,
            objects: 0,
            problem: None,
            forbidden: false,
        };
        Self(Arc::new(Mutex::new(State {
            entries: wanted.iter().map(|one| (one.kind, entry(one))).collect(),
            announced: false,
            away: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By the kinds' names.
    pub fn entries(&self) -> BTreeMap<&'static str, Entry> {
        let state = self.lock();
        state
            .entries
            .iter()
            .map(|(kind, entry)| (kind.as_str(), entry.clone()))
            .collect()
    }

    /// A watch of this kind begins in this version.
    pub fn found(&self, kind: Kind, api_version: &str) {
        if let Some(entry) = self.lock().entries.get_mut(&kind) {
            entry.api_version = Some(api_version.to_owned());
            entry.missing = false;
        }
    }

    /// Everything has been listed.
    pub fn synced(&self, kind: Kind) {
        if let Some(entry) = self.lock().entries.get_mut(&kind) {
            entry.synced = true;
            entry.forbidden = false;
        }
    }

    pub fn count(&self, kind: Kind, objects: usize) {
        if let Some(entry) = self.lock().entries.get_mut(&kind) {
            entry.objects = objects;
        }
    }

    /// Something is in the way.
    pub fn trouble(&self, kind: Kind, trouble: &Trouble, sentence: &str) {
        if let Some(entry) = self.lock().entries.get_mut(&kind) {
            entry.problem = Some(sentence.to_owned());
            entry.missing = *trouble == Trouble::NotServed;
            entry.forbidden = matches!(trouble, Trouble::Forbidden(_));
            if entry.missing {
                entry.api_version = None;
            }
        }
    }

    /// Nothing is in the way any more.
    pub fn well(&self, kind: Kind) {
        if let Some(entry) = self.lock().entries.get_mut(&kind) {
            entry.problem = None;
            entry.missing = false;
            entry.forbidden = false;
        }
    }

    /// True for the one who shall say that the server is away, or that it is back.
    pub fn set_away(&self, away: bool) -> bool {
        std::mem::replace(&mut self.lock().away, away) != away
    }

    /// True once, for the one who shall tell that everything is known.
    pub fn announce(&self) -> bool {
        let mut state = self.lock();
        let settled = state.entries.values().all(Entry::settled);
        let first = settled && !state.announced;
        state.announced |= settled;
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::kube::{Settings, wanted};

    #[test]
    fn announces_once_when_everything_is_settled() {
        let mut all = wanted::all(&Settings {
            namespace: "istio-system".into(),
            revision: "default".into(),
        });
        all.retain(|one| matches!(one.kind, Kind::Pod | Kind::Secret | Kind::VirtualService));
        let board = Board::new(&all);
        let forbidden = Trouble::Forbidden(String::new());
        board.synced(Kind::VirtualService);
        // Not essential: pilot does without.
        board.trouble(Kind::Secret, &forbidden, "no");
        board.trouble(Kind::Pod, &forbidden, "no");
        assert!(!board.announce(), "pods are needed");
        board.well(Kind::Pod);
        board.synced(Kind::Pod);
        assert!(board.announce() && !board.announce());
        let entries = board.entries();
        assert!(entries["Pod"].synced && entries["Secret"].problem.is_some());
    }

    #[test]
    fn a_missing_definition_holds_nobody_up() {
        let mut all = wanted::all(&Settings {
            namespace: "istio-system".into(),
            revision: "default".into(),
        });
        all.retain(|one| one.kind == Kind::Sidecar);
        let board = Board::new(&all);
        assert!(!board.announce());
        board.trouble(Kind::Sidecar, &Trouble::NotServed, "no such kind");
        assert!(board.announce());
        assert!(board.set_away(true) && !board.set_away(true) && board.set_away(false));
    }
}
