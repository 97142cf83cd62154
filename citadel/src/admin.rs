//! Citadel's admin pages: what was issued lately, which roots are trusted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use axum::Json;
use mesh_runtime::{http::Pages, tls::Leaf};
use serde::Serialize;

use crate::{
    authority::{Authority, signer::Signed},
    caller::{Caller, Proof},
    metrics::unix,
};

/// Certificates that the journal remembers.
pub const JOURNAL: usize = 256;

/// The last certificates issued, newest last. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<VecDeque<Entry>>>);

#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Unix seconds.
    pub time: i64,
    pub identity: String,
    #[serde(flatten)]
    pub proof: Proof,
    pub serial: String,
    /// Unix seconds.
    pub not_after: i64,
}

impl Journal {
    pub fn issued(&self, caller: &Caller, signed: &Signed) {
        let entry = Entry {
            time: unix(SystemTime::now()),
            identity: caller.id.to_string(),
            proof: caller.proof.clone(),
            serial: signed.serial.clone(),
            not_after: unix(signed.not_after),
        };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == JOURNAL {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

#[derive(Serialize)]
struct RootPage {
    serial: String,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    signing: bool,
}

/// The authority, as soon as there is one.
pub type Opened = Arc<OnceLock<Arc<Authority>>>;

/// Adds citadel's pages.
pub fn pages(pages: Pages, journal: Journal, authority: Opened) -> Pages {
    pages
        .get_local(
            "/debug/issued",
            "the last certificates issued, newest last",
            move || {
                let entries = journal.entries();
                async move { Json(entries) }
            },
        )
        .get_local("/debug/roots", "roots that the mesh trusts", move || {
            let roots = authority
                .get()
                .map(|authority| roots(authority))
                .unwrap_or_default();
            async move { Json(roots) }
        })
}

fn roots(authority: &Authority) -> Vec<RootPage> {
    let roots = authority.roots(SystemTime::now());
    let read = roots.iter().map(Leaf::read).enumerate();
    read.filter_map(|(index, leaf)| leaf.ok().map(|leaf| (index, leaf)))
        .map(|(index, leaf)| RootPage {
            serial: leaf.serial,
            names: leaf.uris,
            not_before: unix(leaf.not_before),
            not_after: unix(leaf.not_after),
            signing: index == 0,
        })
        .collect()
}
