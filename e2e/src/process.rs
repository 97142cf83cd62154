//! Running other programs: with a time limit, and with everything they said in the error when they fail.

use anyhow::{Context, bail, ensure};
use std::{
    ffi::OsStr,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What a program left.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The line that ran, for messages.
    pub line: String,
}

impl Outcome {
    /// Standard output, if the program ended well.
    pub fn ok(self) -> anyhow::Result<String> {
        ensure!(
            self.code == Some(0),
            "`{}` ended with {:?}\n{}{}",
            self.line,
            self.code,
            last(&self.stdout, 4000),
            last(&self.stderr, 4000)
        );
        Ok(self.stdout)
    }

    /// Everything it said, if the program failed as it should.
    pub fn failed(self) -> anyhow::Result<String> {
        ensure!(
            self.code != Some(0),
            "`{}` should have failed and did not:\n{}",
            self.line,
            last(&self.stdout, 4000)
        );
        Ok(self.stdout + &self.stderr)
    }

    /// Everything it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The last `n` bytes of `text`, or a little less.
pub fn last(text: &str, n: usize) -> &str {
    let mut from = text.len().saturating_sub(n);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

pub fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs to the end; a program that takes longer than `limit` is killed, and that is an error.
pub fn run(command: Command, input: Option<&str>, limit: Duration) -> anyhow::Result<Outcome> {
    let mut background = Background::start(command)?;
    match (input, background.child.stdin.take()) {
        (Some(text), Some(mut stdin)) => {
            // A program that does not read its input has its own reasons.
            let _ = stdin.write_all(text.as_bytes());
        }
        (_, stdin) => drop(stdin),
    }
    background.wait(limit)
}

/// A program that runs while the test goes on. Dropped, it is killed.
pub struct Background {
    child: Child,
    line: String,
    output: Option<(JoinHandle<String>, JoinHandle<String>)>,
}

/// At most so much of what a program says is kept.
const MAX_OUTPUT: u64 = 64 << 20;

fn read_all(stream: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Background {
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let line = line(&command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{line}`"))?;
        let output = Some((read_all(child.stdout.take()), read_all(child.stderr.take())));
        Ok(Self { child, line, output })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the program at once.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Closes the program's standard input, which tells some of ours to end, and waits.
    pub fn finish(mut self, limit: Duration) -> anyhow::Result<Outcome> {
        drop(self.child.stdin.take());
        self.wait(limit)
    }

    /// Sends SIGTERM and waits.
    pub fn terminate(mut self, limit: Duration) -> anyhow::Result<Outcome> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        self.wait(limit)
    }

    fn wait(&mut self, limit: Duration) -> anyhow::Result<Outcome> {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                self.child.kill()?;
                self.child.wait()?;
                let said = self.said();
                bail!(
                    "`{}` did not end within {limit:?}\n{}{}",
                    self.line,
                    last(&said.0, 4000),
                    last(&said.1, 4000)
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let (stdout, stderr) = self.said();
        Ok(Outcome {
            code: status.code(),
            stdout,
            stderr,
            line: self.line.clone(),
        })
    }

    fn said(&mut self) -> (String, String) {
        let Some((stdout, stderr)) = self.output.take() else {
            return Default::default();
        };
        // A grandchild may hold the pipes open after the program has ended; what was said so far would then be lost with
        // it, so give it a moment and go on.
        let end = Instant::now() + Duration::from_secs(2);
        let text = |handle: JoinHandle<String>| {
            while !handle.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            if handle.is_finished() {
                handle.join().unwrap_or_default()
            } else {
                String::new()
            }
        };
        (text(stdout), text(stderr))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Tries until it succeeds; the last error when it never does.
pub fn eventually<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("not within {limit:?}: {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_code_come_back() {
        let outcome = run(
            command("sh", ["-c", "cat; echo err >&2; exit 3"]),
            Some("in"),
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(
            (outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()),
            (Some(3), "in", "err\n")
        );
        assert!(outcome.ok().unwrap_err().to_string().contains("err"));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let error = run(command("sleep", ["100"]), None, Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn the_end_of_a_text_is_cut_between_characters() {
        assert_eq!(last("aäb", 2), "b");
        assert_eq!(last("ab", 9), "ab");
    }
}
