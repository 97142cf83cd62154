//! A real browser: Chromium without a window, with a fresh profile each time.

use crate::{
    need,
    process::{command, run},
};
use anyhow::{Context, ensure};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn chromium(profile: &Path, more: &[String], url: &str) -> anyhow::Result<String> {
    let program = need::program("chromium", "chromium")?;
    let mut arguments: Vec<String> = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--window-size=1100,760",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--user-data-dir={}", profile.display()));
    arguments.extend_from_slice(more);
    arguments.push(url.to_owned());
    run(command(program, &arguments), None, PATIENCE)?.ok()
}

/// What the page looks like after its scripts have run, and a picture of it.
pub struct Seen {
    pub html: String,
    pub picture: PathBuf,
}

/// Opens `url` and keeps a picture of it as `name.png` in `folder`.
pub fn look(url: &str, folder: &Path, name: &str) -> anyhow::Result<Seen> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let profile = folder.join(format!("{name}-profile"));
    let picture = folder.join(format!("{name}.png"));
    let _ = std::fs::remove_file(&picture);
    let wait = "--virtual-time-budget=4000".to_owned();
    let html = chromium(&profile, &[wait.clone(), "--dump-dom".to_owned()], url)?;
    chromium(
        &profile,
        &[wait, format!("--screenshot={}", picture.display())],
        url,
    )?;
    let _ = std::fs::remove_dir_all(&profile);
    ensure!(picture.exists(), "the browser made no picture of {url}");
    Ok(Seen { html, picture })
}

/// Width and height of a PNG, from its header (PNG specification, 11.2.2).
pub fn size(picture: &Path) -> anyhow::Result<(u32, u32)> {
    let bytes = std::fs::read(picture).with_context(|| format!("cannot read {}", picture.display()))?;
    ensure!(
        bytes.len() > 24 && bytes.starts_with(b"\x89PNG\r\n\x1a\n"),
        "{} is no PNG",
        picture.display()
    );
    let number = |at: usize| {
        bytes[at..at + 4]
            .iter()
            .fold(0, |n, byte| n << 8 | u32::from(*byte))
    };
    Ok((number(16), number(20)))
}
