//! Requests of the last hour by route: number, latency, errors.

use crate::latency::{BUCKETS_LEN, LatencyCounts, bucket_of, quantile_ms};
use crate::response::{RouteListResponse, RouteResponse};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Length of a window; the oldest of [`MAX_WINDOWS`] is dropped when a new one begins.
const WINDOW_PERIOD: Duration = Duration::from_secs(15 * 60);
const MAX_WINDOWS: u64 = 4;

/// Requests of a route in one window.
struct Window {
    number: u64,
    counts: [u64; BUCKETS_LEN],
    errors: u64,
}

/// Windows of the methods of one path.
type Methods = Vec<(String, Vec<Window>)>;

/// Requests by path and method.
#[derive(Default)]
pub struct RouteTimes {
    routes: Mutex<HashMap<String, Methods>>,
    pub(crate) latency: LatencyCounts,
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
}

fn window_number(now: Duration) -> u64 {
    now.as_secs() / WINDOW_PERIOD.as_secs()
}

impl RouteTimes {
    /// Counts a request of a declared path that ended now. The number of paths is bounded by the router.
    pub fn record(&self, (method, path): (&str, &str), is_error: bool, took: Duration, now: Duration) {
        self.latency.record(took);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(is_error), Ordering::Relaxed);
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if !routes.contains_key(path) {
            routes.insert(path.to_owned(), Vec::new());
        }
        let Some(methods) = routes.get_mut(path) else { return };
        let found = methods.iter().position(|(known, _)| known == method);
        let index = found.unwrap_or_else(|| {
            methods.push((method.to_owned(), Vec::new()));
            methods.len() - 1
        });
        let windows = &mut methods[index].1;
        let number = window_number(now);
        if windows.last().is_none_or(|window| window.number != number) {
            windows.retain(|window| window.number + MAX_WINDOWS > number);
            windows.push(Window { number, counts: [0; BUCKETS_LEN], errors: 0 });
        }
        if let Some(window) = windows.last_mut() {
            window.counts[bucket_of(took)] += 1;
            window.errors += u64::from(is_error);
        }
    }

    /// Requests of the last hour, most frequent routes first. `started` is the start of the hub.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn list(&self, now: Duration, started: Duration) -> RouteListResponse {
        let oldest = (window_number(now) + 1).saturating_sub(MAX_WINDOWS);
        let start = (WINDOW_PERIOD * u32::try_from(oldest).unwrap_or(u32::MAX)).max(started);
        let period_s = now.saturating_sub(start).as_secs_f64().max(1.0);
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::new();
        for (path, methods) in routes.iter() {
            for (method, windows) in methods {
                let (mut counts, mut errors) = ([0; BUCKETS_LEN], 0);
                for window in windows.iter().filter(|window| window.number >= oldest) {
                    counts.iter_mut().zip(&window.counts).for_each(|(sum, count)| *sum += count);
                    errors += window.errors;
                }
                let requests: u64 = counts.iter().sum();
                if requests > 0 {
                    list.push(RouteResponse {
                        method: method.clone(),
                        path: path.clone(),
                        requests,
                        rate: requests as f64 / period_s,
                        p50_ms: quantile_ms(&counts, 0.5),
                        p99_ms: quantile_ms(&counts, 0.99),
                        errors,
                    });
                }
            }
        }
        list.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.path.cmp(&b.path)));
        RouteListResponse { period_s: period_s.round(), routes: list }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_last_hour_are_listed() {
        let routes = RouteTimes::default();
        let minute = Duration::from_secs(60);
        let at = |minutes: u32| minute * minutes;
        routes.record(("GET", "/old"), false, Duration::from_millis(5), at(1));
        for count in 0..10 {
            routes.record(("GET", "/a"), count == 0, Duration::from_millis(5), at(100 + count));
        }
        routes.record(("POST", "/a"), false, Duration::from_millis(50), at(109));
        let list = routes.list(at(110), at(0));
        let shown: Vec<_> = list.routes.iter().map(|r| (r.method.as_str(), r.requests, r.errors)).collect();
        assert_eq!(shown, [("GET", 10, 1), ("POST", 1, 0)]);
        assert!((5.0..7.0).contains(&list.routes[0].p50_ms.unwrap()));
        // Four windows: 60 to 110 minutes; a hub that started later counts from its start.
        assert_eq!((list.period_s, routes.list(at(110), at(100)).period_s), (50.0 * 60.0, 600.0));
    }
}
