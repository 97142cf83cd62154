//! Which priority, which locality? A worker's [`Cursor`] keeps the answer of the last change in health: tiers with
//! their share of the load, and in each the hosts that may be used, in the order of the cluster's policy.
//!
//! A tier is the healthy hosts of one priority; after all of those come the degraded ones. A priority takes all load
//! that reaches it as long as its healthy hosts, times the overprovisioning factor, are all of its hosts; what it
//! cannot take goes on to the next. When too few are healthy overall, health says nothing any more (panic): all hosts
//! are used. See <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority>.

use std::time::{Duration, Instant};

use super::{
    View,
    least_request::Hosts,
    mix,
    round_robin::{Schedule, Turn},
    set::{Host, Set},
};
use crate::config::{cluster::Balance, endpoint::Health};

/// One worker's state of balancing over one set. For another set make another cursor.
#[derive(Clone, Debug)]
pub struct Cursor {
    generation: Option<u64>,
    /// When the weights of new hosts have grown noticeably.
    again: Option<Instant>,
    seed: u64,
    tiers: Vec<Tier>,
    /// By host: the tier it belongs to, if any.
    tier_of: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Tier {
    /// Position of the priority among the set's priorities.
    priority: usize,
    /// Of 100, running sum.
    until: u32,
    groups: Vec<Group>,
    /// Running sum of the groups' weights; empty where there is one group.
    weights: Vec<u64>,
}

/// Hosts among which the policy picks: of one locality, or of all.
#[derive(Clone, Debug)]
pub struct Group {
    pub hosts: Vec<u32>,
    /// Running sum of the hosts' weights; empty if all are equal.
    pub weights: Vec<u64>,
    pub order: Order,
}

#[derive(Clone, Debug)]
pub enum Order {
    InTurn(Turn),
    Weighted(Schedule),
    LeastRequest(u32),
    Random,
}

const NO_TIER: u8 = u8::MAX;
/// More tiers than this are one.
const MAX_TIERS: usize = 200;

impl Cursor {
    /// The seed should differ between workers, or all of them begin with the same host.
    pub fn new(set: &Set, seed: u64) -> Self {
        Self {
            generation: None,
            again: None,
            seed,
            tiers: Vec::new(),
            tier_of: Vec::with_capacity(set.hosts.len()),
        }
    }

    /// Takes over a change in health, or in the weights of new hosts.
    pub(super) fn refresh(&mut self, set: &Set, view: &View<'_>) {
        let grown = match (self.again, view.now) {
            (Some(again), Some(now)) => now >= again,
            _ => false,
        };
        if self.generation == Some(view.generation) && !grown {
            return;
        }
        self.generation = Some(view.generation);
        self.seed = mix(self.seed);
        let weights = Weights::of(set, view.now);
        self.again = weights.again;
        self.tiers = tiers(set, view, &weights, self.seed);
        self.tier_of = vec![NO_TIER; set.hosts.len()];
        for (n, tier) in self.tiers.iter().enumerate() {
            for host in tier.groups.iter().flat_map(|group| &group.hosts) {
                self.tier_of[*host as usize] = n as u8;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again
    }

    /// A tier by its share of the load.
    pub(super) fn tier(&self, random: u64) -> Option<usize> {
        match self.tiers.len() {
            0 => None,
            1 => Some(0),
            _ => {
                let at = (random % 100) as u32;
                Some(self.tiers.iter().position(|tier| at < tier.until).unwrap_or(0))
            }
        }
    }

    pub(super) fn priority_of(&self, tier: usize) -> usize {
        self.tiers[tier].priority
    }

    /// A locality of a tier by weight, or all of it.
    pub(super) fn group(&mut self, tier: usize, random: u64) -> Option<&mut Group> {
        let tier = &mut self.tiers[tier];
        let at = match tier.weights.last() {
            None | Some(0) => 0,
            Some(total) => tier.weights.partition_point(|sum| *sum <= random % total),
        };
        tier.groups.get_mut(at)
    }

    pub(super) fn is_eligible(&self, tier: usize, host: u32) -> bool {
        self.tier_of
            .get(host as usize)
            .is_some_and(|of| usize::from(*of) == tier)
    }

    pub(super) fn eligible_in(&self, tier: usize) -> impl Iterator<Item = u32> {
        self.tiers[tier]
            .groups
            .iter()
            .flat_map(|group| group.hosts.iter().copied())
    }

    /// Every host that may be used at all.
    pub(super) fn eligible(&self) -> impl Iterator<Item = u32> {
        (0..self.tiers.len()).flat_map(|tier| self.eligible_in(tier))
    }
}

/// Steps in which a new host's weight grows to what it should be.
const STEPS: u32 = 50;
/// They are not shorter than this.
const STEP: Duration = Duration::from_millis(20);
/// Weights of hosts get this much finer while some of them grow.
const FINER: f64 = 1000.0;

/// The weights of a set's hosts as of now.
struct Weights {
    /// Empty: those of the set.
    list: Vec<u32>,
    /// When they change.
    again: Option<Instant>,
}

impl Weights {
    fn of(set: &Set, now: Option<Instant>) -> Self {
        let mut weights = Self {
            list: Vec::new(),
            again: None,
        };
        let (Some(slow), Some(now)) = (set.slow_start, now) else {
            return weights;
        };
        let part = |host: &Host| slow.part(now.saturating_duration_since(host.since?));
        if !set.hosts.iter().any(|host| part(host).is_some()) {
            return weights;
        }
        let weight = |host: &Host| (f64::from(host.weight) * FINER * part(host).unwrap_or(1.0)).round();
        // The cast saturates.
        weights.list = set
            .hosts
            .iter()
            .map(|host| (weight(host) as u32).max(1))
            .collect();
        weights.again = Some(now + (slow.window / STEPS).max(STEP));
        weights
    }

    fn get(&self, set: &Set, host: u32) -> u32 {
        match self.list.get(host as usize) {
            Some(weight) => *weight,
            None => set.hosts[host as usize].weight,
        }
    }
}

impl Group {
    fn new(set: &Set, hosts: Vec<u32>, of: &Weights, seed: u64) -> Self {
        let weight = |host: u32| of.get(set, host);
        let equal = hosts.windows(2).all(|pair| weight(pair[0]) == weight(pair[1]));
        let mut sum = 0;
        let weights = if equal {
            Vec::new()
        } else {
            hosts
                .iter()
                .map(|host| {
                    sum += u64::from(weight(*host));
                    sum
                })
                .collect()
        };
        let order = match set.balance {
            Balance::LeastRequest { choices } => Order::LeastRequest(choices),
            Balance::RoundRobin if equal => Order::InTurn(Turn::new(seed)),
            Balance::RoundRobin if of.again.is_some() => Order::Weighted(Schedule::passing(
                hosts.iter().map(|host| (*host, weight(*host))),
                seed,
            )),
            Balance::RoundRobin => Order::Weighted(Schedule::new(
                hosts.iter().map(|host| (*host, weight(*host))),
                seed,
            )),
            // Without a key, hashing is chance.
            _ => Order::Random,
        };
        Self {
            hosts,
            weights,
            order,
        }
    }

    pub(super) fn random(hosts: &[u32], weights: &[u64], random: u64) -> u32 {
        hosts[Hosts {
            hosts,
            cumulative: weights,
        }
        .sample(random)]
    }
}

/// One priority's hosts, by how they are.
struct Members {
    all: Vec<u32>,
    healthy: Vec<u32>,
    degraded: Vec<u32>,
}

fn members(set: &Set, view: &View<'_>, priority: u32) -> Members {
    let mut members = Members {
        all: Vec::new(),
        healthy: Vec::new(),
        degraded: Vec::new(),
    };
    for (n, host) in set
        .hosts
        .iter()
        .enumerate()
        .filter(|(_, host)| host.priority == priority)
    {
        let n = n as u32;
        let ejected = view.ejected.get(n as usize).copied().unwrap_or(false);
        match host.health {
            // A draining host takes nothing new, not even in panic.
            Health::Draining => continue,
            Health::Healthy if !ejected => members.healthy.push(n),
            Health::Degraded if !ejected => members.degraded.push(n),
            _ => {}
        }
        members.all.push(n);
    }
    members
}

fn tiers(set: &Set, view: &View<'_>, weights: &Weights, seed: u64) -> Vec<Tier> {
    let priorities: Vec<Members> = set
        .priorities()
        .into_iter()
        .map(|priority| members(set, view, priority))
        .collect();
    let health = |part: &[u32], all: &[u32]| match all.len() {
        0 => 0,
        total => (u64::from(set.overprovisioning) * part.len() as u64 / total as u64).min(100) as u32,
    };
    // Healthy hosts of each priority, then degraded ones.
    let mut shares: Vec<(usize, u32, &[u32])> = Vec::new();
    for (n, one) in priorities.iter().enumerate() {
        shares.push((n, health(&one.healthy, &one.all), &one.healthy));
    }
    for (n, one) in priorities.iter().enumerate() {
        shares.push((n, health(&one.degraded, &one.all), &one.degraded));
    }
    let available: u32 = shares.iter().map(|(_, health, _)| health).sum();
    let mut panicking = Vec::new();
    if available < 100 {
        for (n, one) in priorities.iter().enumerate() {
            let percent = 100 * (one.healthy.len() + one.degraded.len()) / one.all.len().max(1);
            // No host at all is panic too, unless the threshold is switched off.
            if !one.all.is_empty() && (percent as u32) < set.panic_threshold {
                panicking.push(n);
            }
        }
    }
    let mut parts: Vec<(usize, u32, &[u32])> = Vec::new();
    for (at, (n, share, hosts)) in shares.into_iter().enumerate() {
        let first_round = at < priorities.len();
        if panicking.contains(&n) {
            // In panic a priority takes what its healthy hosts would; if nothing is healthy anywhere, all of it.
            let share = share.max(if available == 0 { 100 } else { 1 });
            if first_round {
                parts.push((n, share, &priorities[n].all));
            }
        } else if share > 0 {
            parts.push((n, share, hosts));
        }
    }
    parts.truncate(MAX_TIERS);
    assemble(set, parts, weights, seed)
}

/// Gives out the load from the first part on, as far as it goes; if it does not reach 100, in proportion.
fn assemble(set: &Set, parts: Vec<(usize, u32, &[u32])>, of: &Weights, seed: u64) -> Vec<Tier> {
    let total: u32 = parts.iter().map(|(_, share, _)| share).sum();
    let mut tiers: Vec<Tier> = Vec::new();
    let mut left = 100u32;
    for (priority, share, hosts) in parts {
        let scaled = if total < 100 {
            (share * 100).div_ceil(total.max(1))
        } else {
            share
        };
        let load = scaled.min(left);
        if load == 0 {
            continue;
        }
        left -= load;
        let (groups, weights) = groups(set, hosts, of, mix(seed ^ priority as u64));
        tiers.push(Tier {
            priority,
            until: 100 - left,
            groups,
            weights,
        });
    }
    if let Some(last) = tiers.last_mut() {
        last.until = 100;
    }
    tiers
}

/// One group of all, or one per locality with its weight scaled by the part of its hosts that is usable.
fn groups(set: &Set, hosts: &[u32], of: &Weights, seed: u64) -> (Vec<Group>, Vec<u64>) {
    if !set.locality_weighted {
        return (vec![Group::new(set, hosts.to_vec(), of, seed)], Vec::new());
    }
    let mut groups = Vec::new();
    let mut weights = Vec::new();
    let mut sum = 0;
    for (n, place) in set.localities.iter().enumerate() {
        let own: Vec<u32> = hosts
            .iter()
            .copied()
            .filter(|host| set.hosts[*host as usize].locality as usize == n)
            .collect();
        if own.is_empty() || place.weight == 0 {
            continue;
        }
        let all = set
            .hosts
            .iter()
            .filter(|host| host.locality as usize == n)
            .count() as u64;
        let usable = (u64::from(set.overprovisioning) * own.len() as u64 / all).min(100);
        sum += u64::from(place.weight) * usable.max(1);
        weights.push(sum);
        groups.push(Group::new(set, own, of, mix(seed ^ n as u64)));
    }
    match groups.is_empty() {
        // No locality has a weight: then weights say nothing.
        true => (vec![Group::new(set, hosts.to_vec(), of, seed)], Vec::new()),
        false => (groups, weights),
    }
}
