//! The local platform in real network namespaces, with python3's web server as the workload: pods, services, DNS, exec,
//! logs, rollout, restart, and that nothing is left after `kill -9` and `down`. Needs root, iproute2, nftables, python3.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod machine;

use machine::{Platform, WEB};

#[test]
fn pods_services_and_their_end() {
    let platform = Platform::up("life");
    platform.apply(WEB);
    platform.ok(&["local", "rollout", "status", "deployment/web"]);
    let pods = platform.ok(&["local", "get", "pods", "-o", "wide"]);
    assert_eq!(pods.matches("Running").count(), 3, "{pods}");

    // By name, through the service's address, from another pod.
    let page = platform.ok(&[
        "local",
        "exec",
        "client",
        "--",
        "python3",
        "-c",
        GET,
        "http://web:8000/etc/hostname",
    ]);
    assert!(page.starts_with("200"), "{page}");
    // Volumes, variables and names are inside, and nothing of them outside.
    let inside = platform.ok(&[
        "local",
        "exec",
        "client",
        "--",
        "cat",
        "/data/deep/colour",
        "/etc/hosts",
    ]);
    assert!(inside.starts_with("red") && inside.contains("client"), "{inside}");
    assert!(!std::path::Path::new("/data/deep").exists());
    let shown = platform.ok(&[
        "local",
        "exec",
        "client",
        "--",
        "sh",
        "-c",
        "echo $COLOUR $(hostname)",
    ]);
    assert_eq!(shown.trim(), "red client");
    let code = platform
        .run(&["local", "exec", "client", "--", "sh", "-c", "exit 7"])
        .status
        .code();
    assert_eq!(code, Some(7));
    // Names of the cluster are answered at once, good or not.
    let names = platform.ok(&["local", "exec", "client", "--", "python3", "-c", NAMES]);
    assert!(names.starts_with("10.96."), "{names}");
    assert!(names.contains("nothing: no"), "{names}");
    let logs = platform.ok(&["local", "logs", "deployment/web"]);
    assert!(logs.contains("Serving HTTP"), "{logs}");

    // An unknown image hurts nobody.
    platform.apply(UNKNOWN);
    let pods = platform.until(&["local", "get", "pods", "-o", "wide"], "ImageNotFound");
    assert!(pods.contains("images.yaml"), "{pods}");

    let before = platform.pods("web");
    platform.ok(&["local", "rollout", "restart", "deployment/web"]);
    platform.ok(&["local", "rollout", "status", "deployment/web"]);
    platform.until_gone(&before);
    assert_eq!(platform.apply(WEB).matches("unchanged").count(), 4);
    platform.ok(&["local", "scale", "deployment/web", "--replicas", "1"]);
    platform.ok(&["local", "rollout", "status", "deployment/web"]);

    platform.ok(&["local", "delete", "deployment", "web"]);
    assert!(platform.pods("web").is_empty());
    let refused = platform.ok(&[
        "local",
        "exec",
        "client",
        "--",
        "python3",
        "-c",
        GET,
        "http://web:8000/",
    ]);
    assert!(refused.contains("refused"), "{refused}");
    platform.down();
}

#[test]
fn a_killed_platform_comes_back_and_goes() {
    let platform = Platform::up("crash");
    platform.apply(WEB);
    platform.ok(&["local", "rollout", "status", "deployment/web"]);
    platform.kill_supervisor();
    let text = platform.run(&["local", "get", "pods"]);
    assert!(String::from_utf8_lossy(&text.stderr).contains("no local mesh is running"));
    platform.start();
    platform.ok(&["local", "rollout", "status", "deployment/web"]);
    let page = platform.until(
        &[
            "local",
            "exec",
            "client",
            "--",
            "python3",
            "-c",
            GET,
            "http://web:8000/etc/hostname",
        ],
        "200",
    );
    assert!(page.starts_with("200"), "{page}");
    platform.kill_supervisor();
    platform.down();
}

/// Prints the status, or the kind of failure.
const GET: &str = "
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5).status)
except Exception as e:
    print(e)
";

const NAMES: &str = "
import socket
print(socket.gethostbyname('web.default.svc.cluster.local'))
try:
    socket.gethostbyname('nothing.default.svc.cluster.local')
except socket.gaierror:
    print('nothing: no')
";

const UNKNOWN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec:
  containers:
  - {name: main, image: nobody/knows:1}
";
