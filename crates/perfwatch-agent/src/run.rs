//! Wiring and rhythm: reads at each tick, derives, spools; ends in order.

use crate::config::AgentConfig;
use crate::error::AgentError;
use crate::guarded::Guarded;
use crate::push::{Pusher, Shared};
use crate::runner::Runner;
use crate::self_metrics::{Counts, SelfMetrics};
use crate::spool::Spool;
use crate::{identity, tick};
use perfwatch_collect::{CollectorSet, Deriver, LocalRoot, Reading, SnapshotBuilder, Source};
use perfwatch_model::{BootId, Clock, HostId, Snapshot, wire};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running agent.
pub struct Agent {
    shared: Arc<Shared>,
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
        config.check()?;
        let source: Arc<dyn Source> =
            Arc::new(Guarded::new(LocalRoot::new(&config.procfs, &config.sysfs, &config.rootfs)));
        let lock = identity::lock(&config.state)?;
        let host = identity::host_id(&config.state);
        let name = identity::host_name(config.name.as_deref(), &*source);
        let spool = Spool::open(&config.state.join("spool"), config.spool_bytes);
        let set = CollectorSet::new(&config.disabled, config.options.clone());
        let interval_ms = u64::try_from(config.interval.as_millis()).unwrap_or(u64::MAX);
        let shared = Arc::new(Shared {
            facts: Mutex::new(None),
            bell: Condvar::new(),
            stop: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            interval_ms: AtomicU64::new(interval_ms),
            spool: Mutex::new(spool),
        });
        tracing::info!(host.id = %host, host.name = name, hub = config.hub, interval_ms, "agent starts");
        let runner = Runner::start(source, &set, &config.intervals, clock.clone())?;
        let pusher = Pusher::new(shared.clone(), clock.clone(), config, host, name)?;
        let ticker = Ticker {
            runner,
            set,
            deriver: Deriver::default(),
            builder: SnapshotBuilder::default(),
            own: SelfMetrics::default(),
            own_boot: BootId::generate(),
            complaints: Vec::new(),
            skipped: 0,
            last: None,
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
        self.shared.bell.notify_all();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("an agent thread panicked");
            }
        }
        tracing::info!("agent stopped");
    }
}

struct Ticker {
    runner: Runner,
    set: CollectorSet,
    deriver: Deriver,
    builder: SnapshotBuilder,
    own: SelfMetrics,
    /// Stands in where the kernel doesn't tell its boot.
    own_boot: BootId,
    complaints: Vec<String>,
    skipped: u64,
    last: Option<(BootId, u64)>,
    host: HostId,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

impl Ticker {
    fn run(mut self) {
        self.last = self.shared.lock().last();
        // Rates need a reading before the first tick.
        let first = self.runner.read();
        self.deriver.derive(&first, &self.set.options);
        let mut taken = first.monotonic;
        let mut next = None;
        loop {
            let interval = Duration::from_millis(self.shared.interval_ms.load(Ordering::Acquire));
            let phase = tick::phase(self.host, interval);
            let now = self.clock.monotonic();
            let mut target = tick::next_tick(now, interval, phase);
            if let Some(planned) = next.filter(|&planned| planned + interval <= target) {
                let missed = (target.saturating_sub(planned).as_nanos() / interval.as_nanos().max(1))
                    .saturating_sub(1);
                self.skipped += u64::try_from(missed).unwrap_or(u64::MAX);
            }
            // Two readings close together make rates of noise.
            if target.saturating_sub(taken) < interval / 2 {
                target = tick::next_tick(target, interval, phase);
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
            self.shared.bell.notify_all();
        }
    }

    /// False when it is time to leave.
    fn sleep_until(&self, target: Duration) -> bool {
        let mut guard = self.shared.lock();
        loop {
            let left = target.saturating_sub(self.clock.monotonic());
            if self.shared.stopping() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            guard = self.shared.bell.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn snapshot(&mut self, reading: &Reading, elapsed: Duration) -> Snapshot {
        let mut derived = self.deriver.derive(reading, &self.set.options);
        let counts = {
            let spool = self.shared.lock();
            Counts {
                pending: spool.pending(),
                spool_bytes: spool.bytes(),
                dropped: spool.dropped(),
                skipped: self.skipped,
            }
        };
        self.own.add(&mut derived, reading, counts, &*self.clock);
        self.complain_once(&derived.errors);
        let boot = if reading.boot == BootId::default() { self.own_boot } else { reading.boot };
        let seq = self.next_seq(boot);
        let interval_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        let snapshot = self.builder.build(boot, seq, reading.wall_ms, interval_ms, derived);
        if let Some(facts) = &snapshot.facts {
            *self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(wire::facts_message(facts));
        }
        snapshot
    }

    /// One more than the last of this boot. Without a memory of it (a new boot, a lost state
    /// folder), milliseconds since 2020 start the count: no earlier run can have got so far.
    fn next_seq(&mut self, boot: BootId) -> u64 {
        let seq = match self.last {
            Some((last_boot, seq)) if last_boot == boot => seq + 1,
            _ => u64::try_from(self.clock.wall_ms() - perfwatch_model::limits::EARLIEST_MS).unwrap_or(1),
        };
        self.last = Some((boot, seq));
        seq
    }

    /// Each complaint goes to the log when it is new, not at every tick.
    fn complain_once(&mut self, errors: &[perfwatch_model::CollectorError]) {
        // "since 12 s" counts up: it is the same complaint.
        let key = |text: &str| {
            text.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ' || c == 's').to_owned()
        };
        let now: Vec<String> =
            errors.iter().map(|e| format!("{} {}", e.collector, key(&e.message))).collect();
        for (error, complaint) in errors.iter().zip(&now) {
            if !self.complaints.contains(complaint) {
                tracing::warn!(collector = error.collector, why = error.message, "collector");
            }
        }
        self.complaints = now;
    }
}

/// Two readings `apart`, for a single look: the first only so that the second has rates.
///
/// # Errors
/// No threads.
pub fn take_reading_pair(
    source: Arc<dyn Source>,
    set: &CollectorSet,
    apart: Duration,
    clock: &Arc<dyn Clock>,
) -> std::io::Result<Snapshot> {
    let mut runner = Runner::start(source, set, &std::collections::BTreeMap::new(), clock.clone())?;
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
