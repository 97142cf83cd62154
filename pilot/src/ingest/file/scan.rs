//! Looking through folders: which files are there, which of them changed, and reading those.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Change, FILE_LIMIT, Files};

/// Folders below the given ones, at most.
const DEPTH_LIMIT: usize = 16;
/// Files in all folders; more are left out with a finding.
const COUNT_LIMIT: usize = 200_000;

/// What told us last that a file is as we know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// Folders, the stamps of their files, and what the files say.
#[derive(Debug)]
pub struct Scan {
    folders: Vec<PathBuf>,
    stamps: BTreeMap<PathBuf, Stamp>,
    files: Files,
}

impl Scan {
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            folders,
            stamps: BTreeMap::new(),
            files: Files::default(),
        }
    }

    /// Looks at every file; reads those that changed.
    pub fn everything(&mut self) -> Vec<Change> {
        let mut found = BTreeMap::new();
        let mut changes = Vec::new();
        for folder in self.folders.clone() {
            if folder.is_file() {
                if let Ok(metadata) = fs::metadata(&folder) {
                    found.insert(folder, stamp(&metadata));
                }
            } else if let Err(error) = walk(&folder, 0, &mut found) {
                let name = folder.display().to_string();
                changes.append(
                    &mut self
                        .files
                        .unreadable(&name, format!("cannot list the folder: {error}")),
                );
            }
        }
        let gone: Vec<PathBuf> = self
            .stamps
            .keys()
            .filter(|path| !found.contains_key(*path))
            .cloned()
            .collect();
        // What moved to another file must not vanish in between: new files first.
        for (path, stamp) in found {
            if self.stamps.get(&path) != Some(&stamp) {
                changes.append(&mut self.read(&path));
            }
        }
        for path in gone {
            changes.append(&mut self.read(&path));
        }
        changes
    }

    /// Looks at these paths only.
    pub fn some(&mut self, paths: impl IntoIterator<Item = PathBuf>) -> Vec<Change> {
        let (gone, there): (Vec<PathBuf>, Vec<PathBuf>) = paths
            .into_iter()
            .filter(|path| is_wanted(path))
            .partition(|path| !path.exists());
        there
            .iter()
            .chain(&gone)
            .flat_map(|path| self.read(path))
            .collect()
    }

    fn read(&mut self, path: &Path) -> Vec<Change> {
        let name = path.display().to_string();
        // The stamp is taken before reading: a write in between is seen at the next look.
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.stamps.remove(path);
                return self.files.update(&name, None);
            }
            Err(error) => return self.files.unreadable(&name, format!("cannot be read: {error}")),
        };
        if !metadata.is_file() {
            return Vec::new();
        }
        self.stamps.insert(path.to_owned(), stamp(&metadata));
        if metadata.len() > FILE_LIMIT {
            let problem = format!("{} bytes; a file may have {FILE_LIMIT}: split it", metadata.len());
            return self.files.unreadable(&name, problem);
        }
        match fs::read_to_string(path) {
            Ok(text) => self.files.update(&name, Some(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.stamps.remove(path);
                self.files.update(&name, None)
            }
            Err(error) => self.files.unreadable(&name, format!("cannot be read: {error}")),
        }
    }
}

/// Everything in these files and folders, once, without watching.
pub fn read_all(paths: Vec<PathBuf>) -> Vec<Change> {
    let mut changes = Scan::new(paths).everything();
    changes.push(Change::Synced);
    changes
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: metadata.ino(),
    }
}

/// YAML and JSON, nothing hidden.
fn is_wanted(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    !hidden && matches!(extension, "yaml" | "yml" | "json")
}

/// Follows links to files (as in a mounted ConfigMap), does not enter hidden folders.
fn walk(folder: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Stamp>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with('.'));
        // A file may vanish between listing and looking.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && !hidden && depth < DEPTH_LIMIT {
            match walk(&path, depth + 1, found) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        } else if metadata.is_file() && is_wanted(&path) {
            if found.len() >= COUNT_LIMIT {
                return Err(io::Error::other(format!("more than {COUNT_LIMIT} files")));
            }
            found.insert(path, stamp(&metadata));
        }
    }
    Ok(())
}
