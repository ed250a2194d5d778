//! What the next look at a host needs of this one, small enough to be kept beside its job: the
//! counters, and what tells one process from another. Whoever takes the next look gets the same
//! rates as one that had both readings.

use crate::derive::Deriver;
use crate::reading::{Part, Raw, RawProcess, RawSample};
use crate::registry::COLLECTORS;
use perfwatch_model::BootId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Counters of one reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CounterState {
    boot: String,
    parts: Vec<CollectorCounters>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CollectorCounters {
    collector: String,
    read_at_ms: u64,
    /// Metric, instance, counter, and the whole where it is a share.
    samples: Vec<(String, String, u64, Option<u64>)>,
    processes: Vec<ProcessCounters>,
}

/// Pid, start, processor ticks, bytes read and written.
type ProcessCounters = (u32, u64, u64, Option<(u64, u64)>);

impl CounterState {
    /// Of what was derived last; nothing before the first reading.
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

    /// Goes on from here. What this build does not know is left out: its rates begin anew.
    pub fn into_deriver(&self) -> Deriver {
        let Ok(boot) = self.boot.parse::<BootId>() else { return Deriver::default() };
        let parts = self.parts.iter().filter_map(|carried| {
            let collector = COLLECTORS.iter().find(|collector| collector.name == carried.collector)?;
            let samples = carried.samples.iter().filter_map(|(name, instance, part, whole)| {
                let metric = collector.metrics.iter().find(|metric| metric.name == name)?;
                let raw = match *whole {
                    None => Raw::Counter(*part),
                    Some(whole) => Raw::Ratio { numerator: *part, denominator: whole },
                };
                Some(RawSample { metric, instance: instance.as_str().into(), raw })
            });
            let mut processes: Vec<RawProcess> = carried
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
            Some((collector.name, part, Duration::from_millis(carried.read_at_ms)))
        });
        Deriver::from_parts(boot, parts.collect())
    }
}

fn counter_tuple(sample: &RawSample) -> Option<(String, String, u64, Option<u64>)> {
    let (part, whole) = match sample.raw {
        Raw::Gauge(_) => return None,
        Raw::Counter(count) => (count, None),
        Raw::Ratio { numerator: part, denominator: whole } => (part, Some(whole)),
    };
    Some((sample.metric.name.to_owned(), sample.instance.to_string(), part, whole))
}
