//! The authority of a cluster: the user's own from the Secret `cacerts` if there is one, else a self-signed root in the
//! Secret `istio-ca-secret`, made once by whichever replica is first. Both are watched; the replica that leads rotates
//! the root when its time comes (see `rotate`).
//!
//! Promises: material that is wrong changes nothing, is said once, and the last good one goes on signing; a process that
//! starts waits for good material instead of making a root that the user did not want. `cacerts` being deleted changes
//! nothing until a restart.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use kube::runtime::watcher;
use mesh_proto::identity::TrustDomain;
use mesh_runtime::{
    apiserver,
    backoff::Backoff,
    drain::Drain,
    leader::Leadership,
    tls::{Leaf, read_certificates},
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;

use super::{
    Authority, Current,
    choice::{Choice, Pace},
    intermediate::{self, CERTIFICATE, CHAIN, KEY, Material, MaterialError, ROOTS},
    serial,
    signer::Signer,
};
use crate::{
    root::{self, RootError},
    rotate::{self, Entries, RootText, Step, Times},
    store::{
        StoreError,
        secret::{Found, Secrets},
    },
};

/// The user's own authority.
pub const PLUGGED: &str = "cacerts";
/// The root that citadel makes.
pub const OWN: &str = "istio-ca-secret";
/// How often it is tried to put back a root that was deleted.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest sleep of the keeper: clocks may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{place}: {source}")]
    Material { place: String, source: MaterialError },
    #[error("a new root could not be made: {0}")]
    Root(#[from] RootError),
}

/// How roots live.
#[derive(Clone, Debug)]
pub struct Lives {
    pub trust_domain: TrustDomain,
    /// Life of a new root.
    pub root: Duration,
    pub times: Times,
}

/// Reads the Secrets, and follows them.
pub struct Keeper {
    secrets: Secrets,
    lives: Lives,
    choice: Choice,
    plugged: Option<Found>,
    own: Option<Found>,
    /// The Secret with our own root was deleted, and could not be put back yet.
    lost: bool,
    /// The trouble that was said last.
    said: Option<String>,
}

impl Keeper {
    pub fn new(secrets: Secrets, lives: Lives) -> Self {
        Self {
            secrets,
            lives,
            choice: Choice::default(),
            plugged: None,
            own: None,
            lost: false,
            said: None,
        }
    }

    /// The authority, as soon as there is one. `known` are the roots that were published before. None: drained first.
    pub async fn open(&mut self, known: &[CertificateDer<'static>], drain: &Drain) -> Option<Arc<Authority>> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        loop {
            match self.load(known).await {
                Ok(current) => {
                    tracing::info!(place = current.place, "certificate authority read");
                    return Some(Arc::new(Authority::new(current)));
                }
                Err(error) => self.say(format!("no certificate can be signed yet: {error}")),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next(rand::random())) => {}
                () = drain.drained() => return None,
            }
        }
    }

    async fn load(&mut self, known: &[CertificateDer<'static>]) -> Result<Current, SecretsError> {
        self.plugged = self.secrets.read(PLUGGED).await?;
        self.own = self.secrets.read(OWN).await?;
        if self.plugged.is_none() && self.own.is_none() {
            let root = self.new_root()?;
            tracing::info!(place = self.secrets.place(OWN), "making a new root");
            self.own = Some(self.secrets.create(OWN, &rotate::fresh(&root)).await?);
        }
        let now = SystemTime::now();
        if self.plugged.is_none() {
            self.replace_ended(now).await?;
        }
        let (wanted, _) = self.wanted(now)?;
        let before = self
            .own
            .as_ref()
            .and_then(|own| rotate::signer(&own.entries, now).ok());
        self.choice = Choice::starting(known, &wanted, before.map(Arc::new));
        let (current, _) = self.choose(now)?;
        Ok(current)
    }

    /// A root that has ended while nobody was there to replace it in time: everything it has signed has ended too, so
    /// the new one signs at once.
    async fn replace_ended(&mut self, now: SystemTime) -> Result<(), SecretsError> {
        let Some(own) = self
            .own
            .as_ref()
            .filter(|own| rotate::has_ended(&own.entries, now))
        else {
            return Ok(());
        };
        tracing::warn!(
            place = self.secrets.place(OWN),
            "the root has ended; it is replaced"
        );
        let root = self.new_root()?;
        let announced = rotate::after(&own.entries, Step::Announce, &root, now);
        let entries = rotate::after(&announced, Step::Switch, &root, now);
        self.own = match self.secrets.replace(OWN, own, &entries).await? {
            Some(written) => Some(written),
            None => self.secrets.read(OWN).await?,
        };
        Ok(())
    }

    fn new_root(&self) -> Result<RootText, RootError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| RootError::Key(error.to_string()))?;
        let now = SystemTime::now();
        let certificate = root::certificate(&key, &self.lives.trust_domain, serial(), self.lives.root, now)?;
        Ok(RootText {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// Who should sign, and where it was read.
    fn wanted(&self, now: SystemTime) -> Result<(Signer, String), SecretsError> {
        let (name, read) = match (&self.plugged, &self.own) {
            (Some(plugged), _) => (PLUGGED, plugged_signer(&plugged.entries, now)),
            (None, Some(own)) => (OWN, rotate::signer(&own.entries, now)),
            (None, None) => (PLUGGED, Err(MaterialError::Missing(CERTIFICATE))),
        };
        let place = self.secrets.place(name);
        match read {
            Ok(signer) => Ok((signer, place)),
            Err(source) => Err(SecretsError::Material { place, source }),
        }
    }

    /// Who signs now, and when to ask again.
    fn choose(&mut self, now: SystemTime) -> Result<(Current, Option<SystemTime>), SecretsError> {
        let (wanted, place) = self.wanted(now)?;
        let pace = Pace {
            announce: self.lives.times.announce,
            retire: self.lives.times.retire,
        };
        let chosen = self.choice.choose(Arc::new(wanted), pace, now);
        let mut others = chosen.others;
        // The root of before `cacerts`: trusted as long as its Secret exists.
        if self.plugged.is_some()
            && let Some(own) = &self.own
        {
            others.extend(roots_of(&own.entries));
        }
        let current = Current {
            signer: chosen.signer,
            others,
            place,
        };
        Ok((current, chosen.again))
    }

    /// Follows both Secrets until the drain.
    pub async fn follow(mut self, authority: Arc<Authority>, leadership: Leadership, drain: Drain) {
        let mut plugged = std::pin::pin!(self.secrets.watch(PLUGGED));
        let mut own = std::pin::pin!(self.secrets.watch(OWN));
        // Each watch says its trouble once, until it goes on.
        let mut troubled = [false; 2];
        loop {
            let wait = self.refresh(&authority, &leadership).await;
            let wait = if self.lost { wait.min(AGAIN) } else { wait };
            tokio::select! {
                Some(event) = plugged.next() => match event {
                    Ok(None) if self.plugged.is_some() => self.say(format!(
                        "{} is gone; its authority goes on signing until this process restarts, which then uses {}",
                        self.secrets.place(PLUGGED), self.secrets.place(OWN),
                    )),
                    event => take(self.secrets.place(PLUGGED), event, &mut self.plugged, &mut troubled[0]),
                },
                Some(event) = own.next() => match event {
                    // Somebody deleted it: the root in use is put back.
                    Ok(None) if self.own.is_some() && self.plugged.is_none() => self.put_back().await,
                    event => take(self.secrets.place(OWN), event, &mut self.own, &mut troubled[1]),
                },
                () = tokio::time::sleep(wait) => if self.lost {
                    self.put_back().await;
                },
                () = leadership.changed() => {}
                () = drain.drained() => return,
            }
        }
    }

    /// Puts into use what the Secrets say; says how long that is good for.
    async fn refresh(&mut self, authority: &Authority, leadership: &Leadership) -> Duration {
        let now = SystemTime::now();
        let again = match self.choose(now) {
            Ok((current, again)) => {
                authority.set(current);
                again
            }
            Err(error) => {
                self.say(format!("{error}; the last good authority goes on signing"));
                None
            }
        };
        let due = if self.plugged.is_none() && leadership.is_leader() {
            self.rotate(now).await
        } else {
            None
        };
        let next = again.into_iter().chain(due).min();
        next.map_or(LONGEST, |at| at.duration_since(now).unwrap_or_default())
            .clamp(Duration::from_millis(200), LONGEST)
    }

    /// Does the step of the rotation that is due; says when the next one is.
    async fn rotate(&mut self, now: SystemTime) -> Option<SystemTime> {
        let own = self.own.as_ref()?;
        let step = match rotate::due(&own.entries, self.lives.times, now) {
            Ok(step) => step,
            Err(at) => return at,
        };
        let retry = Some(now + Duration::from_secs(10));
        let new = match step {
            Step::Announce => match self.new_root() {
                Ok(root) => root,
                Err(error) => {
                    self.say(format!("the root cannot be rotated: {error}"));
                    return retry;
                }
            },
            _ => RootText {
                certificate: String::new(),
                key: String::new(),
            },
        };
        let entries = rotate::after(&own.entries, step, &new, now);
        match self.secrets.replace(OWN, own, &entries).await {
            Ok(Some(written)) => {
                tracing::info!(?step, place = self.secrets.place(OWN), "root rotation: step done");
                self.own = Some(written);
                Some(now)
            }
            // Changed meanwhile: the watch brings what it is now.
            Ok(None) => retry,
            Err(error) => {
                self.say(format!("root rotation, step {step:?}: {error}"));
                retry
            }
        }
    }

    async fn put_back(&mut self) {
        let Some(own) = &self.own else { return };
        let place = self.secrets.place(OWN);
        if !std::mem::replace(&mut self.lost, true) {
            tracing::warn!(
                place,
                "the Secret with the root was deleted; the root in use is put back"
            );
        }
        match self.secrets.create(OWN, &own.entries).await {
            Ok(found) => {
                tracing::info!(place, "the root is back");
                (self.own, self.lost, self.said) = (Some(found), false, None);
            }
            Err(error) => self.say(format!(
                "{error}; this process goes on with the root that it has, and tries again"
            )),
        }
    }

    /// Logs each trouble once.
    fn say(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            tracing::error!("{text}");
            self.said = Some(text);
        }
    }
}

fn take(
    place: String,
    event: Result<Option<Found>, watcher::Error>,
    found: &mut Option<Found>,
    troubled: &mut bool,
) {
    match event {
        Ok(now) => {
            if found.as_ref().map(|found| &found.entries) != now.as_ref().map(|now| &now.entries) {
                tracing::info!(
                    place,
                    there = now.is_some(),
                    "certificate authority material changed"
                );
            }
            *found = now;
            if std::mem::take(troubled) {
                tracing::info!(place, "watched again");
            }
        }
        Err(error) => {
            let text = apiserver::explain_watch(&error, &format!("watching {place}"));
            if let Some(text) = text.filter(|_| !std::mem::replace(troubled, true)) {
                tracing::error!("{text}");
            }
        }
    }
}

/// The user's authority.
pub fn plugged_signer(entries: &Entries, now: SystemTime) -> Result<Signer, MaterialError> {
    let text = |name: &str| entries.get(name).map_or(&[][..], Vec::as_slice);
    let material = Material {
        certificate: text(CERTIFICATE),
        key: text(KEY),
        chain: text(CHAIN),
        roots: text(ROOTS),
    };
    intermediate::read(material, now)
}

/// Roots of the Secret that can be read and are no longer than a bundle may be.
fn roots_of(entries: &Entries) -> Vec<CertificateDer<'static>> {
    let pem = entries.get(ROOTS).or_else(|| entries.get(CERTIFICATE));
    let all = pem
        .and_then(|pem| read_certificates(pem).ok())
        .unwrap_or_default();
    all.into_iter().filter(|root| Leaf::read(root).is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn material_is_read_by_its_names() {
        let now = SystemTime::now();
        let entries = rotate::fresh(&testing::root_text());
        let signer = plugged_signer(&entries, now).unwrap();
        assert!(signer.same(&rotate::signer(&entries, now).unwrap()));
        assert_eq!(roots_of(&entries), [signer.root().clone()]);
        for name in [CERTIFICATE, KEY, ROOTS] {
            let mut entries = entries.clone();
            entries.remove(name);
            let error = plugged_signer(&entries, now).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(roots_of(&Entries::new()).is_empty());
    }
}
