//! Measured child processes, idle processes, and percentiles.

use std::process::{Child, Command, Stdio};

/// Child process, killed on drop.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// CPU time since the start of the process, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.0.id().to_string())
    }

    /// Current resident memory, in MB.
    pub(crate) fn resident_mb(&self) -> anyhow::Result<f64> {
        resident_mb(&self.0.id().to_string())
    }
}

/// Returns the CPU time of a process in seconds; `self` is this process.
pub(crate) fn cpu_seconds(pid: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, fields)| fields.split_ascii_whitespace().collect())
        .unwrap_or_default();
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or_default();
    Ok(f64::from(ticks(11) + ticks(12)) / 100.0)
}

/// Returns the resident memory of a process in MB; `self` is this process.
pub(crate) fn resident_mb(pid: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kb = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_ascii_whitespace().next()?.parse::<u32>().ok());
    Ok(f64::from(kb.unwrap_or_default()) / 1024.0)
}

/// Spawns idle processes, which enlarge `/proc`.
pub(crate) fn spawn_sleepers(count: u64) -> anyhow::Result<Vec<Running>> {
    (0..count).map(|_| Running::start(Command::new("sleep").arg("3600"))).collect()
}

/// Median, 99th percentile and maximum of delays in milliseconds, as text.
pub(crate) fn delay_summary(delays: Vec<f64>) -> String {
    let (p50, p99, max) = percentiles(delays);
    format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")
}

/// Returns median, 99th percentile and maximum; NaN without values.
pub(crate) fn percentiles(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let percentile = |percent: usize| {
        values.get((values.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(f64::NAN)
    };
    (percentile(50), percentile(99), percentile(100))
}
