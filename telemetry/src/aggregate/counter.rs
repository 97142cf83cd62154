//! Counts of requests by outcome.

use std::collections::BTreeMap;

use super::Merge;

/// Different status codes counted apart; more fall under 0.
pub const MAX_CODES: usize = 32;

/// Counts of one edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    pub errors: u64,
    pub mtls: u64,
    pub sent: u64,
    pub received: u64,
    /// By status: of HTTP, or of gRPC. 0 for none, and for what is beyond [`MAX_CODES`].
    pub codes: BTreeMap<u16, u64>,
}

impl Counts {
    pub fn code(&mut self, code: u16, by: u64) {
        let room = self.codes.len() < MAX_CODES || self.codes.contains_key(&code);
        *self.codes.entry(if room { code } else { 0 }).or_default() += by;
    }

    pub fn error_ratio(&self) -> f64 {
        if self.requests == 0 {
            0.0
        } else {
            self.errors as f64 / self.requests as f64
        }
    }
}

impl Merge for Counts {
    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.mtls += other.mtls;
        self.sent += other.sent;
        self.received += other.received;
        for (code, count) in &other.codes {
            self.code(*code, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_bounded_and_nothing_is_lost() {
        let mut counts = Counts::default();
        for code in 100..600 {
            counts.code(code, 1);
        }
        assert!(counts.codes.len() <= MAX_CODES + 1);
        assert_eq!(counts.codes.values().sum::<u64>(), 500);
        let mut sum = counts.clone();
        sum.merge(&counts);
        assert_eq!(sum.codes.values().sum::<u64>(), 1000);
    }

    #[test]
    fn ratios() {
        assert_eq!(Counts::default().error_ratio(), 0.0);
        assert_eq!(
            Counts {
                requests: 4,
                errors: 1,
                ..Counts::default()
            }
            .error_ratio(),
            0.25
        );
    }
}
