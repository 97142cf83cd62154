//! Keeps one worker's listening sockets in step with the configuration and accepts connections. A removed listener's
//! socket closes at once; its connections live on. An address that cannot be bound is tried again every second, and said
//! in the log each time the reason changes.

use std::{collections::HashMap, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};

use super::bind::bind;
use crate::{conn, worker::Worker};

/// Pause after an accept that failed for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// Between attempts to bind an address that is taken.
const RETRY: Duration = Duration::from_secs(1);

/// A listener's sockets (one, or those of a process before this one) and the tasks that accept from them.
struct Open {
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Follows the configuration until the runtime ends.
pub async fn follow(worker: Rc<Worker>) {
    let mut open: HashMap<Arc<str>, Open> = HashMap::new();
    let mut complaints: HashMap<Arc<str>, String> = HashMap::new();
    let mut changes = worker.store.changes();
    let mut handed = worker.sockets.handed();
    loop {
        let missing = reconcile(&worker, &mut open, &mut complaints);
        worker.store.report_bound(worker.number, missing);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if missing > 0 => {}
            // Another process accepts: what waits in the sockets is its.
            _ = handed.wait_for(|handed| *handed) => return,
        }
    }
}

/// Opens and closes sockets; returns how many could not be opened.
fn reconcile(
    worker: &Rc<Worker>,
    open: &mut HashMap<Arc<str>, Open>,
    complaints: &mut HashMap<Arc<str>, String>,
) -> usize {
    let snapshot = worker.store.snapshot();
    open.retain(|name, socket| {
        let keep = snapshot
            .listeners
            .get(name)
            .is_some_and(|l| l.bind && l.address == socket.address);
        if !keep {
            worker.sockets.forget(worker.number, name);
        }
        keep
    });
    let mut missing = 0;
    for (name, listener) in &snapshot.listeners {
        if !listener.bind || open.contains_key(name) {
            continue;
        }
        match sockets(worker, name, listener.address) {
            Ok(sockets) => {
                complaints.remove(name);
                let task = |socket| tokio::task::spawn_local(accept(worker.clone(), name.clone(), socket));
                let opened = Open {
                    address: listener.address,
                    tasks: sockets.into_iter().map(task).collect(),
                };
                open.insert(name.clone(), opened);
            }
            Err(error) => {
                missing += 1;
                let text = error.to_string();
                if complaints.get(name) != Some(&text) {
                    tracing::error!(listener = %name, address = %listener.address, %error, "cannot listen; trying again");
                    complaints.insert(name.clone(), text);
                }
            }
        }
    }
    missing
}

/// The sockets of an address: those of a process before this one, or a new one.
fn sockets(worker: &Worker, name: &Arc<str>, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    for inherited in worker.sockets.take(address, worker.number) {
        inherited.set_nonblocking(true)?;
        sockets.push(TcpListener::from_std(inherited)?);
    }
    if sockets.is_empty() {
        sockets.push(bind(address)?);
    }
    for socket in &sockets {
        worker.sockets.keep(worker.number, name, address, socket);
    }
    Ok(sockets)
}

async fn accept(worker: Rc<Worker>, name: Arc<str>, socket: TcpListener) {
    loop {
        match socket.accept().await {
            Ok((tcp, remote)) => {
                // The newest configuration of this listener serves the connection.
                let Some(listener) = worker.store.snapshot().listeners.get(&name).cloned() else {
                    return;
                };
                tokio::task::spawn_local(conn::serve(worker.clone(), listener, tcp, remote));
            }
            Err(error) => {
                tracing::warn!(listener = %name, %error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
