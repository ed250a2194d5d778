//! A capture as the agent's own collectors read it, and what of it the next look needs.

use crate::connect_trace::{failure, sanitize_output};
use perfwatch_collect::{
    Capture, CollectorCache, CollectorOptions, CollectorSet, CounterState, Derived, Deriver, Reading,
    SnapshotBuilder, Source as _, read_all,
};
use perfwatch_model::remote_collector::{Collected, CollectionFailure, CollectionStage, FailureCause};
use perfwatch_model::{Clock as _, limits};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Carried counters of a host with 20,000 processes have less.
const MAX_COUNTER_STATE_BYTES: usize = 4 << 20;

/// What goes from look to look.
#[derive(Serialize, Deserialize)]
struct CounterStateBundle {
    boot: String,
    monotonic_ms: u64,
    counters: CounterState,
}

/// Where the last look left off.
pub(crate) struct PreviousReading {
    deriver: Deriver,
    boot: String,
    monotonic: Duration,
}

/// Rates over less time than this are mostly those of the look itself.
pub(crate) const RATE_INTERVAL: Duration = Duration::from_secs(2);

impl PreviousReading {
    /// None of bytes that another version wrote: rates begin anew.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = zstd::bulk::decompress(bytes, MAX_COUNTER_STATE_BYTES).ok()?;
        let bundle: CounterStateBundle = serde_json::from_slice(&text).ok()?;
        Some(Self {
            deriver: bundle.counters.into_deriver(),
            boot: bundle.boot,
            monotonic: Duration::from_millis(bundle.monotonic_ms),
        })
    }
}

/// A capture that was read.
pub(crate) struct CaptureReading {
    reading: Reading,
    hostname: String,
    wall_ms: i64,
}

fn collector_options() -> CollectorOptions {
    // The capture has all of them: whoever turns out to be busy is known by name.
    CollectorOptions { top_processes: usize::MAX, ..CollectorOptions::default() }
}

/// All that the collectors find in it.
pub(crate) fn parse_capture(output: &[u8]) -> Result<CaptureReading, CollectionFailure> {
    let garbled = |why: String| failure(CollectionStage::Read, FailureCause::UnparseableOutput, why);
    let capture =
        Capture::parse(output).map_err(|error| garbled(sanitize_output(error.to_string().as_bytes())))?;
    let set = CollectorSet::new(&[], collector_options());
    let clock = capture.clock();
    let reading = read_all(&capture, &set, &mut CollectorCache::default(), &clock);
    let has = |name: &str| reading.parts.iter().any(|part| part.collector == name && part.result.is_ok());
    if !["cpu", "memory", "load"].into_iter().any(has) {
        return Err(garbled("output is not a Linux capture".to_owned()));
    }
    let mut hostname = Vec::new();
    let _ = capture.read("/proc/sys/kernel/hostname", &mut hostname);
    Ok(CaptureReading { reading, hostname: sanitize_output(&hostname), wall_ms: clock.wall_ms() })
}

impl CaptureReading {
    /// Which run of its kernel.
    fn boot(&self) -> String {
        self.reading.boot.to_string()
    }

    /// Whether rates since then say something of now.
    pub(crate) fn can_derive_from(&self, before: &PreviousReading, fresh: Duration) -> bool {
        let elapsed = self.reading.monotonic.checked_sub(before.monotonic);
        let soon = |elapsed: Duration| elapsed + Duration::from_millis(50) < RATE_INTERVAL;
        self.boot() == before.boot && elapsed.is_some_and(|elapsed| elapsed <= fresh && !soon(elapsed))
    }

    /// Only for the next one.
    pub(crate) fn into_previous(&self) -> PreviousReading {
        let mut deriver = Deriver::default();
        deriver.derive(&self.reading, &collector_options());
        PreviousReading { deriver, boot: self.boot(), monotonic: self.reading.monotonic }
    }

    /// What an agent would have sent at `now_ms` of our own clock.
    pub(crate) fn into_collected(
        &self,
        before: Option<PreviousReading>,
        now_ms: i64,
        interval_ms: u32,
    ) -> Result<Collected, CollectionFailure> {
        let mut deriver = before.map(|before| before.deriver).unwrap_or_default();
        let derived: Derived = deriver.derive(&self.reading, &CollectorOptions::default());
        let seq = u64::try_from(now_ms.saturating_sub(limits::MIN_TIMESTAMP_MS)).unwrap_or(1);
        let snapshot = SnapshotBuilder::default().build(self.reading.boot, seq, now_ms, interval_ms, derived);
        let internal = |why: String| failure(CollectionStage::Read, FailureCause::Internal, why);
        let monotonic_ms = u64::try_from(self.reading.monotonic.as_millis()).unwrap_or(u64::MAX);
        let counters =
            CounterState::from_deriver(&deriver).ok_or_else(|| internal("no counter state".to_owned()))?;
        let text = serde_json::to_vec(&CounterStateBundle { boot: self.boot(), monotonic_ms, counters })
            .map_err(|error| internal(error.to_string()))?;
        let carried = zstd::bulk::compress(&text, 1).map_err(|error| internal(error.to_string()))?;
        let skew_ms = self.wall_ms.saturating_sub(now_ms);
        Ok(Collected { snapshot, hostname: self.hostname.clone(), skew_ms, counter_state: carried })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::MISSING;
    use proptest::prelude::*;

    const HOSTS: [&[u8]; 3] = [
        include_bytes!("../../perfwatch-collect/fixtures/hosts/debian12-vm.1.capture"),
        include_bytes!("../../perfwatch-collect/fixtures/hosts/debian12-vm.2.capture"),
        include_bytes!("../../perfwatch-collect/fixtures/hosts/raspberry-pi.2.capture"),
    ];
    /// What nobody counts on.
    const UNEXPECTED_LINES: [&[u8]; 10] = [
        b"18446744073709551616",
        b"-9223372036854775808",
        b"99999999999999999999999999999999999999999",
        b"1e400",
        b"NaN",
        b"",
        b"\0\xff\xfe",
        b"\n=== /proc/stat\n",
        b"\n=== @end\n",
        b"%n%s\x1b[2J",
    ];

    /// Spoils what a host says: where, in which way, with what.
    fn spoil(host: usize, blows: &[(usize, usize, usize)]) -> Vec<u8> {
        let mut text = HOSTS[host % HOSTS.len()].to_vec();
        for (place, way, what) in blows {
            let at = place % text.len().max(1);
            let line_end =
                text[at..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| at + end);
            let word_end = text[at..line_end].iter().position(u8::is_ascii_whitespace);
            let end = word_end.map_or(line_end, |end| at + end);
            let word = UNEXPECTED_LINES[what % UNEXPECTED_LINES.len()];
            match way % 6 {
                0 => drop(text.splice(at..end, word.iter().copied())),
                1 => drop(text.splice(at..line_end, std::iter::empty())),
                2 => text.truncate(at),
                3 => {
                    let byte = text.get_mut(at);
                    byte.into_iter().for_each(|byte| *byte = byte.wrapping_add(what.to_le_bytes()[0]));
                }
                4 => {
                    let line = text[at..line_end].to_vec();
                    drop(text.splice(at..at, line));
                }
                _ => drop(text.splice(at..at, word.repeat(what % 400))),
            }
        }
        text
    }

    fn blows() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
        prop::collection::vec((any::<usize>(), any::<usize>(), any::<usize>()), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn arbitrary_output_is_a_snapshot_or_a_failure(
            (one, other) in (0..3_usize, 0..3_usize), (first, second) in (blows(), blows()),
        ) {
            let before = parse_capture(&spoil(one, &first)).ok().map(|read| read.into_previous());
            let Ok(now) = parse_capture(&spoil(other, &second)) else { return Ok(()) };
            let seen = now.into_collected(before, 1_795_263_132_344, 60_000).unwrap();
            for (value, column) in seen.snapshot.values.iter().zip(seen.snapshot.shape.columns()) {
                let value = perfwatch_model::unscale(*value, column.decimals);
                prop_assert!(value.is_none_or(f64::is_finite), "{}", column.metric);
            }
            prop_assert!(seen.snapshot.values.len() == seen.snapshot.shape.columns().len());
            prop_assert!(seen.snapshot.values.iter().any(|value| *value != MISSING));
            // And what goes to the next look comes out again.
            prop_assert!(PreviousReading::decode(&seen.counter_state).is_some());
        }

        #[test]
        fn arbitrary_counter_state_is_rejected(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(PreviousReading::decode(&bytes).is_none());
        }
    }
}
