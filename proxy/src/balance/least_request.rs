//! The least loaded of a few hosts picked at random (two, unless told otherwise): nearly as good as looking at all of
//! them, and no herd runs to the one that looked best.

use super::mix;

/// Hosts, with the running sum of their weights (empty if all are equal).
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a> {
    pub hosts: &'a [u32],
    pub cumulative: &'a [u64],
}

impl Hosts<'_> {
    /// Position of a host by chance and weight.
    pub fn sample(&self, random: u64) -> usize {
        match self.cumulative.last() {
            None | Some(0) => (random % self.hosts.len() as u64) as usize,
            Some(total) => self.cumulative.partition_point(|sum| *sum <= random % total),
        }
    }

    fn weight(&self, at: usize) -> u64 {
        match at {
            _ if self.cumulative.is_empty() => 1,
            0 => self.cumulative[0],
            _ => self.cumulative[at] - self.cumulative[at - 1],
        }
    }
}

/// The host with the fewest requests for its weight among `choices`.
pub fn pick(hosts: Hosts<'_>, choices: u32, active: &[u32], random: u64) -> u32 {
    let load = |at: usize| u64::from(active.get(hosts.hosts[at] as usize).copied().unwrap_or(0));
    let mut random = random;
    let mut best = hosts.sample(random);
    for _ in 1..choices {
        random = mix(random);
        let other = hosts.sample(random);
        // load / weight, without the division; when nothing is loaded the first choice stays, which was weighted already
        if load(other) * hosts.weight(best) < load(best) * hosts.weight(other) {
            best = other;
        }
    }
    hosts.hosts[best]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_host_is_avoided() {
        let hosts = Hosts {
            hosts: &[0, 1, 2, 3],
            cumulative: &[],
        };
        let active = [0, 0, 100, 0];
        let picks = (0..10_000u64)
            .filter(|n| pick(hosts, 2, &active, mix(*n)) == 2)
            .count();
        // Only when both choices fall on it: one in sixteen.
        assert!((400..900).contains(&picks), "{picks}");
    }

    #[test]
    fn weights_count() {
        let hosts = Hosts {
            hosts: &[0, 1],
            cumulative: &[1, 10],
        };
        let light = (0..10_000u64).filter(|n| hosts.sample(mix(*n)) == 0).count();
        assert!((800..1200).contains(&light), "{light}");
        // Nine times the weight may carry nine times the load.
        let even = (0..1000u64)
            .filter(|n| pick(hosts, 2, &[1, 9], mix(*n)) == 0)
            .count();
        assert!(even < 150, "{even}");
        let busy = (0..1000u64)
            .filter(|n| pick(hosts, 2, &[0, 90], mix(*n)) == 0)
            .count();
        assert!(busy > 150, "{busy}");
    }
}
