//! Waiting for files to change.
//!
//! A file that is being written is read when its writer closes it, or when nothing happened to it for a while: half a
//! file may be valid YAML and mean something else. The effect of a change is seen within milliseconds.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind},
};
use tokio::sync::mpsc;

use super::{Change, scan::Scan};

/// Everything is looked at again this often, for events that were lost.
const RESCAN: Duration = Duration::from_secs(5);
/// A written file whose writer does not close it is read after this time.
const OPEN_FILE: Duration = Duration::from_millis(50);
/// Events that come together are handled together.
const GATHER: Duration = Duration::from_millis(2);
/// Batches that wait for the reader; the thread waits when there are more.
const BATCHES: usize = 16;

/// Watches folders until the receiver is dropped. The first batch is everything that is there, and `Synced`.
pub fn watch(folders: Vec<PathBuf>) -> std::io::Result<mpsc::Receiver<Vec<Change>>> {
    let (out, batches) = mpsc::channel(BATCHES);
    thread::Builder::new()
        .name("watch-files".into())
        .spawn(move || run(folders, &out))?;
    Ok(batches)
}

fn run(folders: Vec<PathBuf>, out: &mpsc::Sender<Vec<Change>>) {
    let (events_in, events) = channel();
    // Watch first, scan then: what changes in between is seen twice rather than never.
    let mut watcher = match notify::recommended_watcher(events_in) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "cannot watch files; changes are seen only every {RESCAN:?}");
            None
        }
    };
    let mut unwatched: Vec<PathBuf> = folders.clone();
    watch_folders(&mut watcher, &mut unwatched);
    let mut scan = Scan::new(folders);
    let mut first = scan.everything();
    first.push(Change::Synced);
    if out.blocking_send(first).is_err() {
        return;
    }
    let mut next_scan = Instant::now() + RESCAN;
    while !out.is_closed() {
        let mut pending = Pending::default();
        pending.gather(&events, next_scan);
        watch_folders(&mut watcher, &mut unwatched);
        let changes = if pending.everything || Instant::now() >= next_scan {
            next_scan = Instant::now() + RESCAN;
            scan.everything()
        } else {
            scan.some(pending.paths.into_keys())
        };
        if !changes.is_empty() && out.blocking_send(changes).is_err() {
            return;
        }
    }
}

/// Folders that are not there yet are tried again.
fn watch_folders(watcher: &mut Option<notify::RecommendedWatcher>, unwatched: &mut Vec<PathBuf>) {
    if let Some(watcher) = watcher {
        unwatched.retain(|folder| watcher.watch(folder, RecursiveMode::Recursive).is_err());
    }
}

/// What happened since the last look.
#[derive(Default)]
struct Pending {
    /// Paths, and since when a file may still be open for writing (`None`: it is whole).
    paths: BTreeMap<PathBuf, Option<Instant>>,
    /// Something that only a full look can tell.
    everything: bool,
}

impl Pending {
    /// Waits for the first event (or until `deadline`), then for those that come with it, then for open files.
    fn gather(&mut self, events: &Receiver<notify::Result<Event>>, deadline: Instant) {
        let mut until = deadline;
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            match events.recv_timeout(wait) {
                Ok(event) => self.note(event),
                Err(RecvTimeoutError::Timeout) => {
                    if self.open_until().is_none_or(|open| open <= Instant::now()) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(wait);
                    return;
                }
            }
            if !self.paths.is_empty() || self.everything {
                let gathered = Instant::now() + GATHER;
                until = self.open_until().unwrap_or(gathered).min(deadline.max(gathered));
            }
        }
    }

    fn open_until(&self) -> Option<Instant> {
        self.paths
            .values()
            .flatten()
            .max()
            .map(|since| *since + OPEN_FILE)
    }

    fn note(&mut self, event: notify::Result<Event>) {
        let Ok(event) = event else {
            self.everything = true;
            return;
        };
        if event.need_rescan() {
            self.everything = true;
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => self.add(event.paths, None),
            EventKind::Access(_) => {}
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                self.add(event.paths, Some(Instant::now()));
            }
            EventKind::Remove(RemoveKind::File) | EventKind::Modify(ModifyKind::Metadata(_)) => {
                let known = |path: &PathBuf| !self.paths.contains_key(path);
                let paths = event.paths.into_iter().filter(known).collect();
                self.add(paths, None);
            }
            // A rename of a file, or of a folder: links of a mounted ConfigMap are changed so too.
            EventKind::Modify(ModifyKind::Name(_)) => {
                let plain = |path: &PathBuf| path.extension().is_some() && !path.is_dir();
                if event.paths.iter().all(plain) {
                    self.add(event.paths, None);
                } else {
                    self.everything = true;
                }
            }
            _ => self.everything = true,
        }
    }

    fn add(&mut self, paths: Vec<PathBuf>, open: Option<Instant>) {
        for path in paths {
            self.paths.insert(path, open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn pod(label: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: x, labels: {{l: v{label}}}}}\n")
    }

    async fn next(batches: &mut mpsc::Receiver<Vec<Change>>) -> Vec<Change> {
        tokio::time::timeout(Duration::from_secs(20), batches.recv())
            .await
            .expect("a batch")
            .expect("running")
    }

    fn label(changes: &[Change]) -> Option<String> {
        changes.iter().find_map(|change| match change {
            Change::Apply(manifest) => manifest.meta("labels", "l").map(str::to_owned),
            _ => None,
        })
    }

    #[tokio::test]
    async fn sees_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        fs::write(&file, pod("1")).expect("write");
        fs::write(folder.path().join("ignored.txt"), "x").expect("write");
        let mut batches = watch(vec![folder.path().to_owned()]).expect("a thread");
        let first = next(&mut batches).await;
        assert_eq!(
            (label(&first).as_deref(), first.last()),
            (Some("v1"), Some(&Change::Synced))
        );

        fs::write(&file, pod("2")).expect("write");
        assert_eq!(label(&next(&mut batches).await).as_deref(), Some("v2"));

        // As careful writers do: another file, moved into place.
        let fresh = folder.path().join(".a.tmp");
        fs::write(&fresh, pod("3")).expect("write");
        fs::rename(&fresh, &file).expect("rename");
        assert_eq!(label(&next(&mut batches).await).as_deref(), Some("v3"));

        let deep = folder.path().join("d/e");
        fs::create_dir_all(&deep).expect("folders");
        fs::write(deep.join("b.yaml"), pod("4").replace("name: x", "name: z")).expect("write");
        assert_eq!(label(&next(&mut batches).await).as_deref(), Some("v4"));

        fs::remove_file(&file).expect("remove");
        let gone = next(&mut batches).await;
        assert!(
            matches!(&gone[..], [Change::Delete { key, .. }] if key.name == "x"),
            "{gone:?}"
        );
    }
}
