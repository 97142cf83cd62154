//! Who leads, as a step function. Pure: the Lease that was read and the time are passed in; what to write comes out.
//!
//! Clocks of other machines are never believed: a holder has lost its lease when the record has not changed for the
//! lease's duration by this process' own clock. A leader stops believing in itself earlier than others stop believing
//! in it, so that two never lead at once while clocks run at about the same speed.

use std::time::{Duration, Instant};

/// How long things last. `retry < deadline < lease`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Others wait so long for a holder that is silent.
    pub lease: Duration,
    /// A leader that could not renew for so long leads no more.
    pub deadline: Duration,
    /// Between two looks at the Lease.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Empty: it was released.
    pub holder: String,
    pub lease: Duration,
    pub transitions: i32,
    /// Changes with every renewal; never read as a time.
    pub renewed: String,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no Lease: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Its holder is gone: take it, with this number of transitions.
    Take { transitions: i32 },
    /// Somebody else leads.
    Wait,
}

/// One candidate's view.
#[derive(Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    /// The last record of another holder, and when it was first seen so.
    observed: Option<(Seen, Instant)>,
    /// When the last write that succeeded was begun.
    renewed: Option<Instant>,
}

impl Election {
    pub fn new(me: String, timing: Timing) -> Self {
        Self {
            me,
            timing,
            observed: None,
            renewed: None,
        }
    }

    /// What to do about the Lease as it is.
    pub fn step(&mut self, seen: Option<&Seen>, now: Instant) -> Step {
        let Some(seen) = seen else {
            return Step::Create;
        };
        if seen.holder == self.me {
            return Step::Renew;
        }
        // Somebody else took it: whatever was written before counts no more.
        self.renewed = None;
        let transitions = seen.transitions.saturating_add(1);
        if seen.holder.is_empty() {
            return Step::Take { transitions };
        }
        match &self.observed {
            Some((last, since)) if last == seen => {
                if now.saturating_duration_since(*since) >= seen.lease {
                    return Step::Take { transitions };
                }
            }
            _ => self.observed = Some((seen.clone(), now)),
        }
        Step::Wait
    }

    /// A write was accepted that was begun at this time.
    pub fn written(&mut self, begun: Instant) {
        self.observed = None;
        self.renewed = Some(begun);
    }

    /// The Lease was given back.
    pub fn released(&mut self) {
        self.renewed = None;
    }

    pub fn leads(&self, now: Instant) -> bool {
        !self.left(now).is_zero()
    }

    /// How long this process leads without another renewal.
    pub fn left(&self, now: Instant) -> Duration {
        self.renewed.map_or(Duration::ZERO, |renewed| {
            (renewed + self.timing.deadline).saturating_duration_since(now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, renewed: &str) -> Seen {
        Seen {
            holder: holder.into(),
            lease: Duration::from_secs(15),
            transitions: 3,
            renewed: renewed.into(),
        }
    }

    #[test]
    fn takes_what_is_free_or_silent() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut election = Election::new("a".into(), Timing::default());
        assert_eq!(election.step(None, start), Step::Create);
        assert_eq!(
            election.step(Some(&seen("", "1")), start),
            Step::Take { transitions: 4 }
        );
        assert_eq!(election.step(Some(&seen("b", "1")), start), Step::Wait);
        assert_eq!(
            election.step(Some(&seen("b", "1")), start + 14 * second),
            Step::Wait
        );
        assert_eq!(
            election.step(Some(&seen("b", "2")), start + 15 * second),
            Step::Wait,
            "it was renewed"
        );
        assert_eq!(
            election.step(Some(&seen("b", "2")), start + 29 * second),
            Step::Wait
        );
        let take = Step::Take { transitions: 4 };
        assert_eq!(election.step(Some(&seen("b", "2")), start + 30 * second), take);
    }

    #[test]
    fn stops_before_others_may_start() {
        let (start, timing) = (Instant::now(), Timing::default());
        let mut election = Election::new("a".into(), timing);
        assert!(!election.leads(start));
        election.written(start);
        assert!(election.leads(start + timing.deadline - Duration::from_millis(1)));
        assert!(!election.leads(start + timing.deadline));
        assert!(timing.deadline < timing.lease);
        election.written(start + timing.deadline);
        assert_eq!(election.left(start + timing.deadline), timing.deadline);
        election.released();
        assert!(!election.leads(start));
    }

    #[test]
    fn knows_when_it_was_replaced() {
        let start = Instant::now();
        let mut election = Election::new("a".into(), Timing::default());
        election.written(start);
        assert_eq!(election.step(Some(&seen("a", "1")), start), Step::Renew);
        assert_eq!(election.step(Some(&seen("b", "1")), start), Step::Wait);
        assert!(!election.leads(start));
    }
}
