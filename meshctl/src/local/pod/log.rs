//! What a container writes: its standard output and error go through one pipe into `<container>.log`, lines as written.
//! A full file becomes `<container>.log.1`, and a new one is begun. Bound: two files of 8 MiB for each container.

use std::{
    fs::{File, OpenOptions},
    io::{self, PipeWriter, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown};
use tokio::{io::AsyncReadExt, net::unix::pipe};

const MAX_FILE: u64 = 8 << 20;

pub fn path(folder: &Path, container: &str) -> PathBuf {
    folder.join(format!("{container}.log"))
}

pub fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Writer {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size >= MAX_FILE {
            std::fs::rename(&self.path, rotated(&self.path))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// A pipe into the log. It belongs to the user of the container, so that programs that open `/dev/stdout` by name may.
/// The copying ends when the last writer has gone.
pub fn pipe_into(path: &Path, uid: u32, gid: u32) -> io::Result<PipeWriter> {
    let mut writer = Writer::open(path)?;
    let (read_end, write_end) = io::pipe()?;
    fchown(&write_end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    let read_end: OwnedFd = read_end.into();
    let flags = OFlag::from_bits_retain(fcntl(&read_end, FcntlArg::F_GETFL)?);
    fcntl(&read_end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut receiver = pipe::Receiver::from_owned_fd(read_end)?;
    tokio::spawn(async move {
        let mut buffer = vec![0; 32 << 10];
        let mut broken = false;
        loop {
            match receiver.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                // A full disk must not stop the program: its output is read on and lost.
                Ok(length) => match writer.write(&buffer[..length]) {
                    Ok(()) => broken = false,
                    Err(error) if !broken => {
                        broken = true;
                        tracing::warn!(path = %writer.path.display(), %error, "a container's log cannot be written");
                    }
                    Err(_) => {}
                },
            }
        }
    });
    Ok(write_end)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn output_arrives_and_a_full_file_is_turned_over() {
        let path = std::env::temp_dir().join(format!("gossamer-log-{}.log", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(rotated(&path));
        std::fs::write(&path, vec![b'x'; MAX_FILE as usize]).unwrap();
        let mut pipe = pipe_into(
            &path,
            nix::unistd::getuid().as_raw(),
            nix::unistd::getgid().as_raw(),
        )
        .unwrap();
        pipe.write_all(b"hello\n").unwrap();
        drop(pipe);
        for _ in 0..100 {
            if std::fs::read_to_string(&path).is_ok_and(|text| text == "hello\n") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello\n");
        assert_eq!(rotated(&path).metadata().unwrap().len(), MAX_FILE);
        std::fs::remove_file(rotated(&path)).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
