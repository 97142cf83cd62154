//! Which of two authorities signs while one follows the other. Pure: what was read and the time are passed in.
//!
//! A peer trusts a root only after it has got it, which takes a while from the moment of its publication. So a new root
//! is published first and signs later, and the old one stays trusted until everything that it has signed has ended.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;

use super::signer::Signer;

type Root = CertificateDer<'static>;

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A root that nobody knew is published for so long before it signs.
    pub announce: Duration,
    /// A root that signed is trusted for so long after it has stopped: the longest life of a leaf.
    pub retire: Duration,
}

/// What to use now.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub signer: Arc<Signer>,
    /// Roots to trust besides those of the signer.
    pub others: Vec<Root>,
    /// When to ask again, if nothing else happens.
    pub again: Option<SystemTime>,
}

/// What was chosen so far.
#[derive(Debug, Default)]
pub struct Choice {
    signer: Option<Arc<Signer>>,
    /// A root that is published and does not sign yet.
    announced: Option<(Root, SystemTime)>,
    /// Roots that signed, with the end of their last leaf.
    retired: Vec<(Root, SystemTime)>,
}

impl Choice {
    /// For a process that starts: `known` are the roots that were published before; with a root among the wanted one's
    /// that nobody knows, `before` goes on signing for a while.
    pub fn starting(known: &[Root], wanted: &Signer, before: Option<Arc<Signer>>) -> Self {
        let news = !known.is_empty() && !known.contains(wanted.root());
        Self {
            signer: before.filter(|_| news),
            ..Self::default()
        }
    }

    pub fn choose(&mut self, wanted: Arc<Signer>, pace: Pace, now: SystemTime) -> Chosen {
        self.retired.retain(|(_, end)| *end > now);
        let switched = match self.signer.take() {
            Some(current) if self.must_wait(&current, &wanted, pace, now) => current,
            current => {
                if let Some(current) = current.filter(|current| current.root() != wanted.root()) {
                    self.retired.push((current.root().clone(), now + pace.retire));
                }
                self.announced = None;
                wanted.clone()
            }
        };
        self.signer = Some(switched.clone());
        let mut others: Vec<Root> = wanted.others().to_vec();
        others.extend(self.announced.iter().map(|(root, _)| root.clone()));
        others.extend(self.retired.iter().map(|(root, _)| root.clone()));
        let announced = self.announced.iter().map(|(_, since)| *since + pace.announce);
        let again = announced.chain(self.retired.iter().map(|(_, end)| *end)).min();
        Chosen {
            signer: switched,
            others,
            again,
        }
    }

    /// Whether the current one goes on signing.
    fn must_wait(&mut self, current: &Signer, wanted: &Signer, pace: Pace, now: SystemTime) -> bool {
        let root = wanted.root();
        if root == current.root() || current.others().contains(root) {
            return false;
        }
        let since = match &self.announced {
            Some((announced, since)) if announced == root => *since,
            _ => now,
        };
        self.announced = Some((root.clone(), since));
        // One that ends before cannot wait for so long.
        let until = (since + pace.announce).min(current.end());
        now < until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const PACE: Pace = Pace {
        announce: Duration::from_secs(3600),
        retire: Duration::from_secs(86_400),
    };

    fn signer(others: &[Root]) -> Arc<Signer> {
        Arc::new(Signer::of_root(testing::root(), others.to_vec()))
    }

    #[test]
    fn a_new_root_is_published_then_signs_then_the_old_one_goes() {
        let (one, two, start) = (signer(&[]), signer(&[]), SystemTime::now());
        let mut choice = Choice::default();
        let first = choice.choose(one.clone(), PACE, start);
        assert!(first.signer.same(&one) && first.others.is_empty() && first.again.is_none());

        let chosen = choice.choose(two.clone(), PACE, start);
        assert!(chosen.signer.same(&one), "it does not sign yet");
        assert_eq!(chosen.others, [two.root().clone()]);
        assert_eq!(chosen.again, Some(start + PACE.announce));

        let later = start + PACE.announce;
        let chosen = choice.choose(two.clone(), PACE, later);
        assert!(chosen.signer.same(&two));
        assert_eq!(chosen.others, [one.root().clone()]);
        assert_eq!(chosen.again, Some(later + PACE.retire));

        let chosen = choice.choose(two.clone(), PACE, later + PACE.retire);
        assert!(chosen.signer.same(&two) && chosen.others.is_empty());
    }

    #[test]
    fn what_was_announced_by_others_signs_at_once() {
        let two = signer(&[]);
        let one = signer(std::slice::from_ref(two.root()));
        let (mut choice, now) = (Choice::default(), SystemTime::now());
        choice.choose(one, PACE, now);
        assert!(choice.choose(two.clone(), PACE, now).signer.same(&two));
    }

    #[test]
    fn after_a_start() {
        let (old, new, now) = (signer(&[]), signer(&[]), SystemTime::now());
        for (known, before, waits) in [
            (vec![], Some(old.clone()), false),
            (vec![old.root().clone()], Some(old.clone()), true),
            (vec![old.root().clone()], None, false),
            (
                vec![old.root().clone(), new.root().clone()],
                Some(old.clone()),
                false,
            ),
        ] {
            let mut choice = Choice::starting(&known, &new, before);
            let chosen = choice.choose(new.clone(), PACE, now);
            assert_eq!(chosen.signer.same(&old), waits, "{} known", known.len());
            assert_eq!(chosen.signer.same(&new), !waits);
        }
    }

    #[test]
    fn nobody_waits_for_one_that_has_ended() {
        let (old, new) = (signer(&[]), signer(&[]));
        let after = old.end() + Duration::from_secs(1);
        let mut choice = Choice::default();
        choice.choose(old, PACE, SystemTime::now());
        assert!(choice.choose(new.clone(), PACE, after).signer.same(&new));
    }
}
