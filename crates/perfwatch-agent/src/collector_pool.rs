//! One thread per collector, with timeouts: a collector that hangs or is slow (a failing disk, a slow
//! sensor bus) neither stops nor delays the others.
//!
//! Requests of the hub reduce the runs of these collectors. Collectors that the configuration disables have no
//! thread, so that no request can start them.

use crate::config::MAX_INTERVAL;
use perfwatch_collect::{
    Cadence, CollectError, Collector, CollectorCache, CollectorOptions, CollectorSet, Part, PartReading,
    Reading, Source, boot_id, read_one,
};
use perfwatch_model::{Clock, CollectorRequest, CollectorRequests};
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
    /// Configured minimum time between two runs.
    min_interval: Duration,
    trigger: mpsc::SyncSender<()>,
    /// Monotonic start time of the run in progress.
    started_at: Option<Duration>,
    /// Monotonic start time of the last run.
    last_start: Option<Duration>,
    /// Request of the hub.
    request: CollectorRequest,
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
            let min_interval =
                intervals.get(collector.name).copied().unwrap_or_else(|| collector.cadence.min_interval());
            threads.push(CollectorThread {
                collector,
                min_interval,
                trigger,
                started_at: None,
                last_start: None,
                request: CollectorRequest::default(),
                last: None,
                unreported: false,
            });
        }
        Ok(Self { source, clock, threads, results })
    }

    /// Triggers the collectors that are due, waits up to 200 ms for their results, and returns the reading. The
    /// requests of the hub extend intervals and leave out collectors.
    pub(crate) fn read(&mut self, requests: &CollectorRequests) -> Reading {
        let (wall_ms, now) = (self.clock.wall_ms(), self.clock.monotonic());
        while let Ok((index, part)) = self.results.try_recv() {
            self.threads[index].on_finished(part);
        }
        for thread in &mut self.threads {
            thread.apply(requests.get(thread.collector.name).copied().unwrap_or_default());
            if thread.is_due(now) && thread.trigger.try_send(()).is_ok() {
                thread.started_at = Some(now);
                thread.last_start = Some(now);
            }
        }
        let deadline = now + COLLECT_TIMEOUT;
        while self
            .threads
            .iter()
            .filter(|thread| !thread.request.disabled)
            .any(|thread| thread.started_at.is_some_and(|since| now.saturating_sub(since) < HANG_TIMEOUT))
        {
            let remaining = deadline.saturating_sub(self.clock.monotonic());
            let Ok((index, part)) = self.results.recv_timeout(remaining) else {
                break;
            };
            self.threads[index].on_finished(part);
        }
        let enabled = self.threads.iter_mut().filter(|thread| !thread.request.disabled);
        let parts = enabled.map(|thread| thread.current_part(now)).collect();
        Reading { boot: boot_id(&*self.source), wall_ms, monotonic: now, parts }
    }
}

impl CollectorThread {
    fn apply(&mut self, request: CollectorRequest) {
        if self.request.disabled && !request.disabled {
            // The result from before the pause is not repeated.
            self.last = None;
            self.unreported = false;
            self.last_start = None;
        }
        self.request = request;
    }

    /// Returns whether a run starts at `now`.
    fn is_due(&self, now: Duration) -> bool {
        let interval = self.request.interval(self.min_interval, MAX_INTERVAL);
        let tolerance = Duration::from_millis(EARLY_START_TOLERANCE_MS);
        !self.request.disabled
            && self.started_at.is_none()
            && self.last_start.is_none_or(|last_start| now + tolerance >= last_start + interval)
    }

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
    use perfwatch_model::{ManualClock, MetricDef, SystemClock, Unit};
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
            let reading = pool.read(&CollectorRequests::new());
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
        while pool.read(&CollectorRequests::new()).parts[0].result.is_err() {}
    }
    /// Requests by name.
    fn requests(list: &[(&str, bool, Option<u32>)]) -> CollectorRequests {
        let request = |&(name, disabled, interval_ms): &(&str, bool, Option<u32>)| {
            (name.to_owned(), CollectorRequest { disabled, interval_ms })
        };
        list.iter().map(request).collect()
    }

    fn empty(_: &mut CollectContext<'_>) -> Result<(), CollectError> {
        Ok(())
    }

    static COUNTED: Collector =
        Collector { name: "counted", metrics: &[], cadence: Cadence::EveryTick, read: empty };

    #[test]
    fn hub_requests_never_exceed_the_configuration() {
        let clock = Arc::new(ManualClock::starting_at(0));
        // The configuration of this agent disables the collector "hanging".
        let set = CollectorSet { collectors: vec![&COUNTED], options: Arc::default() };
        let source: Arc<dyn Source> = Arc::new(perfwatch_collect::Capture::default());
        let intervals = BTreeMap::from([("counted".to_owned(), Duration::from_secs(10))]);
        let mut pool = CollectorPool::start(source, &set, &intervals, clock.clone()).unwrap();
        // Collectors, and the seconds after the start at which "counted" last started.
        let mut read = |at_s: u64, list: &[(&str, bool, Option<u32>)]| {
            let now = clock.monotonic();
            clock.advance(Duration::from_secs(at_s).saturating_sub(now));
            let reading = pool.read(&requests(list));
            while pool.threads[0].started_at.is_some() {
                let (index, part) = pool.results.recv().unwrap();
                pool.threads[index].on_finished(part);
            }
            let names: Vec<_> = reading.parts.iter().map(|part| part.collector).collect();
            (names, pool.threads[0].last_start.map(|start| start.as_secs()))
        };
        let faster: &[(&str, bool, Option<u32>)] =
            &[("counted", false, Some(1_000)), ("hanging", false, Some(1_000)), ("unknown", false, None)];
        assert_eq!(read(100, faster), (vec!["counted"], Some(100)));
        assert_eq!(read(105, faster), (vec!["counted"], Some(100)));
        assert_eq!(read(110, faster), (vec!["counted"], Some(110)));
        let slower = [("counted", false, Some(60_000))];
        assert_eq!(read(120, &slower), (vec!["counted"], Some(110)));
        // Without a request, the configured interval counts again.
        assert_eq!(read(130, &[]), (vec!["counted"], Some(130)));
        let off = [("counted", true, None)];
        assert_eq!(read(150, &off), (vec![], Some(130)));
        assert_eq!(read(160, &[]), (vec!["counted"], Some(160)));
    }
}
