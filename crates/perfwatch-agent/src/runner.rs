//! Collectors side by side: each on a thread of its own, so that one which hangs or crawls
//! (a sick disk, a slow sensor bus) neither stops nor delays the others.

use perfwatch_collect::{
    CollectError, Collector, CollectorSet, Every, Options, Part, PartReading, Reading, Recall, Source,
    boot_id, read_one,
};
use perfwatch_model::Clock;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a tick waits for its collectors. Healthy ones need 1 to 20 ms; who needs longer
/// is taken up by the next tick.
const PATIENCE: Duration = Duration::from_millis(200);
/// From when on a collector that does not come back is an error.
const HUNG: Duration = Duration::from_secs(5);
/// Collectors need little stack: this is the most seen times eight.
const STACK_BYTES: usize = 256 << 10;

struct Lane {
    collector: &'static Collector,
    every: Duration,
    go: mpsc::SyncSender<()>,
    /// Monotonic time of the read that is under way.
    running: Option<Duration>,
    due: Duration,
    last: Option<PartReading>,
    /// `last` was not reported yet: it came after its tick had gone.
    fresh: bool,
}

/// The threads and what they last said.
pub(crate) struct Runner {
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    lanes: Vec<Lane>,
    answers: mpsc::Receiver<(usize, PartReading)>,
}

impl Runner {
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
                let mut recall = Recall::default();
                while orders.recv().is_ok() {
                    let part = read_guarded(collector, &*source, &options, &mut recall, &*clock);
                    if answer.send((index, part)).is_err() {
                        break;
                    }
                }
            };
            std::thread::Builder::new().name(collector.name.into()).stack_size(STACK_BYTES).spawn(work)?;
            let every = intervals.get(collector.name).copied().unwrap_or_else(|| collector.every.duration());
            lanes.push(Lane {
                collector,
                every,
                go,
                running: None,
                due: Duration::ZERO,
                last: None,
                fresh: false,
            });
        }
        Ok(Self { source, clock, lanes, answers })
    }

    /// One reading: asks who is due and waits for the answers, but not for long.
    pub(crate) fn read(&mut self) -> Reading {
        let (wall_ms, now) = (self.clock.wall_ms(), self.clock.monotonic());
        while let Ok((index, part)) = self.answers.try_recv() {
            self.lanes[index].finished(part);
        }
        for lane in &mut self.lanes {
            // A little early is in time: ticks and intervals rarely divide evenly.
            if lane.running.is_none()
                && now + Duration::from_millis(50) >= lane.due
                && lane.go.try_send(()).is_ok()
            {
                lane.running = Some(now);
                lane.due = now + lane.every;
            }
        }
        let deadline = now + PATIENCE;
        while self.lanes.iter().any(|lane| lane.running.is_some_and(|since| now.saturating_sub(since) < HUNG))
        {
            let left = deadline.saturating_sub(self.clock.monotonic());
            let Ok((index, part)) = self.answers.recv_timeout(left) else {
                break;
            };
            self.lanes[index].finished(part);
        }
        let parts = self.lanes.iter_mut().map(|lane| lane.part(now)).collect();
        Reading { boot: boot_id(&*self.source), wall_ms, monotonic: now, parts }
    }
}

impl Lane {
    fn finished(&mut self, part: PartReading) {
        self.running = None;
        self.last = Some(part);
        self.fresh = true;
    }

    /// What this collector adds to the reading of `now`.
    fn part(&mut self, now: Duration) -> PartReading {
        let fresh = std::mem::take(&mut self.fresh);
        let missing = |error| PartReading {
            collector: self.collector.name,
            taken: now,
            took: Duration::ZERO,
            result: Err(error),
        };
        match (self.running, &self.last) {
            (Some(since), _) if now.saturating_sub(since) >= HUNG => {
                let seconds = now.saturating_sub(since).as_secs();
                missing(CollectError::Failed(format!("does not come back since {seconds} s")))
            }
            // Late: what it said since the last tick, else a gap; for who reads rarely, the value of before.
            (Some(_), Some(last)) if fresh || self.collector.every != Every::Tick => last.clone(),
            (Some(_), _) | (None, None) => missing(CollectError::NoData),
            (None, Some(last)) => last.clone(),
        }
    }
}

fn read_guarded(
    collector: &'static Collector,
    source: &dyn Source,
    options: &Options,
    recall: &mut Recall,
    clock: &dyn Clock,
) -> PartReading {
    let taken = clock.monotonic();
    let read = AssertUnwindSafe(|| read_one(collector, source, options, recall));
    let result: Result<Arc<Part>, CollectError> = catch_unwind(read)
        .unwrap_or_else(|_| Err(CollectError::Failed("the collector panicked; please report it".into())));
    if result.is_err() {
        // What it remembered may be half written.
        *recall = Recall::default();
    }
    PartReading { collector: collector.name, taken, took: clock.monotonic().saturating_sub(taken), result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_collect::{Context, Deriver};
    use perfwatch_model::{MetricDef, SystemClock, Unit};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    const METRICS: &[MetricDef] = &[MetricDef::gauge("t.count", Unit::Count, 0, "A test.")];
    static HANG: AtomicBool = AtomicBool::new(true);
    static FAST: AtomicU32 = AtomicU32::new(0);

    fn hang(_: &mut Context<'_>) -> Result<(), CollectError> {
        while HANG.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn fast(cx: &mut Context<'_>) -> Result<(), CollectError> {
        cx.out.gauge("t.count", f64::from(FAST.fetch_add(1, Ordering::Relaxed)));
        Ok(())
    }

    fn panics(_: &mut Context<'_>) -> Result<(), CollectError> {
        panic!("a bug");
    }

    static HANGING: Collector = Collector { name: "hanging", metrics: &[], every: Every::Tick, read: hang };
    static WORKING: Collector =
        Collector { name: "working", metrics: METRICS, every: Every::Tick, read: fast };
    static BROKEN: Collector = Collector { name: "broken", metrics: &[], every: Every::Tick, read: panics };

    #[test]
    fn one_that_hangs_and_one_that_panics_leave_the_third_alone() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let set = CollectorSet { collectors: vec![&HANGING, &BROKEN, &WORKING], options: Arc::default() };
        let source: Arc<dyn Source> = Arc::new(perfwatch_collect::Capture::default());
        let mut runner = Runner::start(source, &set, &BTreeMap::new(), clock).unwrap();
        for tick in 0..3 {
            let reading = runner.read();
            assert!(matches!(reading.parts[0].result, Err(CollectError::NoData)));
            assert!(
                matches!(&reading.parts[1].result, Err(CollectError::Failed(why)) if why.contains("panicked"))
            );
            let derived = Deriver::default().derive(&reading, &set.options);
            assert_eq!(derived.points[0].value, f64::from(tick));
        }
        runner.lanes[0].running = Some(Duration::ZERO);
        let later = runner.lanes[0].part(Duration::from_secs(9));
        assert!(
            matches!(later.result, Err(CollectError::Failed(why)) if why == "does not come back since 9 s")
        );
        HANG.store(false, Ordering::Relaxed);
        while runner.read().parts[0].result.is_err() {}
    }
}
