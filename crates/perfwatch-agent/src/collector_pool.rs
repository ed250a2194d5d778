//! Collectors side by side: each on a thread of its own, so that one which hangs or crawls
//! (a sick disk, a slow sensor bus) neither stops nor delays the others.

use perfwatch_collect::{
    Cadence, CollectError, Collector, CollectorCache, CollectorOptions, CollectorSet, Part, PartReading,
    Reading, Source, boot_id, read_one,
};
use perfwatch_model::Clock;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a tick waits for its collectors. Healthy ones need 1 to 20 ms; who needs longer
/// is taken up by the next tick.
const COLLECT_TIMEOUT: Duration = Duration::from_millis(200);
/// From when on a collector that does not come back is an error.
const HANG_TIMEOUT: Duration = Duration::from_secs(5);
/// Collectors need little stack: this is the most seen times eight.
const STACK_BYTES: usize = 256 << 10;

struct CollectorThread {
    collector: &'static Collector,
    interval: Duration,
    trigger: mpsc::SyncSender<()>,
    /// Monotonic time of the read that is under way.
    started_at: Option<Duration>,
    due: Duration,
    last: Option<PartReading>,
    /// `last` was not reported yet: it came after its tick had gone.
    unreported: bool,
}

/// The threads and what they last said.
pub(crate) struct CollectorPool {
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    threads: Vec<CollectorThread>,
    results: mpsc::Receiver<(usize, PartReading)>,
}

impl CollectorPool {
    /// Starts a thread a collector. They end when the runner is dropped (a hung one with
    /// the process).
    pub(crate) fn start(
        source: Arc<dyn Source>,
        set: &CollectorSet,
        intervals: &BTreeMap<String, Duration>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let (answer, answers) = mpsc::channel();
        let mut lanes = Vec::new();
        for (index, &collector) in set.collectors.iter().enumerate() {
            let (go, orders) = mpsc::sync_channel::<()>(1);
            let (source, clock, options, answer) =
                (source.clone(), clock.clone(), set.options.clone(), answer.clone());
            let work = move || {
                let mut recall = CollectorCache::default();
                while orders.recv().is_ok() {
                    let part = read_catching_panics(collector, &*source, &options, &mut recall, &*clock);
                    if answer.send((index, part)).is_err() {
                        break;
                    }
                }
            };
            std::thread::Builder::new().name(collector.name.into()).stack_size(STACK_BYTES).spawn(work)?;
            let every =
                intervals.get(collector.name).copied().unwrap_or_else(|| collector.cadence.min_interval());
            lanes.push(CollectorThread {
                collector,
                interval: every,
                trigger: go,
                started_at: None,
                due: Duration::ZERO,
                last: None,
                unreported: false,
            });
        }
        Ok(Self { source, clock, threads: lanes, results: answers })
    }

    /// One reading: asks who is due and waits for the answers, but not for long.
    pub(crate) fn read(&mut self) -> Reading {
        let (wall_ms, now) = (self.clock.wall_ms(), self.clock.monotonic());
        while let Ok((index, part)) = self.results.try_recv() {
            self.threads[index].on_finished(part);
        }
        for lane in &mut self.threads {
            // A little early is in time: ticks and intervals rarely divide evenly.
            if lane.started_at.is_none()
                && now + Duration::from_millis(50) >= lane.due
                && lane.trigger.try_send(()).is_ok()
            {
                lane.started_at = Some(now);
                lane.due = now + lane.interval;
            }
        }
        let deadline = now + COLLECT_TIMEOUT;
        while self
            .threads
            .iter()
            .any(|lane| lane.started_at.is_some_and(|since| now.saturating_sub(since) < HANG_TIMEOUT))
        {
            let left = deadline.saturating_sub(self.clock.monotonic());
            let Ok((index, part)) = self.results.recv_timeout(left) else {
                break;
            };
            self.threads[index].on_finished(part);
        }
        let parts = self.threads.iter_mut().map(|lane| lane.current_part(now)).collect();
        Reading { boot: boot_id(&*self.source), wall_ms, monotonic: now, parts }
    }
}

impl CollectorThread {
    fn on_finished(&mut self, part: PartReading) {
        self.started_at = None;
        self.last = Some(part);
        self.unreported = true;
    }

    /// What this collector adds to the reading of `now`.
    fn current_part(&mut self, now: Duration) -> PartReading {
        let fresh = std::mem::take(&mut self.unreported);
        let missing = |error| PartReading {
            collector: self.collector.name,
            started_at: now,
            duration: Duration::ZERO,
            result: Err(error),
        };
        match (self.started_at, &self.last) {
            (Some(since), _) if now.saturating_sub(since) >= HANG_TIMEOUT => {
                let seconds = now.saturating_sub(since).as_secs();
                missing(CollectError::Failed(format!("collector has not returned for {seconds} s")))
            }
            // Late: what it said since the last tick, else a gap; for who reads rarely, the value of before.
            (Some(_), Some(last)) if fresh || self.collector.cadence != Cadence::EveryTick => last.clone(),
            (Some(_), _) | (None, None) => missing(CollectError::NotAvailable),
            (None, Some(last)) => last.clone(),
        }
    }
}

fn read_catching_panics(
    collector: &'static Collector,
    source: &dyn Source,
    options: &CollectorOptions,
    recall: &mut CollectorCache,
    clock: &dyn Clock,
) -> PartReading {
    let taken = clock.monotonic();
    let read = AssertUnwindSafe(|| read_one(collector, source, options, recall));
    let result: Result<Arc<Part>, CollectError> = catch_unwind(read)
        .unwrap_or_else(|_| Err(CollectError::Failed("the collector panicked; please report it".into())));
    if result.is_err() {
        // What it remembered may be half written.
        *recall = CollectorCache::default();
    }
    PartReading {
        collector: collector.name,
        started_at: taken,
        duration: clock.monotonic().saturating_sub(taken),
        result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_collect::{CollectContext, Deriver};
    use perfwatch_model::{MetricDef, SystemClock, Unit};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    const METRICS: &[MetricDef] = &[MetricDef::gauge("t.count", Unit::Count, 0, "A test.")];
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
        panic!("a bug");
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
        let mut runner = CollectorPool::start(source, &set, &BTreeMap::new(), clock).unwrap();
        for tick in 0..3 {
            let reading = runner.read();
            assert!(matches!(reading.parts[0].result, Err(CollectError::NotAvailable)));
            assert!(
                matches!(&reading.parts[1].result, Err(CollectError::Failed(why)) if why.contains("panicked"))
            );
            let derived = Deriver::default().derive(&reading, &set.options);
            assert_eq!(derived.samples[0].value, f64::from(tick));
        }
        runner.threads[0].started_at = Some(Duration::ZERO);
        let later = runner.threads[0].current_part(Duration::from_secs(9));
        assert!(
            matches!(later.result, Err(CollectError::Failed(why)) if why == "does not come back since 9 s")
        );
        HANG.store(false, Ordering::Relaxed);
        while runner.read().parts[0].result.is_err() {}
    }
}
