//! Simulated fleet of the benchmarks: equal hosts and ticks in every run, sent at the maximum rate of
//! the receiver; and the measured hub.

use crate::tiny::is_tiny;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_history::HistoryConfig;
use perfwatch_hub::{EncryptionKeys, Hub, HubConfig, HubDependencies, InitialAdmin, RateLimitConfig};
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Catalog, Clock, Snapshot};
use perfwatch_store::Store;
use perfwatch_workers::{PoolConfig, WorkerPool};
use std::collections::HashSet;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const HOSTS: usize = 200;
pub(crate) const SENDERS: usize = 32;
/// Ticks per request, as in the backfill of an agent.
pub(crate) const BATCH_ROWS: usize = 25;
pub(crate) const INTERVAL_MS: i64 = 2_000;

/// Accepted data of a run.
pub(crate) struct SendReport {
    pub(crate) snapshots: u64,
    pub(crate) samples: u64,
    pub(crate) seconds: u64,
    /// Minimum time range of a host, in milliseconds.
    pub(crate) covered_ms: i64,
}

impl SendReport {
    pub(crate) fn print(&self, durability: &str) {
        let per_second = |count: u64| count as f64 / self.seconds as f64;
        println!(
            "  {:.0} snapshots/s = {:.2} M samples/s, {durability}, over {} s",
            per_second(self.snapshots),
            per_second(self.samples) / 1e6,
            self.seconds
        );
    }
}

/// Sends the fleet from a start time in the past. Each sender has its share of the hosts and its own
/// connection, created by `connect`.
pub(crate) fn feed<D>(
    catalog: &Catalog,
    clock: &dyn Clock,
    start_ms: i64,
    seconds: u64,
    connect: impl Fn() -> D + Sync,
) -> SendReport
where
    D: FnMut(&SimHost, &[Snapshot]) -> anyhow::Result<()>,
{
    let (snapshots, samples, covered) = (AtomicU64::new(0), AtomicU64::new(0), AtomicI64::new(i64::MAX));
    let deadline = clock.monotonic() + Duration::from_secs(seconds);
    let send = |sender: usize| -> anyhow::Result<()> {
        let mut deliver = connect();
        let mut hosts: Vec<SimHost> =
            (sender..HOSTS).step_by(SENDERS).map(|number| SimHost::new(catalog, 1, number)).collect();
        let mut at_ms = start_ms;
        loop {
            for host in &mut hosts {
                // In a tiny run every host sends, because all are queried.
                let is_first = is_tiny() && at_ms == start_ms;
                if clock.monotonic() >= deadline && !is_first {
                    covered.fetch_min(at_ms - start_ms, Ordering::Relaxed);
                    return Ok(());
                }
                let ticks: Vec<_> = (0..BATCH_ROWS as i64)
                    .map(|n| host.tick(at_ms + n * INTERVAL_MS, INTERVAL_MS.cast_unsigned() as u32))
                    .collect();
                while let Err(error) = deliver(host, &ticks) {
                    if !error.is::<ShareExceeded>() {
                        return Err(error);
                    }
                    if clock.monotonic() >= deadline {
                        covered.fetch_min(at_ms - start_ms, Ordering::Relaxed);
                        return Ok(());
                    }
                    std::thread::sleep(RETRY_DELAY);
                }
                let count: usize = ticks.iter().map(Snapshot::sample_count).sum();
                snapshots.fetch_add(BATCH_ROWS as u64, Ordering::Relaxed);
                samples.fetch_add(count as u64, Ordering::Relaxed);
            }
            at_ms += BATCH_ROWS as i64 * INTERVAL_MS;
        }
    };
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let send = &send;
            scope.spawn(move || {
                if let Err(error) = send(sender) {
                    println!("sender failed: {error:#}");
                }
            });
        }
    });
    SendReport {
        snapshots: snapshots.into_inner(),
        samples: samples.into_inner(),
        seconds,
        covered_ms: covered.into_inner(),
    }
}

/// Refusal of a host above its share of the hub, which may last until its rows are sealed.
#[derive(Debug, thiserror::Error)]
#[error("the host exceeds its share")]
pub(crate) struct ShareExceeded;

/// Delay until refused ticks are sent again.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Metrics of collectors and agent.
pub(crate) fn catalog() -> Catalog {
    perfwatch_collect::catalog(perfwatch_agent::METRICS)
}

/// Hub in this process on a free port, with a token of its administrator.
pub(crate) struct BenchHub<'a> {
    runtime: &'a tokio::runtime::Runtime,
    hub: Hub,
    pub(crate) url: String,
    pub(crate) token: String,
}

const PASSWORD: &str = "initial-password-1";

impl<'a> BenchHub<'a> {
    pub(crate) fn start(
        runtime: &'a tokio::runtime::Runtime,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        budget_bytes: u64,
    ) -> anyhow::Result<Self> {
        // The capacity of the hub is measured, without rate limits.
        let rate_limits = RateLimitConfig {
            agent_per_second: 1_000_000,
            ingest_per_second: 1_000_000,
            api_per_second: 1_000_000,
        };
        Self::with_limits(runtime, store, clock, budget_bytes, rate_limits)
    }

    pub(crate) fn with_limits(
        runtime: &'a tokio::runtime::Runtime,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        budget_bytes: u64,
        rate_limits: RateLimitConfig,
    ) -> anyhow::Result<Self> {
        let history = HistoryConfig { budget_bytes, ..HistoryConfig::default() };
        // Channels have encrypted settings.
        let secret_keys = EncryptionKeys(vec![[7; 32]]);
        let config = HubConfig { history, rate_limits, secret_keys, ..HubConfig::default() };
        Self::with_config(runtime, store, clock, config)
    }

    /// Starts a hub with a custom configuration; listen address and administrator are replaced.
    pub(crate) fn with_config(
        runtime: &'a tokio::runtime::Runtime,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        config: HubConfig,
    ) -> anyhow::Result<Self> {
        let config = HubConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            initial_admin: Some(InitialAdmin { name: "admin".to_owned(), password: PASSWORD.to_owned() }),
            ..config
        };
        let workers = Arc::new(WorkerPool::new(clock.clone(), PoolConfig::default()));
        let deps = HubDependencies {
            store,
            clock: clock.clone(),
            catalog: Arc::new(catalog()),
            notifier: Arc::new(perfwatch_notify::ChannelNotifier::new()),
            remote_collector: Arc::new(perfwatch_ssh::SshCollector::with_workers(
                clock.clone(),
                workers.clone(),
            )),
            workers,
        };
        let hub = runtime.block_on(Hub::start(config, deps))?;
        let url = hub.url();
        let login = serde_json::json!({ "name": "admin", "password": PASSWORD });
        let session = ureq::post(format!("{url}/api/v1/auth/login"));
        let session = session.content_type("application/json").send(login.to_string())?;
        let cookie = session.headers().get("set-cookie").and_then(|set| set.to_str().ok()?.split(';').next());
        let body = serde_json::json!({ "name": "bench", "scope": "admin" });
        let request = ureq::post(format!("{url}/api/v1/tokens")).header("Origin", &url);
        let request =
            request.header("Cookie", cookie.context("no session")?).content_type("application/json");
        let created: serde_json::Value =
            serde_json::from_str(&request.send(body.to_string())?.body_mut().read_to_string()?)?;
        let token = created["token"].as_str().context("no token")?.to_owned();
        Ok(Self { runtime, hub, url, token })
    }

    /// Value of the header `Authorization`.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub(crate) fn stop(self) {
        self.runtime.block_on(self.hub.stop());
    }

    /// Returns a function that sends as an agent does, over one connection; retries while ingestion is
    /// blocked.
    pub(crate) fn sender<'b>(
        &'b self,
        clock: &'b dyn Clock,
    ) -> impl FnMut(&SimHost, &[Snapshot]) -> anyhow::Result<()> + 'b {
        sender(&self.url, self.bearer(), clock)
    }
}

/// Returns a function that sends as an agent does to a hub.
pub(crate) fn sender<'a>(
    url: &'a str,
    bearer: String,
    clock: &'a dyn Clock,
) -> impl FnMut(&SimHost, &[Snapshot]) -> anyhow::Result<()> + 'a {
    let http = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut known_hosts = HashSet::new();
    move |host, ticks| {
        let batch = Batch {
            host_id: host.id.to_bytes().to_vec().into(),
            host_name: host.name.clone(),
            shapes: if known_hosts.contains(&host.id) {
                Vec::new()
            } else {
                vec![wire::encode_shape(host.shape())]
            },
            snapshots: ticks.iter().map(wire::encode_snapshot).collect(),
            sent_at_ms: clock.wall_ms(),
            facts: None,
        };
        let body = zstd::bulk::compress(&wire::encode_batch(&batch), 1)?;
        loop {
            let mut response = http
                .post(format!("{url}/ingest/metrics"))
                .header("Authorization", &bearer)
                .header("Content-Type", wire::CONTENT_TYPE)
                .header("Content-Encoding", "zstd")
                .send(&body[..])?;
            let mut text = String::new();
            response.body_mut().as_reader().read_to_string(&mut text)?;
            match response.status().as_u16() {
                200 => {
                    known_hosts.insert(host.id);
                    return Ok(());
                }
                429 => return Err(ShareExceeded.into()),
                503 => std::thread::sleep(Duration::from_millis(100)),
                status => anyhow::bail!("{status} {text}"),
            }
        }
    }
}
