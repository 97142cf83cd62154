//! `meshctl bug-report`: objects, status, configuration and logs of the mesh in one archive, for somebody who was not there.
//! No secret is in it (see [`crate::report`]). What cannot be had is noted in the archive and does not stop the rest.
//! Bounds: those of the archive, [`Arguments::proxies`] proxies, 10,000 lines of a log.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::Args;
use mesh_proto::{
    kube::Kind,
    names::{container, port},
};
use mesh_runtime::settings::duration;
use serde_json::Value;

use crate::{
    check::{self, Facts},
    context::Mesh,
    local::object,
    output, reach,
    report::Report,
};

const MAX_LINES: usize = 10_000;
/// Admin pages of a proxy, and the files they become.
const PROXY_PAGES: [(&str, &str); 6] = [
    ("/server_info", "server_info.json"),
    ("/config_dump", "config_dump.json"),
    ("/clusters?format=json", "clusters.json"),
    ("/certs", "certs.json"),
    ("/stats?usedonly", "stats.txt"),
    ("/connections", "connections.txt"),
];
/// Of pilot.
const PILOT_PAGES: [(&str, &str); 5] = [
    ("/debug/syncz", "syncz.json"),
    ("/debug/findings", "findings.json"),
    ("/debug/registryz", "registryz.json"),
    ("/debug/endpointz", "endpointz.json"),
    ("/metrics", "metrics.txt"),
];

#[derive(Debug, Args)]
pub struct Arguments {
    /// The archive [default: bug-report-<time>.tgz in this folder]
    #[arg(short, long, visible_alias = "filename", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only these namespaces, besides the control plane's
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE")]
    pub include: Vec<String>,
    /// Not these namespaces
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMESPACE",
        default_value = "kube-system,kube-public,kube-node-lease"
    )]
    pub exclude: Vec<String>,
    /// So many lines of each log
    #[arg(long, default_value_t = 2000)]
    pub tail: usize,
    /// Of so many proxies at most
    #[arg(long, default_value_t = 50)]
    pub proxies: usize,
    /// Finish with what there is after this time
    #[arg(long, value_parser = duration, default_value = "5m")]
    pub timeout: Duration,
}

/// Gathers, and notes what could not be had.
struct Gathering<'a> {
    mesh: &'a Mesh,
    arguments: &'a Arguments,
    report: Report,
    problems: Vec<String>,
}

pub async fn run(arguments: Arguments, mesh: &Mesh) -> anyhow::Result<i32> {
    // Where nobody answers there is nothing to report.
    mesh.objects(Kind::Namespace, "", "").await?;
    let mut gathering = Gathering {
        mesh,
        arguments: &arguments,
        report: Report::default(),
        problems: Vec::new(),
    };
    if tokio::time::timeout(arguments.timeout, gathering.all())
        .await
        .is_err()
    {
        gathering.problems.push(format!(
            "not everything was gathered within {:?}",
            arguments.timeout
        ));
    }
    let Gathering {
        mut report, problems, ..
    } = gathering;
    let problems: BTreeSet<String> = problems.into_iter().collect();
    if !problems.is_empty() {
        let problems: Vec<&str> = problems.iter().map(String::as_str).collect();
        report.text("problems.txt", &problems.join("\n"));
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let file = arguments
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("bug-report-{now}.tgz")));
    let count = report.paths().count();
    // Readable by its owner only: even without secrets it tells much.
    let to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&file)
        .with_context(|| format!("{} cannot be written", file.display()))?;
    report.write("bug-report", now, to)?;
    output::line(&format!(
        "{}: {count} files; read through it before you send it to anybody",
        file.display()
    ));
    for problem in problems {
        eprintln!("meshctl: left out: {problem}");
    }
    Ok(0)
}

impl Gathering<'_> {
    async fn all(&mut self) {
        let info = serde_json::to_value(mesh_runtime::build::info()).unwrap_or_default();
        self.report.json("meshctl.json", &info);
        self.report.text("mesh.txt", &format!("{}\n", self.mesh));
        self.check().await;
        self.objects().await;
        self.control_plane().await;
        self.proxies().await;
    }

    async fn check(&mut self) {
        let facts = Facts::gather(self.mesh).await;
        let mut text = String::new();
        for one in check::all() {
            text += &format!("{}: {:?}\n", one.anchor, (one.judge)(&facts));
        }
        self.report.text("check.txt", &text);
        match facts.findings {
            Ok(findings) => {
                let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
                self.report.text("analyze.txt", &lines);
            }
            Err(problem) => self.problems.push(problem),
        }
        match facts.proxies {
            Ok(proxies) => self.report.json("proxy-status.json", &Value::Array(proxies)),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// Objects of the mesh and of the workloads; never a Secret.
    async fn objects(&mut self) {
        for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Secret) {
            // Those of applications are their own business.
            let namespace = match kind {
                Kind::ConfigMap => self.mesh.system.as_str(),
                _ => "",
            };
            match self.mesh.objects(kind, namespace, "").await {
                Ok(mut objects) => {
                    objects.retain(|object| {
                        let namespace = object::text(object, "/metadata/namespace");
                        namespace.is_empty() || self.takes(namespace)
                    });
                    if !objects.is_empty() {
                        self.report
                            .objects(&format!("objects/{}.json", kind.plural()), &objects);
                    }
                }
                Err(error) => self.problems.push(format!("{error:#}")),
            }
        }
    }

    fn takes(&self, namespace: &str) -> bool {
        if namespace == self.mesh.system {
            return true;
        }
        let named = |list: &[String]| list.iter().any(|one| one == namespace);
        !named(&self.arguments.exclude)
            && (self.arguments.include.is_empty() || named(&self.arguments.include))
    }

    async fn control_plane(&mut self) {
        for app in check::control_plane::PARTS {
            for pod in self.mesh.parts(app).await.unwrap_or_default() {
                let folder = format!("control-plane/{}", object::text(&pod, "/metadata/name"));
                let pages: &[(&str, &str)] = match app {
                    "pilot" => &PILOT_PAGES,
                    _ => &[("/metrics", "metrics.txt")],
                };
                self.pages(&pod, port::CONTROL, pages, &folder).await;
                let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
                for one in containers {
                    let name = one["name"].as_str().unwrap_or_default().to_owned();
                    self.log(&pod, &name, &folder).await;
                }
            }
        }
    }

    async fn proxies(&mut self) {
        let pods = match self.mesh.objects(Kind::Pod, "", "").await {
            Ok(pods) => pods,
            Err(error) => return self.problems.push(format!("{error:#}")),
        };
        let mut taken = 0;
        for pod in pods {
            let namespace = object::text(&pod, "/metadata/namespace");
            // The proxy of a pod that is still starting is of interest too.
            let ended = ["Succeeded", "Failed"].contains(&object::text(&pod, "/status/phase"));
            if ended || !self.takes(namespace) || !has_proxy(&pod) {
                continue;
            }
            taken += 1;
            if taken > self.arguments.proxies {
                continue;
            }
            let folder = format!("proxies/{namespace}/{}", object::text(&pod, "/metadata/name"));
            self.pages(&pod, port::ADMIN, &PROXY_PAGES, &folder).await;
            self.log(&pod, container::PROXY, &folder).await;
        }
        if taken > self.arguments.proxies {
            self.problems.push(format!(
                "{} of {taken} proxies were asked; --proxies takes more",
                self.arguments.proxies
            ));
        }
    }

    async fn pages(&mut self, pod: &Value, port: u16, pages: &[(&str, &str)], folder: &str) {
        let way = self.mesh.way(pod);
        for (page, file) in pages {
            let path = format!("{folder}/{file}");
            match reach::get(&way, port, page).await {
                Ok(body) => match serde_json::from_slice::<Value>(&body) {
                    Ok(value) => self.report.json(&path, &value),
                    Err(_) => self.report.text(&path, &String::from_utf8_lossy(&body)),
                },
                Err(error) => {
                    self.problems.push(format!("{path}: {error:#}"));
                    // A pod that does not answer once would be waited for at every page.
                    return;
                }
            }
        }
    }

    async fn log(&mut self, pod: &Value, container: &str, folder: &str) {
        match self
            .mesh
            .logs(pod, container, self.arguments.tail.min(MAX_LINES))
            .await
        {
            Ok(text) => self.report.text(&format!("{folder}/{container}.log"), &text),
            Err(error) => self.problems.push(format!("{folder}/{container}.log: {error:#}")),
        }
    }
}

fn has_proxy(pod: &Value) -> bool {
    ["initContainers", "containers"].into_iter().any(|group| {
        let containers = pod["spec"][group].as_array().into_iter().flatten();
        containers.into_iter().any(|one| one["name"] == container::PROXY)
    })
}
