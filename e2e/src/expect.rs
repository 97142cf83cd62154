//! `samples/bookinfo/expect`: what a person sees in each lesson of the sample, written so that it can be checked. A lesson applies
//! its files, looks at pages through the gateway, and takes its files away again.

use crate::{mesh::read, site::Site};
use anyhow::{Context, bail, ensure};
use http::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;

const FILE: &str = "samples/bookinfo/expect";
const FOLDER: &str = "samples/bookinfo";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lesson {
    pub name: String,
    /// Files below the sample's folder, in this order.
    pub apply: Vec<String>,
    pub see: Vec<Look>,
}

/// One page, asked for some times.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Look {
    pub get: String,
    /// Signed in as this user.
    #[serde(rename = "as")]
    pub user: Option<String>,
    #[serde(default = "once")]
    pub times: u32,
    #[serde(default = "ok")]
    pub status: u16,
    /// Texts that every answer has.
    #[serde(default)]
    pub contains: Vec<String>,
    /// Texts that no answer has.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Headers of the answer; a value that begins with `*` may begin with anything.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The share of answers that have a text lies between two numbers.
    #[serde(default)]
    pub share: BTreeMap<String, (f64, f64)>,
    /// A delay that was asked for is really there.
    pub at_least_seconds: Option<f64>,
}

fn once() -> u32 {
    1
}

fn ok() -> u16 {
    200
}

pub fn lessons() -> anyhow::Result<Vec<Lesson>> {
    serde_saphyr::from_str(&read(FILE)?).with_context(|| format!("{FILE} cannot be read"))
}

/// Walks through one lesson.
pub fn run(mesh: &impl Site, name: &str) -> anyhow::Result<()> {
    let lessons = lessons()?;
    let lesson = lessons
        .iter()
        .find(|lesson| lesson.name == name)
        .with_context(|| format!("no lesson {name:?} in {FILE}"))?;
    let files: Vec<String> = lesson
        .apply
        .iter()
        .map(|file| format!("{FOLDER}/{file}"))
        .collect();
    let seen = files
        .iter()
        .try_for_each(|file| mesh.apply_file_acked(file))
        .and_then(|()| mesh.wait_ready())
        .and_then(|()| lesson.see.iter().try_for_each(|look| look.check(mesh)));
    for file in files.iter().rev() {
        mesh.delete_file(file)?;
    }
    // A lesson may take the gateway's own route with it.
    mesh.apply_file_acked("samples/bookinfo/networking/bookinfo-gateway.yaml")?;
    mesh.apply_file_acked("samples/bookinfo/networking/destination-rule-all.yaml")?;
    seen.with_context(|| format!("lesson {name:?}"))
}

impl Look {
    fn check(&self, mesh: &impl Site) -> anyhow::Result<()> {
        let cookie = self.user.as_ref().map(|user| mesh.sign_in(user)).transpose()?;
        let headers: Vec<(&str, &str)> = cookie.iter().map(|cookie| ("cookie", cookie.as_str())).collect();
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for _ in 0..self.times {
            let page = mesh.page(&self.get, &headers)?;
            let at = || format!("{} as {}", self.get, self.user.as_deref().unwrap_or("nobody"));
            ensure!(
                page.status == StatusCode::from_u16(self.status)?,
                "{} was answered {}",
                at(),
                page.shown()
            );
            for text in &self.contains {
                ensure!(
                    page.body.contains(text),
                    "{} lacks {text:?}: {}",
                    at(),
                    page.shown()
                );
            }
            for text in &self.lacks {
                ensure!(
                    !page.body.contains(text),
                    "{} has {text:?}: {}",
                    at(),
                    page.shown()
                );
            }
            for (name, value) in &self.headers {
                let got = page.headers.get(name).and_then(|value| value.to_str().ok());
                let fits = match value.strip_prefix('*') {
                    Some(end) => got.is_some_and(|got| got.ends_with(end)),
                    None => got == Some(value),
                };
                ensure!(fits, "{}: header {name} is {got:?}", at());
            }
            if let Some(seconds) = self.at_least_seconds {
                ensure!(
                    page.took.as_secs_f64() >= seconds,
                    "{} took only {:?}",
                    at(),
                    page.took
                );
            }
            for text in self.share.keys() {
                *counts.entry(text).or_default() += u32::from(page.body.contains(text));
            }
        }
        for (text, (low, high)) in &self.share {
            let share =
                f64::from(counts.get(text.as_str()).copied().unwrap_or_default()) / f64::from(self.times);
            if !(*low..=*high).contains(&share) {
                bail!(
                    "{}: {text:?} is in {:.0} % of {} answers",
                    self.get,
                    share * 100.0,
                    self.times
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lesson_names_files_that_are_there() {
        for lesson in lessons().unwrap() {
            for file in &lesson.apply {
                assert!(
                    read(&format!("{FOLDER}/{file}")).is_ok(),
                    "{}: {file}",
                    lesson.name
                );
            }
            assert!(!lesson.see.is_empty(), "{} looks at nothing", lesson.name);
        }
    }
}
