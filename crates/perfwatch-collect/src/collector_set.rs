//! Joined catalog and enabled set of the collectors, and readings that run all of them in sequence.

use crate::cache::CollectorCache;
use crate::collector::{CollectContext, Collector, CollectorOptions, SampleSink};
use crate::linux::COLLECTORS;
use crate::reading::{PartReading, Reading};
use crate::snapshot::SNAPSHOT_METRICS;
use crate::{CollectError, Part, Source};
use perfwatch_model::{BootId, Catalog, Clock, MetricDef};
use std::sync::Arc;

/// Joins the tables of all collectors, the metrics of snapshots, and `additional` definitions, such as the
/// agent's self-metrics.
pub fn catalog(additional: &'static [MetricDef]) -> Catalog {
    let collected = COLLECTORS.iter().flat_map(|collector| collector.metrics);
    Catalog::new(collected.chain(SNAPSHOT_METRICS).chain(additional).copied())
}

/// Enabled collectors and their options.
pub struct CollectorSet {
    /// Enabled collectors, in the order of the registry.
    pub collectors: Vec<&'static Collector>,
    /// Options that all collectors share.
    pub options: Arc<CollectorOptions>,
}

impl CollectorSet {
    /// Enables all collectors except those in `disabled`.
    pub fn new(disabled: &[String], options: CollectorOptions) -> Self {
        let is_enabled = |collector: &&Collector| !disabled.iter().any(|name| name == collector.name);
        Self { collectors: COLLECTORS.iter().filter(is_enabled).collect(), options: Arc::new(options) }
    }
}

/// Runs a single collector and returns its samples.
///
/// # Errors
/// Returns the failure of the collector.
pub fn read_one(
    collector: &Collector,
    source: &dyn Source,
    options: &CollectorOptions,
    cache: &mut CollectorCache,
) -> Result<Arc<Part>, CollectError> {
    let mut cx = CollectContext { source, options, cache, out: SampleSink::new(collector.metrics) };
    (collector.read)(&mut cx)?;
    Ok(Arc::new(cx.out.part))
}

/// Boot id of the source's kernel; zeros if it has none.
pub fn boot_id(source: &dyn Source) -> BootId {
    let text = crate::parse::text(source, "/proc/sys/kernel/random/boot_id");
    text.ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Runs every collector of the set in sequence, for captures and single readings. The agent
/// runs collectors on worker threads instead, so that a slow collector delays no other.
pub fn read_all(
    source: &dyn Source,
    set: &CollectorSet,
    cache: &mut CollectorCache,
    clock: &dyn Clock,
) -> Reading {
    let (wall_ms, monotonic) = (clock.wall_ms(), clock.monotonic());
    let part = |collector: &&'static Collector| {
        let started_at = clock.monotonic();
        let result = read_one(collector, source, &set.options, cache);
        PartReading {
            collector: collector.name,
            started_at,
            duration: clock.monotonic().saturating_sub(started_at),
            result,
        }
    };
    let parts = set.collectors.iter().map(part).collect();
    Reading { boot: boot_id(source), wall_ms, monotonic, parts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::MetricKind;
    use std::collections::HashSet;

    #[test]
    fn catalog_invariants_hold() {
        let mut names = HashSet::new();
        for collector in COLLECTORS {
            for def in collector.metrics {
                assert!(names.insert(def.name), "duplicate metric {}", def.name);
                assert!(perfwatch_model::wire::is_metric_name(def.name), "{}", def.name);
                assert!(
                    def.help.ends_with('.') && def.help.len() > 10,
                    "help of {} is not a sentence",
                    def.name
                );
                let is_slow = collector.cadence != crate::Cadence::EveryTick;
                assert!(
                    !is_slow || def.kind == MetricKind::Gauge,
                    "{}: counters of a slow collector cannot be repeated",
                    def.name
                );
            }
        }
        for name in &names {
            // In JSON, a name that is also a group would move under an empty key.
            let group = format!("{name}.");
            let nested: Vec<_> = names.iter().filter(|other| other.starts_with(&group)).collect();
            assert!(nested.is_empty(), "{name} is a metric and a group of {nested:?}");
        }
        assert_eq!(catalog(&[]).metrics().len(), names.len() + SNAPSHOT_METRICS.len());
    }
}
