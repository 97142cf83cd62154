//! In turns: plainly where all weights are equal, else by earliest deadline, where a host's deadline comes around as
//! often as its weight says and as evenly as can be.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::mix;

/// Equal weights: one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    at: usize,
}

impl Turn {
    /// Workers begin at different places, or all would begin with the same host.
    pub fn new(seed: u64) -> Self {
        Self {
            at: (seed % (1 << 32)) as usize,
        }
    }

    pub fn take(&mut self, hosts: &[u32]) -> u32 {
        self.at = (self.at + 1) % hosts.len();
        hosts[self.at]
    }
}

/// Different weights.
#[derive(Clone, Debug)]
pub struct Schedule {
    heap: BinaryHeap<Entry>,
    order: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: f64,
    /// Among equal deadlines the one that waits longer.
    order: u64,
    host: u32,
    weight: f64,
}

impl Schedule {
    /// From hosts and their weights.
    pub fn new(hosts: impl Iterator<Item = (u32, u32)>, seed: u64) -> Self {
        let mut schedule = Self {
            heap: BinaryHeap::new(),
            order: 0,
        };
        for (host, weight) in hosts {
            let weight = f64::from(weight.max(1));
            schedule.order += 1;
            schedule.heap.push(Entry {
                deadline: 1.0 / weight,
                order: schedule.order,
                host,
                weight,
            });
        }
        let skip = seed % schedule.heap.len().max(1) as u64;
        for _ in 0..skip {
            schedule.take();
        }
        schedule
    }

    /// The same for weights that change soon: each host begins somewhere in its turn, or one with a small weight would
    /// never have its turn between two changes.
    pub fn passing(hosts: impl Iterator<Item = (u32, u32)>, seed: u64) -> Self {
        let mut schedule = Self::new(hosts, 0);
        let mut random = seed;
        let begun = schedule.heap.into_iter().map(|entry| {
            random = mix(random);
            Entry {
                deadline: (random >> 11) as f64 / (1u64 << 53) as f64 / entry.weight,
                ..entry
            }
        });
        schedule.heap = begun.collect();
        schedule
    }

    /// There is at least one host.
    pub fn take(&mut self) -> u32 {
        let Some(mut entry) = self.heap.pop() else {
            return 0;
        };
        let host = entry.host;
        entry.deadline += 1.0 / entry.weight;
        self.order += 1;
        entry.order = self.order;
        self.heap.push(entry);
        host
    }
}

impl Ord for Entry {
    /// The heap gives the greatest: the earliest deadline is the greatest here.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_even() {
        let mut turn = Turn::new(7);
        let mut counts = [0; 3];
        for _ in 0..300 {
            counts[turn.take(&[0, 1, 2]) as usize] += 1;
        }
        assert_eq!(counts, [100; 3]);
    }

    #[test]
    fn weights_are_kept_and_spread() {
        let mut schedule = Schedule::new([(0, 5), (1, 1), (2, 4)].into_iter(), 3);
        let picks: Vec<u32> = (0..1000).map(|_| schedule.take()).collect();
        let count = |host| picks.iter().filter(|pick| **pick == host).count();
        assert_eq!((count(0), count(1), count(2)), (500, 100, 400));
        // Never long runs of one host.
        assert!(picks.windows(4).all(|run| run.iter().any(|host| *host != run[0])));
    }
}
