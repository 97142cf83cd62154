//! `meshctl check`: whether the mesh is well, point by point. Exit code 1 when a point fails whose level is error.

use std::{io::IsTerminal, time::Duration};

use clap::{Args, ValueEnum};
use mesh_runtime::settings::duration;
use serde_json::{Value, json};

use crate::{
    check::{self, Check, Facts, Level, Outcome},
    context::{Mesh, Target},
    output,
};

const POLL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Ask again until all is well, for as long as this
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub wait: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Every point
    #[default]
    Table,
    /// Only what is not well
    Short,
    Json,
}

type Judged = Vec<(Check, Outcome)>;

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    let mesh = Mesh::find(target).await?;
    let began = std::time::Instant::now();
    let judged = loop {
        let facts = Facts::gather(&mesh).await;
        let judged: Judged = check::all()
            .into_iter()
            .map(|check| (check, (check.judge)(&facts)))
            .collect();
        if failed(&judged) == 0 || began.elapsed() + POLL > arguments.wait {
            break judged;
        }
        tokio::time::sleep(POLL).await;
    };
    match arguments.output {
        Format::Json => output::json(&machine(&judged))?,
        format => output::print(&table(
            &judged,
            format == Format::Short,
            std::io::stdout().is_terminal(),
        )),
    }
    Ok(i32::from(failed(&judged) > 0))
}

fn failed(judged: &Judged) -> usize {
    let errors = judged
        .iter()
        .filter(|(check, outcome)| check.level == Level::Error && matches!(outcome, Outcome::Failed(_)));
    errors.count()
}

fn table(judged: &Judged, short: bool, colour: bool) -> String {
    let paint = |code: &str, sign: &str| match colour {
        true => format!("\u{1b}[{code}m{sign}\u{1b}[0m"),
        false => sign.to_owned(),
    };
    let (mut text, mut category) = (String::new(), "");
    for (check, outcome) in judged {
        if short && *outcome == Outcome::Passed {
            continue;
        }
        if short && matches!(outcome, Outcome::Skipped(_)) {
            continue;
        }
        if check.category != category {
            category = check.category;
            let line = "-".repeat(category.len());
            text += &format!("{}{category}\n{line}\n", if text.is_empty() { "" } else { "\n" });
        }
        let (sign, why) = match (outcome, check.level) {
            (Outcome::Passed, _) => (paint("32", "√"), None),
            (Outcome::Failed(why), Level::Error) => (paint("31", "×"), Some(why)),
            (Outcome::Failed(why), Level::Warning) => (paint("33", "‼"), Some(why)),
            (Outcome::Skipped(why), _) => ("-".to_owned(), Some(why)),
        };
        text += &format!("{sign} {}\n", check.text);
        if let Some(why) = why {
            text += &format!("    {why}\n");
        }
        if matches!(outcome, Outcome::Failed(_)) {
            text += &format!("    see {}#{}\n", check::PAGE, check.anchor);
        }
    }
    let state = match failed(judged) {
        0 => "Status check results are √".to_owned(),
        n => format!(
            "Status check results are ×: {n} of {} points failed",
            judged.len()
        ),
    };
    format!("{text}{}{state}\n", if text.is_empty() { "" } else { "\n" })
}

fn machine(judged: &Judged) -> Value {
    let rows = judged.iter().map(|(check, outcome)| {
        let (result, error) = match outcome {
            Outcome::Passed => ("success", None),
            Outcome::Failed(why) if check.level == Level::Warning => ("warning", Some(why)),
            Outcome::Failed(why) => ("error", Some(why)),
            Outcome::Skipped(why) => ("skipped", Some(why)),
        };
        let mut row = json!({
            "category": check.category, "check": check.anchor, "description": check.text, "result": result,
            "hint": format!("{}#{}", check::PAGE, check.anchor),
        });
        if let Some(error) = error {
            row["error"] = error.as_str().into();
        }
        row
    });
    json!({"success": failed(judged) == 0, "checks": rows.collect::<Value>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged() -> Judged {
        let outcomes = [
            Outcome::Passed,
            Outcome::Failed("it is old".into()),
            Outcome::Skipped("not here".into()),
        ];
        check::all().into_iter().zip(outcomes).collect()
    }

    #[test]
    fn tables() {
        let text = table(&judged(), false, false);
        assert!(text.starts_with("platform\n--------\n√ the API server"), "{text}");
        assert!(text.contains("× the Kubernetes version is supported\n    it is old\n    see docs/reference/checks.md#platform-version\n"), "{text}");
        assert!(
            text.ends_with("Status check results are ×: 1 of 3 points failed\n"),
            "{text}"
        );
        let short = table(&judged(), true, false);
        assert!(
            !short.contains('√') && !short.contains("not here") && short.contains("it is old"),
            "{short}"
        );
    }

    #[test]
    fn json_has_every_point() {
        let value = machine(&judged());
        assert_eq!(
            (&value["success"], value["checks"].as_array().map(Vec::len)),
            (&json!(false), Some(3))
        );
        assert_eq!(value["checks"][2]["result"], "skipped");
    }
}
