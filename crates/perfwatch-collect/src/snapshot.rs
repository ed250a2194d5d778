//! Samples → snapshot: rounds them and gives them a shape, the same one as long as the same
//! series are there.

use crate::derive::{Derived, Sample};
use perfwatch_model::{BootId, Column, HostFacts, Shape, Snapshot, limits, scale};
use std::sync::Arc;

/// Remembers the last shape and facts, so that both travel only when they change.
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
    /// The facts as last seen.
    pub fn facts(&self) -> Option<&Arc<HostFacts>> {
        self.facts.as_ref()
    }

    /// One snapshot. Whatever exceeds [`limits`] is left out from the end.
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
            values: derived.samples.iter().map(|p| scale(p.value, p.metric.decimals)).collect(),
            processes: derived.processes,
            facts: changed,
            errors: derived.errors,
        }
    }

    fn matches_shape(&self, points: &[Sample]) -> bool {
        let columns = self.shape.columns();
        columns.len() == points.len()
            && columns
                .iter()
                .zip(points)
                .all(|(c, p)| c.metric == p.metric.name && *c.instance == *p.instance)
    }
}

fn column_of(point: &Sample) -> Column {
    let dimension = if point.instance.is_empty() { "" } else { point.metric.dimension };
    Column {
        metric: point.metric.name.into(),
        dimension: dimension.into(),
        instance: (*point.instance).into(),
        decimals: point.metric.decimals,
    }
}
