//! All collectors with their schedules, last results and timeouts: a collector that hangs or is slow (a failing
//! disk, a slow sensor bus) neither stops nor delays the others.
//!
//! Requests of the hub reduce the runs of these collectors. Collectors that the configuration disables are not in
//! the pool, so that no request can start them.

use crate::collector_queue::{CollectorQueue, CollectorRun, FinishedRun, SharedInputs};
use crate::config::MAX_INTERVAL;
use perfwatch_collect::{
    Cadence, CollectError, Collector, CollectorCache, CollectorSet, PartReading, Reading, Source, boot_id,
};
use perfwatch_model::{Clock, CollectorRequest, CollectorRequests};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Time that a tick waits for its collectors. Healthy collectors need 1 to 20 ms; the result of a
/// slower collector is part of the next tick.
const COLLECT_TIMEOUT: Duration = Duration::from_millis(200);
/// Run time after which a collector that has not returned is reported as an error.
const HANG_TIMEOUT: Duration = Duration::from_secs(5);
/// Tolerance for starting a collector before it is due: ticks and intervals rarely divide evenly.
const EARLY_START_TOLERANCE_MS: u64 = 50;
/// Time without a finished run after which another thread starts. Collectors that needed longer before run last.
const STALL_TIMEOUT: Duration = Duration::from_millis(20);

struct ScheduledCollector {
    collector: &'static Collector,
    /// Configured minimum time between two runs.
    min_interval: Duration,
    /// State for the next run; `None` while a run is in progress.
    cache: Option<CollectorCache>,
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

/// Collectors with their last results.
pub(crate) struct CollectorPool {
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    collectors: Vec<ScheduledCollector>,
    queue: Arc<CollectorQueue>,
}

impl Drop for CollectorPool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl CollectorPool {
    /// Starts a thread for all collectors. The threads end when the pool is dropped; a hanging thread
    /// ends with the process.
    pub(crate) fn start(
        source: Arc<dyn Source>,
        set: &CollectorSet,
        intervals: &BTreeMap<String, Duration>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let collectors = set.collectors.iter().map(|&collector| ScheduledCollector {
            collector,
            min_interval: intervals
                .get(collector.name)
                .copied()
                .unwrap_or_else(|| collector.cadence.min_interval()),
            cache: Some(CollectorCache::default()),
            started_at: None,
            last_start: None,
            request: CollectorRequest::default(),
            last: None,
            unreported: false,
        });
        let inputs =
            SharedInputs { source: source.clone(), options: set.options.clone(), clock: clock.clone() };
        let queue = CollectorQueue::new(inputs);
        queue.start_thread()?;
        Ok(Self { source, clock, collectors: collectors.collect(), queue })
    }

    /// Runs the collectors that are due, waits up to 200 ms for their results, and returns the reading. The
    /// requests of the hub extend intervals and leave out collectors.
    pub(crate) fn read(&mut self, requests: &CollectorRequests) -> Reading {
        let (wall_ms, now) = (self.clock.wall_ms(), self.clock.monotonic());
        self.on_finished(self.queue.take_finished());
        let mut runs = Vec::new();
        for (index, scheduled) in self.collectors.iter_mut().enumerate() {
            scheduled.apply(requests.get(scheduled.collector.name).copied().unwrap_or_default());
            if scheduled.is_due(now)
                && let Some(cache) = scheduled.cache.take()
            {
                scheduled.started_at = Some(now);
                scheduled.last_start = Some(now);
                runs.push(CollectorRun { index, collector: scheduled.collector, cache });
            }
        }
        runs.sort_by_key(|run| self.collectors[run.index].is_slow());
        self.queue.add(runs);
        let deadline = now + COLLECT_TIMEOUT;
        while self.collectors.iter().any(|scheduled| scheduled.is_awaited(now)) {
            let remaining = deadline.saturating_sub(self.clock.monotonic());
            if remaining.is_zero() {
                break;
            }
            self.on_finished(self.queue.wait(remaining, STALL_TIMEOUT));
        }
        let enabled = self.collectors.iter_mut().filter(|scheduled| !scheduled.request.disabled);
        let parts = enabled.map(|scheduled| scheduled.current_part(now)).collect();
        Reading { boot: boot_id(&*self.source), wall_ms, monotonic: now, parts }
    }

    fn on_finished(&mut self, finished: Vec<FinishedRun>) {
        for FinishedRun { index, part, cache } in finished {
            let scheduled = &mut self.collectors[index];
            scheduled.started_at = None;
            scheduled.last = Some(part);
            scheduled.unreported = true;
            scheduled.cache = Some(cache);
        }
    }
}

impl ScheduledCollector {
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

    /// Returns whether others should not wait for the next run, because the last one was slow.
    fn is_slow(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.duration >= STALL_TIMEOUT)
    }

    /// Returns whether a reading waits for the run in progress.
    fn is_awaited(&self, now: Duration) -> bool {
        let is_hanging = |since: Duration| now.saturating_sub(since) >= HANG_TIMEOUT;
        !self.request.disabled && self.started_at.is_some_and(|since| !is_hanging(since))
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
        pool.collectors[0].started_at = Some(Duration::ZERO);
        let later = pool.collectors[0].current_part(Duration::from_secs(9));
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
            while pool.collectors[0].started_at.is_some() {
                let finished = pool.queue.wait(COLLECT_TIMEOUT, STALL_TIMEOUT);
                pool.on_finished(finished);
            }
            let names: Vec<_> = reading.parts.iter().map(|part| part.collector).collect();
            (names, pool.collectors[0].last_start.map(|start| start.as_secs()))
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
