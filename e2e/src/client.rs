//! The clients for what `app::serve` serves: each takes settings, makes its requests, and returns a report.

pub mod ask;
pub mod grpc;
pub mod idle;
pub mod load;
pub mod tcp;
pub mod websocket;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many open files as this process may have: thousands of connections are normal here.
pub fn raise_file_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
