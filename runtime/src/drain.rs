//! One signal that tells every task of a process to finish its work. Whoever holds the [`Trigger`] fires it once; any
//! number of [`Drain`]s see it, those that ask later too.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Fires the signal.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Waits for the signal.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

pub fn channel() -> (Trigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Drain(receiver))
}

impl Trigger {
    /// Starts the drain. A second call changes nothing.
    pub fn drain(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Resolves once the drain has started. If every trigger is dropped unfired, it never does.
    pub async fn drained(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|draining| *draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub fn is_draining(&self) -> bool {
        *self.0.borrow()
    }
}

/// Waits for SIGTERM or SIGINT and returns its name.
pub async fn shutdown_signal() -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn early_and_late_waiters_see_it() {
        let (trigger, drain) = channel();
        let early = tokio::spawn({
            let drain = drain.clone();
            async move { drain.drained().await }
        });
        tokio::task::yield_now().await;
        assert!(!drain.is_draining());
        trigger.drain();
        early.await.unwrap();
        drop(trigger);
        drain.drained().await;
        assert!(drain.is_draining());
    }
}
