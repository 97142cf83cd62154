//! What the machine must have before a local mesh can be: looked at one by one, and everything that is missing is told
//! at once, each with what to do about it.

use std::process::Command;

use super::images::{find_program, search_path};

/// Something missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub what: &'static str,
    pub detail: String,
    pub cure: &'static str,
}

/// A trial namespace: made and removed by the checks.
fn trial() -> String {
    format!("gossamer-trial-{}", std::process::id())
}

/// Everything that is missing; empty when the mesh can be.
pub fn check() -> Vec<Missing> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        let what = "root";
        let detail = "network namespaces, mounts and netfilter need it".to_owned();
        return vec![Missing {
            what,
            detail,
            cure: "run it with sudo",
        }];
    }
    let path = search_path();
    for (program, cure) in [("ip", "apt install iproute2"), ("nft", "apt install nftables")] {
        if find_program(program, &path).is_none() {
            missing.push(Missing {
                what: program,
                detail: "the program is not on PATH".into(),
                cure,
            });
        }
    }
    if !missing.is_empty() {
        return missing;
    }
    for namespace in ["net", "mnt", "uts"] {
        if !std::path::Path::new("/proc/self/ns").join(namespace).exists() {
            let detail = format!("the kernel has no {namespace} namespaces");
            missing.push(Missing {
                what: "namespaces",
                detail,
                cure: "use a kernel with CONFIG_NAMESPACES",
            });
        }
    }
    missing.extend(network());
    missing
}

/// Tries in a namespace of its own what the node and the pods will need.
fn network() -> Option<Missing> {
    let name = trial();
    if let Err(detail) = run("ip", &["netns", "add", &name], "") {
        let cure = "run it where namespaces may be made (not in an unprivileged container)";
        return Some(Missing {
            what: "network namespaces",
            detail,
            cure,
        });
    }
    let result = trials(&name);
    // Whatever the trials said, the namespace goes.
    let _ = run("ip", &["netns", "delete", &name], "");
    result
}

fn trials(name: &str) -> Option<Missing> {
    let links = "link set lo up\nlink add b0 type bridge\nlink add v0 type veth peer name v1\nlink set v0 master b0\n";
    if let Err(detail) = run("ip", &["-netns", name, "-batch", "-"], links) {
        let cure = "load the modules: modprobe bridge veth";
        return Some(Missing {
            what: "virtual links",
            detail,
            cure,
        });
    }
    let tables = "table ip t {\n chain n {\n type nat hook prerouting priority -100;\n \
                  meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 192.0.2.1 . 1, 1 : 192.0.2.2 . 1 }\n }\n\
                  chain f {\n type filter hook prerouting priority -50;\n meta l4proto tcp reject with tcp reset\n }\n}\n\
                  table inet r {\n chain o {\n type nat hook output priority -100;\n meta skuid 1337 return\n \
                  meta l4proto tcp redirect to :15001\n }\n}\n";
    if let Err(detail) = run("ip", &["netns", "exec", name, "nft", "-f", "-"], tables) {
        let cure = "load the modules: modprobe nf_tables nft_chain_nat nft_redir nft_masq nft_numgen nft_reject_inet";
        return Some(Missing {
            what: "netfilter with address translation",
            detail,
            cure,
        });
    }
    None
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    use std::{io::Write, process::Stdio};
    let command = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = command.map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else {
        Err(text.lines().take(2).collect::<Vec<_>>().join("; "))
    }
}

/// As `up` prints it.
pub fn report(missing: &[Missing]) -> String {
    let lines: Vec<String> = missing
        .iter()
        .map(|one| format!("  missing: {} ({})\n    do: {}", one.what, one.detail, one.cure))
        .collect();
    format!("this machine cannot run a local mesh yet:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_and_how() {
        let one = Missing {
            what: "nft",
            detail: "not on PATH".into(),
            cure: "apt install nftables",
        };
        let text = report(&[one]);
        assert!(text.contains("missing: nft (not on PATH)") && text.contains("do: apt install nftables"));
    }
}
