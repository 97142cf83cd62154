//! Hands a ruleset to `nft` in the network namespace of this process. One invocation is one transaction of the kernel.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use super::plan;

/// Why the rules could not be set.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot run nft ({0}): install the package nftables, or check that it is in PATH")]
    Missing(#[source] io::Error),
    #[error("cannot hand the rules to nft: {0}")]
    Pipe(#[source] io::Error),
    #[error("nft refused the rules: {stderr}{hint}")]
    Refused { stderr: String, hint: &'static str },
}

/// Puts the ruleset in force.
pub fn apply(ruleset: &str) -> Result<(), ApplyError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ApplyError::Missing)?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(ruleset.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(ApplyError::Pipe)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let hint = hint(&stderr);
        return Err(ApplyError::Refused { stderr, hint });
    }
    written.map_err(ApplyError::Pipe)
}

/// Removes the rules; fine if there are none.
pub fn clean() -> Result<(), ApplyError> {
    apply(&plan::removal())
}

fn hint(stderr: &str) -> &'static str {
    if stderr.contains("Operation not permitted") {
        " (setting rules needs root, or the capabilities NET_ADMIN and NET_RAW)"
    } else if stderr.contains("No such file or directory") || stderr.contains("not supported") {
        " (the kernel lacks a feature: nf_tables with NAT for the inet family, and conntrack zones when DNS is redirected)"
    } else {
        ""
    }
}
