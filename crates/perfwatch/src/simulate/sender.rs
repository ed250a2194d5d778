//! Sends the simulated fleet as agents do: compact batches, one connection per thread, retries
//! while the hub is unreachable.

use super::host::SimHost;
use anyhow::Context as _;
use perfwatch_agent::HubClient;
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Catalog, Clock, SystemClock, limits};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Snapshots per request during the backfill.
const BATCH_ROWS: usize = 250;
/// Shortest collection interval of the simulated hosts.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Interval at which the number of sent snapshots is logged, in seconds.
const REPORT_INTERVAL_S: u64 = 10;

/// Fleet to simulate and the hub that receives it.
#[derive(Debug, Clone)]
pub(crate) struct Simulation {
    pub(crate) hub: String,
    pub(crate) token: Option<String>,
    pub(crate) hosts: usize,
    pub(crate) interval: Duration,
    pub(crate) seed: u64,
    /// History to generate before the first live snapshot.
    pub(crate) backfill: Duration,
}

/// Number of sending threads: enough that the commit rate of the hub (about 50 per second) is not
/// the limit.
fn thread_count(hosts: usize) -> usize {
    (hosts / 10).clamp(4, 128).min(hosts)
}

/// Sends snapshots until the flag is set.
pub(crate) fn run_simulation(simulation: &Simulation, stop: &AtomicBool) -> anyhow::Result<()> {
    anyhow::ensure!(
        (1..=limits::MAX_HOSTS).contains(&simulation.hosts),
        "--hosts: expected 1 to {}",
        limits::MAX_HOSTS
    );
    anyhow::ensure!(simulation.interval >= MIN_INTERVAL, "--interval: expected at least 100ms");
    let hub = HubClient::new(&simulation.hub, None)?;
    let catalog = Arc::new(perfwatch_collect::catalog(perfwatch_agent::METRICS));
    let sent = AtomicU64::new(0);
    let started = SystemClock::new();
    std::thread::scope(|scope| {
        for thread in 0..thread_count(simulation.hosts) {
            let (catalog, sent, hub) = (catalog.clone(), &sent, hub.clone());
            scope.spawn(move || {
                Sender::new(simulation, hub, &catalog, thread, started.wall_ms()).run(stop, sent);
            });
        }
        let mut reported = 0;
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
            let snapshots = sent.load(Ordering::Relaxed);
            if started.monotonic().as_secs().is_multiple_of(REPORT_INTERVAL_S) && snapshots != reported {
                tracing::info!(snapshots, "sending simulated snapshots");
                reported = snapshots;
            }
        }
    });
    Ok(())
}

/// One sending thread with its share of the hosts.
struct Sender<'a> {
    simulation: &'a Simulation,
    hub: HubClient,
    hosts: Vec<SimHost>,
    clock: SystemClock,
    start_ms: i64,
}

impl<'a> Sender<'a> {
    fn new(
        simulation: &'a Simulation,
        hub: HubClient,
        catalog: &Catalog,
        thread: usize,
        start_ms: i64,
    ) -> Self {
        let numbers = (thread..simulation.hosts).step_by(thread_count(simulation.hosts));
        let hosts = numbers.map(|number| SimHost::new(catalog, simulation.seed, number)).collect();
        Self { simulation, hub, hosts, clock: SystemClock::new(), start_ms }
    }

    fn run(mut self, stop: &AtomicBool, sent: &AtomicU64) {
        let interval_ms = i64::try_from(self.simulation.interval.as_millis()).unwrap_or(2_000);
        let backfill_ms = i64::try_from(self.simulation.backfill.as_millis()).unwrap_or_default();
        let mut at_ms = self.start_ms - backfill_ms;
        // The backfill advances all hosts together, in the order of time.
        while at_ms < self.clock.wall_ms() - interval_ms && !stop.load(Ordering::Relaxed) {
            let remaining = (self.clock.wall_ms() - at_ms) / interval_ms;
            let count = usize::try_from(remaining).unwrap_or(1).clamp(1, BATCH_ROWS);
            for host in 0..self.hosts.len() {
                self.send(host, at_ms, count, stop, sent);
            }
            at_ms += interval_ms * i64::try_from(count).unwrap_or(1);
        }
        while !stop.load(Ordering::Relaxed) {
            // The ticks of the hosts are distributed evenly over the interval.
            let hosts = self.hosts.len();
            for host in 0..hosts {
                let due_ms = at_ms
                    + interval_ms * i64::try_from(host).unwrap_or(0) / i64::try_from(hosts).unwrap_or(1);
                let wait = u64::try_from(due_ms - self.clock.wall_ms()).unwrap_or(0);
                std::thread::sleep(Duration::from_millis(wait));
                self.send(host, due_ms, 1, stop, sent);
            }
            at_ms += interval_ms;
        }
    }

    /// Sends consecutive ticks of a host; retries until the hub accepts or rejects them.
    fn send(&mut self, host: usize, at_ms: i64, count: usize, stop: &AtomicBool, sent: &AtomicU64) {
        let interval_ms = u32::try_from(self.simulation.interval.as_millis()).unwrap_or(2_000);
        let host = &mut self.hosts[host];
        let ticks = (0..count).map(|n| at_ms + i64::from(interval_ms) * i64::try_from(n).unwrap_or(0));
        let snapshots = ticks.map(|at_ms| wire::encode_snapshot(&host.tick(at_ms, interval_ms))).collect();
        let mut batch = Batch {
            host_id: host.id.to_bytes().to_vec().into(),
            host_name: host.name.clone(),
            shapes: Vec::new(),
            snapshots,
            sent_at_ms: self.clock.wall_ms(),
            facts: None,
        };
        while !stop.load(Ordering::Relaxed) {
            match post(&self.hub, self.simulation.token.as_deref(), &batch) {
                Ok(200) => {
                    sent.fetch_add(count as u64, Ordering::Relaxed);
                    return;
                }
                // The hub does not know the shape.
                Ok(409) => {
                    batch.shapes = vec![wire::encode_shape(host.shape())];
                    batch.facts = Some(wire::facts_to_message(&host.facts));
                }
                Ok(status @ (400 | 401 | 403 | 413 | 422)) => {
                    tracing::error!(
                        status,
                        host = host.name,
                        "hub rejected the request; check that the token has the scope `ingest`"
                    );
                    return;
                }
                outcome => {
                    tracing::debug!(?outcome, "hub unreachable; retrying");
                    std::thread::sleep(RETRY_DELAY);
                }
            }
        }
    }
}

fn post(hub: &HubClient, token: Option<&str>, batch: &Batch) -> anyhow::Result<u16> {
    let body = zstd::bulk::compress(&wire::encode_batch(batch), 1).context("compress")?;
    let headers = [("Content-Type", wire::CONTENT_TYPE), ("Content-Encoding", "zstd")];
    let response = hub.post("/ingest/metrics", &headers, token, &body).map_err(anyhow::Error::msg)?;
    Ok(response.status)
}
