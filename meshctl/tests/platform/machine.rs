//! A platform of its own for one test: in a folder of its own, driven through the command, gone at the end even when the
//! test fails.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(40);

/// Two web servers behind a service, and a client with a volume.
pub const WEB: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 8000, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: example/web:1
        args: ['8000']
        ports: [{name: http, containerPort: 8000}]
        env: [{name: PYTHONUNBUFFERED, value: '1'}]
        readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: example/sleep
    env: [{name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}]
    volumeMounts: [{name: settings, mountPath: /data/deep}]
    readinessProbe: {exec: {command: [test, -f, /data/deep/colour]}, periodSeconds: 1}
  volumes:
  - {name: settings, configMap: {name: settings}}
";

pub struct Platform {
    dir: PathBuf,
}

impl Platform {
    pub fn up(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("gossamer-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let platform = Self { dir };
        platform.start();
        platform
    }

    pub fn start(&self) {
        let web = "example/web=python3 -m http.server -d / -b 0.0.0.0";
        self.ok(&[
            "local",
            "up",
            "--without-control-plane",
            "--gateway-port",
            "0",
            "--image",
            web,
            "--image",
            "example/sleep=sleep infinity",
        ]);
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command
            .env("GOSSAMER_DIR", &self.dir)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// The output of a command that must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{out}\n{err}\n{}",
            output.status,
            self.state()
        );
        out.into_owned()
    }

    /// What helps to understand a failure.
    fn state(&self) -> String {
        let pods = self.run(&["local", "get", "pods", "-A", "-o", "wide"]);
        let log = std::fs::read_to_string(self.dir.join("run/node.log")).unwrap_or_default();
        format!("{}\n{log}", String::from_utf8_lossy(&pods.stdout))
    }

    pub fn until(&self, arguments: &[&str], expect: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let output = self.run(arguments);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains(expect) {
                return text;
            }
            assert!(
                Instant::now() < end,
                "{arguments:?} never said {expect:?}: {text}\n{}",
                self.state()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn apply(&self, manifest: &str) -> String {
        let mut command = self.command(&["local", "apply", "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Names of the pods of a Deployment.
    pub fn pods(&self, deployment: &str) -> Vec<String> {
        let names = self.ok(&["local", "get", "pods", "-o", "name"]);
        let begin = format!("pod/{deployment}-");
        names
            .lines()
            .filter(|line| line.starts_with(&begin))
            .map(ToOwned::to_owned)
            .collect()
    }

    /// The old pods of a rollout leave after it is complete.
    pub fn until_gone(&self, pods: &[String]) {
        let end = Instant::now() + PATIENCE;
        while self
            .ok(&["local", "get", "pods", "-o", "name"])
            .lines()
            .any(|line| pods.iter().any(|pod| pod == line))
        {
            assert!(Instant::now() < end, "{pods:?} never went\n{}", self.state());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn kill_supervisor(&self) {
        let pid = std::fs::read_to_string(self.dir.join("run/node.pid")).unwrap();
        assert!(
            Command::new("kill")
                .args(["-9", pid.trim()])
                .status()
                .unwrap()
                .success()
        );
        // The kernel needs a moment to take the process out.
        let gone = || !std::path::Path::new(&format!("/proc/{}/ns/net", pid.trim())).exists();
        let end = Instant::now() + PATIENCE;
        while !gone() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn down(&self) {
        let namespaces = self.namespaces();
        assert!(!namespaces.is_empty());
        self.ok(&["local", "down"]);
        for name in namespaces {
            assert!(
                !std::path::Path::new("/run/netns").join(&name).exists(),
                "{name} is left"
            );
        }
        assert!(!self.dir.exists(), "{} is left", self.dir.display());
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(&*self.dir.to_string_lossy()), "a mount is left");
    }

    /// The network namespaces of this platform.
    fn namespaces(&self) -> Vec<String> {
        let layout = meshctl::local::platform::Layout::new(&self.dir).unwrap();
        meshctl::local::netns::list(&layout)
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // The test has ended one way or the other: nothing of it may stay.
        let _ = self.run(&["local", "down"]);
    }
}
