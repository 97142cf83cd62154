//! Addresses for ServiceEntries that have none, so that a proxy that answers DNS can tell their TCP traffic apart.
//!
//! From 240.240.0.0/16 (a range that nobody routes, and the one Istio takes). The address depends on the service's name
//! only, unless two names meet; it is kept while the service is there.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
};

use super::wants_auto_address;
use crate::model::{Service, ServiceKey};

/// Addresses there are: all of the range but the first and the last.
const COUNT: u64 = (1 << 16) - 2;

#[derive(Clone, Debug, Default)]
pub struct AutoAddresses {
    given: HashMap<ServiceKey, IpAddr>,
    taken: HashSet<IpAddr>,
}

impl AutoAddresses {
    /// The service's address; `None` if it needs none, or all are taken.
    pub fn address(&mut self, service: &Service) -> Option<IpAddr> {
        let key = service.key();
        if !wants_auto_address(service) {
            self.release(&key);
            return None;
        }
        if let Some(address) = self.given.get(&key) {
            return Some(*address);
        }
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let start = hasher.finish();
        let address = (0..COUNT)
            .map(|step| nth(start.wrapping_add(step) % COUNT))
            .find(|ip| !self.taken.contains(ip))?;
        self.taken.insert(address);
        self.given.insert(key, address);
        Some(address)
    }

    pub fn release(&mut self, key: &ServiceKey) {
        if let Some(address) = self.given.remove(key) {
            self.taken.remove(&address);
        }
    }
}

/// 240.240.0.1 and on.
fn nth(number: u64) -> IpAddr {
    let [.., high, low] = (number + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(240, 240, high, low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range() {
        assert_eq!(nth(0).to_string(), "240.240.0.1");
        assert_eq!(nth(COUNT - 1).to_string(), "240.240.255.254");
    }
}
