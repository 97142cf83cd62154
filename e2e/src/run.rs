//! The runner of `tests/local.rs` and `tests/kubernetes.rs`. The tests of each share one mesh, run in the order in which they are
//! listed, and the mesh is taken down at the end, whatever happens. Takes `cargo test`'s usual arguments (filters, `--list`,
//! `--exact`, `--skip`) and ends with its usual line.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

/// What the tests of a suite share.
pub trait Fixture: Sized {
    /// Comes before the names of the tests, with a slash: `cargo test -- --skip local/` runs everything else.
    const SUITE: &str;

    /// All that the first test needs.
    fn start() -> anyhow::Result<Self>;

    /// After a test that failed: keeps what is known, and says where, and the most important of it.
    fn diagnose(&self, test: &str) -> String;

    /// After a test that failed: takes away what it may have left, and puts back what it may have taken.
    fn reset(&mut self) -> anyhow::Result<()>;

    /// Takes it down, and says if something is left.
    fn stop(self) -> anyhow::Result<()>;
}

pub struct Test<F> {
    /// Module and function.
    pub name: &'static str,
    pub run: fn(&mut F) -> anyhow::Result<()>,
}

impl<F: Fixture> Test<F> {
    fn full_name(&self) -> String {
        format!("{}/{}", F::SUITE, self.name)
    }
}

/// Tests, named by their modules and functions.
#[macro_export]
macro_rules! tests {
    ($($module:ident: $($name:ident),+);+ $(;)?) => {
        &[$($($crate::run::Test { name: concat!(stringify!($module), "::", stringify!($name)), run: $module::$name }),+),+]
    };
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self::default();
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--skip" => options.skip.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(arguments.next()),
                other if other.starts_with('-') => {}
                filter => options.filters.push(filter.to_owned()),
            }
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skip.iter().any(matches)
    }
}

pub fn main<F: Fixture>(tests: &[Test<F>]) -> ExitCode {
    let options = Options::parse(std::env::args().skip(1));
    let wanted: Vec<&Test<F>> = tests
        .iter()
        .filter(|test| options.wants(&test.full_name()))
        .collect();
    if options.list {
        wanted
            .iter()
            .for_each(|test| println!("{}: test", test.full_name()));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", wanted.len());
    let begin = Instant::now();
    let mut failures = Vec::new();
    let mut passed = 0;
    if !wanted.is_empty() {
        match F::start() {
            Ok(mut shared) => {
                for test in wanted {
                    match run(test, &mut shared) {
                        Ok(()) => passed += 1,
                        Err(error) => failures.push((test.name, error)),
                    }
                }
                if let Err(error) = shared.stop() {
                    failures.push(("(taking the mesh down)", format!("{error:#}")));
                }
            }
            Err(error) => failures.extend(
                wanted
                    .iter()
                    .map(|test| (test.name, format!("the mesh did not start: {error:#}"))),
            ),
        }
    }
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (name, error) in failures.iter().take(30) {
            println!("---- {name} ----\n{error}\n");
        }
        failures.iter().for_each(|(name, _)| println!("    {name}"));
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        failures.len(),
        tests.len().saturating_sub(passed + failures.len()),
        begin.elapsed().as_secs_f64()
    );
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run<F: Fixture>(test: &Test<F>, shared: &mut F) -> Result<(), String> {
    let begin = Instant::now();
    let outcome = match catch_unwind(AssertUnwindSafe(|| (test.run)(shared))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            Err(format!(
                "panicked: {}",
                text.or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default()
            ))
        }
    };
    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!(
        "test {} ... {word} ({:.1} s)",
        test.full_name(),
        begin.elapsed().as_secs_f64()
    );
    outcome.map_err(|error| {
        let known = shared.diagnose(test.name);
        let reset = shared
            .reset()
            .err()
            .map(|error| format!("\nputting the mesh back failed: {error:#}"))
            .unwrap_or_default();
        format!("{error}\n{known}{reset}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_cargo_test_are_understood() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        let options = parse("-q --test-threads 1 weights --skip change");
        assert!(options.wants("traffic::weights_80_20") && !options.wants("traffic::weights_change"));
        assert!(!options.wants("other"));
        assert!(parse("").wants("anything"));
        assert!(!parse("--exact weights").wants("weights_80_20"));
    }
}
