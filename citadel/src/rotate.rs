//! The life of the self-signed root that citadel keeps in a Secret: when it is replaced, in which steps, and what the
//! Secret says after each. Pure: time and the new root are passed in.
//!
//! 1. *steady*: one root signs.
//! 2. *announced*: a new root is published beside it, until everybody trusts both.
//! 3. *switched*: the new root signs; the old one stays trusted until all that it has signed has been renewed or ended.
//!
//! Then steady again. Each step is one write of the whole Secret, so that citadel may die between any two of them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use mesh_runtime::tls::{Leaf, read_certificates};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::{
    authority::{
        intermediate::{self, CERTIFICATE, CHAIN, KEY, Material, MaterialError, ROOTS},
        signer::Signer,
    },
    bundle,
    metrics::unix,
};

/// The data of a Secret.
pub type Entries = BTreeMap<String, Vec<u8>>;

const NEXT_CERTIFICATE: &str = "next-cert.pem";
const NEXT_KEY: &str = "next-key.pem";
const OLD_CERTIFICATE: &str = "old-cert.pem";
const PHASE: &str = "rotation.json";

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A root is replaced when it has no more than this to live; zero: never.
    pub before: Duration,
    pub announce: Duration,
    pub retire: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "phase", content = "since")]
pub enum Phase {
    #[default]
    Steady,
    /// Unix seconds.
    Announced(i64),
    Switched(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a new root and publish it beside the one that signs.
    Announce,
    /// The new root signs from now on.
    Switch,
    /// The old root is trusted no more.
    Retire,
}

/// A root as the Secret has it.
#[derive(Clone, Debug)]
pub struct RootText {
    pub certificate: String,
    pub key: String,
}

fn text<'a>(entries: &'a Entries, name: &str) -> &'a [u8] {
    entries.get(name).map_or(&[], Vec::as_slice)
}

/// The first content of the Secret.
pub fn fresh(root: &RootText) -> Entries {
    let mut entries = Entries::new();
    let mut put = |name: &str, text: &str| entries.insert(name.to_owned(), text.as_bytes().to_vec());
    put(CERTIFICATE, &root.certificate);
    put(KEY, &root.key);
    put(CHAIN, "");
    put(ROOTS, &root.certificate);
    entries
}

/// The authority that such a Secret holds; Istio's own `istio-ca-secret` is one too.
pub fn signer(entries: &Entries, now: SystemTime) -> Result<Signer, MaterialError> {
    let certificate = text(entries, CERTIFICATE);
    let roots = match text(entries, ROOTS) {
        [] => certificate,
        roots => roots,
    };
    let material = Material {
        certificate,
        key: text(entries, KEY),
        chain: text(entries, CHAIN),
        roots,
    };
    intermediate::read(material, now)
}

/// An entry that cannot be read counts as steady: rotation starts anew when the time comes.
pub fn phase(entries: &Entries) -> Phase {
    serde_json::from_slice(text(entries, PHASE)).unwrap_or_default()
}

/// The step that is due, or when to look again; nothing for a root that is never replaced.
pub fn due(entries: &Entries, times: Times, now: SystemTime) -> Result<Step, Option<SystemTime>> {
    let Some(end) = end(entries) else {
        return Err(None);
    };
    let (step, at) = match phase(entries) {
        Phase::Steady if times.before.is_zero() => return Err(None),
        Phase::Steady => (Step::Announce, end.checked_sub(times.before).unwrap_or(now)),
        // A root that ends sooner cannot wait for so long; half of what it has left must do.
        Phase::Announced(since) => {
            let since = from_unix(since);
            let left = end.duration_since(since).unwrap_or_default();
            (Step::Switch, since + times.announce.min(left / 2))
        }
        Phase::Switched(since) => (Step::Retire, from_unix(since) + times.retire),
    };
    if at <= now { Ok(step) } else { Err(Some(at)) }
}

/// The root that signs is no longer valid.
pub fn has_ended(entries: &Entries, now: SystemTime) -> bool {
    end(entries).is_some_and(|end| end <= now)
}

fn end(entries: &Entries) -> Option<SystemTime> {
    let certificates = read_certificates(text(entries, CERTIFICATE)).ok()?;
    Leaf::read(certificates.first()?).ok().map(|leaf| leaf.not_after)
}

fn from_unix(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The Secret after a step. `new` is only used by [`Step::Announce`].
pub fn after(entries: &Entries, step: Step, new: &RootText, now: SystemTime) -> Entries {
    let mut next = entries.clone();
    let mut put = |name: &str, content: Vec<u8>| next.insert(name.to_owned(), content);
    let first = |name: &str| {
        read_certificates(text(entries, name))
            .ok()
            .and_then(|all| all.into_iter().next())
    };
    let trusted = read_certificates(text(entries, ROOTS)).unwrap_or_default();
    let phase = match step {
        Step::Announce => {
            put(NEXT_CERTIFICATE, new.certificate.clone().into_bytes());
            put(NEXT_KEY, new.key.clone().into_bytes());
            let added = read_certificates(new.certificate.as_bytes()).unwrap_or_default();
            put(ROOTS, roots(first(CERTIFICATE), &trusted, &added));
            Phase::Announced(unix(now))
        }
        Step::Switch => {
            put(CERTIFICATE, text(entries, NEXT_CERTIFICATE).to_vec());
            put(KEY, text(entries, NEXT_KEY).to_vec());
            put(OLD_CERTIFICATE, text(entries, CERTIFICATE).to_vec());
            put(ROOTS, roots(first(NEXT_CERTIFICATE), &trusted, &[]));
            next.remove(NEXT_CERTIFICATE);
            next.remove(NEXT_KEY);
            Phase::Switched(unix(now))
        }
        Step::Retire => {
            let old = first(OLD_CERTIFICATE);
            let kept: Vec<CertificateDer<'static>> = trusted
                .into_iter()
                .filter(|root| Some(root) != old.as_ref())
                .collect();
            put(ROOTS, roots(first(CERTIFICATE), &kept, &[]));
            next.remove(OLD_CERTIFICATE);
            Phase::Steady
        }
    };
    if phase == Phase::Steady {
        next.remove(PHASE);
    } else if let Ok(text) = serde_json::to_vec(&phase) {
        next.insert(PHASE.to_owned(), text);
    }
    next
}

/// The signing root first, then the others, each once.
fn roots(
    signing: Option<CertificateDer<'static>>,
    trusted: &[CertificateDer<'static>],
    added: &[CertificateDer<'static>],
) -> Vec<u8> {
    let mut all: Vec<CertificateDer<'static>> = Vec::new();
    for root in signing.iter().chain(trusted).chain(added) {
        if !all.contains(root) {
            all.push(root.clone());
        }
    }
    bundle::to_pem(&all).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{root, testing};

    const HOUR: Duration = Duration::from_secs(3600);
    const TIMES: Times = Times {
        before: Duration::from_secs(100 * 3600),
        announce: Duration::from_secs(3600),
        retire: Duration::from_secs(48 * 3600),
    };

    fn bundle_of(entries: &Entries) -> Vec<CertificateDer<'static>> {
        read_certificates(text(entries, ROOTS)).unwrap()
    }

    #[test]
    fn from_root_to_root_without_a_gap() {
        let (start, old, new) = (SystemTime::now(), testing::root_text(), testing::root_text());
        let steady = fresh(&old);
        let first = signer(&steady, start).unwrap();
        let begin = first.end() - TIMES.before;
        assert_eq!(due(&steady, TIMES, start), Err(Some(begin)));
        assert_eq!(due(&steady, TIMES, begin), Ok(Step::Announce));

        let announced = after(&steady, Step::Announce, &new, begin);
        let during = signer(&announced, begin).unwrap();
        assert_eq!(during.root(), first.root(), "the old one signs");
        assert_eq!(bundle_of(&announced).len(), 2);
        assert!(matches!(due(&announced, TIMES, begin), Err(Some(at)) if at <= begin + TIMES.announce));
        let switch = begin + TIMES.announce;
        assert_eq!(due(&announced, TIMES, switch), Ok(Step::Switch));

        let switched = after(&announced, Step::Switch, &old, switch);
        let second = signer(&switched, switch).unwrap();
        assert_ne!(second.root(), first.root());
        assert_eq!(
            bundle_of(&switched),
            [second.root().clone(), first.root().clone()]
        );
        assert!(due(&switched, TIMES, switch + HOUR).is_err());
        let retire = switch + TIMES.retire;
        assert_eq!(due(&switched, TIMES, retire), Ok(Step::Retire));

        let again = after(&switched, Step::Retire, &old, retire);
        assert_eq!(bundle_of(&again), [second.root().clone()]);
        assert_eq!(phase(&again), Phase::Steady);
        assert_eq!(
            again.len(),
            4,
            "nothing of the old one is left: {:?}",
            again.keys()
        );
        assert!(
            signer(&again, retire)
                .unwrap()
                .same(&signer(&fresh(&new), retire).unwrap())
        );
    }

    #[test]
    fn roots_that_others_added_stay() {
        let (now, foreign) = (SystemTime::now(), testing::root().certificate);
        let mut entries = fresh(&testing::root_text());
        let mut trusted = bundle_of(&entries);
        trusted.push(foreign.clone());
        entries.insert(ROOTS.into(), bundle::to_pem(&trusted).into_bytes());
        let new = testing::root_text();
        for step in [Step::Announce, Step::Switch, Step::Retire] {
            entries = after(&entries, step, &new, now);
            assert!(bundle_of(&entries).contains(&foreign), "{step:?}");
        }
        assert_eq!(bundle_of(&entries).len(), 2);
    }

    #[test]
    fn odd_secrets() {
        let now = SystemTime::now();
        assert_eq!(due(&Entries::new(), TIMES, now), Err(None));
        let never = Times {
            before: Duration::ZERO,
            ..TIMES
        };
        let mut entries = fresh(&testing::root_text());
        assert_eq!(due(&entries, never, now + root::LIFE * 2), Err(None));
        entries.insert(PHASE.into(), b"nonsense".to_vec());
        assert_eq!(phase(&entries), Phase::Steady);
        // Ended already: the new one is announced and signs at once.
        let late = now + root::LIFE * 2;
        let announced = after(&entries, Step::Announce, &testing::root_text(), late);
        assert_eq!(due(&announced, TIMES, late), Ok(Step::Switch));
        assert!(has_ended(&entries, late) && !has_ended(&entries, now));
        // As Istio leaves it: no bundle, an empty chain.
        entries.remove(ROOTS);
        assert!(signer(&entries, now).is_ok());
    }
}
