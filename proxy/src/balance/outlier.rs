//! Outlier detection: which hosts are taken out for a while, because of what was seen of them. Pure: what is seen and
//! when goes in, changes come out. A worker has its own detector per cluster; the ejected hosts are its flags in
//! [`super::View`].

use std::time::{Duration, Instant};

use crate::config::{action::GATEWAY_ERRORS, cluster::Outlier};

/// What was seen of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// An answer with this status.
    Response(u16),
    /// A TCP connection was made.
    Connected,
    ConnectFailed,
    /// The connection or the stream broke, or it took too long.
    Reset,
}

/// A host went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    pub host: u32,
    pub until: Instant,
    /// The rule, by Envoy's name.
    pub why: &'static str,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    server_errors: u32,
    gateway_errors: u32,
    local_errors: u32,
    out_until: Option<Instant>,
    /// How often it has been out; goes down with each interval in.
    times: u32,
    in_since: Option<Instant>,
}

#[derive(Clone, Debug)]
pub struct Detector {
    rules: Outlier,
    hosts: Vec<State>,
    out: usize,
    /// Nothing changes by time alone before this.
    next: Option<Instant>,
}

impl Detector {
    pub fn new(rules: Outlier, hosts: usize) -> Self {
        Self {
            rules,
            hosts: vec![State::default(); hosts],
            out: 0,
            next: None,
        }
    }

    pub fn is_ejected(&self, host: u32, now: Instant) -> bool {
        self.hosts
            .get(host as usize)
            .and_then(|state| state.out_until)
            .is_some_and(|until| now < until)
    }

    /// Takes in what was seen; the host may go out because of it.
    pub fn observe(&mut self, host: u32, seen: Seen, now: Instant) -> Option<Ejected> {
        let rules = self.rules;
        let state = self.hosts.get_mut(host as usize)?;
        match seen {
            Seen::Response(status)
                if rules
                    .errors
                    .map_or(status >= 500, |errors| errors.contains(status)) =>
            {
                state.server_errors += 1;
                state.gateway_errors = if rules.errors.is_none() && GATEWAY_ERRORS.contains(&status) {
                    state.gateway_errors + 1
                } else {
                    0
                };
                state.local_errors = 0;
            }
            Seen::Response(_) => (state.server_errors, state.gateway_errors, state.local_errors) = (0, 0, 0),
            Seen::Connected => state.local_errors = 0,
            Seen::ConnectFailed | Seen::Reset if rules.split_local => state.local_errors += 1,
            Seen::ConnectFailed | Seen::Reset => {
                state.server_errors += 1;
                state.gateway_errors += 1;
            }
        }
        let reached = |count: u32, bound: u32| bound > 0 && count >= bound;
        let why = if reached(state.gateway_errors, rules.consecutive_gateway) {
            "consecutive_gateway_failure"
        } else if reached(state.server_errors, rules.consecutive_5xx) {
            "consecutive_5xx"
        } else if rules.split_local && reached(state.local_errors, rules.consecutive_local) {
            "consecutive_local_origin_failure"
        } else {
            return None;
        };
        (state.server_errors, state.gateway_errors, state.local_errors) = (0, 0, 0);
        self.eject(host, why, now)
    }

    fn eject(&mut self, host: u32, why: &'static str, now: Instant) -> Option<Ejected> {
        let total = self.hosts.len();
        let state = self.hosts.get_mut(host as usize)?;
        if state.out_until.is_some() || 100 * self.out >= self.rules.max_percent as usize * total {
            return None;
        }
        state.times += 1;
        let time = self
            .rules
            .base_ejection
            .saturating_mul(state.times)
            .min(self.rules.max_ejection);
        let until = now + time.max(Duration::from_millis(1));
        state.out_until = Some(until);
        self.out += 1;
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
        Some(Ejected { host, until, why })
    }

    /// Brings back those whose time is over; says whether there were any. Costs one comparison while there is nothing
    /// to do, so it may be called with every pick.
    pub fn tick(&mut self, now: Instant) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let mut returned = false;
        let mut next = None;
        for state in &mut self.hosts {
            match state.out_until {
                Some(until) if now >= until => {
                    state.out_until = None;
                    state.in_since = Some(now);
                    self.out -= 1;
                    returned = true;
                }
                None => {
                    // Each interval in takes back one time out.
                    let over = state
                        .in_since
                        .is_some_and(|since| now >= since + self.rules.interval);
                    if over && state.times > 0 {
                        state.times -= 1;
                        state.in_since = Some(now);
                    }
                }
                Some(_) => {}
            }
            let due = state.out_until.or_else(|| {
                state
                    .in_since
                    .filter(|_| state.times > 0)
                    .map(|since| since + self.rules.interval)
            });
            next = [next, due].into_iter().flatten().min();
        }
        self.next = next;
        returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cluster::Statuses;

    fn rules() -> Outlier {
        Outlier {
            consecutive_5xx: 3,
            consecutive_gateway: 0,
            consecutive_local: 2,
            split_local: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(40),
            max_percent: 50,
            errors: None,
        }
    }

    const ERROR: Seen = Seen::Response(500);
    const FINE: Seen = Seen::Response(200);

    #[test]
    fn errors_in_a_row_put_a_host_out_and_time_brings_it_back() {
        let start = Instant::now();
        let mut detector = Detector::new(rules(), 4);
        assert_eq!(detector.observe(0, ERROR, start), None);
        detector.observe(0, ERROR, start);
        detector.observe(0, FINE, start);
        detector.observe(0, ERROR, start);
        assert_eq!(detector.observe(0, ERROR, start), None);
        let ejected = detector.observe(0, Seen::Reset, start);
        let until = start + Duration::from_secs(30);
        assert_eq!(
            ejected,
            Some(Ejected {
                host: 0,
                until,
                why: "consecutive_5xx"
            })
        );
        assert!(detector.is_ejected(0, start) && !detector.is_ejected(0, until));
        assert!(!detector.tick(start + Duration::from_secs(29)));
        assert!(detector.tick(until) && !detector.tick(until));
        // The second time is longer, up to the bound.
        for _ in 0..2 {
            detector.observe(0, ERROR, until);
        }
        let second = detector.observe(0, ERROR, until).unwrap();
        assert_eq!(second.until - until, Duration::from_secs(40));
    }

    #[test]
    fn good_behaviour_is_remembered() {
        let start = Instant::now();
        let mut detector = Detector::new(rules(), 2);
        let errors =
            |detector: &mut Detector, now| (0..3).filter_map(|_| detector.observe(0, ERROR, now)).next();
        let first = errors(&mut detector, start).unwrap();
        assert!(detector.tick(first.until));
        // An interval later the first time is forgotten.
        let later = first.until + rules().interval;
        assert!(!detector.tick(later));
        let second = errors(&mut detector, later).unwrap();
        assert_eq!(second.until - later, Duration::from_secs(30));
    }

    #[test]
    fn which_answers_are_errors_can_be_said() {
        let now = Instant::now();
        let mut errors = Statuses::default();
        assert!(errors.insert(429) && errors.insert(503) && !errors.insert(600) && !errors.insert(99));
        let rules = Outlier {
            errors: Some(errors),
            consecutive_gateway: 1,
            ..rules()
        };
        let why = |statuses: [u16; 3]| {
            let mut detector = Detector::new(rules, 2);
            let seen = statuses.map(|status| detector.observe(0, Seen::Response(status), now));
            seen.into_iter().flatten().next().map(|ejected| ejected.why)
        };
        assert_eq!(why([429, 503, 429]), Some("consecutive_5xx"));
        assert_eq!(why([500, 500, 502]), None);
        assert_eq!(why([429, 500, 429]), None);
    }

    #[test]
    fn only_a_part_may_be_out() {
        let now = Instant::now();
        let mut detector = Detector::new(rules(), 4);
        let mut out = 0;
        for host in 0..4 {
            for _ in 0..3 {
                out += usize::from(detector.observe(host, ERROR, now).is_some());
            }
        }
        assert_eq!(out, 2);
    }

    #[test]
    fn a_single_host_goes_out_unless_the_bound_is_zero() {
        let now = Instant::now();
        for (max_percent, expect) in [(10, true), (0, false)] {
            let mut detector = Detector::new(
                Outlier {
                    max_percent,
                    ..rules()
                },
                1,
            );
            let last = (0..3).filter_map(|_| detector.observe(0, ERROR, now)).next();
            assert_eq!(last.is_some(), expect);
        }
    }

    #[test]
    fn local_failures_may_count_apart() {
        let now = Instant::now();
        let mut detector = Detector::new(
            Outlier {
                split_local: true,
                ..rules()
            },
            2,
        );
        detector.observe(0, Seen::Reset, now);
        detector.observe(0, Seen::Connected, now);
        assert_eq!(detector.observe(0, Seen::Reset, now), None);
        let ejected = detector.observe(0, Seen::Reset, now).unwrap();
        assert_eq!(ejected.why, "consecutive_local_origin_failure");
    }
}
