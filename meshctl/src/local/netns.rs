//! Network namespaces: making, entering, listing and removing them, with iproute2's `ip` (its named namespaces under
//! `/run/netns` are what every administrator knows how to look at). A socket belongs to the namespace in which it was
//! made, so the supervisor's own sockets inside pods are made by a short-lived thread that has entered the namespace;
//! no other thread ever leaves the host's.
//!
//! Shape: the node namespace has a bridge with the node's address. A pod has one veth into it, a /32 address and the
//! node as its only neighbour, so that every packet between pods is routed by the node: translated connections find
//! their way back, and a capture on the bridge sees everything.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use tokio::{io::AsyncWriteExt, net::TcpStream, process::Command};

use super::platform::{BRIDGE, Layout, NODE_ADDRESS, NODE_ADDRESS_V6, SERVICE_RANGE};

const FOLDER: &str = "/run/netns";
/// Fixed (and locally administered): a bridge without an address of its own takes one of its ports', which changes as pods
/// come and go, and pods would talk to an address that is no longer there.
const BRIDGE_MAC: &str = "02:00:0a:f4:00:01";
/// No `ip` or `nft` of ours takes longer, unless something is broken.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// What went wrong with a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("{command} failed: {text}")]
    Command { command: String, text: String },
    #[error("network namespace {name}: {source}")]
    Enter { name: String, source: io::Error },
}

pub fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The names of all network namespaces of this platform.
pub fn list(layout: &Layout) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(FOLDER) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.retain(|name| layout.owns_namespace(name));
    names.sort();
    names
}

/// Runs `work` in the namespace, on a thread of its own that ends with it.
pub async fn within<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, NetnsError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let path = path(name);
    let run = move || {
        let result = File::open(path)
            .and_then(|file| setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from))
            .and_then(|()| work());
        // Nobody waits any more: the result has no use either.
        let _ = sender.send(result);
    };
    let error = |source| NetnsError::Enter {
        name: name.to_owned(),
        source,
    };
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(run)
        .map_err(error)?;
    receiver
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread inside it ended early")))
        .map_err(error)
}

/// A TCP connection made from inside the namespace.
pub async fn connect(name: &str, address: SocketAddr) -> Result<TcpStream, NetnsError> {
    let socket = within(name, move || match address {
        SocketAddr::V4(_) => tokio_free_socket(nix::sys::socket::AddressFamily::Inet),
        SocketAddr::V6(_) => tokio_free_socket(nix::sys::socket::AddressFamily::Inet6),
    })
    .await?;
    let error = |source| NetnsError::Enter {
        name: name.to_owned(),
        source,
    };
    let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
    let stream = socket.connect(address).await.map_err(error)?;
    stream.set_nodelay(true).map_err(error)?;
    Ok(stream)
}

/// An unconnected, non-blocking TCP socket of the calling thread's namespace.
fn tokio_free_socket(family: nix::sys::socket::AddressFamily) -> io::Result<std::os::fd::OwnedFd> {
    use nix::sys::socket::{SockFlag, SockType, socket};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, None)?)
}

/// Listening and datagram sockets inside the namespace, for the node's own services.
pub async fn listen(name: &str, address: SocketAddr) -> Result<std::net::TcpListener, NetnsError> {
    within(name, move || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
    .await
}

pub async fn datagram(name: &str, address: SocketAddr) -> Result<std::net::UdpSocket, NetnsError> {
    within(name, move || {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
    .await
}

/// The node: bridge, addresses, forwarding.
pub async fn create_node(layout: &Layout) -> Result<(), NetnsError> {
    let node = layout.node_namespace();
    run("ip", &["netns", "add", &node], "").await?;
    let script = format!(
        "link set lo up\n\
         link add {BRIDGE} address {BRIDGE_MAC} type bridge\n\
         link set {BRIDGE} up\n\
         addr add {NODE_ADDRESS}/16 dev {BRIDGE}\n\
         addr add {NODE_ADDRESS_V6}/64 dev {BRIDGE} nodad\n\
         route add unreachable {SERVICE_RANGE}\n"
    );
    batch(&node, &script).await?;
    within(&node, || {
        set("ipv4/ip_forward", "1")?;
        set("ipv6/conf/all/forwarding", "1")?;
        // Every packet goes in and out by the same bridge on purpose: no redirects.
        set("ipv4/conf/all/send_redirects", "0")?;
        set(&format!("ipv4/conf/{BRIDGE}/send_redirects"), "0")?;
        // Present only where the bridge filter module is loaded: packets are seen once, as routed.
        let _ = set("bridge/bridge-nf-call-iptables", "0");
        let _ = set("bridge/bridge-nf-call-ip6tables", "0");
        Ok(())
    })
    .await
}

/// The IPv6 address that goes with a pod's IPv4 address.
pub fn address_v6(address: Ipv4Addr) -> std::net::Ipv6Addr {
    let [.., high, low] = address.octets();
    std::net::Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from_be_bytes([high, low]))
}

/// A pod's namespace with its address, reachable from the node.
pub async fn create_pod(layout: &Layout, name: &str, address: Ipv4Addr) -> Result<(), NetnsError> {
    run("ip", &["netns", "add", name], "").await?;
    let host_end = format!("pod-{:02x}{:02x}", address.octets()[2], address.octets()[3]);
    let node_script = format!(
        "link add {host_end} type veth peer name eth0 netns {name}\n\
         link set {host_end} master {BRIDGE} up\n"
    );
    batch(&layout.node_namespace(), &node_script).await?;
    let address_v6 = address_v6(address);
    let pod_script = format!(
        "link set lo up\n\
         link set eth0 up\n\
         addr add {address}/32 dev eth0\n\
         route add {NODE_ADDRESS} dev eth0 scope link\n\
         route add default via {NODE_ADDRESS} dev eth0\n\
         addr add {address_v6}/128 dev eth0 nodad\n\
         route add {NODE_ADDRESS_V6} dev eth0\n\
         route add default via {NODE_ADDRESS_V6} dev eth0\n"
    );
    batch(name, &pod_script).await?;
    // As container engines do: a workload may open the low ports of its own namespace.
    within(name, || set("ipv4/ip_unprivileged_port_start", "0")).await
}

/// Removes a namespace; the kernel takes its links with it. The processes in it must be gone already.
pub async fn remove(name: &str) -> Result<(), NetnsError> {
    if !path(name).exists() {
        return Ok(());
    }
    run("ip", &["netns", "delete", name], "").await
}

/// The processes whose network namespace is this one.
pub fn members(name: &str) -> Vec<i32> {
    let Ok(own) = std::fs::metadata(path(name)) else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let theirs = std::fs::metadata(entry.path().join("ns/net")).ok()?;
            ((theirs.dev(), theirs.ino()) == (own.dev(), own.ino())).then_some(pid)
        })
        .collect()
}

/// `ip -batch` inside a namespace: one process for many commands, stopping at the first that fails.
async fn batch(name: &str, script: &str) -> Result<(), NetnsError> {
    run("ip", &["-netns", name, "-batch", "-"], script).await
}

/// Runs a program of the host with `input` as its standard input.
pub async fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), NetnsError> {
    let error = |text: String| NetnsError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        text,
    };
    let work = async {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|io| error(io.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ended before reading everything says why on its standard error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child
            .wait_with_output()
            .await
            .map_err(|io| error(io.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(error(format!(
            "{} ({})",
            String::from_utf8_lossy(&output.stderr).trim(),
            output.status
        )))
    };
    match tokio::time::timeout(COMMAND_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(error(format!("no end after {} s", COMMAND_TIMEOUT.as_secs()))),
    }
}

/// Writes a network setting of the calling thread's namespace.
fn set(name: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    std::fs::write(&path, value).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_each_family_per_pod() {
        assert_eq!(
            address_v6(Ipv4Addr::new(10, 244, 1, 2)).to_string(),
            "fd00:10:244::102"
        );
    }

    #[tokio::test]
    async fn a_failing_command_says_what_failed() {
        let error = run("ip", &["netns", "delete", "gx-not-there"], "")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("ip netns delete gx-not-there failed: "),
            "{error}"
        );
    }
}
