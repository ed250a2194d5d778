//! Agent startup, ticker and shutdown. The ticker collects, derives and spools one snapshot per tick.

use crate::agent_state::AgentState;
use crate::collector_pool::CollectorPool;
use crate::config::AgentConfig;
use crate::error::AgentError;
use crate::heartbeat::Heartbeat;
use crate::pusher::Pusher;
use crate::self_metrics::{AgentCounters, SelfMetrics};
use crate::spool::Spool;
use crate::timeout_source::TimeoutSource;
use crate::{identity, schedule, scope, url};
use perfwatch_collect::{
    CollectorOptions, CollectorSet, Deriver, LocalRoot, Reading, SnapshotBuilder, Source,
};
use perfwatch_model::{BootId, Clock, CollectorRequests, HostId, Snapshot, wire};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Handle of a running agent.
pub struct Agent {
    shared: Arc<AgentState>,
    threads: Vec<JoinHandle<()>>,
    host: HostId,
    /// Lock of the state directory, released with the agent.
    _lock: Option<std::fs::File>,
}

impl Agent {
    /// Starts the collector threads, the ticker and the pusher. `on_revoked` is called once if the hub
    /// revokes this agent; its threads have stopped sending by then.
    ///
    /// # Errors
    /// Fails if a setting is invalid, if another agent uses the state directory, or if no thread
    /// can be started.
    pub fn start(
        config: &AgentConfig,
        clock: Arc<dyn Clock>,
        on_revoked: impl FnOnce() + Send + 'static,
    ) -> Result<Self, AgentError> {
        config.validate()?;
        let source: Arc<dyn Source> =
            Arc::new(TimeoutSource::new(LocalRoot::new(&config.procfs, &config.sysfs, &config.rootfs)));
        let lock = identity::lock_state_dir(&config.state)?;
        let host = identity::load_host_id(&config.state, &*source, config.token.is_some())?;
        let name = identity::host_name(config.name.as_deref(), &*source, &config.rootfs);
        let spool = Spool::open(&config.state.join("spool"), config.max_spool_bytes);
        let set = CollectorSet::new(&config.disabled_collectors, config.options.clone());
        let interval_ms = u64::try_from(config.interval.as_millis()).unwrap_or(u64::MAX);
        let shared = Arc::new(AgentState::new(spool, interval_ms));
        tracing::info!(host.id = %host, host.name = name, hub.url = url::redact_url(&config.hub), interval_ms, "agent started");
        if url::is_unencrypted(&config.hub) {
            tracing::warn!(
                hub.url = url::redact_url(&config.hub),
                "connection to the hub is not encrypted: others can read and change what is sent; use https://"
            );
        }
        let is_container_only = scope::is_container_only(&config.procfs);
        if is_container_only {
            tracing::warn!(
                "only this container is visible, not its host: mount / of the host and set agent.host_root, \
                 as in docs/DOCKER.md"
            );
        }
        let pool = CollectorPool::start(source, &set, &config.collector_intervals, clock.clone())?;
        let pusher = Pusher::new(shared.clone(), clock.clone(), config, host, name)?;
        let ticker = Ticker {
            pool,
            set,
            deriver: Deriver::default(),
            builder: SnapshotBuilder::default(),
            self_metrics: SelfMetrics::default(),
            fallback_boot: BootId::generate(),
            logged_errors: Vec::new(),
            missed_ticks: 0,
            last_sequence: None,
            heartbeat: Heartbeat::new(&config.state),
            is_container_only,
            host,
            clock,
            shared: shared.clone(),
        };
        let spawn = |name: &str, main: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(main)
        };
        let threads = vec![
            spawn("push", Box::new(move || pusher.run(on_revoked)))?,
            spawn("tick", Box::new(move || ticker.run()))?,
        ];
        Ok(Self { shared, threads, host, _lock: lock })
    }

    /// Returns true after the hub revoked this agent.
    pub fn is_revoked(&self) -> bool {
        self.shared.is_revoked()
    }

    /// Id of the host that this agent monitors.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// Stops the ticker, attempts once to send the pending snapshots, and waits for both threads. Unsent
    /// snapshots stay in the spool.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        // Taking the lock orders this after a thread that is about to wait, which would miss the wakeup.
        drop(self.shared.lock());
        self.shared.wake.notify_all();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("agent thread panicked");
            }
        }
        tracing::info!("agent stopped");
    }
}

struct Ticker {
    pool: CollectorPool,
    set: CollectorSet,
    deriver: Deriver,
    builder: SnapshotBuilder,
    self_metrics: SelfMetrics,
    /// Boot id of the snapshots if the kernel provides none.
    fallback_boot: BootId,
    /// Collector errors of the previous snapshot, already logged.
    logged_errors: Vec<String>,
    missed_ticks: u64,
    last_sequence: Option<(BootId, u64)>,
    heartbeat: Heartbeat,
    /// Whether the facts are marked as those of a container.
    is_container_only: bool,
    host: HostId,
    clock: Arc<dyn Clock>,
    shared: Arc<AgentState>,
}

impl Ticker {
    fn run(mut self) {
        self.last_sequence = self.shared.lock().last_sequence();
        // The first tick needs a previous reading to derive rates.
        let first = self.pool.read(&self.shared.collector_requests());
        self.deriver.derive(&first, &self.set.options);
        let mut last_reading_at = first.monotonic;
        let mut next = None;
        loop {
            let interval = Duration::from_millis(self.shared.interval_ms.load(Ordering::Acquire));
            self.heartbeat.record(self.clock.wall_ms(), interval);
            let phase = schedule::host_phase(self.host, interval);
            let now = self.clock.monotonic();
            let mut target = schedule::next_tick(now, interval, phase);
            if let Some(planned) = next.filter(|&planned| planned + interval <= target) {
                let missed = (target.saturating_sub(planned).as_nanos() / interval.as_nanos().max(1))
                    .saturating_sub(1);
                self.missed_ticks += u64::try_from(missed).unwrap_or(u64::MAX);
            }
            // Rates over less than half an interval would be mostly noise.
            if target.saturating_sub(last_reading_at) < interval / 2 {
                target = schedule::next_tick(target, interval, phase);
            }
            next = Some(target);
            if !self.sleep_until(target) {
                return;
            }
            let reading = self.pool.read(&self.shared.collector_requests());
            let elapsed = reading.monotonic.saturating_sub(last_reading_at);
            last_reading_at = reading.monotonic;
            let snapshot = self.snapshot(&reading, elapsed);
            self.shared.lock().append(&snapshot);
            self.shared.wake.notify_all();
        }
    }

    /// Waits until `target`; returns false if the agent stops first.
    fn sleep_until(&self, target: Duration) -> bool {
        let mut guard = self.shared.lock();
        loop {
            let remaining = target.saturating_sub(self.clock.monotonic());
            if self.shared.is_stopping() {
                return false;
            }
            if remaining.is_zero() {
                return true;
            }
            guard = self.shared.wake.wait_timeout(guard, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn snapshot(&mut self, reading: &Reading, elapsed: Duration) -> Snapshot {
        let mut derived = self.deriver.derive(reading, &self.set.options);
        let counters = {
            let spool = self.shared.lock();
            AgentCounters {
                pending: spool.pending(),
                spool_bytes: spool.bytes(),
                dropped: spool.dropped(),
                missed_ticks: self.missed_ticks,
            }
        };
        if let Some(facts) = derived.facts.as_mut().filter(|_| self.is_container_only) {
            facts.os += " (container)";
        }
        self.self_metrics.add(&mut derived, reading, counters, &*self.clock);
        self.log_new_errors(&derived.errors);
        let boot = if reading.boot == BootId::default() { self.fallback_boot } else { reading.boot };
        let seq = self.next_seq(boot);
        let interval_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        let snapshot = self.builder.build(boot, seq, reading.wall_ms, interval_ms, derived);
        if let Some(facts) = &snapshot.facts {
            *self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(wire::facts_to_message(facts));
        }
        snapshot
    }

    /// Next sequence number of this boot. If the last number is unknown (a new boot, a lost state
    /// directory), the sequence starts at the milliseconds since 2020, which no earlier run can have
    /// reached.
    fn next_seq(&mut self, boot: BootId) -> u64 {
        let seq = match self.last_sequence {
            Some((last_boot, seq)) if last_boot == boot => seq + 1,
            _ => u64::try_from(self.clock.wall_ms() - perfwatch_model::limits::MIN_TIMESTAMP_MS).unwrap_or(1),
        };
        self.last_sequence = Some((boot, seq));
        seq
    }

    /// Logs each collector error once while it persists, not at every tick.
    fn log_new_errors(&mut self, errors: &[perfwatch_model::CollectorError]) {
        // A message that ends in a growing duration ("for 12 s") is the same error.
        let without_duration = |text: &str| {
            text.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ' || c == 's').to_owned()
        };
        let current: Vec<String> =
            errors.iter().map(|e| format!("{} {}", e.collector, without_duration(&e.message))).collect();
        for (error, key) in errors.iter().zip(&current) {
            if !self.logged_errors.contains(key) {
                tracing::warn!(collector = error.collector, error = error.message, "collector failed");
            }
        }
        self.logged_errors = current;
    }
}

/// Collects snapshots in the process of a command, without spool and hub.
pub struct Sampler {
    pool: CollectorPool,
    options: Arc<CollectorOptions>,
    deriver: Deriver,
    builder: SnapshotBuilder,
    last_reading_at: Duration,
}

impl Sampler {
    /// Starts the collector threads and makes the first reading, from which the first snapshot derives rates.
    ///
    /// # Errors
    /// Fails if the collector threads cannot be started.
    pub fn start(
        source: Arc<dyn Source>,
        set: &CollectorSet,
        clock: &Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let mut pool = CollectorPool::start(source, set, &std::collections::BTreeMap::new(), clock.clone())?;
        let mut deriver = Deriver::default();
        let first = pool.read(&CollectorRequests::new());
        deriver.derive(&first, &set.options);
        let (options, builder) = (set.options.clone(), SnapshotBuilder::default());
        Ok(Self { pool, options, deriver, builder, last_reading_at: first.monotonic })
    }

    /// Collects a snapshot; its rates cover the time since the previous reading.
    pub fn sample(&mut self) -> Snapshot {
        let reading = self.pool.read(&CollectorRequests::new());
        let elapsed = reading.monotonic.saturating_sub(self.last_reading_at);
        self.last_reading_at = reading.monotonic;
        let interval_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        let derived = self.deriver.derive(&reading, &self.options);
        let seq = u64::try_from(reading.wall_ms).unwrap_or_default();
        self.builder.build(reading.boot, seq, reading.wall_ms, interval_ms, derived)
    }
}

/// Collects one snapshot. Two readings are made, `rate_interval` apart: rates need a previous reading.
///
/// # Errors
/// Fails if the collector threads cannot be started.
pub fn collect_once(
    source: Arc<dyn Source>,
    set: &CollectorSet,
    rate_interval: Duration,
    clock: &Arc<dyn Clock>,
) -> std::io::Result<Snapshot> {
    let mut sampler = Sampler::start(source, set, clock)?;
    std::thread::sleep(rate_interval);
    Ok(sampler.sample())
}
