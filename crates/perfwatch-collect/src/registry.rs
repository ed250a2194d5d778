//! The list of collectors, their joined catalogue, and a reading by all of them in a row.

use crate::collector::{CollectContext, Collector, CollectorCache, CollectorOptions, SampleSink};
use crate::reading::{PartReading, Reading};
use crate::{CollectError, Part, Source, linux};
use perfwatch_model::{BootId, Catalog, Clock, MetricDef};
use std::sync::Arc;

/// All collectors, in the order of the catalogue.
pub const COLLECTORS: &[Collector] = &[
    linux::cpu::COLLECTOR,
    linux::frequency::COLLECTOR,
    linux::load::COLLECTOR,
    linux::pressure::COLLECTOR,
    linux::memory::COLLECTOR,
    linux::vmstat::COLLECTOR,
    linux::network::COLLECTOR,
    linux::sockets::COLLECTOR,
    linux::tcp_states::COLLECTOR,
    linux::disk::COLLECTOR,
    linux::filesystem::COLLECTOR,
    linux::processes::COLLECTOR,
    linux::temperature::COLLECTOR,
    linux::system::COLLECTOR,
    linux::facts::COLLECTOR,
];

/// The collectors' tables joined, and what the agent says of itself.
pub fn catalog(more: &'static [MetricDef]) -> Catalog {
    Catalog::new(COLLECTORS.iter().flat_map(|collector| collector.metrics).chain(more).copied())
}

/// Which collectors read, and what they were told.
pub struct CollectorSet {
    /// The chosen ones.
    pub collectors: Vec<&'static Collector>,
    /// The user's choices.
    pub options: Arc<CollectorOptions>,
}

impl CollectorSet {
    /// All of them but those in `disabled`.
    pub fn new(disabled: &[String], options: CollectorOptions) -> Self {
        let on = |collector: &&Collector| !disabled.iter().any(|name| name == collector.name);
        Self { collectors: COLLECTORS.iter().filter(on).collect(), options: Arc::new(options) }
    }
}

/// One collector, once.
///
/// # Errors
/// Why it has nothing.
pub fn read_one(
    collector: &Collector,
    source: &dyn Source,
    options: &CollectorOptions,
    recall: &mut CollectorCache,
) -> Result<Arc<Part>, CollectError> {
    let mut cx = CollectContext { source, options, cache: recall, out: SampleSink::new(collector.metrics) };
    (collector.read)(&mut cx)?;
    Ok(Arc::new(cx.out.part))
}

/// The boot id of the source's kernel; zeros when it has none.
pub fn boot_id(source: &dyn Source) -> BootId {
    let text = crate::parse::text(source, "/proc/sys/kernel/random/boot_id");
    text.ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Every collector of the set, one after the other: for captures and single looks. The agent
/// runs each on a thread of its own instead, so that none can delay the others.
pub fn read_all(
    source: &dyn Source,
    set: &CollectorSet,
    recall: &mut CollectorCache,
    clock: &dyn Clock,
) -> Reading {
    let (wall_ms, monotonic) = (clock.wall_ms(), clock.monotonic());
    let part = |collector: &&'static Collector| {
        let taken = clock.monotonic();
        let result = read_one(collector, source, &set.options, recall);
        PartReading {
            collector: collector.name,
            started_at: taken,
            duration: clock.monotonic().saturating_sub(taken),
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
                assert!(names.insert(def.name), "{} stands twice", def.name);
                assert!(perfwatch_model::wire::is_metric_name(def.name), "{}", def.name);
                assert!(def.help.ends_with('.') && def.help.len() > 10, "{} needs a sentence", def.name);
                let slow = collector.cadence != crate::Cadence::EveryTick;
                assert!(
                    !slow || def.kind == MetricKind::Gauge,
                    "{}: a slow collector's counters can't be repeated",
                    def.name
                );
            }
        }
        for name in &names {
            // A name that is also a group would nest oddly in JSON.
            let group = format!("{name}.");
            let beside: Vec<_> = names.iter().filter(|other| other.starts_with(&group)).collect();
            assert!(beside.is_empty(), "{name} is a metric and a group of {beside:?}");
        }
        assert_eq!(catalog(&[]).metrics().len(), names.len());
    }
}
