//! Maglev's table (<https://research.google/pubs/pub44824/>): each host has an order of preference over the slots of a
//! table of prime size; in turns each takes its next free slot. A key belongs to the host of its slot: more even than a
//! ring, at the price of a few more keys that move when hosts change.

use crate::config::hash::xx64_seeded;

#[derive(Clone, Debug, Default)]
pub struct Table {
    slots: Vec<u32>,
}

const FREE: u32 = u32::MAX;

impl Table {
    /// From hosts (index, key, weight); `size` is a prime.
    pub fn build(hosts: &[(u32, String, u32)], size: u64) -> Self {
        let Some(heaviest) = hosts.iter().map(|(_, _, weight)| *weight).max() else {
            return Self::default();
        };
        struct Order {
            host: u32,
            offset: u64,
            skip: u64,
            next: u64,
            weight: f64,
            target: f64,
        }
        let mut orders: Vec<Order> = hosts
            .iter()
            .map(|(host, key, weight)| Order {
                host: *host,
                offset: xx64_seeded(key.as_bytes(), 0) % size,
                skip: xx64_seeded(key.as_bytes(), 1) % (size - 1) + 1,
                next: 0,
                weight: f64::from(*weight) / f64::from(heaviest),
                target: 0.0,
            })
            .collect();
        let mut slots = vec![FREE; size as usize];
        let mut free = size;
        let mut turn = 1.0;
        while free > 0 {
            for order in &mut orders {
                if free == 0 {
                    break;
                }
                // A lighter host passes some of its turns.
                if turn * order.weight < order.target {
                    continue;
                }
                order.target += 1.0;
                let slot = loop {
                    let slot = (order.offset + order.skip * order.next) % size;
                    order.next += 1;
                    if slots[slot as usize] == FREE {
                        break slot;
                    }
                };
                slots[slot as usize] = order.host;
                free -= 1;
            }
            turn += 1.0;
        }
        Self { slots }
    }

    /// The host of a key; if it is not usable, that of a following slot.
    pub fn pick(&self, hash: u64, usable: impl Fn(u32) -> bool) -> Option<u32> {
        let size = self.slots.len();
        let start = (hash % size.max(1) as u64) as usize;
        // A stride over the whole table, so that the keys of a lost host spread over all others.
        (0..size)
            .map(|n| self.slots[(start + n) % size])
            .find(|host| usable(*host))
    }
}
