//! A folder of files that only their owner can read. An entry appears whole or not at all: it is written beside, synced,
//! and then linked to its name, which fails if somebody else was first.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{Store, StoreError};

/// Entries as files of one folder.
#[derive(Debug)]
pub struct Files(PathBuf);

impl Files {
    /// Makes the folder if it is missing.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let files = Self(dir.to_owned());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| wrong(dir, &error))?;
        Ok(files)
    }
}

fn wrong(path: &Path, error: &io::Error) -> StoreError {
    StoreError {
        place: path.display().to_string(),
        reason: error.to_string(),
    }
}

/// Writes a file whole: readers see the old content or the new. `mode` is that of the file.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = beside(path);
    write_new(&beside, content, mode)?;
    fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // A leftover of a process with our number that died here.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

impl Store for Files {
    fn place(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.0.join(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrong(&path, &error)),
        }
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (path, beside) = (self.0.join(name), beside(&self.0.join(name)));
        let failed = |error: io::Error| wrong(&path, &error);
        write_new(&beside, content, 0o600).map_err(failed)?;
        let linked = fs::hard_link(&beside, &path);
        fs::remove_file(&beside).map_err(failed)?;
        match linked {
            Ok(()) => Ok(content.to_vec()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read(&path).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wins_and_only_the_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let store = Files::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(store.read("key").unwrap(), None);
        assert_eq!(store.create("key", b"one").unwrap(), b"one");
        assert_eq!(store.create("key", b"two").unwrap(), b"one");
        assert_eq!(store.read("key").unwrap().unwrap(), b"one");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("a/b/key")), 0o600);
        assert_eq!(mode(&dir.path().join("a/b")), 0o700);
        assert_eq!(
            fs::read_dir(dir.path().join("a/b")).unwrap().count(),
            1,
            "nothing is left beside"
        );
    }

    #[test]
    fn replaces_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root-cert.pem");
        replace(&path, b"one", 0o644).unwrap();
        replace(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("no/such/dir"), b"", 0o644).is_err());
    }

    #[test]
    fn says_which_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = Files::open(&dir.path().join("file")).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
}
