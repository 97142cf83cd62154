//! Readiness as named gates: a process is ready when all its gates are open, and says which are not.
//! A gate starts closed, and may close again.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// All gates of one process.
#[derive(Clone, Debug, Default)]
pub struct Gates(Arc<Mutex<Vec<Gate>>>);

/// One reason why a process may not be ready yet.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    open: Arc<AtomicBool>,
}

impl Gates {
    pub fn new() -> Self {
        Self::default()
    }

    /// The gate of this name, created closed when it is new.
    pub fn gate(&self, name: &'static str) -> Gate {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.iter().find(|gate| gate.name == name) {
            return gate.clone();
        }
        let gate = Gate {
            name,
            open: Arc::new(AtomicBool::new(false)),
        };
        gates.push(gate.clone());
        gate
    }

    /// Names of the closed gates, in the order in which they were made.
    pub fn waiting(&self) -> Vec<&'static str> {
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates
            .iter()
            .filter(|gate| !gate.is_open())
            .map(|gate| gate.name)
            .collect()
    }

    pub fn ready(&self) -> bool {
        self.waiting().is_empty()
    }
}

impl Gate {
    pub fn open(&self) {
        if !self.open.swap(true, Ordering::AcqRel) {
            tracing::debug!(gate = self.name, "gate opened");
        }
    }

    pub fn close(&self) {
        if self.open.swap(false, Ordering::AcqRel) {
            tracing::debug!(gate = self.name, "gate closed");
        }
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_all_and_says_for_which() {
        let gates = Gates::new();
        let (config, listeners) = (gates.gate("config"), gates.gate("listeners"));
        assert_eq!(gates.waiting(), ["config", "listeners"]);
        listeners.open();
        assert_eq!(gates.waiting(), ["config"]);
        gates.gate("config").open();
        assert!(gates.ready());
        config.close();
        assert!(!gates.ready());
    }
}
