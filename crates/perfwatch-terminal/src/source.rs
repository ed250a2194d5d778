//! Port to the data of a host, and the worker thread that calls it: a slow hub does not delay the keys.

use crate::frame::{HostFrame, Ribbon};
use perfwatch_model::Clock;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Longest pause between two attempts to reach a source that fails.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(15);
/// Polls without a new snapshot, after which polling returns to the full interval.
const MAX_EARLY_POLLS: u32 = 3;

/// Snapshot to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTarget {
    /// Newest snapshot at or before the time, milliseconds since 1970.
    At(i64),
    /// Snapshot that is `count` snapshots after the time; negative: before the time.
    Step {
        /// Time of the snapshot at which the step starts, milliseconds since 1970.
        from_ms: i64,
        /// Number of snapshots, not zero.
        count: i32,
    },
}

/// Snapshots of a host, live and earlier. Calls may block; errors are messages for the user.
pub trait HostSource: Send {
    /// Time before the first poll, for sources that compute rates.
    fn start_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Newest snapshot; `None` if there is none since the previous call.
    ///
    /// # Errors
    /// Fails if the source cannot be reached.
    fn poll(&mut self) -> Result<Option<HostFrame>, String>;

    /// Earlier snapshot; `None` if there is no snapshot at the target.
    ///
    /// # Errors
    /// Fails if the source cannot be reached.
    fn seek(&mut self, target: SeekTarget) -> Result<Option<HostFrame>, String>;

    /// CPU and memory usage of a time range, milliseconds since 1970.
    ///
    /// # Errors
    /// Fails if the source cannot be reached.
    fn ribbon(&mut self, from_ms: i64, to_ms: i64) -> Result<Ribbon, String>;
}

/// Request to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceRequest {
    /// Find a snapshot.
    Seek(SeekTarget),
    /// Read the ribbon of a range.
    Ribbon {
        /// Start, milliseconds since 1970.
        from_ms: i64,
        /// End, milliseconds since 1970.
        to_ms: i64,
    },
}

/// Result of the worker.
#[derive(Clone, Debug)]
pub(crate) enum SourceUpdate {
    /// New live snapshot.
    Live(HostFrame),
    /// Polling failed and is repeated.
    Failed(String),
    /// Result of [`SourceRequest::Seek`].
    Seek(SeekTarget, Result<Option<HostFrame>, String>),
    /// Result of [`SourceRequest::Ribbon`].
    Ribbon(Result<Ribbon, String>),
}

/// Polls the source at the interval and executes requests, until the requests or the receiver of the updates end.
pub(crate) fn run_worker(
    mut source: Box<dyn HostSource>,
    interval: Duration,
    requests: &Receiver<SourceRequest>,
    clock: &dyn Clock,
    send: &dyn Fn(SourceUpdate) -> bool,
) {
    let mut due = clock.monotonic() + source.start_delay();
    let (mut failures, mut early_polls) = (0_u32, 0_u32);
    loop {
        let wait = due.saturating_sub(clock.monotonic());
        let update = match requests.recv_timeout(wait) {
            Ok(SourceRequest::Seek(target)) => Some(SourceUpdate::Seek(target, source.seek(target))),
            Ok(SourceRequest::Ribbon { from_ms, to_ms }) => {
                Some(SourceUpdate::Ribbon(source.ribbon(from_ms, to_ms)))
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let result = source.poll();
                let now = clock.monotonic();
                let delay = match &result {
                    Ok(Some(_)) => {
                        (failures, early_polls) = (0, 0);
                        interval
                    }
                    Ok(None) => {
                        failures = 0;
                        early_polls = (early_polls + 1).min(MAX_EARLY_POLLS + 1);
                        // Soon again: polling adopts the phase of the host's snapshots.
                        if early_polls > MAX_EARLY_POLLS { interval } else { interval / 4 }
                    }
                    Err(_) => {
                        failures += 1;
                        retry_delay(interval, failures)
                    }
                };
                // Fixed phase, unless polling was late by more than an interval.
                due = if result.is_ok() && due + delay > now { due + delay } else { now + delay };
                match result {
                    Ok(frame) => frame.map(SourceUpdate::Live),
                    Err(message) => Some(SourceUpdate::Failed(message)),
                }
            }
        };
        if update.is_some_and(|update| !send(update)) {
            return;
        }
    }
}

/// Pause after a number of consecutive failures: doubles up to [`MAX_RETRY_DELAY`].
fn retry_delay(interval: Duration, failures: u32) -> Duration {
    let factor = 1_u32 << failures.saturating_sub(1).min(5);
    interval.max(Duration::from_secs(1)).saturating_mul(factor).min(MAX_RETRY_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_delay_doubles_up_to_the_maximum() {
        let delays: Vec<u64> = [1, 2, 3, 4, 5, 6, 99]
            .map(|failures| retry_delay(Duration::from_millis(500), failures).as_secs())
            .to_vec();
        assert_eq!(delays, [1, 2, 4, 8, 15, 15, 15]);
    }
}
