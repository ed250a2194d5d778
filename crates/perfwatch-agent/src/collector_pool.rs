//! One thread per collector, with timeouts: a collector that hangs or is slow (a failing disk, a slow
//! sensor bus) neither stops nor delays the others.

use perfwatch_collect::{
    Cadence, CollectError, Collector, CollectorCache, CollectorOptions, CollectorSet, Part, PartReading,
    Reading, Source, boot_id, read_one,
};
use perfwatch_model::Clock;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Time that a tick waits for its collectors. Healthy collectors need 1 to 20 ms; the result of a
/// slower collector is part of the next tick.
const COLLECT_TIMEOUT: Duration = Duration::from_millis(200);
/// Run time after which a collector that has not returned is reported as an error.
const HANG_TIMEOUT: Duration = Duration::from_secs(5);
/// Tolerance for starting a collector before it is due: ticks and intervals rarely divide evenly.
const EARLY_START_TOLERANCE_MS: u64 = 50;
/// Stack of a collector thread, eight times the largest usage measured.
const STACK_BYTES: usize = 256 << 10;

struct CollectorThread {
    collector: &'static Collector,
    interval: Duration,
    trigger: mpsc::SyncSender<()>,
    /// Monotonic start time of the run in progress.
    started_at: Option<Duration>,
    due: Duration,
    last: Option<PartReading>,
    /// True until `last` is part of a reading.
    unreported: bool,
}

/// Threads of all collectors with their last results.
pub(crate) struct CollectorPool {
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    threads: Vec<CollectorThread>,
    results: mpsc::Receiver<(usize, PartReading)>,
}

impl CollectorPool {
    /// Starts one thread per collector. The threads end when the pool is dropped; a hanging thread
    /// ends with the process.
    pub(crate) fn start(
        source: Arc<dyn Source>,
        set: &CollectorSet,
        intervals: &BTreeMap<String, Duration>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let (sender, results) = mpsc::channel();
        let mut threads = Vec::new();
        for (index, &collector) in set.collectors.iter().enumerate() {
            let (trigger, triggers) = mpsc::sync_channel::<()>(1);
            let (source, clock, options, sender) =
                (source.clone(), clock.clone(), set.options.clone(), sender.clone());
            let run = move || {
                let mut cache = CollectorCache::default();
                while triggers.recv().is_ok() {
                    let part = read_catching_panics(collector, &*source, &options, &mut cache, &*clock);
                    if sender.send((index, part)).is_err() {
                        break;
                    }
                }
            };
            std::thread::Builder::new().name(collector.name.into()).stack_size(STACK_BYTES).spawn(run)?;
            let interval =
                intervals.get(collector.name).copied().unwrap_or_else(|| collector.cadence.min_interval());
            threads.push(CollectorThread {
                collector,
                interval,
                trigger,
                started_at: None,
                due: Duration::ZERO,
                last: None,
                unreported: false,
            });
        }
        Ok(Self { source, clock, threads, results })
    }

    /// Triggers the collectors that are due, waits up to 200 ms for their results, and returns the reading.
    pub(crate) fn read(&mut self) -> Reading {
        let (wall_ms, now) = (self.clock.wall_ms(), self.clock.monotonic());
        while let Ok((index, part)) = self.results.try_recv() {
            self.threads[index].on_finished(part);
        }
        for thread in &mut self.threads {
            if thread.started_at.is_none()
                && now + Duration::from_millis(EARLY_START_TOLERANCE_MS) >= thread.due
                && thread.trigger.try_send(()).is_ok()
            {
                thread.started_at = Some(now);
                thread.due = now + thread.interval;
            }
        }
        let deadline = now + COLLECT_TIMEOUT;
        while self
            .threads
            .iter()
            .any(|thread| thread.started_at.is_some_and(|since| now.saturating_sub(since) < HANG_TIMEOUT))
        {
            let remaining = deadline.saturating_sub(self.clock.monotonic());
            let Ok((index, part)) = self.results.recv_timeout(remaining) else {
                break;
            };
            self.threads[index].on_finished(part);
        }
        let parts = self.threads.iter_mut().map(|thread| thread.current_part(now)).collect();
        Reading { boot: boot_id(&*self.source), wall_ms, monotonic: now, parts }
    }
}

impl CollectorThread {
    fn on_finished(&mut self, part: PartReading) {
        self.started_at = None;
        self.last = Some(part);
        self.unreported = true;
    }

    /// Part of this collector in the reading at `now`.
    fn current_part(&mut self, now: Duration) -> PartReading {
        let unreported = std::mem::take(&mut self.unreported);
        let failed_part = |error| PartReading {
            collector: self.collector.name,
            started_at: now,
            duration: Duration::ZERO,
            result: Err(error),
        };
        match (self.started_at, &self.last) {
            (Some(since), _) if now.saturating_sub(since) >= HANG_TIMEOUT => {
                let seconds = now.saturating_sub(since).as_secs();
                failed_part(CollectError::Failed(format!("collector has not returned for {seconds} s")))
            }
            // Running late: the result that arrived since the last tick, else a gap. A collector with
            // a longer cadence repeats its previous value.
            (Some(_), Some(last)) if unreported || self.collector.cadence != Cadence::EveryTick => {
                last.clone()
            }
            (Some(_), _) | (None, None) => failed_part(CollectError::NotAvailable),
            (None, Some(last)) => last.clone(),
        }
    }
}

fn read_catching_panics(
    collector: &'static Collector,
    source: &dyn Source,
    options: &CollectorOptions,
    cache: &mut CollectorCache,
    clock: &dyn Clock,
) -> PartReading {
    let started_at = clock.monotonic();
    let read = AssertUnwindSafe(|| read_one(collector, source, options, cache));
    let result: Result<Arc<Part>, CollectError> = catch_unwind(read)
        .unwrap_or_else(|_| Err(CollectError::Failed("collector panicked; please report this".into())));
    if result.is_err() {
        // A panic may leave the cache inconsistent.
        *cache = CollectorCache::default();
    }
    PartReading {
        collector: collector.name,
        started_at,
        duration: clock.monotonic().saturating_sub(started_at),
        result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_collect::{CollectContext, Deriver};
    use perfwatch_model::{MetricDef, SystemClock, Unit};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    const METRICS: &[MetricDef] = &[MetricDef::gauge("t.count", Unit::Count, 0, "Metric of this test.")];
    static HANG: AtomicBool = AtomicBool::new(true);
    static FAST: AtomicU32 = AtomicU32::new(0);

    fn hang(_: &mut CollectContext<'_>) -> Result<(), CollectError> {
        while HANG.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn fast(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
        cx.out.gauge("t.count", f64::from(FAST.fetch_add(1, Ordering::Relaxed)));
        Ok(())
    }

    fn panics(_: &mut CollectContext<'_>) -> Result<(), CollectError> {
        // Without the panic hook: printing a backtrace can take longer than a tick.
        std::panic::resume_unwind(Box::new("bug in a collector"))
    }

    static HANGING: Collector =
        Collector { name: "hanging", metrics: &[], cadence: Cadence::EveryTick, read: hang };
    static WORKING: Collector =
        Collector { name: "working", metrics: METRICS, cadence: Cadence::EveryTick, read: fast };
    static BROKEN: Collector =
        Collector { name: "broken", metrics: &[], cadence: Cadence::EveryTick, read: panics };

    #[test]
    fn hanging_and_panicking_collectors_do_not_affect_others() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let set = CollectorSet { collectors: vec![&HANGING, &BROKEN, &WORKING], options: Arc::default() };
        let source: Arc<dyn Source> = Arc::new(perfwatch_collect::Capture::default());
        let mut pool = CollectorPool::start(source, &set, &BTreeMap::new(), clock).unwrap();
        for tick in 0..3 {
            let reading = pool.read();
            assert!(matches!(reading.parts[0].result, Err(CollectError::NotAvailable)));
            assert!(
                matches!(&reading.parts[1].result, Err(CollectError::Failed(error)) if error.contains("panicked"))
            );
            let derived = Deriver::default().derive(&reading, &set.options);
            assert_eq!(derived.samples[0].value, f64::from(tick));
        }
        pool.threads[0].started_at = Some(Duration::ZERO);
        let later = pool.threads[0].current_part(Duration::from_secs(9));
        assert!(
            matches!(later.result, Err(CollectError::Failed(error)) if error == "collector has not returned for 9 s")
        );
        HANG.store(false, Ordering::Relaxed);
        while pool.read().parts[0].result.is_err() {}
    }
}
