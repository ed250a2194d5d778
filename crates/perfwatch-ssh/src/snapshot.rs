//! Parses a capture into a snapshot and counter state, with the agent's collectors.

use crate::connect_trace::{failure, sanitize_output};
use perfwatch_collect::{
    Capture, CollectorCache, CollectorOptions, CollectorSet, CounterState, Derived, Deriver, Reading,
    SnapshotBuilder, Source as _, read_all,
};
use perfwatch_model::remote_collector::{Collected, CollectionFailure, CollectionStage, FailureCause};
use perfwatch_model::{Clock as _, limits};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Maximum size of the decompressed counter state. With 20,000 processes it is smaller.
const MAX_COUNTER_STATE_BYTES: usize = 4 << 20;
/// Minimum time between two readings for rates: over less time the collection's own load dominates.
pub(crate) const RATE_INTERVAL: Duration = Duration::from_secs(2);
/// Tolerance on [`RATE_INTERVAL`] for the granularity of timers.
const RATE_INTERVAL_TOLERANCE_MS: u64 = 50;

/// Stored form of a reading's counters, compressed JSON.
#[derive(Serialize, Deserialize)]
struct CounterStateBundle {
    boot: String,
    monotonic_ms: u64,
    counters: CounterState,
}

/// Counters of the previous collection, from which rates are derived.
pub(crate) struct PreviousReading {
    deriver: Deriver,
    boot: String,
    monotonic: Duration,
}

impl PreviousReading {
    /// Decodes counter state. `None` if another version wrote it; rates then start from a new reading.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let json = zstd::bulk::decompress(bytes, MAX_COUNTER_STATE_BYTES).ok()?;
        let bundle: CounterStateBundle = serde_json::from_slice(&json).ok()?;
        Some(Self {
            deriver: bundle.counters.into_deriver(),
            boot: bundle.boot,
            monotonic: Duration::from_millis(bundle.monotonic_ms),
        })
    }
}

/// Reading of a parsed capture.
pub(crate) struct CaptureReading {
    reading: Reading,
    hostname: String,
    wall_ms: i64,
}

fn collector_options() -> CollectorOptions {
    // All processes: a process that is busy in the next collection needs its counters of this collection.
    CollectorOptions { top_processes: usize::MAX, ..CollectorOptions::default() }
}

/// Parses a capture and runs all collectors on it.
pub(crate) fn parse_capture(output: &[u8]) -> Result<CaptureReading, CollectionFailure> {
    let unparseable =
        |reason: String| failure(CollectionStage::Read, FailureCause::UnparseableOutput, reason);
    let capture =
        Capture::parse(output).map_err(|error| unparseable(sanitize_output(error.to_string().as_bytes())))?;
    let set = CollectorSet::new(&[], collector_options());
    let clock = capture.clock();
    let reading = read_all(&capture, &set, &mut CollectorCache::default(), &clock);
    let has_data =
        |name: &str| reading.parts.iter().any(|part| part.collector == name && part.result.is_ok());
    if !["cpu", "memory", "load"].into_iter().any(has_data) {
        return Err(unparseable("output is not a Linux capture".to_owned()));
    }
    let mut hostname = Vec::new();
    let _ = capture.read("/proc/sys/kernel/hostname", &mut hostname);
    Ok(CaptureReading { reading, hostname: sanitize_output(&hostname), wall_ms: clock.wall_ms() })
}

impl CaptureReading {
    /// Boot id of the host's kernel.
    fn boot(&self) -> String {
        self.reading.boot.to_string()
    }

    /// Checks if rates can be derived from the previous reading: same boot, at most `max_age` old, and
    /// not too recent.
    pub(crate) fn can_derive_from(&self, previous: &PreviousReading, max_age: Duration) -> bool {
        let min_age = RATE_INTERVAL.saturating_sub(Duration::from_millis(RATE_INTERVAL_TOLERANCE_MS));
        let age = self.reading.monotonic.checked_sub(previous.monotonic);
        self.boot() == previous.boot && age.is_some_and(|age| (min_age..=max_age).contains(&age))
    }

    /// Counters for a second reading of the same collection.
    pub(crate) fn to_previous(&self) -> PreviousReading {
        let mut deriver = Deriver::default();
        deriver.derive(&self.reading, &collector_options());
        PreviousReading { deriver, boot: self.boot(), monotonic: self.reading.monotonic }
    }

    /// Snapshot as an agent would send it at `now_ms` of the hub's clock, with the counter state for the
    /// next collection.
    pub(crate) fn to_collected(
        &self,
        previous: Option<PreviousReading>,
        now_ms: i64,
        interval_ms: u32,
    ) -> Result<Collected, CollectionFailure> {
        let mut deriver = previous.map(|previous| previous.deriver).unwrap_or_default();
        let derived: Derived = deriver.derive(&self.reading, &CollectorOptions::default());
        let seq = u64::try_from(now_ms.saturating_sub(limits::MIN_TIMESTAMP_MS)).unwrap_or(1);
        let snapshot = SnapshotBuilder::default().build(self.reading.boot, seq, now_ms, interval_ms, derived);
        let internal = |reason: String| failure(CollectionStage::Read, FailureCause::Internal, reason);
        let monotonic_ms = u64::try_from(self.reading.monotonic.as_millis()).unwrap_or(u64::MAX);
        let counters =
            CounterState::from_deriver(&deriver).ok_or_else(|| internal("no counter state".to_owned()))?;
        let json = serde_json::to_vec(&CounterStateBundle { boot: self.boot(), monotonic_ms, counters })
            .map_err(|error| internal(error.to_string()))?;
        let counter_state = zstd::bulk::compress(&json, 1).map_err(|error| internal(error.to_string()))?;
        let skew_ms = self.wall_ms.saturating_sub(now_ms);
        Ok(Collected { snapshot, hostname: self.hostname.clone(), skew_ms, counter_state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::MISSING;
    use perfwatch_testkit::{Mutation, corrupt};
    use proptest::prelude::*;

    const HOSTS: [&[u8]; 3] = [
        include_bytes!("../../perfwatch-collect/fixtures/hosts/debian12-vm.1.capture"),
        include_bytes!("../../perfwatch-collect/fixtures/hosts/debian12-vm.2.capture"),
        include_bytes!("../../perfwatch-collect/fixtures/hosts/raspberry-pi.2.capture"),
    ];
    /// Capture of a fixture host with mutations.
    fn mutate(host: usize, mutations: &[Mutation]) -> Vec<u8> {
        corrupt(HOSTS[host % HOSTS.len()], mutations)
    }

    fn any_mutations() -> impl Strategy<Value = Vec<Mutation>> {
        prop::collection::vec((any::<usize>(), any::<usize>(), any::<usize>()), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn arbitrary_output_is_a_snapshot_or_a_failure(
            (first_host, second_host) in (0..3_usize, 0..3_usize), (first, second) in (any_mutations(), any_mutations()),
        ) {
            let previous = parse_capture(&mutate(first_host, &first)).ok().map(|reading| reading.to_previous());
            let Ok(reading) = parse_capture(&mutate(second_host, &second)) else { return Ok(()) };
            let collected = reading.to_collected(previous, 1_795_263_132_344, 60_000).unwrap();
            for (value, column) in collected.snapshot.values.iter().zip(collected.snapshot.shape.columns()) {
                let value = perfwatch_model::unscale(*value, column.decimals);
                prop_assert!(value.is_none_or(f64::is_finite), "{}", column.metric);
            }
            prop_assert!(collected.snapshot.values.len() == collected.snapshot.shape.columns().len());
            prop_assert!(collected.snapshot.values.iter().any(|value| *value != MISSING));
            // The counter state for the next collection can be decoded.
            prop_assert!(PreviousReading::decode(&collected.counter_state).is_some());
        }

        #[test]
        fn arbitrary_counter_state_is_rejected(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(PreviousReading::decode(&bytes).is_none());
        }
    }
}
