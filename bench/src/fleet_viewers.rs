//! Viewers of the fleet page: they poll the overview as the dashboard does.

use crate::hub_process::HubProcess;
use crate::process::delay_summary;
use anyhow::Context as _;
use perfwatch_model::{Clock, SystemClock};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between an answer and the next request of the dashboard.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// Threads with a viewer each.
pub(crate) struct FleetViewers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<Polls>>>,
}

/// What a viewer received.
#[derive(Default)]
struct Polls {
    /// Times until an answer was complete, in milliseconds.
    delays: Vec<f64>,
    bytes: usize,
}

impl FleetViewers {
    /// Starts viewers who have the list of hosts and poll the newest values, compressed.
    pub(crate) fn start(hub: &HubProcess, bearer: &str, count: usize) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let first: Value = serde_json::from_str(&hub.text("/api/v1/overview", bearer, None)?)?;
        let revision = first["revision"].as_str().context("no revision")?;
        let url = format!("{}/api/v1/overview?revision={revision}", hub.url);
        let viewer = |number: usize| {
            let (stop, url, bearer) = (stop.clone(), url.clone(), bearer.to_owned());
            // Viewers opened the page at different times.
            let offset = REFRESH_INTERVAL.mul_f64(number as f64 / count as f64);
            std::thread::spawn(move || poll(&url, &bearer, offset, &stop))
        };
        Ok(Self { threads: (0..count).map(viewer).collect(), stop })
    }

    /// Stops the viewers and prints what they received.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Polls::default();
        for thread in self.threads {
            let polls = thread.join().map_err(|_| anyhow::anyhow!("a viewer panicked"))??;
            all.delays.extend(polls.delays);
            all.bytes += polls.bytes;
        }
        let count = all.delays.len();
        if count > 0 {
            let kb = all.bytes as f64 / 1_000.0 / count as f64;
            println!("  fleet page:      {} ({count} answers of {kb:.0} kB)", delay_summary(all.delays));
        }
        Ok(())
    }
}

fn poll(url: &str, bearer: &str, offset: Duration, stop: &AtomicBool) -> anyhow::Result<Polls> {
    let (http, clock, mut polls) = (ureq::agent(), SystemClock::new(), Polls::default());
    std::thread::sleep(offset);
    while !stop.load(Ordering::Relaxed) {
        let started = clock.monotonic();
        let request = http.get(url).header("Authorization", bearer).header("Accept-Encoding", "gzip");
        polls.bytes += request.call()?.body_mut().read_to_vec()?.len();
        polls.delays.push(clock.monotonic().saturating_sub(started).as_secs_f64() * 1_000.0);
        std::thread::sleep(REFRESH_INTERVAL);
    }
    Ok(polls)
}
