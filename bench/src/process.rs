//! Children that are measured, and idle ones that only stand around.

use std::process::{Child, Command, Stdio};

/// Killed and waited for at the end.
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

    /// Processor seconds used so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.0.id().to_string())
    }

    /// Resident megabytes now.
    pub(crate) fn resident_mb(&self) -> anyhow::Result<f64> {
        resident_mb(&self.0.id().to_string())
    }
}

/// Processor seconds that a process used so far; `self` for this one.
pub(crate) fn cpu_seconds(pid: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let words: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
    let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok()).unwrap_or_default();
    Ok(f64::from(ticks(11) + ticks(12)) / 100.0)
}

/// Resident megabytes of a process now.
pub(crate) fn resident_mb(pid: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kb = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_ascii_whitespace().next()?.parse::<u32>().ok());
    Ok(f64::from(kb.unwrap_or_default()) / 1024.0)
}

/// Processes that sleep.
pub(crate) fn spawn_sleepers(count: u64) -> anyhow::Result<Vec<Running>> {
    (0..count).map(|_| Running::start(Command::new("sleep").arg("3600"))).collect()
}

/// The middle, the 99th of 100 and the largest.
pub(crate) fn percentiles(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| {
        values.get((values.len().saturating_sub(1)) * share / 100).copied().unwrap_or(f64::NAN)
    };
    (at(50), at(99), at(100))
}
