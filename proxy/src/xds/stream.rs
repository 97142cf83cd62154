//! The ADS stream: opens it with the proxy's identity, sends what [`Client`](mesh_proto::xds::client::Client) says, gives
//! updates to [`Apply`], answers them. A lost stream is opened again after a growing, jittered wait, with the versions
//! already held, so a server that knows the same sends nothing again. While it is down the last configuration serves.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    xds::{
        Type,
        client::{Client, Update},
    },
};
use mesh_runtime::{backoff::Backoff, drain::Drain, tls::IdentityCell};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    apply::Apply,
    last_good::{self, LastGood},
};
use crate::{observe::Stats, store::Store};

/// A response may be large: a whole mesh at the first connect.
pub(crate) const MAX_MESSAGE: usize = 256 << 20;
/// Requests between this task and the connection.
const REQUESTS: usize = 256;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A stream that lived this long was a good one: the next wait is short again.
const GOOD: Duration = Duration::from_secs(30);

/// Makes a channel to the control plane.
pub type Connect = Arc<dyn Fn() -> Result<Channel, String> + Send + Sync>;

/// How to reach the control plane.
pub struct Settings {
    /// For logs: `pilot.istio-system.svc:15012`.
    pub server: String,
    /// A channel to it, made anew for each stream.
    pub connect: Connect,
    pub node: Node,
    /// The types to subscribe to, in this order.
    pub types: Vec<Type>,
    pub store: Store,
    pub stats: Stats,
    /// No stream is opened before this has an identity: the control plane wants to know who we are.
    pub identity: Option<IdentityCell>,
    /// Where the configuration is kept for a start without the control plane.
    pub last_good: Option<LastGood>,
}

/// Why a stream ended.
enum End {
    Drained,
    Lost(String),
}

/// An update whose ACK waits until everything in it serves.
struct Held {
    kind: Type,
    update: Update,
}

/// Runs until the drain. `complete` turns true once, when the first whole configuration is in force.
pub async fn run(settings: Settings, mut apply: Apply, complete: watch::Sender<bool>, drain: Drain) {
    let mut client = Client::new(settings.types.iter().map(|kind| kind.url()));
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    want_all(&mut client, &apply);
    let acknowledged = Arc::new(Notify::new());
    let mut fallback = settings.last_good.as_ref();
    if let Some(file) = fallback {
        let (types, store) = (settings.types.clone(), settings.store.clone());
        let keeping = last_good::keep(file.clone(), types, store, acknowledged.clone(), drain.clone());
        tokio::spawn(keeping);
    }
    loop {
        let known = identified(&settings, fallback.is_some(), &drain);
        if meanwhile(known, &mut apply, &settings.store, &complete).await {
            break;
        }
        fall_back(&mut fallback, &mut client, &mut apply, &complete);
    }
    loop {
        let opened = Instant::now();
        let mut session = Session {
            settings: &settings,
            complete: &complete,
            acknowledged: &acknowledged,
            patience: fallback.map(|_| last_good::AWAY),
        };
        let end = session.one_stream(&mut client, &mut apply, &drain).await;
        client.disconnect();
        settings.stats.control().connected_state.set(0);
        let why = match end {
            End::Drained => return,
            End::Lost(why) => why,
        };
        if opened.elapsed() >= GOOD {
            backoff.reset();
        }
        let wait = backoff.next(rand::random());
        tracing::warn!(server = %settings.server, %why, ?wait, "control plane not reachable; the last configuration serves");
        settings.stats.control().xds_reconnects.add_shared(1);
        fall_back(&mut fallback, &mut client, &mut apply, &complete);
        let waiting = async {
            tokio::select! {
                () = tokio::time::sleep(wait) => false,
                () = drain.drained() => true,
            }
        };
        if meanwhile(waiting, &mut apply, &settings.store, &complete).await {
            return;
        }
    }
}

/// Waits for something without a stream. Time passes for what the configuration waits for all the same.
async fn meanwhile<F: Future>(
    what: F,
    apply: &mut Apply,
    store: &Store,
    complete: &watch::Sender<bool>,
) -> F::Output {
    let mut fillings = store.fillings();
    tokio::pin!(what);
    loop {
        tokio::select! {
            output = &mut what => {
                apply.settle(Instant::now());
                note_complete(apply, complete);
                return output;
            }
            _ = fillings.changed() => {}
            () = until(apply.next_deadline()) => {}
        }
        apply.settle(Instant::now());
        note_complete(apply, complete);
    }
}

/// Asks for what the configuration refers to; nothing is sent while there is no stream.
fn want_all(client: &mut Client, apply: &Apply) {
    for (kind, names) in apply.wanted() {
        let _ = client.want(kind.url(), names.iter().map(ToString::to_string));
    }
}

fn note_complete(apply: &Apply, complete: &watch::Sender<bool>) {
    if !*complete.borrow() && apply.is_complete() {
        tracing::info!("the first configuration is complete");
        complete.send_replace(true);
    }
}

/// Waits until we know who we are; `false`: not yet, and there is something to do meanwhile.
async fn identified(settings: &Settings, impatient: bool, drain: &Drain) -> bool {
    let Some(identity) = &settings.identity else {
        return true;
    };
    let mut changed = identity.subscribe();
    tokio::select! {
        // The cell lives in the settings, so this cannot fail.
        _ = changed.wait_for(Option::is_some) => true,
        () = tokio::time::sleep(last_good::AWAY), if impatient => false,
        () = drain.drained() => true,
    }
}

/// Starts from the kept configuration, if there is one and nothing better has come. Tries once.
fn fall_back(
    file: &mut Option<&LastGood>,
    client: &mut Client,
    apply: &mut Apply,
    complete: &watch::Sender<bool>,
) {
    let Some(file) = file.take() else { return };
    if *complete.borrow() {
        return;
    }
    let kept = match file.read() {
        Ok(Some(kept)) => kept,
        Ok(None) => {
            tracing::warn!(path = %file.path().display(), "the control plane is away and no configuration was kept; waiting");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "the control plane is away and the kept configuration cannot be used; waiting");
            return;
        }
    };
    for response in kept.responses {
        want_all(client, apply);
        let Ok(update) = client.receive(response) else {
            continue;
        };
        let taken = apply.take(&update);
        // What is noted as held is told to the server at the next connect; nothing is sent now.
        if taken.rejected.is_empty() {
            let _ = client.ack(&update);
        } else {
            tracing::warn!(r#type = %update.type_url, error = %taken.error(), "a part of the kept configuration is refused");
            let _ = client.nack(&update, &taken.names(), taken.error());
        }
    }
    want_all(client, apply);
    let age = kept.written.and_then(|at| at.elapsed().ok());
    tracing::warn!(path = %file.path().display(), age_s = age.map(|age| age.as_secs()), "the control plane is away: \
        starting with the configuration that was kept");
    note_complete(apply, complete);
}

/// What a stream needs beside the state.
struct Session<'a> {
    settings: &'a Settings,
    complete: &'a watch::Sender<bool>,
    acknowledged: &'a Notify,
    /// How long the server may take to open the stream.
    patience: Option<Duration>,
}

impl Session<'_> {
    async fn one_stream(&mut self, client: &mut Client, apply: &mut Apply, drain: &Drain) -> End {
        let settings = self.settings;
        let channel = match (settings.connect)() {
            Ok(channel) => channel,
            Err(why) => return End::Lost(why),
        };
        let (sender, receiver) = mpsc::channel(REQUESTS);
        for request in client.connect(settings.node.clone()) {
            if sender.send(request).await.is_err() {
                return End::Lost("the stream closed before it began".into());
            }
        }
        let mut service =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let opening = service.delta_aggregated_resources(ReceiverStream::new(receiver));
        let responses = tokio::select! {
            opened = opening => match opened {
                Ok(response) => response.into_inner(),
                Err(status) => return End::Lost(describe(&status)),
            },
            () = until(self.patience.map(|patience| Instant::now() + patience)) => {
                return End::Lost("no answer in time".into());
            }
            () = drain.drained() => return End::Drained,
        };
        settings.stats.control().connected_state.set(1);
        tracing::info!(server = %settings.server, "connected to the control plane");
        let mut stream = Stream {
            client,
            apply,
            sender,
            held: VecDeque::new(),
            session: self,
        };
        stream.follow(responses, drain).await
    }
}

/// tonic's transport errors hide their cause at the end of the chain.
pub(crate) fn describe(status: &tonic::Status) -> String {
    let mut text = format!("{}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

struct Stream<'a> {
    client: &'a mut Client,
    apply: &'a mut Apply,
    sender: mpsc::Sender<DeltaDiscoveryRequest>,
    held: VecDeque<Held>,
    session: &'a Session<'a>,
}

impl Stream<'_> {
    async fn follow(&mut self, mut responses: Streaming<DeltaDiscoveryResponse>, drain: &Drain) -> End {
        let mut fillings = self.session.settings.store.fillings();
        loop {
            let before = *self.session.complete.borrow();
            note_complete(self.apply, self.session.complete);
            if !before && *self.session.complete.borrow() {
                self.session.acknowledged.notify_one();
            }
            let deadline = self.apply.next_deadline();
            let sent = tokio::select! {
                message = responses.message() => match message {
                    Ok(Some(response)) => self.response(response).await,
                    Ok(None) => return End::Lost("the server ended the stream".into()),
                    Err(status) => return End::Lost(describe(&status)),
                },
                () = until(deadline) => self.settled().await,
                _ = fillings.changed() => self.settled().await,
                () = drain.drained() => return End::Drained,
            };
            if sent.is_err() {
                return End::Lost("the stream closed".into());
            }
        }
    }

    async fn response(&mut self, response: DeltaDiscoveryResponse) -> Result<(), Closed> {
        let update = match self.client.receive(response) {
            Ok(update) => update,
            Err(refused) => {
                tracing::warn!(reason = %refused.reason, "a response breaks the xDS protocol");
                return self.send(*refused.request).await;
            }
        };
        let taken = self.apply.take(&update);
        if !taken.rejected.is_empty() {
            let (error, names) = (taken.error(), taken.names());
            tracing::warn!(r#type = %update.type_url, %error, "configuration refused; the last good one stays");
            let request = self.client.nack(&update, &names, error);
            self.send(request).await?;
        } else {
            self.acknowledge(update).await?;
        }
        self.ask().await?;
        self.release().await
    }

    /// Acknowledges now, or when it serves. Endpoints, secrets and names serve already; of clusters an ACK means taken,
    /// as with Envoy, since a server may wait for it before it sends their endpoints.
    async fn acknowledge(&mut self, update: Update) -> Result<(), Closed> {
        let kind = Type::from_url(&update.type_url);
        match kind.filter(|kind| matches!(kind, Type::Listener | Type::Route)) {
            Some(kind) => {
                self.held.push_back(Held { kind, update });
                Ok(())
            }
            None => self.ack(&update).await,
        }
    }

    /// Acknowledges. A configuration that is whole is worth keeping.
    async fn ack(&mut self, update: &Update) -> Result<(), Closed> {
        if *self.session.complete.borrow() {
            self.session.acknowledged.notify_one();
        }
        let request = self.client.ack(update);
        self.send(request).await
    }

    /// Sends the ACKs of updates that serve by now, in the order of their coming.
    async fn release(&mut self) -> Result<(), Closed> {
        let mut waiting = VecDeque::new();
        while let Some(held) = self.held.pop_front() {
            let apply = &*self.apply;
            let earlier = waiting.iter().any(|other: &Held| other.kind == held.kind);
            if !earlier
                && held
                    .update
                    .changed
                    .iter()
                    .all(|resource| apply.is_active(held.kind, &resource.name))
            {
                self.ack(&held.update).await?;
            } else {
                waiting.push_back(held);
            }
        }
        self.held = waiting;
        Ok(())
    }

    async fn settled(&mut self) -> Result<(), Closed> {
        self.apply.settle(Instant::now());
        self.release().await
    }

    /// Brings the subscriptions in line with what the configuration refers to.
    async fn ask(&mut self) -> Result<(), Closed> {
        let mut requests = Vec::new();
        for (kind, names) in self.apply.wanted() {
            requests.extend(
                self.client
                    .want(kind.url(), names.iter().map(ToString::to_string)),
            );
        }
        for request in requests {
            self.send(request).await?;
        }
        Ok(())
    }

    async fn send(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Closed> {
        self.sender.send(request).await.map_err(|_| Closed)
    }
}

/// The connection no longer takes requests.
struct Closed;

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
