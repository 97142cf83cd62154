//! The account of received configuration: for each resource the bytes as they came, its version, when, whether it is in
//! force, and the last refusal. Admin pages print it; nothing on the path reads it.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use bytes::Bytes;
use mesh_proto::{pb::google::protobuf::Any, xds::Type};

/// Where a resource stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Taken, and waiting for what it refers to; an earlier version may serve meanwhile.
    Warming,
    Active,
    /// From the bootstrap.
    Static,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub body: Bytes,
    pub version: String,
    pub at: SystemTime,
    /// The field's path and the reason.
    pub why: String,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Empty if it was never taken.
    pub body: Bytes,
    pub version: String,
    pub updated: SystemTime,
    pub state: State,
    pub failure: Option<Failure>,
}

impl Row {
    /// Was it ever taken?
    pub fn is_taken(&self) -> bool {
        !self.version.is_empty() || self.state == State::Static
    }
}

/// All resources.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    rows: BTreeMap<(Type, Arc<str>), Row>,
    /// The bootstrap as it was read.
    pub bootstrap: Option<Any>,
    pub bootstrap_read: Option<SystemTime>,
}

impl Ledger {
    /// A resource was taken.
    pub fn taken(
        &mut self,
        kind: Type,
        name: &str,
        body: Bytes,
        version: &str,
        at: SystemTime,
        state: State,
    ) {
        let row = Row {
            body,
            version: version.to_owned(),
            updated: at,
            state,
            failure: None,
        };
        self.rows.insert((kind, name.into()), row);
    }

    /// A resource was refused; what was taken before stays.
    pub fn refused(&mut self, kind: Type, name: &str, failure: Failure) {
        let at = failure.at;
        let row = self.rows.entry((kind, name.into())).or_insert_with(|| Row {
            body: Bytes::new(),
            version: String::new(),
            updated: at,
            state: State::Warming,
            failure: None,
        });
        row.failure = Some(failure);
    }

    pub fn removed(&mut self, kind: Type, name: &str) {
        self.rows.remove(&(kind, Arc::from(name)));
    }

    /// Forgets resources of a kind that nobody asks for any more.
    pub fn retain(&mut self, kind: Type, wanted: impl Fn(&str) -> bool) {
        self.rows
            .retain(|(row_kind, name), row| *row_kind != kind || row.state == State::Static || wanted(name));
    }

    /// Notes which dynamic resources of a kind are in force.
    pub fn set_states(&mut self, kind: Type, active: impl Fn(&str) -> bool) {
        for ((row_kind, name), row) in &mut self.rows {
            if *row_kind == kind && row.state != State::Static {
                row.state = if active(name) {
                    State::Active
                } else {
                    State::Warming
                };
            }
        }
    }

    /// The resources of a kind, by name.
    pub fn of(&self, kind: Type) -> impl Iterator<Item = (&Arc<str>, &Row)> {
        self.rows
            .iter()
            .filter(move |((row_kind, _), _)| *row_kind == kind)
            .map(|((_, name), row)| (name, row))
    }

    pub fn get(&self, kind: Type, name: &str) -> Option<&Row> {
        self.rows.get(&(kind, Arc::from(name)))
    }
}
