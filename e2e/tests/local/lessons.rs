//! 3. The lessons of Bookinfo, each as `samples/bookinfo/expect` describes it, from the browser's side.

use mesh_e2e::{
    expect::{lessons, run},
    mesh::Mesh,
};

const NAMED: [&str; 11] = [
    "all versions",
    "all v1",
    "90-10",
    "80-20",
    "50-v3",
    "by user",
    "delay",
    "abort",
    "timeout",
    "rewrite and redirect",
    "redis",
];

pub fn all_versions(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, "all versions")
}

pub fn all_v1(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, "all v1")
}

pub fn shares(mesh: &mut Mesh) -> anyhow::Result<()> {
    ["90-10", "80-20", "50-v3"]
        .iter()
        .try_for_each(|name| run(mesh, name))
}

pub fn by_user(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, "by user")
}

pub fn delay(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, "delay")
}

pub fn abort(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, "abort")
}

pub fn timeout(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, "timeout")
}

pub fn rewrite_and_redirect(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, "rewrite and redirect")
}

pub fn redis(mesh: &mut Mesh) -> anyhow::Result<()> {
    run(mesh, "redis")
}

/// Every lesson that has no test of its own.
pub fn others(mesh: &mut Mesh) -> anyhow::Result<()> {
    let lessons = lessons()?;
    let mut others = lessons
        .iter()
        .filter(|lesson| !NAMED.contains(&lesson.name.as_str()));
    others.try_for_each(|lesson| run(mesh, &lesson.name))
}
