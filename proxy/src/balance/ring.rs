//! A hash ring (ketama): each host stands at many points of a circle, a key belongs to the next point. When a host
//! goes, only its keys move. Points and keys are hashed as Envoy does, so both proxies agree about a key's host.

use crate::config::hash::xx64;

#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Sorted by hash.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// From hosts (index, key, weight). `min` points at least, `max` at most.
    pub fn build(hosts: &[(u32, String, u32)], min: u64, max: u64) -> Self {
        let total: f64 = hosts.iter().map(|(_, _, weight)| f64::from(*weight)).sum();
        let Some(least) = hosts
            .iter()
            .map(|(_, _, weight)| f64::from(*weight) / total)
            .min_by(f64::total_cmp)
        else {
            return Self::default();
        };
        // So many that the lightest host gets a whole number of points.
        let scale = ((least * min as f64).ceil() / least).min(max as f64);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0, 0.0);
        for (index, key, weight) in hosts {
            target += scale * f64::from(*weight) / total;
            let mut n = 0;
            while current < target && points.len() < max as usize {
                points.push((xx64(format!("{key}_{n}").as_bytes()), *index));
                n += 1;
                current += 1.0;
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The host of a key: the first on the ring, from the key on, that is usable.
    pub fn pick(&self, hash: u64, usable: impl Fn(u32) -> bool) -> Option<u32> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.points.split_at(start);
        after
            .iter()
            .chain(before)
            .map(|(_, host)| *host)
            .find(|host| usable(*host))
    }

    pub fn len(&self) -> usize {
        self.points.len()
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}
