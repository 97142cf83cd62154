//! Asks the peer now and then whether it is still there (RFC 9113 §6.7).

use std::time::Duration;

use h2::{Ping, PingPong};

/// Returns when the peer has not answered a ping within its time.
pub async fn lost(pings: Option<PingPong>, interval: Duration, patience: Duration) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(interval).await;
        match tokio::time::timeout(patience, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection itself says what is wrong with it.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
