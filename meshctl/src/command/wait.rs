//! `meshctl wait --for=distribution KIND NAME`: until every connected proxy has acknowledged an object as it is now. Pilot
//! knows; every pilot is asked.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_proto::{kube::Kind, names::port};
use mesh_runtime::settings::duration;
use serde_json::Value;

use crate::{context::Mesh, local::object, output, reach};

const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct Arguments {
    /// What is waited for
    #[arg(long = "for", default_value = "distribution", value_parser = ["distribution", "delete"])]
    pub condition: String,
    /// Kind of the object, such as virtualservice
    pub kind: String,
    /// NAME or NAME.NAMESPACE
    pub name: String,
    /// Give up after this time
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub timeout: Duration,
    /// The part of the proxies that must have it
    #[arg(long, default_value_t = 1.0)]
    pub threshold: f64,
    /// Say what is still waited for
    #[arg(short, long)]
    pub verbose: bool,
}

/// What one round of questions gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Round {
    proxies: usize,
    waiting: Vec<String>,
    rejected: Vec<String>,
    /// Pilots that do not have the object.
    unknown: usize,
    /// Pilots for which its newest version is not in effect.
    refused: usize,
    /// Why nothing is known.
    trouble: String,
}

pub async fn run(arguments: Arguments, mesh: &Mesh) -> anyhow::Result<i32> {
    let Some(kind) = Kind::named(&arguments.kind) else {
        bail!("there is no kind {:?} in the mesh", arguments.kind);
    };
    if !(0.0..=1.0).contains(&arguments.threshold) {
        bail!("--threshold is a part, from 0 to 1");
    }
    let (name, namespace) = match arguments.name.split_once('/') {
        Some((namespace, name)) => (name.to_owned(), namespace.to_owned()),
        None => find(mesh, kind, &arguments.name).await?,
    };
    if arguments.condition == "distribution"
        && !mesh
            .objects(kind, &namespace, "")
            .await?
            .iter()
            .any(|one| object::text(one, "/metadata/name") == name)
    {
        bail!("there is no {kind} {namespace}/{name}");
    }
    let path = format!("/debug/acked?object={}/{namespace}/{name}", kind.lower());
    let mut pilots = mesh.parts("pilot").await?;
    let waiting = async {
        let mut last = Round::default();
        loop {
            // A pilot that has just been started is waited for too.
            let round = match ask(mesh, &pilots, &path).await {
                Ok(round) => round,
                Err(error) => {
                    last = Round {
                        trouble: format!("{error:#}"),
                        ..Round::default()
                    };
                    tokio::time::sleep(POLL).await;
                    pilots = mesh.parts("pilot").await?;
                    continue;
                }
            };
            if is_done(&round, &arguments, pilots.len()) {
                return anyhow::Ok(round);
            }
            if round.refused > 0 && arguments.condition == "distribution" {
                bail!(
                    "the newest version of {kind} {namespace}/{name} has an error and is not in effect; `meshctl analyze -n \
                     {namespace}` says which"
                );
            }
            if arguments.verbose && round != last {
                eprintln!("waiting for {}", told(&round));
            }
            last = round;
            tokio::time::sleep(POLL).await;
        }
    };
    let Ok(round) = tokio::time::timeout(arguments.timeout, waiting).await else {
        let round = ask(mesh, &pilots, &path).await?;
        bail!(
            "timeout after {:?}: {kind} {namespace}/{name}: {}",
            arguments.timeout,
            told(&round)
        );
    };
    let round = round?;
    match arguments.condition.as_str() {
        "delete" => output::line(&format!("{kind} {namespace}/{name} is gone from all proxies")),
        _ => output::line(&format!(
            "Resource {kind}/{namespace}/{name} present on {} out of {} proxies",
            round.proxies - round.waiting.len() - round.rejected.len(),
            round.proxies
        )),
    }
    Ok(0)
}

/// `name.namespace`, or a name with dots in the default namespace: whichever is there.
async fn find(mesh: &Mesh, kind: Kind, written: &str) -> anyhow::Result<(String, String)> {
    if !kind.is_namespaced() {
        return Ok((written.to_owned(), String::new()));
    }
    if let Some((name, namespace)) = written.rsplit_once('.') {
        let here = mesh.objects(kind, &mesh.namespace, "").await?;
        if !here
            .iter()
            .any(|one| object::text(one, "/metadata/name") == written)
        {
            return Ok((name.to_owned(), namespace.to_owned()));
        }
    }
    Ok((written.to_owned(), mesh.namespace.clone()))
}

async fn ask(mesh: &Mesh, pilots: &[Value], path: &str) -> anyhow::Result<Round> {
    let mut round = Round::default();
    for pilot in pilots {
        let answer = match reach::get_json(&mesh.way(pilot), port::CONTROL, path).await {
            Ok(answer) => answer,
            Err(error) if format!("{error:#}").contains("404") => {
                round.unknown += 1;
                continue;
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("asking pod {}", object::text(pilot, "/metadata/name")));
            }
        };
        let names = |field: &str| -> Vec<String> {
            let list = answer[field].as_array().into_iter().flatten();
            list.filter_map(|name| name.as_str().map(ToOwned::to_owned))
                .collect()
        };
        round.proxies += answer["proxies"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or_default();
        round.waiting.extend(names("waiting"));
        round.rejected.extend(names("rejected"));
        if answer["version"].is_null() {
            round.unknown += 1;
        } else if answer["in_effect"] == false {
            round.refused += 1;
        }
    }
    Ok(round)
}

fn is_done(round: &Round, arguments: &Arguments, pilots: usize) -> bool {
    let missing = round.waiting.len() + round.rejected.len();
    if arguments.condition == "delete" {
        return round.unknown == pilots && missing == 0;
    }
    let have = round.proxies.saturating_sub(missing);
    let wanted = round.proxies as f64 * arguments.threshold;
    // Nobody has it as long as nobody is there: proxies come back to a new pilot one by one.
    round.unknown == 0 && round.refused == 0 && round.proxies > 0 && have as f64 >= wanted
}

fn told(round: &Round) -> String {
    let mut parts = Vec::new();
    if !round.trouble.is_empty() {
        return round.trouble.clone();
    }
    if round.unknown > 0 {
        parts.push(format!("{} pilot(s) have not seen it", round.unknown));
    }
    for (names, what) in [
        (&round.waiting, "have not answered"),
        (&round.rejected, "have refused something"),
    ] {
        if !names.is_empty() {
            let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            parts.push(format!(
                "{} of {} proxies {what} ({})",
                names.len(),
                round.proxies,
                shown.join(", ")
            ));
        }
    }
    if parts.is_empty() {
        parts.push(match round.proxies {
            0 => "no proxy is connected to pilot".to_owned(),
            count => format!("{count} proxies"),
        });
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds() {
        let arguments = |condition: &str, threshold| Arguments {
            condition: condition.into(),
            kind: "vs".into(),
            name: "a".into(),
            timeout: Duration::ZERO,
            threshold,
            verbose: false,
        };
        let round = |proxies, waiting: &[&str], unknown| Round {
            proxies,
            waiting: waiting.iter().map(ToString::to_string).collect(),
            unknown,
            ..Round::default()
        };
        for (round, threshold, expect) in [
            (round(3, &[], 0), 1.0, true),
            (round(4, &["a"], 0), 1.0, false),
            (round(4, &["a"], 0), 0.75, true),
            (round(3, &[], 1), 1.0, false),
            (round(0, &[], 0), 1.0, false),
        ] {
            assert_eq!(
                is_done(&round, &arguments("distribution", threshold), 1),
                expect,
                "{round:?}"
            );
        }
        assert!(is_done(&round(3, &[], 1), &arguments("delete", 1.0), 1));
        assert!(told(&round(4, &["a.b"], 0)).contains("1 of 4 proxies have not answered (a.b)"));
    }
}
