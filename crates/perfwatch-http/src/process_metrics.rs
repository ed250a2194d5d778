//! Standard `process_*` metrics of this process, read from `/proc/self` at each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Resource usage of this process.
pub struct ProcessMetrics {
    /// User and system CPU time since the start.
    pub cpu_seconds: f64,
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    virtual_bytes: u64,
    open_fds: u64,
    /// Soft limit of open file descriptors; `None` without a limit.
    max_fds: Option<u64>,
    /// Start of the process, seconds since 1970.
    start_time_seconds: f64,
}

/// Clock ticks per second in `/proc/self/stat`: `USER_HZ`, the same on all supported architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// First number after a key in a file of `key value` lines.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

impl ProcessMetrics {
    /// Reads `/proc/self`; `None` if a file is missing or malformed.
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^52")]
    pub fn read() -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).ok();
        let (stat, status) = (read("/proc/self/stat")?, read("/proc/self/status")?);
        // The name may contain spaces and parentheses; fields are counted from the state (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND;
        let boot_time = number_after(&read("/proc/stat")?, "btime")?;
        Some(Self {
            cpu_seconds: seconds(field(14)?.saturating_add(field(15)?)),
            resident_bytes: number_after(&status, "VmRSS:")?.saturating_mul(1024),
            virtual_bytes: number_after(&status, "VmSize:")?.saturating_mul(1024),
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            max_fds: number_after(&read("/proc/self/limits")?, "Max open files"),
            start_time_seconds: boot_time as f64 + seconds(field(22)?),
        })
    }
}

/// Collector of the process metrics.
#[derive(Debug)]
pub struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(process) = ProcessMetrics::read() else { return Ok(()) };
        let mut encode = |name, help, unit: Option<&Unit>, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        let gauge = ConstGauge::<u64>::new;
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        let cpu = ConstCounter::new(process.cpu_seconds);
        encode("process_cpu", "Total user and system CPU time in seconds.", seconds, &cpu)?;
        let resident = gauge(process.resident_bytes);
        encode("process_resident_memory", "Resident memory size in bytes.", bytes, &resident)?;
        let virtual_memory = gauge(process.virtual_bytes);
        encode("process_virtual_memory", "Virtual memory size in bytes.", bytes, &virtual_memory)?;
        encode("process_open_fds", "Number of open file descriptors.", None, &gauge(process.open_fds))?;
        if let Some(max_fds) = process.max_fds {
            encode("process_max_fds", "Maximum number of open file descriptors.", None, &gauge(max_fds))?;
        }
        let start_time = ConstGauge::new(process.start_time_seconds);
        encode("process_start_time", "Start time of the process in seconds since 1970.", seconds, &start_time)
    }
}
