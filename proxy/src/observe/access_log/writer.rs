//! Lines to files. Lines gather in memory and go, once per pass, to a thread of their own, since a pipe whose reader
//! sleeps must stop neither the workers nor the control thread. That thread's queue holds [`QUEUE`] batches; when it is
//! full the lines are dropped and counted. A file that was moved away (log rotation) is opened anew.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::observe::stats::Stats;

/// Batches that may wait for a slow file.
const QUEUE: usize = 64;
/// The least time between two complaints about one file.
const COMPLAINT: Duration = Duration::from_secs(30);

/// Where a line goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// Why lines were lost.
#[derive(Debug, thiserror::Error)]
#[error("access log {target}: {source}; its lines are lost until this is repaired")]
pub struct WriteError {
    target: String,
    source: io::Error,
}

/// Lines of one pass.
struct Batch {
    target: Target,
    lines: u64,
    bytes: Vec<u8>,
}

/// The control thread's end.
pub struct Writer {
    pending: BTreeMap<Target, (u64, Vec<u8>)>,
    queue: SyncSender<Batch>,
    /// The thread says goodbye here.
    gone: oneshot::Receiver<()>,
    stats: Stats,
}

impl Writer {
    /// Starts the thread that writes; it ends with the writer.
    pub fn new(stats: Stats) -> Self {
        let (queue, batches) = sync_channel(QUEUE);
        let counted = stats.clone();
        let (goodbye, gone) = oneshot::channel();
        let spawned = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                write_all(&batches, &counted);
                // Nobody may be listening.
                let _ = goodbye.send(());
            });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for the access log: its lines are lost");
        }
        Self {
            pending: BTreeMap::new(),
            queue,
            gone,
            stats,
        }
    }

    pub fn stdout(&mut self, line: impl FnOnce(&mut Vec<u8>)) {
        self.add(Target::Stdout, line);
    }

    pub fn stderr(&mut self, line: impl FnOnce(&mut Vec<u8>)) {
        self.add(Target::Stderr, line);
    }

    pub fn file(&mut self, path: &Path, line: impl FnOnce(&mut Vec<u8>)) {
        // The descriptor itself works where its name cannot be opened (a socket) or would not append.
        let target = match path.to_str() {
            Some("/dev/stdout" | "/proc/self/fd/1") => Target::Stdout,
            Some("/dev/stderr" | "/proc/self/fd/2") => Target::Stderr,
            _ => Target::File(path.to_owned()),
        };
        self.add(target, line);
    }

    fn add(&mut self, target: Target, line: impl FnOnce(&mut Vec<u8>)) {
        let (lines, bytes) = self.pending.entry(target).or_default();
        *lines += 1;
        line(bytes);
    }

    /// Hands what gathered to the writing thread. Never waits.
    pub fn flush(&mut self) {
        for (target, (lines, bytes)) in std::mem::take(&mut self.pending) {
            if self.queue.try_send(Batch { target, lines, bytes }).is_err() {
                self.stats.control().access_log_dropped.add_shared(lines);
            }
        }
    }
}

impl Writer {
    /// Waits until everything handed over is written.
    pub async fn finish(mut self) {
        self.flush();
        let Self { queue, gone, .. } = self;
        drop(queue);
        let _ = gone.await;
    }
}

fn write_all(batches: &Receiver<Batch>, stats: &Stats) {
    let mut files: BTreeMap<PathBuf, File> = BTreeMap::new();
    let mut complained: BTreeMap<Target, Instant> = BTreeMap::new();
    for Batch { target, lines, bytes } in batches {
        let result = match &target {
            Target::Stdout => io::stdout()
                .lock()
                .write_all(&bytes)
                .and_then(|()| io::stdout().flush()),
            Target::Stderr => io::stderr().lock().write_all(&bytes),
            Target::File(path) => append(&mut files, path, &bytes),
        };
        let control = stats.control();
        match result {
            Ok(()) => control.access_log_written.add_shared(lines),
            Err(source) => {
                control.access_log_failed.add_shared(lines);
                if complained
                    .get(&target)
                    .is_none_or(|last| last.elapsed() >= COMPLAINT)
                {
                    let error = WriteError {
                        target: name(&target),
                        source,
                    };
                    tracing::warn!(%error, lines, "access log lines lost");
                    complained.insert(target, Instant::now());
                }
            }
        }
    }
}

fn name(target: &Target) -> String {
    match target {
        Target::Stdout => "standard output".into(),
        Target::Stderr => "standard error".into(),
        Target::File(path) => path.display().to_string(),
    }
}

fn append(files: &mut BTreeMap<PathBuf, File>, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(file) = files.get(path)
        && moved(file, path)
    {
        files.remove(path);
    }
    if !files.contains_key(path) {
        files.insert(
            path.to_owned(),
            OpenOptions::new().append(true).create(true).open(path)?,
        );
    }
    let written = files.get_mut(path).map_or(Ok(()), |file| file.write_all(bytes));
    if written.is_err() {
        files.remove(path);
    }
    written
}

/// The name leads to another file now, or to none.
fn moved(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) != (named.dev(), named.ino()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(stats: &Stats, lines: u64) {
        let end = Instant::now() + Duration::from_secs(10);
        let done = || stats.control().access_log_written.get() + stats.control().access_log_failed.get();
        while done() < lines {
            assert!(Instant::now() < end, "{} of {lines} lines written", done());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn appends_and_follows_rotation() {
        let folder = std::env::temp_dir().join(format!("gossamer-access-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, old) = (folder.join("log"), folder.join("log.1"));
        let stats = Stats::new();
        let mut writer = Writer::new(stats.clone());
        writer.file(&path, |out| out.extend(b"one\n"));
        writer.file(&path, |out| out.extend(b"two\n"));
        writer.file(&folder.join("missing/log"), |out| out.extend(b"lost\n"));
        writer.flush();
        until(&stats, 3);
        std::fs::rename(&path, &old).unwrap();
        writer.file(&path, |out| out.extend(b"three\n"));
        writer.flush();
        until(&stats, 4);
        assert_eq!(std::fs::read_to_string(old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
        assert_eq!(stats.control().access_log_failed.get(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
