//! What the process says of itself: the conventional `process_*` metrics, and which machine it is on.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::telemetry::{encode_cells, encode_gauge};

/// See the module.
#[derive(Debug)]
pub struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stat = Stat::read();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let cpu = (stat.field(14) + stat.field(15)) as f64 / ticks;
        let help = "User and system time";
        let mut family = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, f64, f64>(&cpu, None)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| number_after(&status, name).saturating_mul(1024);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let started = boot_time() + stat.field(22) as f64 / ticks;
        let gauges = [
            ("process_start_time_seconds", "Start of the process, Unix time", started),
            ("process_resident_memory_bytes", "RSS", kib("VmRSS:") as f64),
            ("process_virtual_memory_bytes", "Address space", kib("VmSize:") as f64),
            (
                "process_anonymous_memory_bytes",
                "RssAnon and RssShmem",
                (kib("RssAnon:") + kib("RssShmem:")) as f64,
            ),
            ("process_open_fds", "Open descriptors", open_descriptors() as f64),
            ("process_max_fds", "Limit on open descriptors", limit.map_or(f64::INFINITY, |n| n as f64)),
            ("process_threads", "Threads", number_after(&status, "Threads:") as f64),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(&mut family, &[], value)?;
        }
        let faults = [("minor", stat.field(10)), ("major", stat.field(12))];
        let mut family =
            encoder.encode_descriptor("process_page_faults", "Page faults", None, MetricType::Counter)?;
        for (kind, count) in faults {
            encode_cells(&mut family, &[("kind", kind)], count)?;
        }
        Ok(())
    }
}

/// `/proc/self/stat`.
struct Stat(Vec<u64>);

impl Stat {
    fn read() -> Self {
        let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // proc(5): what follows the name in parentheses begins with field 3.
        let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        Self(fields.map(|field| field.trim().parse().unwrap_or(0)).collect())
    }

    /// A field by its number in proc(5).
    fn field(&self, number: usize) -> u64 {
        self.0.get(number - 3).copied().unwrap_or(0)
    }
}

/// When the machine started, Unix time: read once, since it is a difference of two clocks.
fn boot_time() -> f64 {
    static BOOT: OnceLock<f64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs_f64() - (up.tv_sec as f64 + up.tv_nsec as f64 / 1e9)
    })
}

/// Since Linux 6.2 the directory's size is the number of descriptors. Before, they are counted, which takes
/// milliseconds where there are many.
fn open_descriptors() -> u64 {
    match fs::metadata("/proc/self/fd") {
        Ok(directory) if directory.size() > 0 => directory.size(),
        _ => fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64,
    }
}

/// The first number behind a name at a line's start.
fn number_after(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted() {
        let before = open_descriptors();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(open_descriptors() >= before.min(3) + 50);
        drop(files);
        assert!(boot_time() > 1.5e9);
        assert!(Stat::read().field(22) > 0);
    }
}
