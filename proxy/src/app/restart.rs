//! Hot restart: a new process takes the listening sockets of the running one, which then finishes its connections and ends.
//! The flags are Envoy's (`--restart-epoch`, `--base-id`, `--parent-shutdown-time-s`); who counts epochs up and starts the next
//! process is a supervisor of the user's.
//!
//! Each process listens on a unix socket in the abstract namespace (so nothing is left in the file system), named by base id and
//! epoch. The next one connects to it, is given the sockets (`SCM_RIGHTS`, unix(7)), the admin port, and when it accepts itself
//! says so. Nothing is asked of a process of another user.
//!
//! | The new one says | the old one |
//! | --- | --- |
//! | `sockets` | sends each listening socket with its address, then `end` |
//! | `admin` | closes its admin port |
//! | `drain` | stops accepting; its connections are told to go at their next answer; ends when all have gone |
//! | `end` | ends |
//!
//! If the new one goes away before it said `drain`, the old one goes on as if nothing had been.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{self as unix, UnixListener, UnixStream},
    },
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::sync::watch;

use crate::listen::sockets::Sockets;

/// Every message is so long, filled up with spaces.
const MESSAGE: usize = 64;
/// The other process answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Sockets that are taken: workers × listeners.
const MAX_SOCKETS: usize = 65_536;

/// What the next process wants of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Nothing,
    Admin,
    Drain,
    End,
}

fn name(base: u32, epoch: u32) -> io::Result<unix::SocketAddr> {
    unix::SocketAddr::from_abstract_name(format!("gossamer-hot-restart-{base}-{epoch}"))
}

fn say(stream: &UnixStream, text: &str, socket: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = format!("{text:<MESSAGE$}");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
    if !sockets.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    let slices = [IoSlice::new(bytes.as_bytes())];
    let sent = sendmsg(stream, &slices, &mut control, SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    stream.write_all(&bytes.as_bytes()[sent..])
}

/// The next message and the socket that came with it; `None`: the other side has gone.
fn hear(stream: &UnixStream) -> io::Result<Option<(String, Option<OwnedFd>)>> {
    let mut bytes = [0; MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let got = recvmsg(stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if got == 0 {
        return Ok(None);
    }
    let mut socket = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut sockets) = message {
            socket = sockets.next();
        }
    }
    let mut stream = stream;
    stream.read_exact(&mut bytes[got..])?;
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    Ok(Some((text, socket)))
}

/// The process before this one.
pub struct Parent(UnixStream);

impl Parent {
    /// Connects to the process of the epoch before `epoch`, and takes its sockets.
    pub fn meet(base: u32, epoch: u32) -> anyhow::Result<(Self, Vec<(SocketAddr, OwnedFd)>)> {
        let before = epoch.checked_sub(1).context("epoch 0 has no process before it")?;
        let stream = UnixStream::connect_addr(&name(base, before)?).with_context(|| {
            format!(
                "no process with --base-id {base} and --restart-epoch {before} to take over from in this network \
                 namespace: start it first, or this one with --restart-epoch 0"
            )
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let parent = Self(stream);
        let mut sockets = Vec::new();
        say(&parent.0, "sockets", None)?;
        loop {
            let message = hear(&parent.0).context("the process before this one does not answer")?;
            match message {
                Some((text, None)) if text == "end" => return Ok((parent, sockets)),
                Some((text, Some(socket))) => {
                    ensure!(
                        sockets.len() < MAX_SOCKETS,
                        "more than {MAX_SOCKETS} sockets were handed over"
                    );
                    let address = text.parse().with_context(|| format!("{text:?} is no address"))?;
                    sockets.push((address, socket));
                }
                other => bail!("the process before this one said {other:?} instead of its sockets"),
            }
        }
    }

    /// Asks for the admin port.
    pub fn close_admin(&self) -> io::Result<()> {
        say(&self.0, "admin", None)
    }

    /// This process accepts now.
    pub fn drain(&self) -> io::Result<()> {
        say(&self.0, "drain", None)
    }

    /// It has had its time.
    pub fn end(&self) -> io::Result<()> {
        say(&self.0, "end", None)
    }
}

/// Waits for the next process and does as it says. What it has said comes out of the receiver. `None`: another process has this
/// base id and epoch, so that nobody can take over from this one.
pub fn await_child(base: u32, epoch: u32, sockets: Arc<Sockets>) -> Option<watch::Receiver<Asked>> {
    let listener = match name(base, epoch).and_then(|name| UnixListener::bind_addr(&name)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::info!(base, epoch, %error, "no hot restart of this process: its --base-id and epoch are taken");
            return None;
        }
    };
    let (asked, receiver) = watch::channel(Asked::Nothing);
    let serve = move || {
        for stream in listener.incoming() {
            let served = stream.and_then(|stream| talk(&stream, &sockets, &asked));
            if let Err(error) = served {
                tracing::warn!(%error, "the process that was to take over has gone");
            }
            if *asked.borrow() < Asked::Drain {
                asked.send_replace(Asked::Nothing);
            }
        }
    };
    let started = std::thread::Builder::new()
        .name("hot-restart".to_owned())
        .spawn(serve);
    started.ok().map(|_| receiver)
}

fn talk(stream: &UnixStream, sockets: &Sockets, asked: &watch::Sender<Asked>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    if peer.uid != rustix::process::geteuid() {
        tracing::warn!(user = ?peer.uid, "a process of another user wants to take over");
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    while let Some((text, _)) = hear(stream)? {
        match text.as_str() {
            "sockets" => {
                for (address, socket) in sockets.handles() {
                    say(stream, &address.to_string(), Some(&socket))?;
                }
                say(stream, "end", None)?;
            }
            "admin" => {
                asked.send_replace(Asked::Admin);
            }
            "drain" => {
                tracing::info!("another process accepts in place of this one");
                sockets.hand_over();
                asked.send_replace(Asked::Drain);
            }
            "end" => {
                asked.send_replace(Asked::End);
            }
            other => tracing::warn!(said = other, "the next process said what this one does not know"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn sockets_change_hands_with_what_waits_in_them() {
        let base = std::process::id();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = Arc::new(Sockets::new(1, true, Vec::new()));
        sockets.keep(0, &"in".into(), address, &listener);
        let mut asked = await_child(base, 0, sockets.clone()).unwrap();
        assert!(
            await_child(base, 0, sockets).is_none(),
            "an epoch has one process"
        );
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"waits").unwrap();
        let meet = move || Parent::meet(base, 1);
        let (parent, mut taken) = tokio::task::spawn_blocking(meet).await.unwrap().unwrap();
        parent.close_admin().unwrap();
        asked.wait_for(|asked| *asked == Asked::Admin).await.unwrap();
        drop(listener);
        parent.drain().unwrap();
        asked.wait_for(|asked| *asked == Asked::Drain).await.unwrap();
        let (known, socket) = taken.pop().unwrap();
        assert!(taken.is_empty() && known == address);
        let (mut accepted, _) = TcpListener::from(socket).accept().unwrap();
        let mut bytes = [0; 5];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"waits");
        parent.end().unwrap();
        asked.wait_for(|asked| *asked == Asked::End).await.unwrap();
    }

    #[test]
    fn without_a_process_before_the_error_says_what_to_do() {
        let error = Parent::meet(std::process::id(), 7).err().unwrap().to_string();
        assert!(error.contains("--restart-epoch 6"), "{error}");
    }
}
