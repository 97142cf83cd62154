//! One leader among the replicas of a daemon, by a Lease of the Kubernetes API (coordination.k8s.io/v1), in the manner
//! that Kubernetes' own controllers use, so that `kubectl get lease` shows who leads.
//!
//! From: the Lease. To: [`Leadership`], which anybody may watch. Promises: nobody leads for longer than
//! [`Timing::deadline`] after the last renewal that the API server has accepted; a drained process that waits for
//! [`Leadership::ended`] has given the Lease back, and another one leads within one [`Timing::retry`]. Bounds: one call at
//! a time, each at most [`CALL`]; one log line for each sort of trouble, however long it lasts.
//! Rights: `get, create, update` on `leases` of that namespace.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Error,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::watch;

use crate::{apiserver, drain::Drain};

mod election;
mod trouble;

use trouble::Trouble;

pub use election::{Election, Seen, Step, Timing};

/// How long one call to the API server may take.
const CALL: Duration = Duration::from_secs(5);
/// What the Lease of a released leader says: the next one need not wait.
const RELEASED: i32 = 1;

/// Which Lease, and who we are.
#[derive(Clone, Debug)]
pub struct Settings {
    pub namespace: String,
    /// `pilot-leader`, `citadel-leader`.
    pub lease: String,
    /// Unique among all processes that ever ask, and readable: see [`identity`].
    pub identity: String,
    pub timing: Timing,
}

impl Settings {
    pub fn new(namespace: impl Into<String>, lease: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            lease: lease.into(),
            identity: identity(),
            timing: Timing::default(),
        }
    }
}

/// The pod's name and a random part: a restarted container is a new candidate.
pub fn identity() -> String {
    let name = std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "process".into());
    format!("{name}_{:08x}", rand::random::<u32>())
}

/// Whether this process leads. Clones see the same.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// For a process that has no replicas.
    pub fn alone() -> Self {
        let (sender, receiver) = watch::channel(true);
        drop(sender);
        Self(receiver)
    }

    pub fn is_leader(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves while this process leads.
    pub async fn elected(&self) {
        self.becomes(true).await;
    }

    /// Resolves while this process does not lead.
    pub async fn lost(&self) {
        self.becomes(false).await;
    }

    /// Resolves when it is no more as it is now.
    pub async fn changed(&self) {
        self.becomes(!self.is_leader()).await;
    }

    async fn becomes(&self, wanted: bool) {
        let mut receiver = self.0.clone();
        let settled = receiver.wait_for(|leads| *leads == wanted).await.is_err();
        if settled {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when this process takes no part any more: after the drain, when the Lease was given back or that was
    /// tried for [`CALL`]. Wait for it before the process ends.
    pub async fn ended(&self) {
        let mut receiver = self.0.clone();
        while receiver.changed().await.is_ok() {}
    }

    /// Runs the work whenever this process leads; it is dropped at its next await when the lead is lost. Work that ends
    /// by itself is begun again with the next term. Never returns.
    pub async fn while_leading<W, F>(&self, mut work: W)
    where
        W: FnMut() -> F,
        F: Future<Output = ()>,
    {
        loop {
            self.elected().await;
            tokio::select! {
                () = self.lost() => continue,
                () = work() => {}
            }
            self.lost().await;
        }
    }
}

/// Takes part in the election until the drain.
pub fn elect(client: Client, settings: Settings, drain: Drain) -> Leadership {
    let (sender, receiver) = watch::channel(false);
    let candidate = Candidate {
        api: Api::namespaced(client, &settings.namespace),
        election: Election::new(settings.identity.clone(), settings.timing),
        settings,
        leads: sender,
        writing: false,
        trouble: Trouble::default(),
    };
    tokio::spawn(candidate.run(drain));
    Leadership(receiver)
}

struct Candidate {
    api: Api<Lease>,
    settings: Settings,
    election: Election,
    leads: watch::Sender<bool>,
    /// A write is under way, or was given up: the Lease may be ours without our knowing.
    writing: bool,
    trouble: Trouble,
}

impl Candidate {
    async fn run(mut self, drain: Drain) {
        loop {
            tokio::select! {
                () = self.round() => {}
                () = drain.drained() => break,
            }
            // A leader looks again in time, whatever the pause.
            let pause = self
                .settings
                .timing
                .retry
                .mul_f64(0.8 + 0.4 * rand::random::<f64>());
            let left = self.election.left(Instant::now());
            let pause = if left.is_zero() { pause } else { pause.min(left) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = drain.drained() => break,
            }
        }
        self.release().await;
    }

    async fn round(&mut self) {
        let left = self.election.left(Instant::now());
        let limit = if left.is_zero() { CALL } else { CALL.min(left) };
        let place = format!("Lease {}/{}", self.settings.namespace, self.settings.lease);
        let doing = format!("{place} (election of a leader)");
        let said = match tokio::time::timeout(limit, self.look()).await {
            Ok(Ok(())) => self.trouble.over(),
            Ok(Err(error)) if apiserver::is_conflict(&error) => self.trouble.over(),
            Ok(Err(error)) => self
                .trouble
                .met(apiserver::code(&error), || apiserver::explain(&error, &doing)),
            Err(_) => self.trouble.met(None, || {
                format!("{doing}: the API server did not answer within {limit:?}; tried again by itself")
            }),
        };
        said.log(&doing);
        self.tell(self.election.leads(Instant::now()));
    }

    fn tell(&self, leads: bool) {
        let changed = self
            .leads
            .send_if_modified(|now| std::mem::replace(now, leads) != leads);
        if changed {
            let (lease, identity) = (&self.settings.lease, &self.settings.identity);
            let text = if leads {
                "leads now"
            } else {
                "does not lead any more"
            };
            tracing::info!(lease, identity, "{text}");
        }
    }

    /// Reads the Lease and does what the step says.
    async fn look(&mut self) -> Result<(), Error> {
        let found = self.api.get_opt(&self.settings.lease).await?;
        let begun = Instant::now();
        let seen = found.as_ref().map(read);
        let post = PostParams::default();
        let step = self.election.step(seen.as_ref(), begun);
        let transitions = match (step, &seen) {
            (Step::Wait, _) => return Ok(()),
            (Step::Take { transitions }, _) => transitions,
            (_, Some(seen)) => seen.transitions,
            (_, None) => 0,
        };
        let mut lease = found.unwrap_or_else(|| self.fresh());
        let taken = (step == Step::Renew)
            .then(|| lease.spec.take().and_then(|spec| spec.acquire_time))
            .flatten();
        lease.spec = Some(self.record(taken, transitions));
        self.writing = true;
        if step == Step::Create {
            self.api.create(&post, &lease).await?;
        } else {
            // The resource version of what was read goes along: of two who take it, one is refused.
            self.api.replace(&self.settings.lease, &post, &lease).await?;
        }
        self.writing = false;
        self.election.written(begun);
        Ok(())
    }

    fn fresh(&self) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.settings.lease.clone()),
                namespace: Some(self.settings.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        }
    }

    fn record(&self, acquired: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let seconds = self.settings.timing.lease.as_secs();
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, so that the next leader need not wait.
    async fn release(&mut self) {
        let led = self.election.leads(Instant::now());
        self.election.released();
        self.tell(false);
        if !led && !self.writing {
            return;
        }
        let give_back = async {
            let mut lease = self.api.get(&self.settings.lease).await?;
            let seen = read(&lease);
            if seen.holder != self.settings.identity {
                return Ok(());
            }
            let mut spec = self.record(None, seen.transitions);
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(RELEASED);
            lease.spec = Some(spec);
            let post = PostParams::default();
            self.api
                .replace(&self.settings.lease, &post, &lease)
                .await
                .map(drop)
        };
        let doing = format!(
            "giving back Lease {}/{}",
            self.settings.namespace, self.settings.lease
        );
        let after = format!("another one leads after {:?}", self.settings.timing.lease);
        match tokio::time::timeout(CALL, give_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("{}; {after}", apiserver::explain(&error, &doing)),
            Err(_) => tracing::warn!("{doing}: the API server did not answer within {CALL:?}; {after}"),
        }
    }
}

fn read(lease: &Lease) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or(0);
    Seen {
        holder: spec.holder_identity.unwrap_or_default(),
        lease: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        transitions: spec.lease_transitions.unwrap_or(0),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn what_is_written_is_read_back() {
        let lease: Lease = serde_json::from_value(serde_json::json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "a"},
            "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 2,
                "renewTime": "2026-01-02T03:04:05.000006Z"},
        }))
        .unwrap();
        let seen = read(&lease);
        assert_eq!(
            (seen.holder.as_str(), seen.lease, seen.transitions),
            ("me", Duration::from_secs(15), 2)
        );
        assert!(seen.renewed.contains("2026-01-02"), "{}", seen.renewed);
        assert_eq!(read(&Lease::default()).holder, "");
    }

    #[test]
    fn identities_differ() {
        assert_ne!(identity(), identity());
    }

    #[tokio::test]
    async fn a_drained_candidate_ends_even_if_nobody_answers() {
        // Nothing listens there.
        let away = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(away).unwrap();
        let (trigger, drain) = crate::drain::channel();
        let leadership = elect(client, Settings::new("ns", "lease"), drain);
        let mut ended = std::pin::pin!(leadership.ended());
        let early = tokio::time::timeout(Duration::from_millis(50), &mut ended).await;
        assert!(early.is_err(), "it goes on until the drain");
        trigger.drain();
        tokio::time::timeout(CALL, ended).await.unwrap();
        assert!(!leadership.is_leader());
    }

    #[tokio::test]
    async fn work_runs_only_while_leading() {
        let (sender, receiver) = watch::channel(false);
        let (leadership, begun) = (Leadership(receiver), AtomicU32::new(0));
        let work = leadership.while_leading(|| async {
            begun.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        });
        let script = async {
            for (leads, expect) in [(false, 0), (true, 1), (false, 1), (true, 2)] {
                sender.send_replace(leads);
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(begun.load(Ordering::Relaxed), expect);
            }
        };
        tokio::select! {
            () = work => {}
            () = script => {}
        }
        assert!(Leadership::alone().is_leader());
        Leadership::alone().elected().await;
        Leadership::alone().ended().await;
    }
}
