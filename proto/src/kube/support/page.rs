//! The page `docs/reference/api-support.md`.

use std::fmt::Write as _;

use super::{State, one_of_its_kind, state};
use crate::kube::{Kind, crd, schema};

const HEAD: &str = "# What is supported of Istio's API

This page is generated from the types and the table of fields (`proto/src/kube/support/table.rs`); to write it anew:
`UPDATE=1 cargo test -p mesh-proto generated`.

Every field of the API is known. One that is not carried out yet is never ignored in silence: `meshctl analyze`, the
validation webhook and pilot tell it as finding `GSM0004` (NotSupportedYet), with its path.

| State | Meaning |
| --- | --- |
| yes | does what its description says (`kubectl explain`) |
| partly | so too, except for what is said beside it |
| planned | nothing yet; the rest of the object counts. A warning |
| refused | nothing yet, and without it the object would mean something else: the object is not taken. An error |
| none | nothing, neither here nor in Istio. A warning |
";

/// The page as Markdown.
pub fn page() -> String {
    let mut text = HEAD.to_owned();
    let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.is_mesh()).collect();
    text.push_str("\n| Kind | Versions | Fields | Supported |\n| --- | --- | ---: | ---: |\n");
    for kind in &kinds {
        let fields = fields(*kind);
        let good = fields
            .iter()
            .filter(|(_, state)| matches!(state, State::Supported | State::Partly(_)))
            .count();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| [{kind}](#{}) | {} {} | {} | {good} |",
            kind.lower(),
            kind.group(),
            kind.versions().join(", "),
            fields.len(),
        );
    }
    for kind in kinds {
        section(kind, &mut text);
    }
    text
}

fn section(kind: Kind, text: &mut String) {
    let _ = write!(text, "\n## {kind}\n\n");
    if kind == Kind::DestinationRule {
        text.push_str(
            "`subsets[].trafficPolicy` and the entries of `portLevelSettings[]` have the fields of `trafficPolicy`, in the \
             same states.\n\n",
        );
    }
    text.push_str("| Field | State |\n| --- | --- |\n");
    let mut before = "";
    for (path, state) in fields(kind) {
        if one_of_its_kind(kind, &path) != path {
            continue;
        }
        let (word, why) = match state {
            State::Supported => ("yes", ""),
            State::Partly(why) => ("partly", why),
            State::Planned(why) => ("planned", why),
            State::Refused(why) => ("refused", why),
            State::Never(why) => ("none", why),
        };
        let _ = match why {
            "" => writeln!(text, "| `{path}` | {word} |"),
            why if why == before => writeln!(text, "| `{path}` | {word}, as above |"),
            why => writeln!(text, "| `{path}` | {word}: {why} |"),
        };
        before = why;
    }
}

fn fields(kind: Kind) -> Vec<(String, State)> {
    let spec = crd::spec(kind).unwrap_or_default();
    schema::leaves(&spec)
        .into_iter()
        .filter_map(|(path, _)| state(kind, &path).map(|state| (path, state)))
        .collect()
}
