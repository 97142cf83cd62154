//! What the mesh stands on: an API server that answers, is new enough, and knows the mesh's kinds.

use super::{Check, Facts, Level, Outcome};

const CATEGORY: &str = "platform";
/// The oldest minor version of Kubernetes 1 whose native sidecars the injected pods need.
const OLDEST_MINOR: u32 = 29;
const GROUPS: [&str; 4] = [
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
];

pub const CHECKS: &[Check] = &[
    Check {
        category: CATEGORY,
        anchor: "platform-answers",
        text: "the API server (or the local mesh) answers",
        level: Level::Error,
        meaning: "Nothing can be asked of the platform, so most of the other points cannot be judged.",
        remedy: "See whether `kubectl get ns` works with the same kubeconfig and context; for the mesh on this machine, \
                 whether `meshctl local status` answers, else start it with `meshctl local up`.",
        judge: answers,
    },
    Check {
        category: CATEGORY,
        anchor: "platform-version",
        text: "the Kubernetes version is supported",
        level: Level::Error,
        meaning: "Injected pods use native sidecars (init containers that go on running), which older versions do not have.",
        remedy: "Upgrade the cluster to Kubernetes 1.29 or newer.",
        judge: version,
    },
    Check {
        category: CATEGORY,
        anchor: "platform-kinds",
        text: "the mesh's kinds are known to the API server",
        level: Level::Error,
        meaning: "Without the custom resource definitions nobody can write rules for the mesh, and pilot reads none.",
        remedy: "Run `meshctl install`, or apply `charts/base/crds`.",
        judge: kinds,
    },
];

fn answers(facts: &Facts) -> Outcome {
    match &facts.server {
        Ok(_) => Outcome::Passed,
        Err(problem) => Outcome::Failed(problem.clone()),
    }
}

fn version(facts: &Facts) -> Outcome {
    if !facts.cluster {
        return Outcome::Skipped("the local mesh needs no Kubernetes".into());
    }
    let Ok(text) = &facts.server else {
        return Outcome::Skipped("the API server does not answer".into());
    };
    match minor(text) {
        Some(minor) if minor >= OLDEST_MINOR => Outcome::Passed,
        Some(_) => Outcome::Failed(format!("it is {text}, and 1.{OLDEST_MINOR} is needed")),
        None => Outcome::Skipped(format!("{text:?} is no version of Kubernetes 1")),
    }
}

/// `v1.36.2+k3s1` → 36
fn minor(text: &str) -> Option<u32> {
    let mut parts = text.trim_start_matches('v').split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    let digits: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    (major == 1).then(|| digits.parse().ok())?
}

fn kinds(facts: &Facts) -> Outcome {
    if !facts.cluster {
        return Outcome::Skipped("the local mesh knows them by itself".into());
    }
    match &facts.groups {
        Err(problem) => Outcome::Skipped(problem.clone()),
        Ok(known) => {
            let missing = GROUPS
                .into_iter()
                .filter(|group| !known.iter().any(|one| one == group));
            Outcome::of(missing.map(|group| format!("{group} is not served")).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn versions() {
        for (text, expect) in [
            ("v1.36.2", Some(36)),
            ("v1.29+", Some(29)),
            ("v1.31.0-eks-1", Some(31)),
            ("v2.0.0", None),
            ("", None),
        ] {
            assert_eq!(minor(text), expect, "{text}");
        }
    }
}
