//! One connected proxy: who it is, its session, and what is pending for it (nothing, or one catalog into which later
//! ones are merged). The push loop and the debug pages reach it here while its stream is served elsewhere.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_proto::{
    node::{NodeId, NodeMetadata},
    xds::Type,
    xds::server::Event,
};
use tokio::sync::Notify;

use crate::{
    plan::order::{Request, Response, Session},
    push::{Catalog, Class, Hub, lock},
    snapshot::Snapshot,
    view::Viewer,
};

#[derive(Debug)]
pub struct Proxy {
    /// Of the stream; no other has it.
    pub number: u64,
    pub id: NodeId,
    pub metadata: NodeMetadata,
    pub address: Option<SocketAddr>,
    pub connected: SystemTime,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    session: Session,
    class: Arc<Class>,
    /// What the session has not been given yet.
    pending: Option<(Catalog, u64)>,
    /// The catalog that was offered last.
    offered: Catalog,
}

impl Proxy {
    pub fn new(
        hub: &Hub,
        number: u64,
        sotw: bool,
        id: NodeId,
        metadata: NodeMetadata,
        address: Option<SocketAddr>,
    ) -> Self {
        let snapshot = hub.snapshot();
        let class = hub.class(Viewer::in_snapshot(&id, &metadata, &snapshot));
        let (catalog, sequence) = hub.catalog(&class);
        let mut session = Session::new(number, sotw);
        session.retarget(&catalog, sequence);
        let state = State {
            session,
            class,
            pending: None,
            offered: catalog,
        };
        Self {
            number,
            id,
            metadata,
            address,
            connected: SystemTime::now(),
            state: Mutex::new(state),
            wake: Notify::new(),
        }
    }

    /// `reviews-v1-0.default`
    pub fn name(&self) -> String {
        self.id.name()
    }

    pub fn class(&self) -> Arc<Class> {
        lock(&self.state).class.clone()
    }

    /// The pod may say something else about the proxy than before.
    pub fn look_at_pod(&self, hub: &Hub, snapshot: &Snapshot) {
        let viewer = Viewer::in_snapshot(&self.id, &self.metadata, snapshot);
        let mut state = lock(&self.state);
        if state.class.viewer != viewer {
            state.class = hub.class(viewer);
        }
    }

    /// What it shall have from this snapshot on. True if that is anything else than before, and the proxy is told.
    pub fn offer(&self, catalog: &Catalog, sequence: u64) -> bool {
        let mut state = lock(&self.state);
        let same = state.offered.iter().zip(catalog).all(|(a, b)| Arc::ptr_eq(a, b));
        if same && state.pending.is_none() {
            // Nothing concerns it: it is up to date as it is.
            let offered = state.offered.clone();
            state.session.retarget(&offered, sequence);
            return false;
        }
        state.offered = catalog.clone();
        state.pending = Some((catalog.clone(), sequence));
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Something is pending.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub fn request(&self, request: &Request, now: SystemTime) -> Option<(Type, Event)> {
        lock(&self.state).session.request(request, millis(now))
    }

    /// The next response, if anything is due.
    pub fn next(&self, now: SystemTime) -> Option<Response> {
        let mut state = lock(&self.state);
        if let Some((catalog, sequence)) = state.pending.take() {
            state.session.retarget(&catalog, sequence);
        }
        state.session.next(millis(now))
    }

    /// Whether responses are held back for a client that may never ask.
    pub fn is_patient(&self) -> bool {
        lock(&self.state).session.is_patient()
    }

    pub fn lose_patience(&self) {
        lock(&self.state).session.lose_patience();
    }

    /// Reads the session. The closure must be short: the stream waits for it.
    pub fn with_session<T>(&self, read: impl FnOnce(&Session) -> T) -> T {
        read(&lock(&self.state).session)
    }

    /// Has the proxy answered for everything up to this snapshot? With the refusals that stand.
    pub fn acknowledged(&self, sequence: u64) -> bool {
        let state = lock(&self.state);
        let session = &state.session;
        state.pending.is_none()
            && session.sequence() >= sequence
            && session.is_settled()
            && session.rejections().next().is_none()
    }
}

/// Milliseconds since 1970.
pub fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
