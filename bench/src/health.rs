//! Health of a hub beside a load: latency of `/healthz`, and resident memory.

use crate::hub_process::HubProcess;
use crate::process::percentiles;
use perfwatch_model::Clock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Timeout of a health probe, and the maximum latency that is reported.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest value of a measurement, and its second.
#[derive(Default, Clone, Copy)]
pub(crate) struct Peak {
    pub(crate) value: f64,
    pub(crate) at_s: u64,
}

impl Peak {
    pub(crate) fn add(&mut self, value: f64, at_s: u64) {
        if value > self.value {
            *self = Self { value, at_s };
        }
    }
}

/// Health of the hub, sampled beside the load.
#[derive(Default)]
pub(crate) struct Health {
    started: Mutex<Duration>,
    latencies_ms: Mutex<Vec<f64>>,
    failures: Mutex<u64>,
    max_latency_ms: Mutex<Peak>,
    max_resident_mb: Mutex<Peak>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// Sends a probe at an interval until `stop` is set.
    pub(crate) fn probe(&self, hub: &HubProcess, clock: &dyn Clock, interval: Duration, stop: &AtomicBool) {
        let config = ureq::Agent::config_builder().timeout_global(Some(PROBE_TIMEOUT));
        let http = config.http_status_as_error(false).build().new_agent();
        while !stop.load(Ordering::Relaxed) {
            let started = clock.monotonic();
            let result = http.get(format!("{}/healthz", hub.url)).call();
            let elapsed = clock.monotonic().saturating_sub(started);
            let at_s = started.saturating_sub(*lock(&self.started)).as_secs();
            lock(&self.latencies_ms).push(elapsed.as_secs_f64() * 1e3);
            lock(&self.max_latency_ms).add(elapsed.as_secs_f64() * 1e3, at_s);
            *lock(&self.failures) += u64::from(!result.is_ok_and(|response| response.status() == 200));
            if let Ok(resident_mb) = hub.resident_mb() {
                lock(&self.max_resident_mb).add(resident_mb, at_s);
            }
            std::thread::sleep(interval.saturating_sub(elapsed));
        }
    }

    /// Largest memory of the hub in MB since the start of the measurement.
    pub(crate) fn peak_mb(&self) -> Peak {
        *lock(&self.max_resident_mb)
    }

    /// Starts a new measurement.
    pub(crate) fn reset(&self, now: Duration) {
        *lock(&self.started) = now;
        lock(&self.latencies_ms).clear();
        *lock(&self.failures) = 0;
        *lock(&self.max_latency_ms) = Peak::default();
        *lock(&self.max_resident_mb) = Peak::default();
    }

    pub(crate) fn print(&self, name: &str) {
        let latencies = lock(&self.latencies_ms).clone();
        let (count, (p50, p99, max)) = (latencies.len(), percentiles(latencies));
        println!(
            "  /healthz {name}: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms (second {}); {} of {count} failed",
            lock(&self.max_latency_ms).at_s,
            lock(&self.failures)
        );
    }
}
