//! Times for which requests occupy a serving thread without a pause, and delays of a task that the serving
//! threads have to run in time. Every other request of the thread waits for it, so that a long poll is a
//! fault of the hub: such work belongs to the worker pool.

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use perfwatch_model::Clock;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Buckets of polls and delays, in seconds.
const BUCKETS: [f64; 8] = [0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0];
/// Interval of the task whose delay is measured.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// Time for which the longest poll is reported, at least.
const WINDOW_PERIOD: Duration = Duration::from_secs(60);

/// Longest poll of the current and of the previous window.
#[derive(Default)]
struct LongestPoll {
    window_start: Duration,
    current: Duration,
    previous: Duration,
}

impl LongestPoll {
    /// Adds a poll that ended now, and returns the longest of the last one or two windows.
    fn add(&mut self, poll: Duration, now: Duration) -> Duration {
        let windows = now.saturating_sub(self.window_start).as_nanos() / WINDOW_PERIOD.as_nanos();
        if windows > 0 {
            let previous = if windows == 1 { self.current } else { Duration::ZERO };
            *self = Self { window_start: now, current: Duration::ZERO, previous };
        }
        self.current = self.current.max(poll);
        self.current.max(self.previous)
    }
}

struct Metrics {
    clock: Arc<dyn Clock>,
    polls: Histogram,
    delays: Histogram,
    longest: Mutex<LongestPoll>,
    longest_gauge: Gauge<f64, AtomicU64>,
}

/// Poll times of requests and responses. Clones share their metrics.
#[derive(Clone)]
pub struct PollTimes(Arc<Metrics>);

impl PollTimes {
    /// Creates metrics without observations.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Metrics {
            clock,
            polls: Histogram::new(BUCKETS),
            delays: Histogram::new(BUCKETS),
            longest: Mutex::default(),
            longest_gauge: Gauge::default(),
        }))
    }

    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("runtime");
        r.register_with_unit(
            "poll_duration",
            "Time for which a request occupied a serving thread without a pause",
            Unit::Seconds,
            self.0.polls.clone(),
        );
        r.register_with_unit(
            "longest_poll",
            "Longest poll of a request in the last one to two minutes",
            Unit::Seconds,
            self.0.longest_gauge.clone(),
        );
        r.register_with_unit(
            "delay",
            "Delay of a task that the serving threads run every 100 ms",
            Unit::Seconds,
            self.0.delays.clone(),
        );
    }

    fn add_to_longest(&self, poll: Duration, now: Duration) {
        let mut longest = self.0.longest.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.longest_gauge.set(longest.add(poll, now).as_secs_f64());
    }

    /// Longest poll of a request in the last one to two minutes.
    pub fn longest(&self) -> Duration {
        Duration::try_from_secs_f64(self.0.longest_gauge.get()).unwrap_or_default()
    }

    /// Runs one poll and records its duration.
    fn measure<T>(&self, poll: impl FnOnce() -> T) -> T {
        let start = self.0.clock.monotonic();
        let result = poll();
        let now = self.0.clock.monotonic();
        let duration = now.saturating_sub(start);
        self.0.polls.observe(duration.as_secs_f64());
        self.add_to_longest(duration, now);
        result
    }

    /// Measures every poll of a response, and of its body.
    pub async fn measure_response(&self, response: impl Future<Output = Response>) -> Response {
        let response = self.measured(response).await;
        response.map(|inner| Body::new(MeasuredBody { inner, times: self.clone() }))
    }

    /// Measures every poll of a future.
    pub async fn measured<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        std::future::poll_fn(|context| self.measure(|| future.as_mut().poll(context))).await
    }

    /// Measures the delay of the serving threads until the hub stops.
    pub async fn run_heartbeat(self, stop: CancellationToken) {
        loop {
            let start = self.0.clock.monotonic();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(HEARTBEAT_INTERVAL) => {}
            }
            let now = self.0.clock.monotonic();
            let delay = now.saturating_sub(start).saturating_sub(HEARTBEAT_INTERVAL);
            self.0.delays.observe(delay.as_secs_f64());
            // Ends the window even if no request arrives.
            self.add_to_longest(Duration::ZERO, now);
        }
    }
}

/// Body whose polls are measured.
struct MeasuredBody {
    inner: Body,
    times: PollTimes,
}

impl HttpBody for MeasuredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { inner, times } = self.get_mut();
        times.measure(|| Pin::new(inner).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::ManualClock;

    /// Issue 16: a metric shows the longest poll of the serving threads.
    #[tokio::test]
    async fn longest_poll_is_reported_for_one_to_two_windows() {
        let clock = Arc::new(ManualClock::starting_at(0));
        let times = PollTimes::new(clock.clone());
        let handler = async {
            clock.advance(Duration::from_secs(3));
            tokio::task::yield_now().await;
            clock.advance(Duration::from_secs(2));
            Response::default()
        };
        times.measure_response(handler).await;
        let longest = || times.0.longest_gauge.get();
        assert!((longest() - 3.0).abs() < f64::EPSILON, "{}", longest());
        for (advanced_s, expected) in [(59, 3.0), (59, 3.0), (61, 0.0)] {
            clock.advance(Duration::from_secs(advanced_s));
            times.add_to_longest(Duration::ZERO, clock.monotonic());
            assert!((longest() - expected).abs() < f64::EPSILON, "{advanced_s} {}", longest());
        }
    }
}
