//! The figures as a table beside the budgets.

use std::{fmt::Write, time::Duration};

use super::{Mode, Settings};

/// What changes of one kind took.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// Of every proxy, every change: from the changed file to its answer.
    proxies: Vec<Duration>,
    /// Of every change: until the last proxy answered, and until pilot knew that.
    last: Vec<Duration>,
    known: Vec<Duration>,
    cpu: Duration,
    concerned: usize,
}

impl Times {
    pub fn add(&mut self, latencies: Vec<Duration>, known: Duration, cpu: Duration, concerned: usize) {
        self.last
            .push(latencies.iter().max().copied().unwrap_or_default());
        self.proxies.extend(latencies);
        self.known.push(known);
        self.cpu += cpu;
        self.concerned += concerned;
    }

    fn changes(&self) -> u32 {
        u32::try_from(self.last.len()).unwrap_or(u32::MAX).max(1)
    }

    fn average(&self) -> usize {
        self.concerned / self.last.len().max(1)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub build: String,
    pub population: String,
    /// From exec until proxies are taken.
    pub start: Duration,
    /// Resident bytes: with the objects and no proxy; with all proxies in sync; after the changes.
    pub memory_alone: f64,
    pub memory: f64,
    pub memory_later: f64,
    pub memory_peak: f64,
    pub memory_reconnected: f64,
    pub connect: Duration,
    pub connect_cpu: Duration,
    pub received: u64,
    pub endpoints: Times,
    pub routes: Times,
    pub restart: Duration,
    pub reconnect: Option<Duration>,
    pub reconnect_cpu: Duration,
}

/// The value below which a share of all lies.
fn quantile(values: &[Duration], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() as f64 * share).ceil() as usize;
    let value = sorted.get(place.saturating_sub(1).min(sorted.len().saturating_sub(1)));
    milliseconds(value.copied().unwrap_or_default())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

const MB: f64 = 1_000_000.0;

impl Report {
    fn per_proxy(&self, memory: f64, settings: &Settings) -> f64 {
        (memory - self.memory_alone) / 1000.0 / settings.proxies.max(1) as f64
    }

    pub fn render(&self, settings: &Settings) -> String {
        let mode = match settings.mode {
            Mode::Full => "the whole configuration each".to_owned(),
            Mode::Ondemand => format!("each with {} clusters on demand", settings.wanted),
        };
        let mut text = format!(
            "### Pilot: {} proxies, {mode}\n\n{}; {}.\n\n| What | Measured | Budget |\n|---|---|---|\n",
            settings.proxies, self.build, self.population
        );
        let mut row = |what: &str, measured: String, budget: &str| {
            let _ = writeln!(text, "| {what} | {measured} | {budget} |");
        };
        row(
            "exec to taking proxies",
            format!("{:.2} s", self.start.as_secs_f64()),
            "",
        );
        row(
            "resident, the objects alone",
            format!("{:.0} MB", self.memory_alone / MB),
            "",
        );
        row(
            "resident, all proxies in sync (most before)",
            format!("{:.0} MB ({:.0} MB)", self.memory / MB, self.memory_peak / MB),
            "",
        );
        row(
            "per proxy; after the changes",
            format!(
                "{:.0} kB; {:.0} kB",
                self.per_proxy(self.memory, settings),
                self.per_proxy(self.memory_later, settings)
            ),
            "150 kB",
        );
        row(
            "all connect and get everything",
            format!(
                "{:.1} s, {:.1} s of processor time, {:.0} MB",
                self.connect.as_secs_f64(),
                self.connect_cpu.as_secs_f64(),
                self.received as f64 / MB
            ),
            "",
        );
        changes(&mut row, "endpoint", &self.endpoints, "10,000 proxies: 1,000 ms");
        changes(
            &mut row,
            "route",
            &self.routes,
            "p99 of one connected proxy: 10 ms",
        );
        if let Some(reconnect) = self.reconnect {
            row(
                "pilot killed: until it takes proxies again; until all are in sync",
                format!(
                    "{:.2} s; {:.1} s, {:.1} s of processor time; then {:.0} kB per proxy",
                    self.restart.as_secs_f64(),
                    reconnect.as_secs_f64(),
                    self.reconnect_cpu.as_secs_f64(),
                    self.per_proxy(self.memory_reconnected, settings)
                ),
                "",
            );
        }
        text
    }
}

fn changes(row: &mut impl FnMut(&str, String, &str), kind: &str, times: &Times, budget: &str) {
    row(
        &format!(
            "one {kind} change, {} proxies concerned: a proxy's answer, p50 / p99 / most",
            times.average()
        ),
        format!(
            "{:.0} / {:.0} / {:.0} ms",
            quantile(&times.proxies, 0.5),
            quantile(&times.proxies, 0.99),
            quantile(&times.proxies, 1.0)
        ),
        "",
    );
    row(
        &format!(
            "until all have answered, p50 / p99 / most of {} changes",
            times.changes()
        ),
        format!(
            "{:.0} / {:.0} / {:.0} ms",
            quantile(&times.known, 0.5),
            quantile(&times.known, 0.99),
            quantile(&times.known, 1.0)
        ),
        budget,
    );
    row(
        "pilot's processor time for it",
        format!("{:.0} ms", milliseconds(times.cpu / times.changes())),
        "",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn quantiles_are_measured_values() {
        let values: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&values, 0.5), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&values, 1.0), 100.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn memory_is_told_per_proxy() {
        let settings = Settings::parse_from(["bench", "--proxies", "1000"]);
        let mut report = Report {
            memory_alone: 50.0 * MB,
            memory: 150.0 * MB,
            ..Report::default()
        };
        let second = Duration::from_secs(1);
        report.endpoints.add(vec![second], second, second, 10);
        let text = report.render(&settings);
        assert!(text.contains("| 100 kB; -50 kB |"), "{text}");
        assert!(text.contains("10 proxies concerned"), "{text}");
        assert!(!text.contains("killed"), "{text}");
    }
}
