//! The control plane under test as processes: citadel, and pilot on a folder of objects. Started, watched
//! through `/proc` and through pilot's own pages, killed, started again.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use mesh_proto::{identity::TrustDomain, names};
use mesh_runtime::{
    identity::{Agent, Settings as Identity},
    tls::IdentityCell,
};
use serde_json::Value;

use super::{Settings, identity::Issuer, objects::Population};
use crate::{
    need,
    process::{Background, command, eventually},
};

/// Certificates that are asked for at once.
const CALLS: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at pilot's page.
const LOOK: Duration = Duration::from_millis(2);

pub struct Control {
    folder: PathBuf,
    /// What pilot watches.
    pub objects: PathBuf,
    programs: Programs,
    issuer: Issuer,
    pub xds: SocketAddr,
    admin: SocketAddr,
    ca: SocketAddr,
    ca_admin: SocketAddr,
    admission_rate: u32,
    citadel: Option<Background>,
    pilot: Option<Background>,
}

/// A port that is free now.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// mesh-pilot and mesh-citadel; a release build of them if there is one.
#[derive(Clone, Debug)]
struct Programs {
    pilot: PathBuf,
    /// It only issues certificates before anything is measured.
    citadel: PathBuf,
}

impl Programs {
    fn find(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let target = need::binaries()?
            .parent()
            .context("no folder above the binaries")?
            .to_owned();
        let builds = ["release", "debug"].map(|name| target.join(name));
        let folders: Vec<&Path> = wanted
            .into_iter()
            .chain(builds.iter().map(PathBuf::as_path))
            .collect();
        let find = |name: &str, folders: &[&Path]| {
            let found = folders
                .iter()
                .map(|folder| folder.join(name))
                .find(|path| path.exists());
            found.with_context(|| format!("{name} is not in any of {folders:?}: run `make bench-pilot`"))
        };
        let first = if wanted.is_some() {
            &folders[..1]
        } else {
            &folders[..]
        };
        Ok(Self {
            pilot: find("mesh-pilot", first)?,
            citadel: find("mesh-citadel", &folders)?,
        })
    }

    fn is_release(&self) -> bool {
        self.pilot
            .parent()
            .is_some_and(|folder| folder.ends_with("release"))
    }
}

impl Control {
    /// An empty folder for everything, and free ports.
    pub fn prepare(folder: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let programs = Programs::find(settings.programs.as_deref())?;
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        let objects = folder.join("objects");
        for path in [&objects, &folder.join("tokens")] {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let issuer = Issuer::new(&folder.join("jwks.json"))?;
        Ok(Self {
            folder: folder.to_owned(),
            objects,
            programs,
            issuer,
            xds: free()?,
            admin: free()?,
            ca: free()?,
            ca_admin: free()?,
            admission_rate: settings.admission_rate,
            citadel: None,
            pilot: None,
        })
    }

    pub fn describe(&self) -> String {
        if self.programs.is_release() {
            "mesh-pilot in its release build".to_owned()
        } else {
            format!(
                "mesh-pilot from {}, which is no release build as `make bench-pilot` makes it",
                self.programs.pilot.parent().unwrap_or(Path::new("")).display()
            )
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub fn start_citadel(&mut self) -> anyhow::Result<()> {
        let words = [
            "--listen",
            &self.ca.to_string(),
            "--admin-address",
            &self.ca_admin.to_string(),
            "--state-dir",
            &self.path("citadel"),
            "--jwks-file",
            &self.path("jwks.json"),
            "--publish-root",
            &self.path("root.pem"),
            "--log-level",
            "warn",
        ]
        .map(str::to_owned);
        self.citadel = Some(Background::start(command(&self.programs.citadel, words))?);
        eventually(TIMEOUT, "citadel is ready", || {
            get(self.ca_admin, "/ready").map(drop)
        })
    }

    /// Until it takes proxies.
    pub fn start_pilot(&mut self, patience: u64) -> anyhow::Result<()> {
        let token = self.issuer.token(names::SYSTEM_NAMESPACE, "pilot")?;
        fs::write(self.folder.join("tokens/pilot"), token)?;
        let words = [
            "--config-dir",
            &self.objects.display().to_string(),
            "--xds-address",
            &self.xds.to_string(),
            "--admin-address",
            &self.admin.to_string(),
            "--ca-address",
            &self.ca.to_string(),
            "--token-file",
            &self.path("tokens/pilot"),
            "--root-file",
            &self.path("root.pem"),
            "--admission-rate",
            &self.admission_rate.to_string(),
            "--log-level",
            "warn",
        ]
        .map(str::to_owned);
        let mut pilot = Background::start(command(&self.programs.pilot, words))?;
        let end = Instant::now() + Duration::from_secs(patience);
        while get(self.admin, "/ready").is_err() || TcpStream::connect(self.xds).is_err() {
            if !pilot.is_running() || Instant::now() > end {
                let said = pilot.terminate(TIMEOUT).map(|outcome| outcome.said())?;
                bail!("pilot did not get ready: {said}");
            }
            std::thread::sleep(LOOK);
        }
        self.pilot = Some(pilot);
        Ok(())
    }

    pub fn kill_pilot(&mut self) -> anyhow::Result<()> {
        self.pilot.take().context("pilot does not run")?.kill()
    }

    pub fn stop(mut self) -> anyhow::Result<()> {
        self.kill_pilot()?;
        self.citadel.take().context("citadel does not run")?.kill()?;
        // Thousands of files; the certificates in them are of no use to anybody.
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))
    }

    /// One identity for each service that has a proxy, from citadel, by token.
    pub async fn identities(
        &self,
        population: &Population,
        proxies: usize,
    ) -> anyhow::Result<BTreeMap<usize, IdentityCell>> {
        let one = |service: usize| async move {
            let (namespace, account) = (population.namespace(service), Population::service(service));
            let token = self.folder.join(format!("tokens/{account}"));
            fs::write(&token, self.issuer.token(&namespace, &account)?)?;
            let settings = Identity {
                token_file: Some(token),
                ..Identity::new(
                    self.ca.to_string(),
                    self.folder.join("root.pem"),
                    TrustDomain::default(),
                )
            };
            let cell = IdentityCell::new();
            let agent = Agent::new(settings);
            agent
                .renew(&cell)
                .await
                .with_context(|| format!("no certificate for {namespace}/{account}"))?;
            anyhow::Ok((service, cell))
        };
        stream::iter(0..population.accounts_of(proxies))
            .map(one)
            .buffer_unordered(CALLS)
            .try_collect()
            .await
    }

    /// A file with this text, beside what pilot watches.
    pub fn prepare_file(&self, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join("prepared");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Until pilot says that every proxy has this object as it is now.
    pub async fn acknowledged(&self, object: &str, patience: Duration) -> anyhow::Result<Value> {
        let (admin, path) = (self.admin, format!("/debug/acked?object={object}"));
        let end = Instant::now() + patience;
        loop {
            let page = path.clone();
            let text = tokio::task::spawn_blocking(move || get(admin, &page)).await??;
            let state: Value = serde_json::from_str(&text)?;
            if state["acked"] == Value::Bool(true) {
                return Ok(state);
            }
            ensure!(
                Instant::now() < end,
                "pilot's page {path} still says {}",
                crate::process::last(&text, 400)
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Until pilot says that so many proxies have, and have answered for, everything.
    pub async fn settled(&self, proxies: usize, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            let state = self.acknowledged("node/node-0", patience).await?;
            if state["proxies"].as_u64() == Some(proxies as u64) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "pilot has {} proxies of {proxies}",
                state["proxies"]
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    pub fn pilot_pid(&self) -> anyhow::Result<u32> {
        Ok(self.pilot.as_ref().context("pilot does not run")?.pid())
    }

    /// User and system time so far (proc(5): fields 14 and 15 of `stat`, in hundredths of a second).
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let text =
            fs::read_to_string(format!("/proc/{}/stat", self.pilot_pid()?)).context("pilot has ended")?;
        let fields = text.rsplit_once(')').context("no stat")?.1.split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// The most that was ever resident.
    pub fn peak(&self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> anyhow::Result<f64> {
        let text =
            fs::read_to_string(format!("/proc/{}/status", self.pilot_pid()?)).context("pilot has ended")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .with_context(|| format!("no {field}"))?;
        let kb: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kb * 1024.0)
    }
}

/// A page of a daemon, if it answers 200.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    Ok(body.to_owned())
}
