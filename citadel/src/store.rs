//! Where the authority keeps what must survive a restart. One file below for each kind of place.

pub mod file;
pub mod secret;

#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct StoreError {
    pub place: String,
    pub reason: String,
}

/// Small named secrets.
pub trait Store: Send + Sync {
    /// How to call an entry in messages.
    fn place(&self, name: &str) -> String;

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes an entry whole or not at all. If there is one already, it stays, and is what is returned.
    fn create(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, StoreError>;
}
