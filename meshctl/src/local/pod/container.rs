//! One container: its program is started, watched, asked (probes), started again, and stopped. Whatever happens to it is
//! written into the pod's standing; nothing here decides about other containers.
//!
//! The program is a direct child of the supervisor. It dies with the supervisor; when its main process ends, the rest of
//! its session is killed. Bounds: the wait before a restart grows from 1 s to 5 min and starts anew after 10 min of
//! running; stopping takes no longer than the deadline it is given.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::Instant,
};

use super::{
    PodContext, environment, hook, log,
    probe::{self, Meaning, Timing},
    status::{Ended, Role, State},
    volume,
};
use crate::local::{
    enter::{Mount, Spec},
    images, moment, netns,
};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
const GOOD_RUN: Duration = Duration::from_secs(600);
/// A container that could not be started is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Our own program, also when its file has been replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// Set once: stop, and be gone at the deadline.
pub type Stop = watch::Receiver<Option<Instant>>;

/// One container of one pod.
#[derive(Clone)]
pub struct Job {
    pub pod: Arc<PodContext>,
    /// Its place in the pod's standing.
    pub index: usize,
    pub container: v1::Container,
    pub role: Role,
}

enum Attempt {
    /// It could not be started; the standing says why.
    NotStarted,
    Ended(i32),
    Stopped(i32),
}

/// How long to wait before the next start. Pure.
#[derive(Debug, Default)]
struct Waits {
    next: Duration,
}

impl Waits {
    /// The first restart is immediate, later ones wait longer and longer; a good run wipes the slate.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= GOOD_RUN {
            self.next = Duration::ZERO;
        }
        let wait = self.next;
        self.next = (wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        wait
    }
}

/// Is a container that ended with this code started again?
fn restarts(role: Role, policy: &str, code: i32) -> bool {
    match role {
        Role::Sidecar => true,
        Role::Init => code != 0 && policy != "Never",
        Role::Main => policy == "Always" || (policy == "OnFailure" && code != 0),
    }
}

/// Runs the container until it is done or told to stop; gives its last exit code.
pub async fn run(job: Job, mut stop: Stop) -> i32 {
    let mut waits = Waits::default();
    let policy = job.pod.restart_policy();
    loop {
        let begin = Instant::now();
        let code = match job.attempt(&mut stop).await {
            Attempt::Stopped(code) => return code,
            Attempt::NotStarted => {
                if stopped_within(RETRY, &mut stop).await {
                    return 0;
                }
                continue;
            }
            Attempt::Ended(code) => code,
        };
        if stop.borrow().is_some() || !restarts(job.role, &policy, code) {
            return code;
        }
        let wait = waits.after(begin.elapsed());
        if !wait.is_zero() {
            let message = format!("ended with code {code}; starts again in {} s", wait.as_secs());
            job.wait_because("CrashLoopBackOff", message);
            if stopped_within(wait, &mut stop).await {
                return code;
            }
        }
        job.pod
            .update_container(job.index, |container| container.restarts += 1);
    }
}

/// Sleeps; true if the stop came first.
async fn stopped_within(time: Duration, stop: &mut Stop) -> bool {
    tokio::time::timeout(time, deadline(stop)).await.is_ok()
}

/// The deadline, as soon as there is one. A stop whose sender is gone is a stop at once.
async fn deadline(stop: &mut Stop) -> Instant {
    match stop.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    }
}

impl Job {
    /// `namespace/pod/container`
    fn full_name(&self) -> String {
        format!(
            "{}/{}/{}",
            self.pod.key.namespace, self.pod.key.name, self.container.name
        )
    }

    fn wait_because(&self, reason: &str, message: String) {
        let state = State::Waiting {
            reason: reason.into(),
            message,
        };
        self.pod
            .update_container(self.index, |container| container.state = state);
    }

    async fn attempt(&self, stop: &mut Stop) -> Attempt {
        let mut child = match self.start() {
            Ok(child) => child,
            Err((reason, message)) => {
                self.wait_because(reason, message);
                return Attempt::NotStarted;
            }
        };
        let since = moment::now();
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
        self.pod.update_container(self.index, |container| {
            container.state = State::Running { since: since.clone() };
            container.pid = Some(pid);
        });
        self.pod.node.processes.set(&self.full_name(), Some(pid));
        let mut note = String::new();
        let (status, told) = tokio::select! {
            status = child.wait() => (status, false),
            deadline = deadline(stop) => (self.shut_down(&mut child, pid, deadline).await, true),
            reason = self.probes(pid) => {
                note = reason;
                let grace = Instant::now() + self.pod.grace();
                (self.shut_down(&mut child, pid, grace).await, false)
            }
        };
        self.pod.node.processes.set(&self.full_name(), None);
        // What the program left running in its session ends with it.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        let code = exit_code(status);
        self.record_end(code, since, note);
        if told {
            Attempt::Stopped(code)
        } else {
            Attempt::Ended(code)
        }
    }

    fn record_end(&self, code: i32, started: String, message: String) {
        let reason = if code == 0 { "Completed" } else { "Error" };
        let ended = Ended {
            code,
            reason: reason.into(),
            message,
            started,
            finished: moment::now(),
        };
        self.pod.update_container(self.index, |container| {
            container.state = State::Ended(ended.clone());
            container.last = Some(ended);
            container.started = false;
            container.ready = false;
            container.pid = None;
        });
    }

    /// Starts the program, or says (reason, message) why not.
    fn start(&self) -> Result<Child, (&'static str, String)> {
        let spec = self.spec()?;
        let error = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| ("CreateContainerError", format!("{what}: {error}"))
        };
        let file = self.pod.spec_file(&self.container.name);
        let text = serde_json::to_vec(&spec).unwrap_or_default();
        crate::local::store::write_atomically(&file, &text, 0o600)
            .map_err(error("its spec cannot be written"))?;
        let log_file = log::path(&self.pod.folder, &self.container.name);
        let output =
            log::pipe_into(&log_file, spec.uid, spec.gid).map_err(error("its log cannot be opened"))?;
        let errors = output.try_clone().map_err(error("its log cannot be opened"))?;
        Command::new(SELF)
            .args(["local", "enter", "--spec"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(error("its process cannot be started"))
    }

    /// Everything the program needs to know, from the manifest and the platform.
    fn spec(&self) -> Result<Spec, (&'static str, String)> {
        let (pod, container) = (&self.pod, &self.container);
        let image = container.image.as_deref().unwrap_or_default();
        let entry =
            images::resolve(image, &pod.node.layout.images(), &images::siblings()).map_err(|error| {
                let reason = match error {
                    images::ImageError::Unknown { .. } => "ImageNotFound",
                    _ => "ErrImagePull",
                };
                (reason, error.to_string())
            })?;
        let config = |text: String| ("CreateContainerConfigError", text);
        let security = container.security_context.as_ref();
        let pod_spec = pod.pod.spec.as_ref();
        let pod_security = pod_spec.and_then(|spec| spec.security_context.as_ref());
        let id = |own: Option<i64>, whole: Option<i64>| own.or(whole).and_then(|id| u32::try_from(id).ok());
        let uid = id(
            security.and_then(|s| s.run_as_user),
            pod_security.and_then(|s| s.run_as_user),
        )
        .unwrap_or(0);
        let gid = id(
            security.and_then(|s| s.run_as_group),
            pod_security.and_then(|s| s.run_as_group),
        )
        .unwrap_or(0);
        let extra = pod_security
            .into_iter()
            .flat_map(|s| s.supplemental_groups.iter().flatten().chain(&s.fs_group));
        let groups = extra.filter_map(|group| u32::try_from(*group).ok()).collect();
        let base = vec![
            ("PATH".to_owned(), images::search_path()),
            ("HOSTNAME".to_owned(), pod.hostname()),
            (
                "HOME".to_owned(),
                if uid == 0 {
                    "/root".to_owned()
                } else {
                    "/".to_owned()
                },
            ),
        ];
        let env = environment::resolve(container, base, &pod.facts(), &pod.lookups()).map_err(config)?;
        let (program, args) = command(&entry, container, &env);
        let volumes = pod_spec
            .and_then(|spec| spec.volumes.as_deref())
            .unwrap_or_default();
        let mut mounts = volume::mounts(container, volumes, &pod.volumes_folder()).map_err(config)?;
        for (file, target) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
            mounts.push(Mount {
                source: pod.folder.join(file),
                target: target.into(),
                read_only: false,
            });
        }
        Ok(Spec {
            name: self.full_name(),
            network: netns::path(&pod.netns),
            join: None,
            parent: i32::try_from(std::process::id()).ok(),
            hostname: pod.hostname(),
            mounts,
            staging: pod.folder.join("root"),
            program,
            args,
            env,
            workdir: container.working_dir.as_ref().map(Into::into),
            uid,
            gid,
            groups,
        })
    }

    /// Hooks and probes of the running program. Ends only when it must be stopped, with the reason.
    async fn probes(&self, pid: i32) -> String {
        let lifecycle = self.container.lifecycle.as_ref();
        if let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())
            && let Err(error) = hook::run(self, pid, handler).await
        {
            return format!("postStart: {error}");
        }
        if let Some(startup) = &self.container.startup_probe {
            let mut failed = None;
            let asker = hook::Asker {
                job: self,
                pid,
                probe: startup,
            };
            probe::watch(Timing::of(startup), &asker, |meaning, error| {
                if meaning == Meaning::Failed {
                    failed = error;
                }
                meaning != Meaning::Unchanged
            })
            .await;
            if let Some(error) = failed {
                return format!("startupProbe: {error}");
            }
        }
        let ready = self.container.readiness_probe.is_none();
        self.pod.update_container(self.index, |container| {
            container.started = true;
            container.ready = ready;
        });
        tokio::join!(self.readiness(pid), self.liveness(pid)).1
    }

    async fn readiness(&self, pid: i32) {
        let Some(readiness) = &self.container.readiness_probe else {
            return;
        };
        let asker = hook::Asker {
            job: self,
            pid,
            probe: readiness,
        };
        let report = |meaning, _| {
            if meaning != Meaning::Unchanged {
                self.pod.update_container(self.index, |container| {
                    container.ready = meaning == Meaning::Passed
                });
            }
            false
        };
        // Runs until the container ends, which drops it: never the reason to stop it.
        tokio::select! {
            () = probe::watch(Timing::of(readiness), &asker, report) => {}
            () = self.pod.never() => {}
        }
    }

    async fn liveness(&self, pid: i32) -> String {
        let Some(liveness) = &self.container.liveness_probe else {
            return std::future::pending().await;
        };
        let asker = hook::Asker {
            job: self,
            pid,
            probe: liveness,
        };
        let mut reason = String::new();
        probe::watch(Timing::of(liveness), &asker, |meaning, error| {
            let failed = meaning == Meaning::Failed;
            if failed {
                reason = format!("livenessProbe: {}", error.unwrap_or_default());
            }
            failed
        })
        .await;
        reason
    }

    /// preStop, then SIGTERM, then at the deadline SIGKILL.
    async fn shut_down(&self, child: &mut Child, pid: i32, deadline: Instant) -> std::io::Result<ExitStatus> {
        let lifecycle = self.container.lifecycle.as_ref();
        if let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
            match tokio::time::timeout_at(deadline, hook::run(self, pid, handler)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(pod = %self.pod.key.name, container = %self.container.name, %error, "preStop")
                }
                Err(_) => {
                    tracing::warn!(pod = %self.pod.key.name, container = %self.container.name, "preStop took the whole grace period")
                }
            }
        }
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if let Ok(status) = tokio::time::timeout_at(deadline, child.wait()).await {
            return status;
        }
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        child.kill().await?;
        child.wait().await
    }
}

/// `command` replaces the image's program, `args` follow; both with `$(NAME)` filled in.
fn command(
    entry: &images::Program,
    container: &v1::Container,
    env: &[(String, String)],
) -> (String, Vec<String>) {
    let variables = env.iter().cloned().collect();
    let expanded = |words: &[String]| -> Vec<String> {
        words
            .iter()
            .map(|word| environment::expand(word, &variables))
            .collect()
    };
    let args = expanded(container.args.as_deref().unwrap_or_default());
    match expanded(container.command.as_deref().unwrap_or_default()).split_first() {
        Some((program, rest)) => (program.clone(), [rest, &args].concat()),
        None => (entry.program.clone(), [entry.args.as_slice(), &args].concat()),
    }
}

/// As shells tell it: 128 + signal.
fn exit_code(status: std::io::Result<ExitStatus>) -> i32 {
    match status {
        Ok(status) => status
            .code()
            .or(status.signal().map(|signal| 128 + signal))
            .unwrap_or(255),
        Err(_) => 255,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn restarts_follow_role_and_policy() {
        for (role, policy, code, expect) in [
            (Role::Main, "Always", 0, true),
            (Role::Main, "OnFailure", 0, false),
            (Role::Main, "OnFailure", 1, true),
            (Role::Main, "Never", 1, false),
            (Role::Init, "Always", 0, false),
            (Role::Init, "Always", 1, true),
            (Role::Init, "Never", 1, false),
            (Role::Sidecar, "Never", 0, true),
        ] {
            assert_eq!(restarts(role, policy, code), expect, "{role:?} {policy} {code}");
        }
    }

    #[test]
    fn waits_grow_and_are_forgotten() {
        let mut waits = Waits::default();
        let short = Duration::from_secs(1);
        let got: Vec<u64> = (0..11).map(|_| waits.after(short).as_secs()).collect();
        assert_eq!(got, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(waits.after(GOOD_RUN), Duration::ZERO);
    }

    #[test]
    fn commands() {
        let entry = images::Program {
            program: "web".into(),
            args: vec!["serve".into()],
        };
        let env = vec![("PORT".to_owned(), "80".to_owned())];
        let check = |container: serde_json::Value, program: &str, args: &[&str]| {
            let container: v1::Container = serde_json::from_value(container).unwrap();
            let got = command(&entry, &container, &env);
            assert_eq!(
                (
                    got.0.as_str(),
                    got.1.iter().map(String::as_str).collect::<Vec<_>>()
                ),
                (program, args.to_vec())
            );
        };
        check(json!({"name": "c"}), "web", &["serve"]);
        check(
            json!({"name": "c", "args": ["-p", "$(PORT)"]}),
            "web",
            &["serve", "-p", "80"],
        );
        check(
            json!({"name": "c", "command": ["sh", "-c"], "args": ["x"]}),
            "sh",
            &["-c", "x"],
        );
    }
}
