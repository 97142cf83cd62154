//! What this binary is.

use serde::Serialize;

/// The version of the whole project; all crates share it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a `/version` page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    pub version: &'static str,
    /// `debug` or `release`.
    pub profile: &'static str,
    pub os: &'static str,
    pub arch: &'static str,
}

pub fn info() -> Info {
    Info {
        version: VERSION,
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    }
}
