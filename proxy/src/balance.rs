//! Which endpoint takes a request? The endpoints of a cluster are a [`Set`], built off the path and shared by all
//! workers; each worker has a [`Cursor`] of its own, and flags and counts of the hosts as it sees them ([`View`]).
//! Picking takes no lock and allocates nothing; randomness is passed in.
//!
//! First a priority (and with weighted localities a locality) is chosen by health ([`locality`]), then a host of it by
//! the cluster's policy: [`round_robin`], [`least_request`], random, [`ring`] or [`maglev`]. [`outlier`] decides which
//! hosts are left out for a while. Where the cluster says so, the weight of a new host grows slowly ([`Set::follow`]).

pub mod least_request;
pub mod locality;
pub mod maglev;
pub mod outlier;
pub mod ring;
pub mod round_robin;
pub mod set;

use std::time::Instant;

use self::locality::{Group, Order};
pub use self::{
    locality::Cursor,
    set::{Host, Set},
};
use crate::config::cluster::Balance;

/// One worker's view of the hosts of a set, by their index.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Taken out by outlier detection. Shorter than the set means: the rest is not.
    pub ejected: &'a [bool],
    /// Requests in flight.
    pub active: &'a [u32],
    /// Changes whenever `ejected` does.
    pub generation: u64,
    /// Needed where new hosts start slowly ([`Set::slow_start`]).
    pub now: Option<Instant>,
}

/// One question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// The key of consistent hashing.
    pub hash: Option<u64>,
    pub random: u64,
    /// Hosts to avoid if there are others: those that a retry has tried.
    pub tried: &'a [u32],
}

/// The index of a host in `set.hosts`, or nothing if there is none that may be used.
pub fn pick(set: &Set, cursor: &mut Cursor, view: &View<'_>, ask: &Ask<'_>) -> Option<u32> {
    cursor.refresh(set, view);
    let mut random = ask.random;
    // A few tries to avoid the hosts that were tried already.
    let tries = if ask.tried.is_empty() {
        1
    } else {
        2 * ask.tried.len() + 2
    };
    let mut found = None;
    for _ in 0..tries {
        found = pick_once(set, cursor, view, ask, random);
        match found {
            Some(host) if ask.tried.contains(&host) => random = mix(random),
            _ => return found,
        }
    }
    // What is left when chance would not have it: any other host that may be used.
    cursor.eligible().find(|host| !ask.tried.contains(host)).or(found)
}

fn pick_once(set: &Set, cursor: &mut Cursor, view: &View<'_>, ask: &Ask<'_>, random: u64) -> Option<u32> {
    let tier = cursor.tier(random)?;
    if let (Balance::RingHash { .. } | Balance::Maglev { .. }, Some(hash)) = (set.balance, ask.hash) {
        let priority = cursor.priority_of(tier);
        let usable = |host: u32| cursor.is_eligible(tier, host) && !ask.tried.contains(&host);
        let found = match set.balance {
            Balance::RingHash { .. } => set.rings.get(priority)?.pick(hash, usable),
            _ => set.tables.get(priority)?.pick(hash, usable),
        };
        return found.or_else(|| cursor.eligible_in(tier).next());
    }
    let group = cursor.group(tier, mix(random))?;
    let random = random.rotate_left(17) ^ (random >> 31);
    Some(match &mut group.order {
        Order::InTurn(turn) => turn.take(&group.hosts),
        Order::Weighted(schedule) => schedule.take(),
        Order::LeastRequest(choices) => least_request::pick(
            group_hosts(&group.hosts, &group.weights),
            *choices,
            view.active,
            random,
        ),
        Order::Random => Group::random(&group.hosts, &group.weights, random),
    })
}

fn group_hosts<'a>(hosts: &'a [u32], weights: &'a [u64]) -> least_request::Hosts<'a> {
    least_request::Hosts {
        hosts,
        cumulative: weights,
    }
}

/// Another random number from one (the finalizer of splitmix64).
pub fn mix(random: u64) -> u64 {
    let mut z = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
