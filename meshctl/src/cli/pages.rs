//! A page for each command, `docs/reference/meshctl/<command>.md`, made from what clap knows. The test holds the pages
//! true; UPDATE=1 writes them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::Cli;

const FOLDER: &str = "docs/reference/meshctl";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FOLDER)
}

/// All pages, by the name of their file.
fn pages() -> BTreeMap<String, String> {
    let mut cli = Cli::command();
    cli.build();
    let mut pages = BTreeMap::new();
    let mut index = String::from(
        "# meshctl\n\nEvery command has a page, generated from the code. Names and flags are istioctl's and kubectl's where \
         these have them.\n\n| Command | What it does |\n| --- | --- |\n",
    );
    for command in shown(&cli) {
        let name = command.get_name();
        let about = about(command);
        index += &format!("| [meshctl {name}]({name}.md) | {about} |\n");
        let mut page = String::new();
        section(command, &format!("meshctl {name}"), 1, &mut page);
        pages.insert(format!("{name}.md"), page);
    }
    index += "\n## Flags of every command\n\n";
    flags(cli.get_arguments().filter(|one| one.is_global_set()), &mut index);
    pages.insert("README.md".into(), index);
    pages
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|one| !one.is_hide_set() && one.get_name() != "help")
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn section(command: &Command, path: &str, level: usize, page: &mut String) {
    *page += &format!("{} {path}\n\n{}\n", "#".repeat(level.min(6)), about(command));
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    if !aliases.is_empty() {
        *page += &format!("\nAlso: `{}`.\n", aliases.join("`, `"));
    }
    let usage = command.clone().render_usage().to_string();
    *page += &format!("\n```\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    let own = |one: &&Arg| !one.is_global_set() && !one.is_hide_set() && one.get_id() != "help";
    let positionals: Vec<&Arg> = command
        .get_arguments()
        .filter(own)
        .filter(|one| one.is_positional())
        .collect();
    if !positionals.is_empty() {
        *page += "\n| Argument | |\n| --- | --- |\n";
        for one in positionals {
            let name = one
                .get_value_names()
                .and_then(<[_]>::first)
                .map(ToString::to_string);
            let name = name.unwrap_or_else(|| one.get_id().to_string().to_uppercase());
            *page += &format!("| `{name}` | {} |\n", help(one));
        }
    }
    let options: Vec<&Arg> = command
        .get_arguments()
        .filter(own)
        .filter(|one| !one.is_positional())
        .collect();
    if !options.is_empty() {
        page.push('\n');
        flags(options.into_iter(), page);
    }
    if let Some(more) = command.get_after_long_help() {
        *page += &format!("\n```\n{}\n```\n", more.to_string().trim());
    }
    for one in shown(command) {
        page.push('\n');
        section(one, &format!("{path} {}", one.get_name()), level + 1, page);
    }
}

fn flags<'a>(all: impl Iterator<Item = &'a Arg>, page: &mut String) {
    *page += "| Flag | |\n| --- | --- |\n";
    for one in all.filter(|one| !one.is_hide_set()) {
        let mut names = Vec::new();
        names.extend(one.get_short().map(|short| format!("`-{short}`")));
        names.extend(one.get_long().map(|long| format!("`--{long}`")));
        names.extend(
            one.get_visible_aliases()
                .unwrap_or_default()
                .iter()
                .map(|alias| format!("`--{alias}`")),
        );
        let takes = matches!(one.get_action(), ArgAction::Set | ArgAction::Append);
        let value = one.get_value_names().and_then(<[_]>::first).filter(|_| takes);
        let value = value.map(|value| format!(" `{value}`")).unwrap_or_default();
        *page += &format!("| {}{value} | {} |\n", names.join(", "), help(one));
    }
}

/// The help of an argument with its values and its default, fit for a cell of a table.
fn help(one: &Arg) -> String {
    let mut text = one.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = one
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| value.get_name().to_owned())
        .collect();
    if !values.is_empty() && values != ["true", "false"] {
        text += &format!(" (one of `{}`)", values.join("`, `"));
    }
    let default: Vec<String> = one
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    if !default.is_empty() && !one.get_action().clone().takes_values().eq(&false) {
        text += &format!(" [default: `{}`]", default.join(","));
    }
    if let Some(variable) = one.get_env() {
        text += &format!(" [environment: `{}`]", variable.to_string_lossy());
    }
    text.replace('|', "\\|").replace('\n', " ").trim().to_owned()
}

#[test]
fn pages_of_commands_are_true() {
    let pages = pages();
    let folder = folder();
    if std::env::var_os("UPDATE").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &pages {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let mut wrong = Vec::new();
    for (name, text) in &pages {
        if fs::read_to_string(folder.join(name)).unwrap_or_default() != *text {
            wrong.push(name.clone());
        }
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !pages.contains_key(&name) {
            wrong.push(format!("{name} (no such command)"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{FOLDER}: not up to date: {wrong:?}; UPDATE=1 writes them"
    );
}

/// What the page for people from Istio promises is there.
#[test]
fn commands_of_the_page_for_istio_users_are_there() {
    let page = folder().join("../../guide/coming-from-istio.md");
    let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let cli = Cli::command();
    let mut seen = 0;
    for line in text.split('`').skip(1).step_by(2) {
        let mut words = line.split_whitespace();
        if words.next() != Some("meshctl") {
            continue;
        }
        let Some(name) = words
            .next()
            .filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        else {
            continue;
        };
        let command = cli.find_subcommand(name);
        assert!(command.is_some(), "there is no `{line}`");
        let inner = words
            .next()
            .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()));
        if let (Some(command), Some(inner)) = (command, inner)
            && command.has_subcommands()
        {
            assert!(command.find_subcommand(inner).is_some(), "there is no `{line}`");
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} commands are named");
}
