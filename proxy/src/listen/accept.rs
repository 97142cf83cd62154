//! Keeps one worker's listening sockets in step with the configuration and accepts connections. A removed listener's
//! socket closes at once; its connections live on. An address that cannot be bound is tried again every second, and said
//! in the log each time the reason changes.

use std::{collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};

use super::bind::bind;
use crate::{conn, worker::Worker};

/// Pause after an accept that failed for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// Between attempts to bind an address that is taken.
const RETRY: Duration = Duration::from_secs(1);

/// A socket and the task that accepts from it.
struct Open {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Follows the configuration until the runtime ends.
pub async fn follow(worker: Rc<Worker>) {
    let mut open: HashMap<Arc<str>, Open> = HashMap::new();
    let mut complaints: HashMap<Arc<str>, String> = HashMap::new();
    let mut changes = worker.store.changes();
    loop {
        let missing = reconcile(&worker, &mut open, &mut complaints);
        worker.store.report_bound(worker.number, missing);
        if missing == 0 {
            if changes.changed().await.is_err() {
                return;
            }
        } else {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY) => {}
            }
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
            socket.task.abort();
        }
        keep
    });
    let mut missing = 0;
    for (name, listener) in &snapshot.listeners {
        if !listener.bind || open.contains_key(name) {
            continue;
        }
        match bind(listener.address) {
            Ok(socket) => {
                complaints.remove(name);
                let task = tokio::task::spawn_local(accept(worker.clone(), name.clone(), socket));
                open.insert(
                    name.clone(),
                    Open {
                        address: listener.address,
                        task,
                    },
                );
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
