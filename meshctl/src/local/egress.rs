//! The way out: TCP connections of pods to addresses outside the cluster. The node namespace has no link to the host's
//! network, and must not get one; so a netfilter rule in it leads such connections to this listener, which continues each
//! from the host, as any program of the host would. What the host cannot reach, pods cannot reach. Nothing comes in.
//!
//! Bounds: 4,096 connections, 10 s to connect. TCP over IPv4 only; names are asked of the cluster's DNS.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::platform::{NODE_ADDRESS, POD_RANGE, SERVICE_RANGE};

/// Where the listener is on the node's address.
pub const PORT: u16 = 15999;
const MAX_CONNECTIONS: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The rule: what is neither the cluster's nor special goes to the listener.
pub fn rules(bridge: &str) -> String {
    format!(
        "table ip gossamer-egress {{}}\ndelete table ip gossamer-egress\ntable ip gossamer-egress {{\n  \
         chain out {{\n    type nat hook prerouting priority -90;\n    iifname \"{bridge}\" meta l4proto tcp \
         ip daddr != {{ {POD_RANGE}, {SERVICE_RANGE}, 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3 }} \
         redirect to :{PORT}\n  }}\n}}\n"
    )
}

pub fn address() -> SocketAddr {
    SocketAddr::from((NODE_ADDRESS, PORT))
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move {
            if let Err(error) = forward(stream).await {
                tracing::debug!(%error, "egress");
            }
            drop(permit);
        });
    }
}

async fn forward(mut pod: TcpStream) -> anyhow::Result<()> {
    let wanted = getsockopt(&pod, OriginalDst)?;
    let address = Ipv4Addr::from_bits(u32::from_be(wanted.sin_addr.s_addr));
    let target = SocketAddr::from((address, u16::from_be(wanted.sin_port)));
    // Someone who asked for the listener itself would be led in a circle.
    if address == NODE_ADDRESS {
        return Ok(());
    }
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await;
    let mut outside = match connected {
        Ok(Ok(stream)) => stream,
        failed => {
            // The pod's connection was accepted already; a reset is the nearest to a refusal that is left.
            pod.set_zero_linger()?;
            anyhow::bail!("{target} cannot be reached from the host: {failed:?}");
        }
    };
    pod.set_nodelay(true)?;
    outside.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut pod, &mut outside).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_itself_is_never_led_out() {
        let text = rules("gossamer0");
        for expect in [
            "10.244.0.0/16",
            "10.96.0.0/16",
            "127.0.0.0/8",
            "redirect to :15999",
        ] {
            assert!(text.contains(expect), "{text}");
        }
    }
}
