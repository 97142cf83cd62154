//! The metrics of one process: a shared `prometheus_client` registry, plus what the kernel knows about the process
//! itself, under the names that Prometheus' own clients use. Families are made by the daemons, each in one table.

use std::{
    fmt, fs,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry,
};

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of one process. Clones share it.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Mutex<registry::Registry>>);

impl Registry {
    /// A registry with `mesh_build_info` and `process_*`.
    pub fn new() -> Self {
        let mut registry = registry::Registry::default();
        let info = crate::build::info();
        let labels = [("version", info.version), ("profile", info.profile)];
        registry.register("mesh_build", "Version of this binary", Info::new(labels));
        registry.register_collector(Box::new(Process));
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Registers families, or reads.
    pub fn with<T>(&self, f: impl FnOnce(&mut registry::Registry) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All families in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match self.with(|registry| encode(&mut text, registry)) {
            Ok(()) => text,
            Err(error) => {
                tracing::error!(%error, "metrics could not be encoded");
                "# EOF\n".to_owned()
            }
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads /proc/self at each scrape; what cannot be read is left out.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some((cpu, memory)) = stat() {
            let counter = ConstCounter::new(cpu);
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "CPU time of the process, user and system",
                None,
                prometheus_client::metrics::MetricType::Counter,
            )?)?;
            let gauge = ConstGauge::new(memory);
            gauge.encode(encoder.encode_descriptor(
                "process_resident_memory_bytes",
                "Resident memory of the process",
                None,
                prometheus_client::metrics::MetricType::Gauge,
            )?)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            let open = ConstGauge::new(i64::try_from(entries.count()).unwrap_or(i64::MAX));
            open.encode(encoder.encode_descriptor(
                "process_open_fds",
                "Open file descriptors of the process",
                None,
                prometheus_client::metrics::MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}

/// CPU seconds and resident bytes of this process (proc(5), /proc/pid/stat fields 14, 15 and 24).
fn stat() -> Option<(f64, i64)> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold spaces and brackets; the fields begin after the last bracket.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let pages: i64 = fields.get(21)?.parse().ok()?;
    let per_second = limit(nix::unistd::SysconfVar::CLK_TCK)?;
    let page = limit(nix::unistd::SysconfVar::PAGE_SIZE)?;
    Some((ticks / per_second as f64, pages.saturating_mul(page)))
}

fn limit(name: nix::unistd::SysconfVar) -> Option<i64> {
    nix::unistd::sysconf(name)
        .ok()
        .flatten()
        .filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn shows_own_and_process_families() {
        let registry = Registry::new();
        let counter: Counter = Counter::default();
        registry.with(|r| r.register("mesh_things", "Things", counter.clone()));
        counter.inc_by(3);
        let text = registry.clone().encode();
        for line in [
            "mesh_things_total 3",
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(
            text.contains(&format!("mesh_build_info{{version=\"{}\"", crate::build::VERSION)),
            "{text}"
        );
    }
}
