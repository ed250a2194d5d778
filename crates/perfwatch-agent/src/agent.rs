//! Wiring and rhythm: reads at each tick, derives, spools; ends in order.

use crate::collector_pool::CollectorPool;
use crate::config::AgentConfig;
use crate::error::AgentError;
use crate::pusher::{AgentState, Pusher};
use crate::self_metrics::{AgentCounters, SelfMetrics};
use crate::spool::Spool;
use crate::timeout_source::TimeoutSource;
use crate::{identity, schedule};
use perfwatch_collect::{CollectorSet, Deriver, LocalRoot, Reading, SnapshotBuilder, Source};
use perfwatch_model::{BootId, Clock, HostId, Snapshot, wire};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running agent.
pub struct Agent {
    shared: Arc<AgentState>,
    threads: Vec<JoinHandle<()>>,
    host: HostId,
    /// Held for the agent's life.
    _lock: Option<std::fs::File>,
}

impl Agent {
    /// Starts ticker, collectors and pusher.
    ///
    /// `ended` is called where the hub revoked this agent: it then does nothing any more.
    ///
    /// # Errors
    /// A setting that can't be, or no threads.
    pub fn start(
        config: &AgentConfig,
        clock: Arc<dyn Clock>,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, AgentError> {
        config.validate()?;
        let source: Arc<dyn Source> =
            Arc::new(TimeoutSource::new(LocalRoot::new(&config.procfs, &config.sysfs, &config.rootfs)));
        let lock = identity::lock_state_dir(&config.state)?;
        let host = identity::host_id(&config.state);
        let name = identity::host_name(config.name.as_deref(), &*source);
        let spool = Spool::open(&config.state.join("spool"), config.max_spool_bytes);
        let set = CollectorSet::new(&config.disabled_collectors, config.options.clone());
        let interval_ms = u64::try_from(config.interval.as_millis()).unwrap_or(u64::MAX);
        let shared = Arc::new(AgentState {
            facts: Mutex::new(None),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            interval_ms: AtomicU64::new(interval_ms),
            spool: Mutex::new(spool),
        });
        tracing::info!(host.id = %host, host.name = name, hub = config.hub, interval_ms, "agent started");
        let runner = CollectorPool::start(source, &set, &config.collector_intervals, clock.clone())?;
        let pusher = Pusher::new(shared.clone(), clock.clone(), config, host, name)?;
        let ticker = Ticker {
            runner,
            set,
            deriver: Deriver::default(),
            builder: SnapshotBuilder::default(),
            self_metrics: SelfMetrics::default(),
            fallback_boot: BootId::generate(),
            logged_errors: Vec::new(),
            missed_ticks: 0,
            last_sequence: None,
            host,
            clock,
            shared: shared.clone(),
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(work)
        };
        let threads = vec![
            spawn("push", Box::new(move || pusher.run(ended)))?,
            spawn("tick", Box::new(move || ticker.run()))?,
        ];
        Ok(Self { shared, threads, host, _lock: lock })
    }

    /// Whether the hub does not want this agent any more.
    pub fn revoked(&self) -> bool {
        self.shared.revoked()
    }

    /// The host's identity.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// Stops ticking, sends what waits once more, and leaves. What could not be sent stays in
    /// the spool.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        // Under the lock, or a thread about to wait would miss the bell.
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
    runner: CollectorPool,
    set: CollectorSet,
    deriver: Deriver,
    builder: SnapshotBuilder,
    self_metrics: SelfMetrics,
    /// Stands in where the kernel doesn't tell its boot.
    fallback_boot: BootId,
    logged_errors: Vec<String>,
    missed_ticks: u64,
    last_sequence: Option<(BootId, u64)>,
    host: HostId,
    clock: Arc<dyn Clock>,
    shared: Arc<AgentState>,
}

impl Ticker {
    fn run(mut self) {
        self.last_sequence = self.shared.lock().last_sequence();
        // Rates need a reading before the first tick.
        let first = self.runner.read();
        self.deriver.derive(&first, &self.set.options);
        let mut taken = first.monotonic;
        let mut next = None;
        loop {
            let interval = Duration::from_millis(self.shared.interval_ms.load(Ordering::Acquire));
            let phase = schedule::host_phase(self.host, interval);
            let now = self.clock.monotonic();
            let mut target = schedule::next_tick(now, interval, phase);
            if let Some(planned) = next.filter(|&planned| planned + interval <= target) {
                let missed = (target.saturating_sub(planned).as_nanos() / interval.as_nanos().max(1))
                    .saturating_sub(1);
                self.missed_ticks += u64::try_from(missed).unwrap_or(u64::MAX);
            }
            // Two readings close together make rates of noise.
            if target.saturating_sub(taken) < interval / 2 {
                target = schedule::next_tick(target, interval, phase);
            }
            next = Some(target);
            if !self.sleep_until(target) {
                return;
            }
            let reading = self.runner.read();
            let elapsed = reading.monotonic.saturating_sub(taken);
            taken = reading.monotonic;
            let snapshot = self.snapshot(&reading, elapsed);
            self.shared.lock().append(&snapshot);
            self.shared.wake.notify_all();
        }
    }

    /// False when it is time to leave.
    fn sleep_until(&self, target: Duration) -> bool {
        let mut guard = self.shared.lock();
        loop {
            let left = target.saturating_sub(self.clock.monotonic());
            if self.shared.is_stopping() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            guard = self.shared.wake.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn snapshot(&mut self, reading: &Reading, elapsed: Duration) -> Snapshot {
        let mut derived = self.deriver.derive(reading, &self.set.options);
        let counts = {
            let spool = self.shared.lock();
            AgentCounters {
                pending: spool.pending(),
                spool_bytes: spool.bytes(),
                dropped: spool.dropped(),
                missed_ticks: self.missed_ticks,
            }
        };
        self.self_metrics.add(&mut derived, reading, counts, &*self.clock);
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

    /// One more than the last of this boot. Without a memory of it (a new boot, a lost state
    /// folder), milliseconds since 2020 start the count: no earlier run can have got so far.
    fn next_seq(&mut self, boot: BootId) -> u64 {
        let seq = match self.last_sequence {
            Some((last_boot, seq)) if last_boot == boot => seq + 1,
            _ => u64::try_from(self.clock.wall_ms() - perfwatch_model::limits::MIN_TIMESTAMP_MS).unwrap_or(1),
        };
        self.last_sequence = Some((boot, seq));
        seq
    }

    /// Each complaint goes to the log when it is new, not at every tick.
    fn log_new_errors(&mut self, errors: &[perfwatch_model::CollectorError]) {
        // "since 12 s" counts up: it is the same complaint.
        let key = |text: &str| {
            text.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ' || c == 's').to_owned()
        };
        let now: Vec<String> =
            errors.iter().map(|e| format!("{} {}", e.collector, key(&e.message))).collect();
        for (error, complaint) in errors.iter().zip(&now) {
            if !self.logged_errors.contains(complaint) {
                tracing::warn!(collector = error.collector, why = error.message, "collector failed");
            }
        }
        self.logged_errors = now;
    }
}

/// Two readings `apart`, for a single look: the first only so that the second has rates.
///
/// # Errors
/// No threads.
pub fn collect_once(
    source: Arc<dyn Source>,
    set: &CollectorSet,
    apart: Duration,
    clock: &Arc<dyn Clock>,
) -> std::io::Result<Snapshot> {
    let mut runner = CollectorPool::start(source, set, &std::collections::BTreeMap::new(), clock.clone())?;
    let mut deriver = Deriver::default();
    let first = runner.read();
    deriver.derive(&first, &set.options);
    std::thread::sleep(apart);
    let second = runner.read();
    let elapsed = second.monotonic.saturating_sub(first.monotonic);
    let interval_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
    let derived = deriver.derive(&second, &set.options);
    let seq = u64::try_from(second.wall_ms).unwrap_or_default();
    Ok(SnapshotBuilder::default().build(second.boot, seq, second.wall_ms, interval_ms, derived))
}
