//! Builds snapshots: rounds samples and assigns a shape, which is reused while the series stay the
//! same.

use crate::derive::{Derived, Sample};
use perfwatch_model::{BootId, Column, HostFacts, Shape, Snapshot, limits, scale};
use std::sync::Arc;

/// Builds snapshots. Retains the last shape and facts, so that both are sent only after a change.
pub struct SnapshotBuilder {
    shape: Arc<Shape>,
    facts: Option<Arc<HostFacts>>,
}

impl Default for SnapshotBuilder {
    fn default() -> Self {
        Self { shape: Arc::new(Shape::new(Vec::new())), facts: None }
    }
}

impl SnapshotBuilder {
    /// Facts of the last snapshot that had any.
    pub fn facts(&self) -> Option<&Arc<HostFacts>> {
        self.facts.as_ref()
    }

    /// Builds a snapshot. Samples, processes and errors beyond [`limits`] are dropped from the end.
    pub fn build(
        &mut self,
        boot: BootId,
        seq: u64,
        at_ms: i64,
        interval_ms: u32,
        mut derived: Derived,
    ) -> Snapshot {
        derived.samples.truncate(limits::MAX_COLUMNS);
        derived.processes.truncate(limits::MAX_PROCESSES);
        derived.errors.truncate(limits::MAX_COLLECTOR_ERRORS);
        for error in &mut derived.errors {
            error.message = error.message.chars().take(limits::MAX_TEXT_BYTES / 4).collect();
        }
        if !self.matches_shape(&derived.samples) {
            self.shape = Arc::new(Shape::new(derived.samples.iter().map(column_of).collect()));
        }
        let changed = derived.facts.filter(|facts| self.facts.as_deref() != Some(facts)).map(Arc::new);
        if let Some(facts) = &changed {
            self.facts = Some(facts.clone());
        }
        Snapshot {
            boot,
            seq,
            at_ms,
            interval_ms,
            shape: self.shape.clone(),
            values: derived.samples.iter().map(|s| scale(s.value, s.metric.decimals)).collect(),
            processes: derived.processes,
            facts: changed,
            errors: derived.errors,
        }
    }

    fn matches_shape(&self, samples: &[Sample]) -> bool {
        let columns = self.shape.columns();
        columns.len() == samples.len()
            && columns
                .iter()
                .zip(samples)
                .all(|(c, s)| c.metric == s.metric.name && *c.instance == *s.instance)
    }
}

fn column_of(sample: &Sample) -> Column {
    let dimension = if sample.instance.is_empty() { "" } else { sample.metric.dimension };
    Column {
        metric: sample.metric.name.into(),
        dimension: dimension.into(),
        instance: (*sample.instance).into(),
        decimals: sample.metric.decimals,
    }
}
