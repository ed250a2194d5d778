//! Counter state carried between two SSH collections.
//!
//! It contains the counters of a reading and the identity of each process, and is small enough to
//! be stored with the collection job. Any hub that runs the next collection derives the same rates
//! as a hub that has both readings in memory.

use crate::derive::Deriver;
use crate::linux::COLLECTORS;
use crate::reading::{Part, Raw, RawProcess, RawSample};
use perfwatch_model::BootId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Serializable counters of the last reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CounterState {
    boot: String,
    parts: Vec<CollectorCounters>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CollectorCounters {
    collector: String,
    read_at_ms: u64,
    /// Metric, instance, counter, and the denominator of a ratio.
    samples: Vec<(String, String, u64, Option<u64>)>,
    processes: Vec<ProcessCounters>,
}

/// Pid, start time in ticks, CPU ticks, bytes read and written.
type ProcessCounters = (u32, u64, u64, Option<(u64, u64)>);

impl CounterState {
    /// Extracts the counters of the last reading; `None` before the first reading.
    pub fn from_deriver(deriver: &Deriver) -> Option<Self> {
        let (boot, last) = deriver.last_readings();
        let mut parts: Vec<CollectorCounters> = last
            .iter()
            .map(|(name, last)| CollectorCounters {
                collector: (*name).to_owned(),
                read_at_ms: u64::try_from(last.read_at.as_millis()).unwrap_or(u64::MAX),
                samples: last.part.samples.iter().filter_map(counter_tuple).collect(),
                processes: last
                    .part
                    .processes
                    .iter()
                    .map(|p| (p.pid, p.start_ticks, p.cpu_ticks, p.io))
                    .collect(),
            })
            .filter(|part| !part.samples.is_empty() || !part.processes.is_empty())
            .collect();
        parts.sort_by(|a, b| a.collector.cmp(&b.collector));
        Some(Self { boot: boot?.to_string(), parts })
    }

    /// Creates a deriver that continues from these counters.
    ///
    /// Collectors and metrics that this build does not define are ignored.
    pub fn into_deriver(&self) -> Deriver {
        let Ok(boot) = self.boot.parse::<BootId>() else { return Deriver::default() };
        let parts = self.parts.iter().filter_map(|counters| {
            let collector = COLLECTORS.iter().find(|collector| collector.name == counters.collector)?;
            let samples = counters.samples.iter().filter_map(|(name, instance, count, denominator)| {
                let metric = collector.metrics.iter().find(|metric| metric.name == name)?;
                let raw = match *denominator {
                    None => Raw::Counter(*count),
                    Some(denominator) => Raw::Ratio { numerator: *count, denominator, max_rate: u64::MAX },
                };
                Some(RawSample { metric, instance: instance.as_str().into(), raw })
            });
            let mut processes: Vec<RawProcess> = counters
                .processes
                .iter()
                .map(|&(pid, start_ticks, cpu_ticks, io)| RawProcess {
                    pid,
                    start_ticks,
                    cpu_ticks,
                    io,
                    ..RawProcess::default()
                })
                .collect();
            processes.sort_by_key(|process| process.pid);
            let part = Part { samples: samples.collect(), processes, ..Part::default() };
            Some((collector.name, part, Duration::from_millis(counters.read_at_ms)))
        });
        Deriver::from_parts(boot, parts.collect())
    }
}

fn counter_tuple(sample: &RawSample) -> Option<(String, String, u64, Option<u64>)> {
    let (count, denominator) = match sample.raw {
        Raw::Gauge(_) => return None,
        Raw::Counter(count) => (count, None),
        Raw::Ratio { numerator, denominator, .. } => (numerator, Some(denominator)),
    };
    Some((sample.metric.name.to_owned(), sample.instance.to_string(), count, denominator))
}
