//! Keeps the trusted roots in a file, for everybody who must trust citadel before having a certificate. The file is
//! written whole, when it is missing, changed by others, or when the roots changed.

use std::{path::PathBuf, sync::Arc, time::Duration, time::SystemTime};

use mesh_runtime::{drain::Drain, ready::Gate};

use crate::{authority::Authority, bundle, store::file};

/// How often the file is looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// Runs until the drain; the gate opens with the first success.
pub async fn run(path: PathBuf, authority: Arc<Authority>, published: Gate, drain: Drain) {
    let (mut failing, mut changes) = (false, authority.changes());
    loop {
        let wanted = bundle::to_pem(&authority.roots(SystemTime::now()));
        let result = match tokio::fs::read(&path).await {
            Ok(content) if content == wanted.as_bytes() => Ok(false),
            _ => file::replace(&path, wanted.as_bytes(), 0o644).map(|()| true),
        };
        match result {
            Ok(written) => {
                if written {
                    tracing::info!(?path, "trusted roots published");
                }
                failing = false;
                published.open();
            }
            Err(error) if failing => tracing::debug!(?path, %error, "trusted roots still not published"),
            Err(error) => {
                tracing::error!(?path, %error, "trusted roots cannot be published; new workloads cannot start");
                failing = true;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            Ok(()) = changes.changed() => {}
            () = drain.drained() => return,
        }
    }
}
